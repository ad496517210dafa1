//! Other servers' wire formats, one file a server. Each ends in the one [`ScoreQuery`](polyreward_service::ScoreQuery) of the
//! service and holds no scoring of its own; `docs/compatibility.md` is the table of all of them.
//!
//! What they share: [`parameters`] (model, person and group from the query string), [`ask`] (texts in, rewards out), [`text`]
//! (fields that hold texts), [`template`] (text that a chat template has written, taken apart), [`keys`] (whose body is it), [`openai`] (what many of their answers have).

mod ask;
pub(crate) mod classify;
mod infinity;
mod keys;
pub(crate) mod nim;
mod openai;
pub(crate) mod openrlhf;
mod parameters;
pub(crate) mod rerank;
pub(crate) mod sglang;
pub(crate) mod slime;
pub(crate) mod tei;
mod template;
mod text;
pub(crate) mod vllm;

pub(crate) use self::{ask::Asking, keys::Keys, parameters::CompatParams};
