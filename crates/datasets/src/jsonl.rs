//! The project's own format: one comparison a line, as JSON, plain or gzipped.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use polyreward_domain::{
    Comparison, ComparisonError, ComparisonRecord, LabelConfidence, PersonId, Prompt, Split, Strength,
};
use serde::{
    Deserialize,
    de::{Deserializer, IgnoredAny},
};

use crate::{
    container::Columns,
    lines::{Lines, ReadError, open_lines},
};

/// As a table: the same names.
pub(crate) const COLUMNS: Columns = Columns {
    required: &["user_id", "chosen", "rejected"],
    optional: &[
        "attributes",
        "prompt",
        "strength",
        "label_confidence",
        "rationale",
        "split",
        "tags",
        "id",
        "created_at",
    ],
    passed_over: &[],
};

/// Opens a JSONL file, plain or gzipped.
///
/// # Errors
/// [`ReadError::Io`].
pub fn open_jsonl(path: &Path) -> Result<JsonlReader, ReadError> {
    Ok(JsonlReader { lines: open_lines(path)?, unknown_fields: BTreeSet::new() })
}

/// The comparisons of a file, line by line; empty lines are passed over.
pub struct JsonlReader {
    lines: Lines,
    unknown_fields: BTreeSet<String>,
}

impl JsonlReader {
    /// Number of the line read last, from 1.
    pub fn line(&self) -> u64 {
        self.lines.line()
    }

    /// Fields met so far that are not of the format; they are not read.
    pub fn unknown_fields(&self) -> &BTreeSet<String> {
        &self.unknown_fields
    }

    fn parse(&mut self, line: &str) -> Result<ComparisonRecord, ReadError> {
        let (record, unknown) = parse(line).map_err(|detail| self.lines.refuse(detail))?;
        self.unknown_fields.extend(unknown);
        Ok(record)
    }
}

impl Iterator for JsonlReader {
    type Item = Result<ComparisonRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.lines.next()?.and_then(|line| self.parse(&line)))
    }
}

/// A line as a record, with the names of its fields that are not of the format; or what is wrong with it.
pub(crate) fn parse(line: &str) -> Result<(ComparisonRecord, impl Iterator<Item = String> + use<>), String> {
    let row: Row = serde_json::from_str(line).map_err(|error| describe(&error))?;
    let record = ComparisonRecord {
        user_id: row.user_id,
        attributes: row.attributes,
        comparison: Comparison {
            prompt: row.prompt,
            chosen: row.chosen,
            rejected: row.rejected,
            strength: row.strength,
            label_confidence: row.label_confidence,
            rationale: row.rationale,
        },
        split: row.split,
        tags: row.tags,
        id: row.id,
        created_at: row.created_at,
    };
    match record.comparison.check() {
        // A tie is an observation, though nothing can be learned from it; whoever reads on decides.
        Ok(()) | Err((_, ComparisonError::Identical)) => Ok((record, row.unknown.into_keys())),
        Err((field, error)) => Err(format!("{field} {error}")),
    }
}

/// What is wrong with a line of JSON, and where in it, without the text it holds: that can be a prompt.
pub fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let text = scrub(scrub(text.to_owned(), "string \"", "\", expected"), "unknown variant `", "`, expected");
    format!("{text} (column {})", error.column())
}

/// Takes out what serde quotes between an opening and the last closing.
fn scrub(text: String, opening: &str, closing: &str) -> String {
    match text.find(opening).zip(text.rfind(closing)) {
        Some((start, end)) if start + opening.len() <= end => {
            format!("{}...{}", &text[..start + opening.len()], &text[end..])
        }
        _ => text,
    }
}

