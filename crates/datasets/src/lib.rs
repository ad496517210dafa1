//! Files of comparisons, in each format polyreward reads, as domain types.
//!
//! [`open`] reads any [`Format`] as a stream of [`Row`]s: a bad one is named by its number, keeps its text for a rejects
//! file, and never ends the reading. [`open_jsonl`] reads our own format, where what to do with a bad line is the
//! caller's choice.

mod community_alignment;
mod container;
mod csv;
mod format;
mod hh;
mod jsonl;
mod lines;
mod parquet;
mod prism;
mod reader;
mod row;

pub use format::{Format, UnknownFormat};
pub use jsonl::{JsonlReader, describe, open_jsonl};
pub use lines::{Lines, ReadError, open_lines};
pub use reader::{Options, Reader, open};
pub use row::{Names, Rejected, Row, Skip, Summary};
