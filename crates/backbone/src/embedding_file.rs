//! Embeddings on disk, by text and backbone: written once, read back through the page cache.
//!
//! A header of 128 bytes, then records of one size, all little-endian:
//!
//! | header | bytes | | record | bytes |
//! | --- | --- | --- | --- | --- |
//! | `PREMBED1` | 8 | | key: SHA-256 over backbone, form and text | 32 |
//! | width of an embedding | 4 | | tokens, and whether the text was cut (highest bit) | 4 |
//! | 0 | 4 | | CRC-32 of the rest of the record | 4 |
//! | records that are whole | 8 | | embedding, float32 | 4 x width |
//! | the backbone's hash, in hexadecimal | 64 | | | |
//! | 0 | 40 | | | |
//!
//! Records are added behind the others, and count from when the header says so, which it does after they are on the disk:
//! what a killed run left behind the last of them is written over by the next. A file that is shorter than its header says,
//! of another backbone, or with a record that is not what was written, is refused. It holds no text, only numbers made of
//! texts; they are as personal as the texts.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use polyreward_domain::Overflow;

use crate::{
    backbone::{BackboneInfo, Embedded},
    cache::{Key, keys_of},
    tokenize::EmbedInput,
};

const MAGIC: &[u8; 8] = b"PREMBED1";
const HEADER_BYTES: usize = 128;
/// Where the header has the number of records.
const COUNT_AT: u64 = 16;
const HASH_AT: usize = 24;
const HASH_BYTES: usize = 64;
/// Of a record before its embedding.
const PREFIX_BYTES: usize = 40;
/// In a record's tokens: the text was cut to the window.
const TRUNCATED: u32 = 1 << 31;
/// Records that a killed run may lose.
const COMMIT_EVERY: usize = 4096;

/// Why a file of embeddings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddingFileError {
    /// The file cannot be read or written.
    #[error("using {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another run writes it.
    #[error("{} is in use by another run", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Not a file of embeddings.
    #[error("{} is not a file of embeddings", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The embeddings are those of another backbone.
    #[error("{} holds embeddings of another backbone (hash {found}, not {expected})", path.display())]
    OtherBackbone {
        /// The file.
        path: PathBuf,
        /// The hash in the file.
        found: String,
        /// The hash of the backbone in use.
        expected: String,
    },
    /// The file was cut.
    #[error("{} is cut off: {actual} bytes of {expected}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes there are.
        actual: u64,
    },
    /// A record is not what was written.
    #[error("{} is damaged: record {record} does not match its checksum", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The record, from 0.
        record: u32,
    },
    /// No further record can be numbered.
    #[error("{} is full", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
}

/// Which texts a file holds or is about to hold, and in which records.
#[derive(Debug, Default)]
pub struct EmbeddingIndex {
    /// By half of a key: 128 bits of SHA-256 tell texts apart.
    records: HashMap<u128, u32>,
}

impl EmbeddingIndex {
    /// The record of a text, and whether it has yet to be written: as the next one, in the order of these calls.
    pub fn record(&mut self, info: &BackboneInfo, input: &EmbedInput) -> (u32, bool) {
        let next = self.records.len() as u32;
        let record = *self.records.entry(short(&key_of(info, input))).or_insert(next);
        (record, record == next)
    }

    /// Texts known.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// A file of embeddings while texts are added to it; nobody else can open it.
#[derive(Debug)]
pub struct EmbeddingFile {
    path: PathBuf,
    writer: BufWriter<File>,
    info: BackboneInfo,
    count: u32,
    committed: u32,
}

impl EmbeddingFile {
    /// Opens a file and checks every record of it, or makes one.
    ///
    /// # Errors
    /// A file that is of something else, cut off, damaged or in use.
    pub fn open(path: &Path, info: &BackboneInfo) -> Result<(Self, EmbeddingIndex), EmbeddingFileError> {
        let failed = |source| EmbeddingFileError::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // Embeddings tell of the texts they were made of.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(failed)?;
        Self::start(file, path, info)
    }

    /// A file without a name, in a folder, which is gone with the process.
    ///
    /// # Errors
    /// [`EmbeddingFileError::Io`].
    pub fn temporary(
        folder: &Path,
        info: &BackboneInfo,
    ) -> Result<(Self, EmbeddingIndex), EmbeddingFileError> {
        let file = tempfile::tempfile_in(folder)
            .map_err(|source| EmbeddingFileError::Io { path: folder.to_owned(), source })?;
        Self::start(file, folder, info)
    }

