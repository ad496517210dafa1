//! The rejects file: what was not imported, with its number and reason, for people to mend.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::ledger::Reject;
use crate::config::UsageError;

/// It holds people's texts.
const MODE: u32 = 0o600;
/// A longer first line is not ours.
const MAX_FIRST_LINE: u64 = 64 << 20;

#[derive(Serialize)]
struct Line<'a> {
    row: u64,
    file: String,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a str>,
    /// Of what is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_bytes: Option<&'a [u8]>,
}

/// What is read of a line to know it again.
#[derive(Deserialize)]
#[expect(dead_code, reason = "that they are there is what tells")]
struct Known {
    row: u64,
    file: String,
    reason: String,
}

/// The file, which is there only if something was rejected.
#[derive(Debug)]
pub struct RejectsFile {
    path: PathBuf,
    file: Option<File>,
    /// Of a run before, with this content so far; what is longer is written again.
    keep: u64,
}

impl RejectsFile {
    /// A file that is not there, or is one of the same input.
    ///
    /// # Errors
    /// A [`UsageError`] where something else is there.
    pub fn new(path: PathBuf, inputs: &[PathBuf]) -> anyhow::Result<Self> {
        if path.exists() && !is_of(&path, inputs).with_context(|| format!("reading {}", path.display()))? {
            let detail = format!(
                "{} is there already and does not hold the rejects of this input; --rejects names another file",
                path.display()
            );
            return Err(UsageError(detail).into());
        }
        Ok(Self { path, file: None, keep: 0 })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Goes on after the first `bytes` of it.
    ///
    /// # Errors
    /// They are not there.
    pub fn go_on(&mut self, bytes: u64) -> anyhow::Result<()> {
        let length = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if length < bytes {
            let detail = format!(
                "{} lacks rejects of the run before; remove {} to begin again",
                self.path.display(),
                super::checkpoint::path_of(&self.path).display()
            );
            return Err(UsageError(detail).into());
        }
        if length > bytes {
            let cut = || OpenOptions::new().write(true).open(&self.path)?.set_len(bytes);
            cut().with_context(|| format!("writing {}", self.path.display()))?;
        }
        self.keep = bytes;
        Ok(())
    }

    /// Writes rejects; how long the file is then.
    pub fn write(&mut self, rejects: &[Reject]) -> anyhow::Result<u64> {
        if rejects.is_empty() {
            return Ok(self.keep);
        }
        let written = self.append(rejects).with_context(|| format!("writing {}", self.path.display()))?;
        self.keep = written;
        Ok(written)
    }

    fn append(&mut self, rejects: &[Reject]) -> io::Result<u64> {
        let mut lines = Vec::new();
        for Reject { place, reason, raw } in rejects {
            let text = std::str::from_utf8(raw).ok();
            let raw_bytes = if text.is_none() { Some(raw.as_slice()) } else { None };
            let file = place.file.display().to_string();
            let line = Line { row: place.number, file, reason, raw: text, raw_bytes };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        if self.file.is_none() {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(&self.path)?;
            file.set_permissions(Permissions::from_mode(MODE))?;
            file.set_len(self.keep)?;
            file.seek(SeekFrom::End(0))?;
            self.file = Some(file);
        }
        let file = self.file.as_mut().expect("it was just opened");
        file.write_all(&lines)?;
        file.stream_position()
    }

    /// Ends a run that reached the end of its input: rejects of a run before are no longer true.
    pub fn finish(self) -> anyhow::Result<()> {
        if self.keep == 0 && self.path.exists() {
            fs::remove_file(&self.path).with_context(|| format!("removing {}", self.path.display()))?;
        }
        Ok(())
    }
}

/// Whether a file holds rejects of one of these inputs.
fn is_of(path: &Path, inputs: &[PathBuf]) -> io::Result<bool> {
    let mut first = Vec::new();
    io::Read::take(BufReader::new(File::open(path)?), MAX_FIRST_LINE).read_until(b'\n', &mut first)?;
    Ok(first.is_empty()
        || serde_json::from_slice::<Known>(&first)
            .is_ok_and(|known| inputs.iter().any(|input| Path::new(&known.file).starts_with(input))))
}
