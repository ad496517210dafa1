//! Data files as records, with the hash that a model folder remembers.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use polyreward_datasets::{JsonlReader, open_jsonl};
use polyreward_domain::ComparisonRecord;
use sha2::{Digest, Sha256};

/// What was read.
pub struct Dataset {
    /// Every record, in the order of the files.
    pub records: Vec<ComparisonRecord>,
    /// SHA-256 over the files' bytes, in order.
    pub sha256: String,
}

/// Reads every record; the first bad line ends the run.
pub fn read(files: &[PathBuf]) -> anyhow::Result<Dataset> {
    let sha256 = sha256(files)?;
    let records = stream(files, true).collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(!records.is_empty(), "there is no comparison in {}", list(files));
    Ok(Dataset { records, sha256 })
}

/// SHA-256, in hexadecimal, over the files' bytes, in order.
pub fn sha256(files: &[PathBuf]) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    for file in files {
        hash_file(file, &mut hasher).with_context(|| format!("reading {}", file.display()))?;
    }
    Ok(hasher.finalize().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")))
}

/// Every record, in the order of the files, one at a time; behind a bad line nothing follows. `says` fields that are not read.
pub fn stream(files: &[PathBuf], says: bool) -> impl Iterator<Item = anyhow::Result<ComparisonRecord>> {
    let mut files = files.iter();
    let mut reading: Option<(&PathBuf, JsonlReader)> = None;
    let mut next = move || -> anyhow::Result<Option<ComparisonRecord>> {
        loop {
            if let Some((file, reader)) = &mut reading {
                if let Some(record) = reader.next() {
                    return Ok(Some(record?));
                }
                let unknown = reader.unknown_fields();
                if says && !unknown.is_empty() {
                    let names: Vec<_> = unknown.iter().map(String::as_str).collect();
                    eprintln!("{}: fields that are not read: {}", file.display(), names.join(", "));
                }
            }
            let Some(file) = files.next() else { return Ok(None) };
            reading = Some((file, open_jsonl(file)?));
        }
    };
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let record = next().transpose();
        failed = matches!(record, Some(Err(_)));
        record
    })
}

pub fn list(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn hash_file(path: &Path, hasher: &mut Sha256) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..read]);
    }
}