    fn start(
        file: File,
        path: &Path,
        info: &BackboneInfo,
    ) -> Result<(Self, EmbeddingIndex), EmbeddingFileError> {
        let failed = |source| EmbeddingFileError::Io { path: path.to_owned(), source };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(EmbeddingFileError::Busy { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut this = Self {
            path: path.to_owned(),
            writer: BufWriter::with_capacity(1 << 20, file),
            info: info.clone(),
            count: 0,
            committed: 0,
        };
        let mut index = EmbeddingIndex::default();
        let length = this.writer.get_ref().metadata().map_err(failed)?.len();
        if length == 0 {
            this.write_header().map_err(failed)?;
        } else {
            this.count = this.read_header(length)?;
            this.committed = this.count;
            this.check_records(&mut index)?;
        }
        // What a killed run left behind the last whole record.
        let end = this.end_of(this.count);
        this.writer.get_ref().set_len(end).map_err(failed)?;
        this.writer.seek(SeekFrom::Start(end)).map_err(failed)?;
        Ok((this, index))
    }

    /// Adds the text that [`EmbeddingIndex::record`] said is the next one.
    ///
    /// # Errors
    /// [`EmbeddingFileError::Io`] where the disk is full, as an example.
    pub fn push(&mut self, input: &EmbedInput, text: &Embedded) -> Result<u32, EmbeddingFileError> {
        let record = self.count;
        self.count =
            record.checked_add(1).ok_or_else(|| EmbeddingFileError::Full { path: self.path.clone() })?;
        let tokens = (text.tokens as u32 & !TRUNCATED) | if text.truncated { TRUNCATED } else { 0 };
        let key = key_of(&self.info, input);
        let values: Vec<u8> = text.embedding.iter().flat_map(|x| x.to_le_bytes()).collect();
        let checksum = checksum(&key, tokens, &values);
        let mut write = || {
            self.writer.write_all(&key)?;
            self.writer.write_all(&tokens.to_le_bytes())?;
            self.writer.write_all(&checksum.to_le_bytes())?;
            self.writer.write_all(&values)
        };
        write().map_err(|source| self.failed(source))?;
        if (self.count - self.committed) as usize >= COMMIT_EVERY {
            self.commit()?;
        }
        Ok(record)
    }

    /// Makes what was added last: first the records reach the disk, then the header that counts them.
    ///
    /// # Errors
    /// [`EmbeddingFileError::Io`].
    pub fn commit(&mut self) -> Result<(), EmbeddingFileError> {
        if self.committed == self.count {
            return Ok(());
        }
        let count = u64::from(self.count);
        let end = self.end_of(self.count);
        let writer = &mut self.writer;
        let mut write = || {
            writer.flush()?;
            writer.get_ref().sync_data()?;
            writer.seek(SeekFrom::Start(COUNT_AT))?;
            writer.write_all(&count.to_le_bytes())?;
            writer.flush()?;
            writer.get_ref().sync_data()?;
            writer.seek(SeekFrom::Start(end)).map(|_| ())
        };
        write().map_err(|source| self.failed(source))?;
        self.committed = self.count;
        Ok(())
    }

    /// Commits, and reads what is there through the page cache.
    ///
    /// # Errors
    /// [`EmbeddingFileError::Io`].
    pub fn into_mapped(mut self) -> Result<MappedEmbeddings, EmbeddingFileError> {
        self.commit()?;
        let end = self.end_of(self.count) as usize;
        let (path, dim, count) = (self.path, self.info.dim, self.count);
        let failed = |source| EmbeddingFileError::Io { path: path.clone(), source };
        let file = self.writer.into_inner().map_err(|error| failed(error.into_error()))?;
        let map = map(&file).map_err(failed)?;
        if map.len() < end {
            let (expected, actual) = (end as u64, map.len() as u64);
            return Err(EmbeddingFileError::Truncated { path, expected, actual });
        }
        Ok(MappedEmbeddings { map, dim, count, _locked: file })
    }

    fn failed(&self, source: io::Error) -> EmbeddingFileError {
        EmbeddingFileError::Io { path: self.path.clone(), source }
    }

    fn end_of(&self, count: u32) -> u64 {
        HEADER_BYTES as u64 + u64::from(count) * record_bytes(self.info.dim) as u64
    }

    fn write_header(&mut self) -> io::Result<()> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&(self.info.dim as u32).to_le_bytes());
        let hash = self.info.hash.as_bytes();
        let place = header[HASH_AT..HASH_AT + HASH_BYTES].get_mut(..hash.len());
        place.ok_or_else(|| io::Error::other("the backbone's hash is too long"))?.copy_from_slice(hash);
        self.writer.write_all(&header)?;
        self.writer.flush()?;
        self.writer.get_ref().sync_data()
    }

