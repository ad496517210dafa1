//! How far an import came, beside its rejects file, until it reached the end.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ledger::Counts;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Digest of what is imported: the format, and path, size and time of each file.
    pub input: String,
    /// Digest of where to.
    pub target: String,
    /// How far.
    pub counts: Counts,
    /// Length of the rejects file then.
    pub rejects_bytes: u64,
}

/// The file.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
}

/// Where it stands beside a rejects file.
pub fn path_of(rejects: &Path) -> PathBuf {
    let mut path = rejects.as_os_str().to_owned();
    path.push(".progress");
    path.into()
}

impl Checkpoint {
    /// Beside a rejects file.
    pub fn beside(rejects: &Path) -> Self {
        Self { path: path_of(rejects) }
    }

    /// What a run before wrote; none where there was none, or its file is not readable as ours.
    pub fn read(&self) -> anyhow::Result<Option<Progress>> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", self.path.display())),
        }
    }

    /// Replaces it, whole or not at all.
    pub fn write(&self, progress: &Progress) -> anyhow::Result<()> {
        let folder = self.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || -> anyhow::Result<()> {
            let mut staging = tempfile::NamedTempFile::new_in(folder)?;
            staging.write_all(&serde_json::to_vec(progress)?)?;
            staging.persist(&self.path)?;
            Ok(())
        };
        // The input may lie where nobody may write.
        let hint = "--rejects names a file in another folder";
        write().with_context(|| format!("writing {} ({hint})", self.path.display()))
    }

    /// Removes it, once the end is reached.
    pub fn remove(self) -> anyhow::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Digest of a few texts.
pub fn digest(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// What tells an input from others and from itself before it was changed.
pub fn identity_of(paths: &[PathBuf]) -> anyhow::Result<String> {
    let mut text = String::new();
    for path in paths {
        let mut files = vec![path.clone()];
        if path.is_dir() {
            let entries = fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
            files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
            files.retain(|path| path.is_file());
            files.sort();
        }
        for file in files {
            let reading = || format!("reading {}", file.display());
            let metadata = fs::metadata(&file).with_context(reading)?;
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let path = fs::canonicalize(&file).with_context(reading)?;
            let (size, at) = (metadata.len(), modified.as_nanos());
            text += &[path.display().to_string(), size.to_string(), at.to_string(), String::new()].join("\0");
        }
    }
    Ok(text)
}
