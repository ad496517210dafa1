//! Whole stories with the real binary, the real ONNX Runtime and a small real encoder.

mod bad_input;
mod files;
mod import;
mod serving;
mod support;
