//! Small files in a temporary folder, and what was read of them.

use std::{io::Write, path::PathBuf, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use flate2::{Compression, write::GzEncoder};
use parquet::arrow::ArrowWriter;
use polyreward_datasets::{Format, Options, ReadError, Row, Summary, open};
use polyreward_domain::ComparisonRecord;
use serde_json::Value;

/// Files to read.
pub struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn add(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// What was read.
#[derive(Debug)]
pub struct Read {
    pub rows: Vec<Row>,
    pub summary: Summary,
    /// What ended the reading.
    pub error: Option<ReadError>,
}

impl Read {
    pub fn records(&self) -> Vec<&ComparisonRecord> {
        self.rows.iter().filter_map(|row| row.content.as_ref().ok()).flatten().collect()
    }

    /// Number, reason and raw text of what was refused.
    pub fn rejected(&self) -> Vec<(u64, &str, &str)> {
        let refused = self.rows.iter().filter_map(|row| Some((row.number, row.content.as_ref().err()?)));
        refused
            .map(|(number, refused)| (number, refused.reason.as_str(), str::from_utf8(&refused.raw).unwrap()))
            .collect()
    }

    pub fn rejected_rows(&self) -> u64 {
        self.rows.iter().filter(|row| row.content.is_err()).count() as u64
    }

    /// The reason for which the one refused row was refused.
    pub fn only_reason(&self) -> &str {
        match self.rejected()[..] {
            [(_, reason, _)] => reason,
            _ => panic!("{:?}", self.rows),
        }
    }
}

pub fn read_paths(paths: &[PathBuf], format: Format) -> Result<Read, ReadError> {
    let mut reader = open(paths, format, Options::default())?;
    let (mut rows, mut error) = (Vec::new(), None);
    for row in reader.by_ref() {
        match row {
            Ok(row) => rows.push(row),
            Err(met) => error = Some(met),
        }
    }
    assert!(reader.next().is_none(), "nothing follows the end");
    Ok(Read { rows, summary: reader.summary().clone(), error })
}

/// Reads one file of the bytes.
pub fn read(bytes: impl AsRef<[u8]>, format: Format) -> Result<Read, ReadError> {
    let files = Files::new();
    read_paths(&[files.add("data", bytes)], format)
}

pub fn lines(rows: &[Value]) -> String {
    rows.iter().fold(String::new(), |text, row| text + &row.to_string() + "\n")
}

pub fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

pub fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

pub fn texts<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}
