//! Text to embedding: chat template, tokenizer, queue, batcher, ONNX Runtime session.
//!
//! A [`Backbone`] is a folder ([`BackboneFolder`]) with a frozen encoder. [`Backbone::embed`] takes prompts and
//! responses and gives one vector each. On the way a text is looked up in a cache of embeddings, in memory and then,
//! where there is one, in a [`SharedCache`]; if it is new it takes a place in a bounded queue or is refused at once; a tokenizer thread makes tokens of it and cuts
//! it to the window; the next free worker takes it along in a batch of texts of about its length. Nothing
//! waits for a timer. A text whose caller has left, or whose deadline has passed, is dropped before it runs.
//!
//! # How text is put together
//!
//! `input` in `backbone.json` says how ([`InputShape`]):
//!
//! - `pair`: prompt and response are two segments, joined by the tokenizer's own post-processor. A prompt or a
//!   response alone is one segment.
//! - `concat`: the prompt, a newline, the response, as one text.
//! - `chat`: the folder's chat template writes the conversation, without a generation prompt. A prompt that is
//!   a string is one user turn, the response an assistant turn; a response alone is its turn alone. The
//!   tokenizer's special tokens are added unless the template already wrote the one that opens a text.
//!
//! A chat prompt for `pair` and `concat` becomes one line a message, `role: content`.
//!
//! # What is cut
//!
//! A text longer than `max_tokens` loses tokens from the start of the prompt first, then from the start of the
//! response. Special tokens stay, and so does what the chat template wrote around the contents; if that alone
//! is too long, the earliest turns go. Very long texts are cut by bytes before they are tokenized, far outside
//! the window.

mod backbone;
pub mod batch;
mod cache;
mod embedding_file;
mod error;
mod folder;
pub mod metrics;
mod queue;
mod runtime;
mod session;
mod shared_cache;
mod template;
mod tokenize;
mod worker;

pub use backbone::{Backbone, BackboneInfo, BackboneOptions, Embedded};
pub use cache::{CacheStats, Key as CacheKey};
pub use embedding_file::{EmbeddingFile, EmbeddingFileError, EmbeddingIndex, MappedEmbeddings};
pub use error::{BackboneError, InputError};
pub use folder::{BackboneConfig, BackboneFolder, InputShape, PaddingSide, Pooling};
pub use runtime::{environment, library_version};
pub use session::session_builder;
pub use shared_cache::SharedCache;
pub use tokenize::{EmbedInput, TokenizedText};
