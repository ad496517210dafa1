//! Files of any format as one stream of rows.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use polyreward_domain::{ComparisonError, ComparisonRecord, PersonId};

use crate::{
    community_alignment,
    container::{Columns, Container, Item},
    format::Format,
    hh, jsonl,
    lines::{ReadError, Refused},
    prism::PrismReader,
    row::{Rejected, Row, Summary},
};

/// What a format does not say.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose the comparisons of HH-RLHF are, which does not tell people apart; `hh` by default.
    pub hh_user_id: PersonId,
}

impl Default for Options {
    fn default() -> Self {
        Self { hh_user_id: "hh".parse().expect("a word is a person's name") }
    }
}

/// Opens files of one format, to be read one after the other; for PRISM, the folder of its files, or both.
///
/// Each may be JSON lines, gzipped JSON lines or Parquet, and for Community Alignment CSV, gzipped or not: its first
/// bytes say which. Equal files give equal rows in equal order, so that a caller can go on where it stopped by counting
/// them.
///
/// # Errors
/// [`ReadError::Io`]; [`ReadError::Column`] and [`ReadError::ColumnType`] for a table of another format;
/// [`ReadError::Layout`] where PRISM is not complete.
pub fn open(paths: &[PathBuf], format: Format, options: Options) -> Result<Reader, ReadError> {
    let mut summary = Summary::default();
    let input = match format {
        Format::Prism => Input::Prism(Box::new(PrismReader::open(paths, &mut summary)?)),
        Format::Jsonl => Input::rows(paths, &jsonl::COLUMNS, &mut summary, Rows::Jsonl)?,
        Format::Hh => Input::rows(paths, &hh::COLUMNS, &mut summary, Rows::Hh(options.hh_user_id))?,
        Format::CommunityAlignment => {
            Input::rows(paths, &community_alignment::COLUMNS, &mut summary, Rows::CommunityAlignment)?
        }
    };
    Ok(Reader { input, summary, broken: false })
}

/// The rows of files, good and bad. A bad row never ends the reading; an error does.
pub struct Reader {
    input: Input,
    summary: Summary,
    broken: bool,
}

impl Reader {
    /// What was read so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }
}

impl Iterator for Reader {
    type Item = Result<Row, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        let next = match &mut self.input {
            Input::Rows { sources, at, rows } => next_row(sources, at, rows, &mut self.summary),
            Input::Prism(reader) => reader.next(&mut self.summary),
        };
        self.broken = matches!(next, Some(Err(_)));
        next
    }
}

enum Input {
    /// Each row is read for itself.
    Rows {
        sources: Vec<Source>,
        at: usize,
        rows: Rows,
    },
    Prism(Box<PrismReader>),
}

enum Rows {
    Jsonl,
    Hh(PersonId),
    CommunityAlignment,
}

impl Input {
    fn rows(
        paths: &[PathBuf],
        columns: &Columns,
        summary: &mut Summary,
        rows: Rows,
    ) -> Result<Self, ReadError> {
        let csv = matches!(rows, Rows::CommunityAlignment);
        let sources = paths.iter().map(|path| Source::open(path, columns, csv, summary));
        Ok(Self::Rows { sources: sources.collect::<Result<_, _>>()?, at: 0, rows })
    }
}

fn next_row(
    sources: &mut [Source],
    at: &mut usize,
    rows: &Rows,
    summary: &mut Summary,
) -> Option<Result<Row, ReadError>> {
    loop {
        let source = sources.get_mut(*at)?;
        match source.next() {
            Some(Err(error)) => return Some(Err(error)),
            Some(Ok(Item { number, line })) => {
                let read = source.take(number, line, summary, |line, summary| rows.parse(line, summary));
                return Some(Ok(read.map_or_else(
                    |rejected| rejected,
                    |records| {
                        summary.records += records.len() as u64;
                        Row { file: source.file(), number, content: Ok(records) }
                    },
                )));
            }
            None => *at += 1,
        }
    }
}

impl Rows {
    fn parse(&self, line: &str, summary: &mut Summary) -> Result<Vec<ComparisonRecord>, String> {
        match self {
            Self::Jsonl => {
                let (record, unknown) = jsonl::parse(line)?;
                if record.comparison.chosen == record.comparison.rejected {
                    return Err(format!("rejected {}", ComparisonError::Identical));
                }
                summary.unknown(unknown);
                Ok(vec![record])
            }
            Self::Hh(user_id) => {
                let (record, unknown) = hh::parse(line, user_id)?;
                summary.unknown(unknown);
                Ok(vec![record])
            }
            Self::CommunityAlignment => community_alignment::parse(line, summary),
        }
    }
}

/// An open file with its name.
pub(crate) struct Source {
    file: Arc<Path>,
    container: Container,
}

impl Source {
    pub(crate) fn open(
        path: &Path,
        columns: &Columns,
        csv: bool,
        summary: &mut Summary,
    ) -> Result<Self, ReadError> {
        let (container, unknown) = Container::open(path, columns, csv)?;
        summary.unknown(unknown);
        Ok(Self { file: path.into(), container })
    }

    pub(crate) fn file(&self) -> Arc<Path> {
        Arc::clone(&self.file)
    }

    pub(crate) fn next(&mut self) -> Option<Result<Item, ReadError>> {
        self.container.next()
    }

    /// Counts a row and makes something of its line, or the row that says why not.
    pub(crate) fn take<T>(
        &self,
        number: u64,
        line: Result<String, Refused>,
        summary: &mut Summary,
        parse: impl FnOnce(&str, &mut Summary) -> Result<T, String>,
    ) -> Result<T, Row> {
        summary.rows += 1;
        let refused = match line {
            Ok(line) => match parse(&line, summary) {
                Ok(value) => return Ok(value),
                Err(reason) => Refused { reason, raw: line.into_bytes() },
            },
            Err(refused) => refused,
        };
        summary.rejected += 1;
        let Refused { reason, mut raw } = refused;
        raw.truncate(raw.trim_ascii_end().len());
        Err(Row { file: self.file(), number, content: Err(Rejected { reason, raw }) })
    }
}
