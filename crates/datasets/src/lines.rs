//! The lines of a file, plain or gzipped, none of them so long that it fills the memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

/// A longer line is refused before it fills the memory.
pub(crate) const MAX_LINE_BYTES: u64 = 16 << 20;

/// Why a file or a line of it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("reading {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One line is not what it should be.
    #[error("{path}, line {line}: {detail}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it, without its text.
        detail: String,
    },
}

/// Opens a file of lines; a gzipped one is told by its first bytes, not by its name.
///
/// # Errors
/// [`ReadError::Io`].
pub fn open_lines(path: &Path) -> Result<Lines, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
    let gzipped = file.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
    let reader: Box<dyn BufRead + Send> =
        if gzipped { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) };
    Ok(Lines { path: path.to_owned(), reader, line: 0, broken: false })
}

/// The lines of a file with text in them.
pub struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    line: u64,
    /// The file could not be read further: nothing follows.
    broken: bool,
}

impl Lines {
    /// Number of the line read last, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// What is wrong with the line read last.
    pub(crate) fn refuse(&self, detail: String) -> ReadError {
        ReadError::Line { path: self.path.clone(), line: self.line, detail }
    }

    fn next_line(&mut self) -> Result<Option<String>, ReadError> {
        loop {
            let mut bytes = Vec::new();
            let read = Read::take(&mut self.reader, MAX_LINE_BYTES + 1)
                .read_until(b'\n', &mut bytes)
                .map_err(|source| ReadError::Io { path: self.path.clone(), source })?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            if read as u64 > MAX_LINE_BYTES {
                self.skip_rest_of_line()?;
                return Err(self.refuse(format!("is longer than {MAX_LINE_BYTES} bytes")));
            }
            let line = String::from_utf8(bytes).map_err(|_| self.refuse("is not UTF-8".into()))?;
            if !line.trim().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn skip_rest_of_line(&mut self) -> Result<(), ReadError> {
        let failed = |source| ReadError::Io { path: self.path.clone(), source };
        loop {
            let buffer = self.reader.fill_buf().map_err(failed)?;
            let (used, done) = match buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.reader.consume(used);
            if done {
                return Ok(());
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<String, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        let next = self.next_line().transpose();
        self.broken = matches!(next, Some(Err(ReadError::Io { .. })));
        next
    }
}
