//! Embeddings that were computed before, bounded by their bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;
use polyreward_domain::{Prompt, TextForm};
use sha2::{Digest, Sha256};

use crate::metrics;
use crate::tokenize::EmbedInput;

/// Key, bookkeeping and allocation of an entry, beside its floats.
const ENTRY_OVERHEAD_BYTES: u64 = 192;

/// Names a text under a backbone.
pub(crate) type Key = [u8; 32];

/// What is known of a text once it was encoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Encoded {
    pub embedding: Arc<[f32]>,
    pub tokens: usize,
    pub full_tokens: usize,
    pub truncated: bool,
}

/// How full the cache is and how often it helped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Embeddings held.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes that may be held.
    pub max_bytes: u64,
    /// Texts answered from the cache since the backbone was opened.
    pub hits: u64,
    /// Texts that had to be encoded since the backbone was opened.
    pub misses: u64,
}

#[derive(Debug)]
pub(crate) struct EmbeddingCache {
    entries: Cache<Key, Encoded>,
    max_bytes: u64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl EmbeddingCache {
    pub fn new(max_bytes: u64) -> Self {
        let weigh = |_: &Key, encoded: &Encoded| {
            let bytes = 4 * encoded.embedding.len() as u64 + ENTRY_OVERHEAD_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder().max_capacity(max_bytes).weigher(weigh).build();
        Self { entries, max_bytes, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// Looks one text up, without counting.
    pub fn get(&self, key: &Key) -> Option<Encoded> {
        self.entries.get(key)
    }

    pub fn insert(&self, key: Key, encoded: Encoded) {
        self.entries.insert(key, encoded);
    }

    pub fn count_lookups(&self, hits: u64, misses: u64) {
        self.hits.fetch_add(hits, Ordering::Relaxed);
        self.misses.fetch_add(misses, Ordering::Relaxed);
        metrics::cache_lookups(hits, misses);
    }

    pub fn stats(&self) -> CacheStats {
        self.entries.run_pending_tasks();
        CacheStats {
            entries: self.entries.entry_count(),
            bytes: self.entries.weighted_size(),
            max_bytes: self.max_bytes,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}

/// The key of a text: every part with its length, so that no two texts run together alike.
pub(crate) fn key_of(backbone: &str, input: &EmbedInput) -> Key {
    let mut hasher = Sha256::new();
    let mut part = |text: &str| {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    };
    part(backbone);
    part(match input.form {
        TextForm::PromptResponse => "prompt_response",
        TextForm::Prompt => "prompt",
        TextForm::Response => "response",
    });
    if input.form != TextForm::Response {
        match &*input.prompt {
            Prompt::Text(text) => {
                part("text");
                part(text);
            }
            Prompt::Chat(messages) => {
                part("chat");
                part(&messages.len().to_string());
                for message in messages {
                    part(&message.role);
                    part(&message.content);
                }
            }
        }
    }
    if input.form != TextForm::Prompt {
        part(&input.response);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(form: TextForm, prompt: &str, response: &str) -> EmbedInput {
        EmbedInput { form, prompt: Arc::new(Prompt::Text(prompt.into())), response: response.into() }
    }

    #[test]
    fn a_key_depends_on_what_is_read_and_on_nothing_else() {
        let base = key_of("a", &input(TextForm::PromptResponse, "p", "r"));
        assert_eq!(key_of("a", &input(TextForm::PromptResponse, "p", "r")), base);
        assert_ne!(key_of("b", &input(TextForm::PromptResponse, "p", "r")), base);
        assert_ne!(key_of("a", &input(TextForm::PromptResponse, "pr", "")), base);
        let prompt = key_of("a", &input(TextForm::Prompt, "p", "r"));
        assert_eq!(key_of("a", &input(TextForm::Prompt, "p", "other")), prompt);
        assert_ne!(key_of("a", &input(TextForm::Response, "p", "p")), prompt);
    }

    #[test]
    fn the_cache_stays_within_its_bytes() {
        let cache = EmbeddingCache::new(10_000);
        let encoded =
            Encoded { embedding: vec![0.0; 100].into(), tokens: 1, full_tokens: 1, truncated: false };
        for number in 0..100_u8 {
            cache.insert([number; 32], encoded.clone());
        }
        let stats = cache.stats();
        assert!(stats.bytes <= 10_000 && stats.entries > 0, "{stats:?}");
        assert_eq!(EmbeddingCache::new(0).get(&[0; 32]), None);
    }
}