    /// The number of records, of a file that is of this backbone and whole.
    fn read_header(&mut self, length: u64) -> Result<u32, EmbeddingFileError> {
        let path = || self.path.clone();
        let mut header = [0; HEADER_BYTES];
        let there = HEADER_BYTES.min(length as usize);
        let read = self.writer.get_mut().read_exact(&mut header[..there]);
        read.map_err(|source| EmbeddingFileError::Io { path: path(), source })?;
        if header[..8] != *MAGIC {
            return Err(EmbeddingFileError::Foreign { path: path() });
        }
        if there < HEADER_BYTES {
            let expected = HEADER_BYTES as u64;
            return Err(EmbeddingFileError::Truncated { path: path(), expected, actual: length });
        }
        let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let hash = header[HASH_AT..HASH_AT + HASH_BYTES].split(|byte| *byte == 0).next().unwrap_or_default();
        if hash != self.info.hash.as_bytes() || number(8) as usize != self.info.dim {
            let found = String::from_utf8_lossy(hash).into_owned();
            let expected = self.info.hash.clone();
            return Err(EmbeddingFileError::OtherBackbone { path: path(), found, expected });
        }
        let (count, beyond) = (number(COUNT_AT as usize), number(COUNT_AT as usize + 4));
        if beyond != 0 {
            return Err(EmbeddingFileError::Foreign { path: path() });
        }
        let expected = self.end_of(count);
        if length < expected {
            return Err(EmbeddingFileError::Truncated { path: path(), expected, actual: length });
        }
        Ok(count)
    }

    /// Reads every record, from behind the header.
    fn check_records(&mut self, index: &mut EmbeddingIndex) -> Result<(), EmbeddingFileError> {
        let mut record = vec![0; record_bytes(self.info.dim)];
        let count = self.count;
        index.records.reserve(count as usize);
        let mut reader = BufReader::with_capacity(1 << 20, self.writer.get_mut());
        for number in 0..count {
            let read = reader.read_exact(&mut record);
            read.map_err(|source| EmbeddingFileError::Io { path: self.path.clone(), source })?;
            let key: Key = record[..32].try_into().expect("a record begins with its key");
            let tokens = u32::from_le_bytes(record[32..36].try_into().expect("four bytes"));
            let written = u32::from_le_bytes(record[36..40].try_into().expect("four bytes"));
            let is_new = index.records.insert(short(&key), number).is_none();
            if checksum(&key, tokens, &record[PREFIX_BYTES..]) != written || !is_new {
                return Err(EmbeddingFileError::Damaged { path: self.path.clone(), record: number });
            }
        }
        Ok(())
    }
}

/// Embeddings in a file, which the system reads from the disk as they are asked for and drops as memory is needed.
#[derive(Debug)]
pub struct MappedEmbeddings {
    map: Mmap,
    dim: usize,
    count: u32,
    /// Nobody else writes the file while it is mapped.
    _locked: File,
}

impl MappedEmbeddings {
    /// Embeddings there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Width of an embedding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// An embedding, in place.
    ///
    /// # Panics
    /// If there is no such record.
    pub fn row(&self, record: u32) -> &[f32] {
        bytemuck::cast_slice(&self.record(record)[PREFIX_BYTES..])
    }

    /// Whether the text of an embedding was cut to the window.
    ///
    /// # Panics
    /// If there is no such record.
    pub fn is_truncated(&self, record: u32) -> bool {
        let tokens = &self.record(record)[32..36];
        u32::from_le_bytes(tokens.try_into().expect("four bytes")) & TRUNCATED != 0
    }

    fn record(&self, record: u32) -> &[u8] {
        assert!(record < self.count, "record {record} of {}", self.count);
        let bytes = record_bytes(self.dim);
        &self.map[HEADER_BYTES + record as usize * bytes..][..bytes]
    }
}

// Embeddings are read where they lie, header and records keep them at multiples of four bytes.
const _: () = assert!(
    cfg!(target_endian = "little") && HEADER_BYTES.is_multiple_of(4) && PREFIX_BYTES.is_multiple_of(4)
);

#[expect(unsafe_code, reason = "a map is only as constant as its file")]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the file is locked, so no other run of ours changes it, and this one has finished with it.
    unsafe { Mmap::map(file) }
}

fn record_bytes(dim: usize) -> usize {
    PREFIX_BYTES + 4 * dim
}

