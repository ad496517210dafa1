//! Data files as records, with the hash that a model folder remembers.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use polyreward_datasets::open_jsonl;
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
    let mut hasher = Sha256::new();
    let mut records = Vec::new();
    for file in files {
        hash_file(file, &mut hasher).with_context(|| format!("reading {}", file.display()))?;
        let mut reader = open_jsonl(file)?;
        for record in reader.by_ref() {
            records.push(record?);
        }
        if !reader.unknown_fields().is_empty() {
            let names: Vec<_> = reader.unknown_fields().iter().map(String::as_str).collect();
            eprintln!("{}: fields that are not read: {}", file.display(), names.join(", "));
        }
    }
    ensure!(!records.is_empty(), "there is no comparison in {}", list(files));
    let sha256 = hasher.finalize().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    Ok(Dataset { records, sha256 })
}

fn list(files: &[PathBuf]) -> String {
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
