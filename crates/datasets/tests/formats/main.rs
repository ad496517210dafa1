//! Each format in each container, good and bad, on texts of our own.

mod arbitrary;
mod community_alignment;
mod containers;
mod hh;
mod jsonl;
mod prism;
mod support;
