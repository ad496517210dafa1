//! Files of comparisons, in each format polyreward reads, as domain types.
//!
//! A bad line is an error that names its file, line and field; what to do with it is the caller's choice.

mod jsonl;
mod lines;

pub use jsonl::{JsonlReader, describe, open_jsonl};
pub use lines::{Lines, ReadError, open_lines};
