//! A backbone folder: `backbone.json`, `model.onnx`, `tokenizer.json` and, for chat input,
//! `chat_template.jinja`. Nothing outside the folder is read, nothing before its size is known.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::BackboneError;

/// The description of the folder.
pub const CONFIG_FILE: &str = "backbone.json";
/// The encoder; its weights are inside.
pub const MODEL_FILE: &str = "model.onnx";
/// A Hugging Face tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// A Hugging Face chat template, for [`InputShape::Chat`].
pub const TEMPLATE_FILE: &str = "chat_template.jinja";

const MAX_CONFIG_BYTES: u64 = 64 << 10;
/// A protobuf message cannot be longer.
const MAX_MODEL_BYTES: u64 = 2 << 30;
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;
const MAX_DIM: usize = 65_536;
const MAX_WINDOW: usize = 1 << 20;
const FORMAT: u32 = 1;

/// How prompt and response become tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputShape {
    /// Two segments, joined by the tokenizer's own post-processor.
    Pair,
    /// One text: prompt, newline, response.
    Concat,
    /// A conversation, written by the backbone's chat template.
    Chat,
}

/// What becomes of the model's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The output is already one row a text, `[B, D]`.
    None,
    /// The mean over the tokens of `[B, S, D]`.
    Mean,
    /// The first token of `[B, S, D]`.
    Cls,
    /// The last token of `[B, S, D]`.
    Last,
}

/// Where a shorter text of a batch is filled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaddingSide {
    /// Before the text.
    Left,
    /// After the text.
    Right,
}

/// `backbone.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneConfig {
    /// The version of this format: 1.
    pub format: u32,
    /// What people call the backbone.
    pub name: String,
    /// Width of an embedding.
    pub dim: usize,
    /// The window: tokens of one text, special tokens included.
    pub max_tokens: usize,
    /// What becomes of the model's output.
    pub pooling: Pooling,
    /// How prompt and response become tokens.
    pub input: InputShape,
    /// Where a shorter text of a batch is filled up.
    pub padding_side: PaddingSide,
    /// Name of the model's output.
    pub output: String,
    /// SHA-256 of `model.onnx`, in hexadecimal.
    pub sha256: String,
    /// SHA-256 of `tokenizer.json`, in hexadecimal.
    pub tokenizer_sha256: String,
    /// SHA-256 of `chat_template.jinja`, in hexadecimal.
    #[serde(default)]
    pub chat_template_sha256: Option<String>,
    /// What a chat template reads as `bos_token`.
    #[serde(default)]
    pub bos_token: Option<String>,
    /// What a chat template reads as `eos_token`.
    #[serde(default)]
    pub eos_token: Option<String>,
    /// How the weights are stored, such as `fp32` or `int8_row`.
    #[serde(default)]
    pub precision: Option<String>,
    /// Licence of the weights.
    #[serde(default)]
    pub licence: Option<String>,
    /// Where the weights come from.
    #[serde(default)]
    pub source: Option<String>,
}

/// A folder whose description was read and checked; the large files are read when they are asked for.
#[derive(Debug, Clone)]
pub struct BackboneFolder {
    root: PathBuf,
    config: BackboneConfig,
}

impl BackboneFolder {
    /// Reads and checks `backbone.json`.
    ///
    /// # Errors
    /// The file is missing, too large or says something impossible.
    pub fn open(dir: &Path) -> Result<Self, BackboneError> {
        let root = dir.canonicalize().map_err(|source| BackboneError::File { path: dir.into(), source })?;
        let bytes = read_inside(&root, CONFIG_FILE, MAX_CONFIG_BYTES)?;
        let bad = |detail: String| BackboneError::BadConfig { path: root.join(CONFIG_FILE), detail };
        let config: BackboneConfig =
            serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        check(&config).map_err(bad)?;
        Ok(Self { root, config })
    }

