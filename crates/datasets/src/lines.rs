//! The lines of a file, plain or gzipped, none of them so long that it fills the memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::read::MultiGzDecoder;

/// A longer line is refused before it fills the memory.
pub(crate) const MAX_LINE_BYTES: u64 = 16 << 20;

/// Some programs begin a UTF-8 file with this.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a row that is not text is refused.
pub(crate) const NOT_UTF8: &str = "is not UTF-8";

/// Why a row of more than [`MAX_LINE_BYTES`] is refused.
pub(crate) fn too_long() -> String {
    format!("is longer than {MAX_LINE_BYTES} bytes")
}

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
    /// A table lacks a column that its format has.
    #[error("{path} has no column {column}")]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
    /// A table holds a column in a type that cannot be read as the format's.
    #[error("{path}: column {column} is of type {kind}")]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type.
        kind: String,
    },
    /// A folder or a list of files is not what the format consists of.
    #[error("{path}: {detail}")]
    Layout {
        /// The folder or file.
        path: PathBuf,
        /// What is missing or too much.
        detail: &'static str,
    },
}

/// What cannot be read of a file, and why.
pub(crate) struct Refused {
    /// What is wrong, without its text.
    pub(crate) reason: String,
    /// Its bytes; of what is longer than [`MAX_LINE_BYTES`], the beginning.
    pub(crate) raw: Vec<u8>,
}

/// How much of a file has been read, as it lies on the disk.
#[derive(Debug, Clone, Default)]
struct Position {
    read: Arc<AtomicU64>,
    /// Bytes of the file; 0 where it has no length, as a pipe.
    of: u64,
}

/// A file that says how much of it has been read.
struct Counted {
    file: File,
    position: Position,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.position.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A file's bytes, out of gzip where it is gzipped, which its first bytes say and not its name.
pub(crate) fn open_bytes(path: &Path) -> Result<Box<dyn BufRead + Send>, ReadError> {
    Ok(open_counted(path)?.0)
}

fn open_counted(path: &Path) -> Result<(Box<dyn BufRead + Send>, Position), ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let of = file.metadata().map_err(failed)?.len();
    let position = Position { of, ..Position::default() };
    let mut file = BufReader::with_capacity(1 << 16, Counted { file, position: position.clone() });
    let gzipped = file.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
    let bytes: Box<dyn BufRead + Send> = if gzipped {
        Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file)))
    } else {
        Box::new(file)
    };
    Ok((bytes, position))
}

/// Opens a file of lines, plain or gzipped.
///
/// # Errors
/// [`ReadError::Io`].
pub fn open_lines(path: &Path) -> Result<Lines, ReadError> {
    let (reader, position) = open_counted(path)?;
    Ok(Lines { position, ..Lines::new(path, reader) })
}

/// The lines of a file with text in them.
pub struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    line: u64,
    position: Position,
    /// The file could not be read further: nothing follows.
    broken: bool,
}

impl Lines {
    pub(crate) fn new(path: &Path, reader: Box<dyn BufRead + Send>) -> Self {
        Self { path: path.to_owned(), reader, line: 0, position: Position::default(), broken: false }
    }

    /// Number of the line read last, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The share of the file that has been read, in bytes on the disk; none of what has no length.
    pub fn share(&self) -> Option<f64> {
        let (read, of) = (self.position.read.load(Ordering::Relaxed), self.position.of);
        (of > 0).then(|| (read as f64 / of as f64).min(1.0))
    }

    /// What is wrong with the line read last.
    pub(crate) fn refuse(&self, detail: String) -> ReadError {
        ReadError::Line { path: self.path.clone(), line: self.line, detail }
    }

    fn failed(&self, source: io::Error) -> ReadError {
        ReadError::Io { path: self.path.clone(), source }
    }

    /// The next line with text in it, or what is wrong with it.
    pub(crate) fn next_line(&mut self) -> Option<Result<Result<String, Refused>, ReadError>> {
        if self.broken {
            return None;
        }
        let next = self.read_line().transpose();
        self.broken = matches!(next, Some(Err(_)));
        next
    }

    fn read_line(&mut self) -> Result<Option<Result<String, Refused>>, ReadError> {
        loop {
            let mut raw = Vec::new();
            let read = Read::take(&mut self.reader, MAX_LINE_BYTES + 1).read_until(b'\n', &mut raw);
            let read = read.map_err(|source| self.failed(source))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            if read as u64 > MAX_LINE_BYTES {
                self.skip_rest_of_line()?;
                return Ok(Some(Err(Refused { reason: too_long(), raw })));
            }
            if self.line == 1 && raw.starts_with(BYTE_ORDER_MARK) {
                raw.drain(..BYTE_ORDER_MARK.len());
            }
            match String::from_utf8(raw) {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => return Ok(Some(Ok(line))),
                Err(error) => {
                    return Ok(Some(Err(Refused { reason: NOT_UTF8.into(), raw: error.into_bytes() })));
                }
            }
        }
    }

    fn skip_rest_of_line(&mut self) -> Result<(), ReadError> {
        loop {
            let (used, done) = match self.reader.fill_buf() {
                Ok(buffer) => match buffer.iter().position(|byte| *byte == b'\n') {
                    Some(end) => (end + 1, true),
                    None => (buffer.len(), buffer.is_empty()),
                },
                Err(source) => return Err(self.failed(source)),
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
        let line = self.next_line()?;
        Some(line.and_then(|line| line.map_err(|refused| self.refuse(refused.reason))))
    }
}
