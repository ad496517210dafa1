//! What a file's rows are kept in. Every container gives its rows as lines of JSON, so that a format is read in one
//! way, and a rejects file can be read again.

use std::{io::BufRead, path::Path};

use crate::{
    csv::CsvRows,
    lines::{BYTE_ORDER_MARK, Lines, ReadError, Refused, open_bytes},
    parquet::ParquetRows,
};

/// One row, as a line of JSON.
pub(crate) struct Item {
    /// From 1: the line, or the row of a table.
    pub(crate) number: u64,
    /// The line, or what is wrong with it.
    pub(crate) line: Result<String, Refused>,
}

/// The columns of a format, where it is kept in a table.
pub(crate) struct Columns {
    /// Without these a table is not of the format.
    pub(crate) required: &'static [&'static str],
    /// Read where they are there.
    pub(crate) optional: &'static [&'static str],
    /// Of the format, but not read.
    pub(crate) passed_over: &'static [&'static str],
}

impl Columns {
    pub(crate) fn reads(&self, name: &str) -> bool {
        self.required.contains(&name) || self.optional.contains(&name)
    }

    pub(crate) fn knows(&self, name: &str) -> bool {
        self.reads(name) || self.passed_over.contains(&name)
    }

    pub(crate) fn check(&self, path: &Path, names: &[String]) -> Result<(), ReadError> {
        for column in self.required {
            match names.iter().filter(|name| name == column).count() {
                0 => return Err(ReadError::Column { path: path.to_owned(), column }),
                1 => {}
                _ => {
                    let detail = "one of its columns is there twice";
                    return Err(ReadError::Layout { path: path.to_owned(), detail });
                }
            }
        }
        Ok(())
    }
}

/// An open file.
pub(crate) enum Container {
    Lines(Lines),
    Csv(Box<CsvRows>),
    Parquet(Box<ParquetRows>),
}

impl Container {
    /// Opens a file; its first bytes say what it is. Also gives the columns of a table that are not of the format.
    ///
    /// A file that is not Parquet has lines of JSON, or, where the format is published as CSV, a header and rows
    /// unless it begins with `{`.
    pub(crate) fn open(path: &Path, columns: &Columns, csv: bool) -> Result<(Self, Vec<String>), ReadError> {
        let failed = |source| ReadError::Io { path: path.to_owned(), source };
        let mut reader = open_bytes(path)?;
        let beginning = reader.fill_buf().map_err(failed)?;
        if beginning.starts_with(b"PAR1") {
            let (rows, unknown) = ParquetRows::open(path, columns)?;
            return Ok((Self::Parquet(Box::new(rows)), unknown));
        }
        let beginning = beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(beginning);
        if csv && !beginning.trim_ascii_start().starts_with(b"{") {
            let (rows, unknown) = CsvRows::open(path, reader, columns)?;
            return Ok((Self::Csv(Box::new(rows)), unknown));
        }
        Ok((Self::Lines(Lines::new(path, reader)), Vec::new()))
    }

    /// The next row; after an error there is none.
    pub(crate) fn next(&mut self) -> Option<Result<Item, ReadError>> {
        match self {
            Self::Lines(lines) => {
                let line = lines.next_line()?;
                Some(line.map(|line| Item { number: lines.line(), line }))
            }
            Self::Csv(rows) => rows.next(),
            Self::Parquet(rows) => rows.next(),
        }
    }
}