    /// What `backbone.json` says.
    pub fn config(&self) -> &BackboneConfig {
        &self.config
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The bytes of `model.onnx`.
    ///
    /// # Errors
    /// The file is missing, too large or not the one that was described.
    pub fn read_model(&self) -> Result<Vec<u8>, BackboneError> {
        self.read_described(MODEL_FILE, MAX_MODEL_BYTES, &self.config.sha256)
    }

    /// The bytes of `tokenizer.json`.
    ///
    /// # Errors
    /// The file is missing, too large or not the one that was described.
    pub fn read_tokenizer(&self) -> Result<Vec<u8>, BackboneError> {
        self.read_described(TOKENIZER_FILE, MAX_TOKENIZER_BYTES, &self.config.tokenizer_sha256)
    }

    /// The chat template, where the input is a chat.
    ///
    /// # Errors
    /// The file is missing, too large, not UTF-8 or not the one that was described.
    pub fn read_template(&self) -> Result<Option<String>, BackboneError> {
        if self.config.input != InputShape::Chat {
            return Ok(None);
        }
        let bytes = match &self.config.chat_template_sha256 {
            Some(expected) => self.read_described(TEMPLATE_FILE, MAX_TEMPLATE_BYTES, expected)?,
            None => read_inside(&self.root, TEMPLATE_FILE, MAX_TEMPLATE_BYTES)?,
        };
        let text = String::from_utf8(bytes).map_err(|error| self.bad(TEMPLATE_FILE, error.to_string()))?;
        Ok(Some(text))
    }

    /// SHA-256, in hexadecimal, of everything that changes an embedding: the model, the tokenizer, the
    /// template and the settings around them. Name, licence and source do not.
    pub fn hash(&self, template: Option<&str>) -> String {
        let config = &self.config;
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let parts = [
            "polyreward-backbone-1".to_owned(),
            config.sha256.clone(),
            config.tokenizer_sha256.clone(),
            template.map(|template| hex(&Sha256::digest(template))).unwrap_or_default(),
            text(&config.bos_token),
            text(&config.eos_token),
            config.output.clone(),
            format!("{} {}", config.dim, config.max_tokens),
            format!("{:?} {:?} {:?}", config.pooling, config.input, config.padding_side),
        ];
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hex(&hasher.finalize())
    }

    /// That a file of the folder cannot be used.
    pub(crate) fn bad(&self, file: &str, detail: String) -> BackboneError {
        BackboneError::BadConfig { path: self.root.join(file), detail }
    }

    fn read_described(&self, file: &str, max: u64, expected: &str) -> Result<Vec<u8>, BackboneError> {
        let bytes = read_inside(&self.root, file, max)?;
        let actual = hex(&Sha256::digest(&bytes));
        if actual != *expected {
            let (path, expected) = (self.root.join(file), expected.to_owned());
            return Err(BackboneError::HashMismatch { path, expected, actual });
        }
        Ok(bytes)
    }
}

/// Reads a file that really lies in `root`, once its size is known to be allowed.
fn read_inside(root: &Path, file: &str, max: u64) -> Result<Vec<u8>, BackboneError> {
    let path = root.join(file);
    let failed = |source| BackboneError::File { path: path.clone(), source };
    let real = path.canonicalize().map_err(failed)?;
    if !real.starts_with(root) {
        let detail = "it lies outside the backbone's folder".into();
        return Err(BackboneError::BadConfig { path, detail });
    }
    let handle = File::open(&real).map_err(failed)?;
    let metadata = handle.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(BackboneError::BadConfig { path, detail: "it is not a file".into() });
    }
    let size = metadata.len();
    if size > max {
        return Err(BackboneError::TooLarge { path, size, max });
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // A file that grows meanwhile is not followed.
    handle.take(max).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn check(config: &BackboneConfig) -> Result<(), String> {
    if config.format != FORMAT {
        return Err(format!("`format` is {}, this version reads {FORMAT}", config.format));
    }
    if config.name.is_empty() || config.name.len() > 128 || config.name.chars().any(char::is_control) {
        return Err("`name` must have 1 to 128 bytes and no control characters".into());
    }
    if !(1..=MAX_DIM).contains(&config.dim) {
        return Err(format!("`dim` must be 1 to {MAX_DIM}"));
    }
    if !(1..=MAX_WINDOW).contains(&config.max_tokens) {
        return Err(format!("`max_tokens` must be 1 to {MAX_WINDOW}"));
    }
    let hashes = [
        ("sha256", Some(&config.sha256)),
        ("tokenizer_sha256", Some(&config.tokenizer_sha256)),
        ("chat_template_sha256", config.chat_template_sha256.as_ref()),
    ];
    for (field, hash) in hashes {
        if hash.is_some_and(|hash| !is_sha256(hash)) {
            return Err(format!("`{field}` must be 64 lower-case hexadecimal digits"));
        }
    }
    Ok(())
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BackboneConfig {
        serde_json::from_value(serde_json::json!({
            "format": 1, "name": "tiny", "dim": 8, "max_tokens": 32, "pooling": "mean", "input": "pair",
            "padding_side": "right", "output": "hidden", "sha256": "0".repeat(64),
            "tokenizer_sha256": "1".repeat(64),
        }))
        .unwrap()
    }

    #[test]
    fn the_hash_follows_what_changes_an_embedding_and_nothing_else() {
        let folder = |config| BackboneFolder { root: PathBuf::new(), config };
        let base = folder(config()).hash(None);
        assert_eq!(base.len(), 64);
        let named = BackboneConfig { name: "other".into(), licence: Some("MIT".into()), ..config() };
        assert_eq!(folder(named).hash(None), base);
        let changes = [
            BackboneConfig { sha256: "2".repeat(64), ..config() },
            BackboneConfig { tokenizer_sha256: "2".repeat(64), ..config() },
            BackboneConfig { max_tokens: 33, ..config() },
            BackboneConfig { pooling: Pooling::Cls, ..config() },
            BackboneConfig { input: InputShape::Concat, ..config() },
            BackboneConfig { padding_side: PaddingSide::Left, ..config() },
            BackboneConfig { bos_token: Some("<s>".into()), ..config() },
        ];
        for changed in changes {
            assert_ne!(folder(changed).hash(None), base);
        }
        assert_ne!(folder(config()).hash(Some("{{ messages }}")), base);
    }

    #[test]
    fn impossible_descriptions_are_refused() {
        let cases = [
            (BackboneConfig { format: 2, ..config() }, "format"),
            (BackboneConfig { name: String::new(), ..config() }, "name"),
            (BackboneConfig { dim: 0, ..config() }, "dim"),
            (BackboneConfig { max_tokens: 0, ..config() }, "max_tokens"),
            (BackboneConfig { sha256: "xyz".into(), ..config() }, "sha256"),
            (BackboneConfig { tokenizer_sha256: "A".repeat(64), ..config() }, "tokenizer_sha256"),
        ];
        for (config, field) in cases {
            assert!(check(&config).unwrap_err().contains(field));
        }
        assert_eq!(check(&config()), Ok(()));
    }
}