fn key_of(info: &BackboneInfo, input: &EmbedInput) -> Key {
    keys_of(&info.hash, Overflow::Truncate, std::slice::from_ref(input))[0]
}

fn short(key: &Key) -> u128 {
    u128::from_le_bytes(key[..16].try_into().expect("a key has 32 bytes"))
}

fn checksum(key: &Key, tokens: u32, values: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&tokens.to_le_bytes());
    hasher.update(values);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use polyreward_domain::{Prompt, TextForm};

    use super::*;
    use crate::folder::{InputShape, Pooling};

    fn info(hash: &str) -> BackboneInfo {
        BackboneInfo {
            name: "fake".into(),
            hash: hash.into(),
            dim: 3,
            max_tokens: 8,
            precision: None,
            input: InputShape::Pair,
            pooling: Pooling::Mean,
            licence: None,
            source: None,
        }
    }

    fn text(response: &str) -> EmbedInput {
        EmbedInput {
            form: TextForm::Response,
            prompt: Arc::new(Prompt::default()),
            response: response.into(),
        }
    }

    fn embedded(at: usize) -> Embedded {
        let embedding = Arc::from([at as f32, 0.5, -1.0 / (at as f32 + 3.0)]);
        Embedded { embedding, tokens: at, truncated: at == 1, cached: false }
    }

    /// A file with so many texts, `text 0` and so on.
    fn written(path: &Path, texts: usize) {
        let info = info(&"ab".repeat(32));
        let (mut file, mut index) = EmbeddingFile::open(path, &info).unwrap();
        for at in index.len()..texts {
            let input = text(&format!("text {at}"));
            assert_eq!(index.record(&info, &input), (at as u32, true));
            assert_eq!(file.push(&input, &embedded(at)).unwrap(), at as u32);
        }
        file.commit().unwrap();
    }

    fn reopen(path: &Path) -> Result<(EmbeddingFile, EmbeddingIndex), EmbeddingFileError> {
        EmbeddingFile::open(path, &info(&"ab".repeat(32)))
    }

    #[test]
    fn what_was_written_is_read_back_bit_for_bit_and_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.embeddings");
        written(&path, 3);
        written(&path, 5);
        let (file, mut index) = reopen(&path).unwrap();
        assert_eq!(index.record(&info(&"ab".repeat(32)), &text("text 4")), (4, false));
        assert_eq!(index.record(&info(&"ab".repeat(32)), &text("new")), (5, true));
        assert_eq!(index.record(&info(&"ab".repeat(32)), &text("new")), (5, false));
        let mapped = file.into_mapped().unwrap();
        assert_eq!((mapped.len(), mapped.dim()), (5, 3));
        for at in 0..5 {
            assert_eq!(mapped.row(at), &*embedded(at as usize).embedding);
            assert_eq!(mapped.is_truncated(at), at == 1);
        }
    }

    #[test]
    fn what_a_killed_run_left_unfinished_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.embeddings");
        written(&path, 3);
        let whole = fs::read(&path).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&whole[HEADER_BYTES..HEADER_BYTES + record_bytes(3) + 7]).unwrap();
        drop(file);
        let (file, index) = reopen(&path).unwrap();
        assert_eq!(index.len(), 3);
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn a_file_that_is_cut_damaged_or_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.embeddings");
        written(&path, 3);
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = reopen(&path).unwrap_err();
            assert_eq!(fs::read(&path).unwrap(), bytes, "a refused file is changed: {error}");
            error
        };
        let cut = refused(&whole[..whole.len() - 1]);
        assert!(matches!(cut, EmbeddingFileError::Truncated { actual, .. } if actual == 128 + 3 * 52 - 1));
        assert!(matches!(refused(&whole[..100]), EmbeddingFileError::Truncated { .. }));
        assert!(matches!(refused(b"{\"user_id\": 1}"), EmbeddingFileError::Foreign { .. }));
        let mut flipped = whole.clone();
        flipped[HEADER_BYTES + record_bytes(3) + PREFIX_BYTES] ^= 1;
        assert!(matches!(refused(&flipped), EmbeddingFileError::Damaged { record: 1, .. }));
        fs::write(&path, &whole).unwrap();
        let other = EmbeddingFile::open(&path, &info(&"cd".repeat(32))).unwrap_err();
        assert!(matches!(other, EmbeddingFileError::OtherBackbone { .. }));
        let (_open, _) = reopen(&path).unwrap();
        assert!(matches!(reopen(&path).unwrap_err(), EmbeddingFileError::Busy { .. }));
    }
}
