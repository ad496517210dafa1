//! What the tests of this crate share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyreward_backbone::{Backbone, BackboneOptions, EmbedInput, Embedded};
use polyreward_domain::{Overflow, Prompt, TextForm};
use serde::Deserialize;

/// The folder with the small backbones.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// ONNX Runtime's library. A test without it fails: a skipped test looks like a passed one.
pub fn library() -> PathBuf {
    let path = std::env::var_os("ORT_DYLIB_PATH");
    path.expect("ORT_DYLIB_PATH must name libonnxruntime; `make test` sets it").into()
}

/// The folder of a backbone that `make setup` built.
pub fn cached_backbone(name: &str) -> PathBuf {
    let cache = std::env::var_os("POLYREWARD_CACHE");
    let cache = PathBuf::from(cache.expect("POLYREWARD_CACHE must name the cache; `make test` sets it"));
    let folder = cache.join("backbones").join(name);
    assert!(folder.is_dir(), "{} is missing; `make test` builds it", folder.display());
    folder
}

pub fn options(sessions: usize) -> BackboneOptions {
    BackboneOptions { sessions, cache_bytes: 0, library: Some(library()), ..BackboneOptions::default() }
}

pub fn open(folder: &Path, options: &BackboneOptions) -> Backbone {
    Backbone::open(folder, options).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

/// A golden file of `tools/make_test_backbones.py`.
#[derive(Debug, Deserialize)]
pub struct Golden {
    pub items: Vec<GoldenItem>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct GoldenItem {
    pub prompt: Prompt,
    pub response: String,
    pub token_ids: Vec<u32>,
    pub truncated: bool,
    pub embedding: Vec<f32>,
}

impl GoldenItem {
    pub fn input(&self) -> EmbedInput {
        EmbedInput {
            form: TextForm::PromptResponse,
            prompt: Arc::new(self.prompt.clone()),
            response: self.response.as_str().into(),
        }
    }
}

pub fn golden(file: &str) -> Vec<GoldenItem> {
    let text = std::fs::read_to_string(fixtures().join(file)).unwrap();
    serde_json::from_str::<Golden>(&text).unwrap().items
}

pub async fn embed(backbone: &Backbone, items: &[GoldenItem]) -> Vec<Embedded> {
    let inputs = items.iter().map(GoldenItem::input).collect();
    let results = backbone.embed(inputs, Overflow::Truncate, None).await.unwrap();
    results.into_iter().map(Result::unwrap).collect()
}

pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
