//! The rows of a CSV file as lines of JSON.

use std::{
    io::{self, BufRead},
    path::{Path, PathBuf},
};

use csv_core::{ReadRecordResult, Reader};
use serde_json::{Map, Value};

use crate::{
    container::{Columns, Item},
    lines::{MAX_LINE_BYTES, NOT_UTF8, ReadError, Refused, too_long},
};

/// More fields in one row are counted, not kept.
const MAX_FIELDS: usize = 4096;

/// The rows of a CSV file with a header: an object a row, of those columns that the format reads; an empty field is
/// an absent one.
pub(crate) struct CsvRows {
    fields: Fields,
    /// For each column of the file, its name where the format reads it.
    columns: Vec<Option<String>>,
    row: u64,
}

impl CsvRows {
    /// Reads the header; gives the names of columns that are not of the format.
    pub(crate) fn open(
        path: &Path,
        reader: Box<dyn BufRead + Send>,
        format: &Columns,
    ) -> Result<(Self, Vec<String>), ReadError> {
        let mut fields = Fields::new(path, reader);
        // A header that cannot be read names no column: the first that is needed is missing.
        let names = match fields.next()? {
            Some(Record::Whole(names)) => names,
            _ => Vec::new(),
        };
        let names: Vec<_> =
            names.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
        format.check(path, &names)?;
        let (mut columns, mut unknown) = (Vec::new(), Vec::new());
        for name in names {
            if !format.knows(&name) {
                unknown.push(name.clone());
            }
            columns.push(format.reads(&name).then_some(name));
        }
        Ok((Self { fields, columns, row: 0 }, unknown))
    }

    /// The next row as a line of JSON.
    pub(crate) fn next(&mut self) -> Option<Result<Item, ReadError>> {
        let record = self.fields.next().transpose()?;
        Some(record.map(|record| {
            self.row += 1;
            Item { number: self.row, line: self.line(record) }
        }))
    }

    fn line(&self, record: Record) -> Result<String, Refused> {
        let fields = match record {
            Record::Whole(fields) => fields,
            Record::TooMuch(refused) => return Err(refused),
        };
        if fields.len() != self.columns.len() {
            let reason = format!("has {} fields, the header {}", fields.len(), self.columns.len());
            return Err(Refused { reason, raw: as_list(&fields) });
        }
        let Ok(texts) = fields.iter().map(|field| str::from_utf8(field)).collect::<Result<Vec<_>, _>>()
        else {
            return Err(Refused { reason: NOT_UTF8.into(), raw: as_list(&fields) });
        };
        let object = self.columns.iter().zip(texts).filter(|(_, text)| !text.is_empty());
        let object: Map<_, _> =
            object.filter_map(|(name, text)| Some((name.clone()?, text.into()))).collect();
        Ok(Value::Object(object).to_string())
    }
}

/// Fields without names, as a rejects file keeps them.
fn as_list(fields: &[Vec<u8>]) -> Vec<u8> {
    let texts = fields.iter().map(|field| Value::from(String::from_utf8_lossy(field)));
    Value::Array(texts.collect()).to_string().into_bytes()
}

enum Record {
    Whole(Vec<Vec<u8>>),
    /// More than is kept: its beginning, without quotes and commas.
    TooMuch(Refused),
}

/// A CSV file's records, none of which fills the memory.
struct Fields {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    parser: Reader,
    broken: bool,
}

impl Fields {
    fn new(path: &Path, reader: Box<dyn BufRead + Send>) -> Self {
        Self { path: path.to_owned(), reader, parser: Reader::new(), broken: false }
    }

    fn next(&mut self) -> Result<Option<Record>, ReadError> {
        if self.broken {
            return Ok(None);
        }
        let record = self.read();
        self.broken = record.is_err();
        record.map_err(|source| ReadError::Io { path: self.path.clone(), source })
    }

    /// Of a record that is too long, only the end is still searched for.
    fn read(&mut self) -> io::Result<Option<Record>> {
        let (mut text, mut filled) = (vec![0; 4096], 0);
        let (mut ends, mut ended) = (vec![0; 64], 0);
        let mut refused = None;
        loop {
            let input = self.reader.fill_buf()?;
            let (result, used, written, fields) =
                self.parser.read_record(input, &mut text[filled..], &mut ends[ended..]);
            self.reader.consume(used);
            filled += written;
            ended += fields;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if (text.len() as u64) < MAX_LINE_BYTES => {
                    text.resize(text.len() * 2, 0);
                }
                ReadRecordResult::OutputEndsFull if ends.len() < MAX_FIELDS => {
                    ends.resize(ends.len() * 2, 0);
                }
                full @ (ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull) => {
                    refused.get_or_insert_with(|| Refused {
                        reason: match full {
                            ReadRecordResult::OutputFull => too_long(),
                            _ => format!("has more than {MAX_FIELDS} fields"),
                        },
                        raw: text[..filled].to_vec(),
                    });
                    (filled, ended) = (0, 0);
                }
                ReadRecordResult::Record => {
                    return Ok(Some(match refused {
                        Some(refused) => Record::TooMuch(refused),
                        None => Record::Whole(split(&text, &ends[..ended])),
                    }));
                }
                ReadRecordResult::End => return Ok(None),
            }
        }
    }
}

fn split(text: &[u8], ends: &[usize]) -> Vec<Vec<u8>> {
    let starts = [0].into_iter().chain(ends.iter().copied());
    starts.zip(ends).map(|(start, end)| text[start..*end].to_vec()).collect()
}
