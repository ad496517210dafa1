//! Whole stories with the real binary, the real ONNX Runtime and a small real encoder.

mod bad_input;
mod client;
mod database;
mod faults;
mod files;
mod import;
mod keys;
mod killed;
mod people;
mod proxy;
mod replicas;
mod serving;
mod shared_cache;
mod support;
