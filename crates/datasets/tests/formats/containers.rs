//! What holds for every format: files that break off, endless lines, and what their first bytes say.

use arrow_array::RecordBatch;
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use polyreward_datasets::{Format, ReadError};

use crate::support::{Files, Read, gzip, parquet, read, read_paths, texts};

const GOOD: &str = r#"{"user_id": "ada", "chosen": "a", "rejected": "b"}"#;

#[test]
fn a_cut_gzip_file_ends_with_an_error_after_its_good_rows() {
    let whole = gzip(format!("{GOOD}\n").repeat(100_000));
    let read = read(&whole[..whole.len() - 20], Format::Jsonl).unwrap();
    assert!(!read.records().is_empty());
    assert!(matches!(read.error, Some(ReadError::Io { .. })), "{:?}", read.error);
}

#[test]
fn a_cut_table_is_an_error() {
    let column = || texts((0..1000).map(|_| Some("a text")));
    let whole = parquet(vec![("user_id", column()), ("chosen", column()), ("rejected", column())]);
    for end in [4, 100, whole.len() / 2, whole.len() - 1] {
        let error = read(&whole[..end], Format::Jsonl).unwrap_err();
        assert!(matches!(error, ReadError::Io { .. }), "{error}");
    }
}

#[test]
fn a_table_of_many_row_groups_is_read_to_its_end() {
    let files = Files::new();
    let file = std::fs::File::create(files.folder().join("table")).unwrap();
    let column = |text: &'static str| texts((0..300).map(|_| Some(text)));
    let columns = [("user_id", column("ada")), ("chosen", column("a")), ("rejected", column("b"))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(70));
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let read = read_paths(&[files.folder().join("table")], Format::Jsonl).unwrap();
    assert!(read.rows.iter().map(|row| row.number).eq(1..=300));
    assert_eq!(read.records().len(), 300);
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let files = Files::new();
    let path = files.folder().join("nowhere.jsonl");
    for format in [Format::Jsonl, Format::Hh, Format::CommunityAlignment] {
        let error = read_paths(std::slice::from_ref(&path), format).unwrap_err();
        assert!(error.to_string().contains("nowhere.jsonl"), "{error}");
    }
}

fn is_refused_as_endless(read: &Read) -> bool {
    read.only_reason() == "is longer than 16777216 bytes" && read.records().len() == 1
}

#[test]
fn a_long_line_is_read_and_an_endless_one_refused_with_its_beginning() {
    let long = "x".repeat(10 << 20);
    let ten = format!(r#"{{"user_id": "ada", "chosen": "{long}", "rejected": "b"}}"#);
    let read_ten = read(&ten, Format::Jsonl).unwrap();
    assert_eq!(read_ten.records()[0].comparison.chosen.len(), 10 << 20);
    let endless = format!("{}\n{GOOD}\n", "x".repeat(40 << 20));
    let read = read(endless, Format::Jsonl).unwrap();
    assert!(is_refused_as_endless(&read));
    assert!(read.rejected()[0].2.len() <= (16 << 20) + 1);
}

#[test]
fn an_endless_row_of_a_table_is_refused_and_the_next_one_read() {
    let long = "x".repeat(17 << 20);
    let table = parquet(vec![
        ("user_id", texts([Some("ada"), Some("bob")])),
        ("chosen", texts([Some(long.as_str()), Some("a")])),
        ("rejected", texts([Some("b"), Some("b")])),
    ]);
    assert!(is_refused_as_endless(&read(table, Format::Jsonl).unwrap()));
}
