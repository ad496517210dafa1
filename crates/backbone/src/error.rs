//! What can go wrong, sorted by whose fault it is.

use std::path::PathBuf;
use std::time::Duration;

/// Why a backbone cannot be opened, or cannot answer a request.
#[derive(Debug, thiserror::Error)]
pub enum BackboneError {
    /// A file of the backbone folder cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the backbone folder is larger than is read.
    #[error("{} has {size} bytes, more than the {max} allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// A file is not the one that `backbone.json` describes.
    #[error("{} has SHA-256 {actual}, but backbone.json says {expected}", path.display())]
    HashMismatch {
        /// The file.
        path: PathBuf,
        /// The hash in `backbone.json`.
        expected: String,
        /// The hash of the file.
        actual: String,
    },
    /// `backbone.json`, the tokenizer or the template cannot be used.
    #[error("{} is not usable: {detail}", path.display())]
    BadConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// ONNX Runtime's shared library cannot be used.
    #[error("ONNX Runtime is not usable: {detail}; {hint}", hint = LIBRARY_HINT)]
    Library {
        /// What is wrong with it.
        detail: String,
    },
    /// ONNX Runtime refuses the model, or the model does not do what `backbone.json` says.
    #[error("the model cannot be used: {0}")]
    Session(String),
    /// The queue is full; the same request may succeed later.
    #[error("too many texts are waiting; retry in {} s", retry_after.as_secs())]
    Overloaded {
        /// When there should be room.
        retry_after: Duration,
    },
    /// One request has more texts than the queue has places, so it can never be taken.
    #[error("{texts} texts in one request, more than the {max} that can wait at once")]
    TooManyTexts {
        /// Different texts in the request that are not cached.
        texts: usize,
        /// Places in the queue.
        max: usize,
    },
    /// The deadline passed before every text was encoded.
    #[error("the deadline passed before every text was encoded")]
    DeadlineExceeded,
    /// The backbone was shut down, or no worker is left.
    #[error("the backbone has stopped")]
    Stopped,
    /// The model failed on these texts.
    #[error("the model failed: {0}")]
    Inference(String),
}

const LIBRARY_HINT: &str = "name libonnxruntime in the configuration or in ORT_DYLIB_PATH";

/// What is wrong with one input; the others are not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Longer than the window, and the request wants that to be an error. For a text so long that it is not
    /// read to its start, `tokens` is a lower bound. Also when a chat does not fit without its contents.
    #[error("has {tokens} tokens, more than the {max_tokens} of the backbone's window")]
    TooLong {
        /// Length with special tokens.
        tokens: usize,
        /// The window.
        max_tokens: usize,
    },
    /// To be cut to fewer tokens than its special tokens, or the template's own, take.
    #[error("cannot be cut to {0} tokens, which leave no room for it")]
    NoRoom(usize),
    /// Ids that the backbone's tokenizer does not have.
    #[error("has the id {id} at {at}, which the backbone's vocabulary does not have")]
    UnknownToken {
        /// Position among the ids.
        at: usize,
        /// The id.
        id: u32,
    },
    /// The model gave NaN or infinity.
    #[error("has an embedding that is not finite")]
    NotFinite,
    /// The chat template refuses the messages. The reason never quotes them.
    #[error("is refused by the backbone's chat template: {0}")]
    Template(String),
    /// The tokenizer has no tokens for this text.
    #[error("cannot be tokenized")]
    Tokenizer,
}