#[derive(Deserialize)]
struct Row {
    user_id: PersonId,
    #[serde(default, deserialize_with = "attributes")]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    prompt: Prompt,
    chosen: String,
    rejected: String,
    #[serde(default)]
    strength: Strength,
    #[serde(default)]
    label_confidence: LabelConfidence,
    rationale: Option<String>,
    split: Option<Split>,
    #[serde(default)]
    tags: Vec<String>,
    id: Option<String>,
    created_at: Option<String>,
    #[expect(clippy::zero_sized_map_values, reason = "serde flattens into maps only")]
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

/// An attribute's value: numbers and truth values are read as their text, as survey files hold them.
fn attributes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Whole(i64),
        Number(f64),
        Truth(bool),
        Absent(()),
    }
    let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
    Ok(values
        .into_iter()
        .filter_map(|(key, value)| {
            let text = match value {
                Value::Text(text) => text,
                Value::Whole(number) => number.to_string(),
                Value::Number(number) => number.to_string(),
                Value::Truth(truth) => truth.to_string(),
                Value::Absent(()) => return None,
            };
            Some((key, text))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::lines::MAX_LINE_BYTES;

    const GOOD: &str = r#"{"user_id": "town/ada", "attributes": {"country": "UK", "born": 1815}, "split": "train", "prompt": "p", "chosen": "a", "rejected": "b", "tags": ["t"], "colour": 7}"#;

    fn read(bytes: &[u8]) -> (Vec<Result<ComparisonRecord, ReadError>>, BTreeSet<String>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut reader = open_jsonl(file.path()).unwrap();
        let records = reader.by_ref().collect();
        (records, reader.unknown_fields().clone())
    }

    #[test]
    fn plain_and_gzipped_files_read_alike() {
        let text = format!("{GOOD}\n\n{GOOD}");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let gzipped = gzip.finish().unwrap();
        let ((plain, unknown), (unzipped, _)) = (read(text.as_bytes()), read(&gzipped));
        assert_eq!(plain.len(), 2);
        for (a, b) in plain.iter().zip(&unzipped) {
            assert_eq!(a.as_ref().unwrap(), b.as_ref().unwrap());
        }
        let record = plain[0].as_ref().unwrap();
        assert_eq!(record.attributes["born"], "1815");
        assert_eq!(record.split, Some(Split::Train));
        assert_eq!(unknown.into_iter().collect::<Vec<_>>(), ["colour"]);
    }

    #[test]
    fn a_bad_line_is_named_and_the_next_one_still_read() {
        let bad = [
            r#"{"user_id": "", "chosen": "a", "rejected": "b"}"#,
            r#"{"user_id": "a", "chosen": "a"}"#,
            r#"{"user_id": "a", "chosen": "a", "rejected": "b", "strength": -1}"#,
            r#"{"user_id": "a", "chosen": "a", "rejected": "b\u0000"}"#,
            r#"{"user_id": "a", "chosen": "a", "rejected": "b", "split": "test"}"#,
            "[1]",
            "{",
        ];
        let (records, _) = read(format!("{}\n{GOOD}\n", bad.join("\n")).as_bytes());
        assert_eq!(records.len(), bad.len() + 1);
        for (at, record) in records[..bad.len()].iter().enumerate() {
            let message = record.as_ref().unwrap_err().to_string();
            assert!(message.contains(&format!("line {}:", at + 1)), "{message}");
        }
        assert!(records[bad.len()].is_ok());
    }

    #[test]
    fn an_error_never_quotes_a_text() {
        for line in [
            r#"{"user_id": "a", "chosen": "a", "rejected": "b", "strength": "a secret, \"quoted\", expected"}"#,
            r#"{"user_id": "a", "chosen": "a", "rejected": "b", "split": "a secret"}"#,
            r#"{"user_id": "a", "chosen": "a", "rejected": "b", "tags": "a secret"}"#,
        ] {
            let (records, _) = read(line.as_bytes());
            let message = records[0].as_ref().unwrap_err().to_string();
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn an_endless_line_is_refused_and_passed_over() {
        let mut bytes = vec![b'x'; usize::try_from(MAX_LINE_BYTES).unwrap() + 10];
        bytes.extend_from_slice(format!("\n{GOOD}\n").as_bytes());
        let (records, _) = read(&bytes);
        assert!(records[0].as_ref().unwrap_err().to_string().contains("longer than"));
        assert!(records[1].is_ok());
    }

    #[test]
    fn a_cut_gzip_file_is_an_error_not_a_short_file() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(format!("{GOOD}\n").repeat(1000).as_bytes()).unwrap();
        let gzipped = gzip.finish().unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&gzipped[..gzipped.len() - 20]).unwrap();
        let last = open_jsonl(file.path()).unwrap().last();
        assert!(matches!(last, Some(Err(ReadError::Io { .. }))));
    }
}
