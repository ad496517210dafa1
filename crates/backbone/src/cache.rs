//! Embeddings that were computed before: in memory, bounded by their bytes, and where processes share them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;
use polyreward_domain::{Overflow, Prompt, TextForm};
use sha2::{Digest, Sha256};

use crate::metrics;
use crate::shared_cache::{SharedCache, decode, encode, encoded_bytes};
use crate::tokenize::EmbedInput;

/// Key, bookkeeping and allocation of an entry, beside its floats.
const ENTRY_OVERHEAD_BYTES: u64 = 192;

/// Names a text under a backbone: what `Keys` hashes, so neither memory nor a log ever holds the text itself.
pub type Key = [u8; 32];

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
    /// Texts answered from memory since the backbone was opened.
    pub hits: u64,
    /// Texts that were not in memory since the backbone was opened.
    pub misses: u64,
}

#[derive(Debug)]
pub(crate) struct EmbeddingCache {
    entries: Cache<Key, Encoded>,
    max_bytes: u64,
    hits: AtomicU64,
    misses: AtomicU64,
    second: Option<Arc<dyn SharedCache>>,
}

impl EmbeddingCache {
    pub fn new(max_bytes: u64, second: Option<Arc<dyn SharedCache>>) -> Self {
        let weigh = |_: &Key, encoded: &Encoded| {
            let bytes = 4 * encoded.embedding.len() as u64 + ENTRY_OVERHEAD_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder().max_capacity(max_bytes).weigher(weigh).build();
        Self { entries, max_bytes, hits: AtomicU64::new(0), misses: AtomicU64::new(0), second }
    }

    /// Looks one text up in memory, without counting.
    pub fn get(&self, key: &Key) -> Option<Encoded> {
        self.entries.get(key)
    }

    /// Takes over what was just encoded, on both levels.
    pub fn insert(&self, key: Key, encoded: Encoded) {
        if let Some(second) = &self.second {
            second.put(key, encode(&key, &encoded));
        }
        self.entries.insert(key, encoded);
    }

    /// Removes texts from both levels.
    pub fn remove(&self, keys: Vec<Key>) {
        for key in &keys {
            self.entries.invalidate(key);
        }
        if let Some(second) = &self.second {
            second.remove(keys);
        }
    }

    /// Whether processes share a second level.
    pub fn has_second(&self) -> bool {
        self.second.is_some()
    }

    /// Looks texts up on the second level, and takes what is there into memory. `dim` is the length of an embedding; a value
    /// that is none of its text's is passed over.
    pub async fn get_second(&self, keys: &[Key], dim: usize) -> Vec<Option<Encoded>> {
        let Some(second) = &self.second else { return vec![None; keys.len()] };
        let (mut hits, mut invalid) = (0, 0);
        let mut found = vec![None; keys.len()];
        let values = second.get(keys, encoded_bytes(dim)).await;
        for ((key, value), slot) in keys.iter().zip(values).zip(&mut found) {
            let Some(value) = value else { continue };
            match decode(key, &value, dim) {
                Some(encoded) => {
                    hits += 1;
                    self.entries.insert(*key, encoded.clone());
                    *slot = Some(encoded);
                }
                None => invalid += 1,
            }
        }
        metrics::shared_cache_lookups(hits, keys.len() as u64 - hits, invalid);
        found
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

/// Makes the keys of one call's texts; a prompt that many of them share is hashed once.
pub(crate) struct Keys<'a> {
    backbone: &'a str,
    overflow: Overflow,
    /// Digests by the place of the prompt, which stays alive as long as the call's inputs do.
    prompts: HashMap<*const Prompt, Key>,
}

impl<'a> Keys<'a> {
    /// `backbone` is the hash of everything that changes an embedding.
    pub fn of(backbone: &'a str, overflow: Overflow) -> Self {
        Self { backbone, overflow, prompts: HashMap::new() }
    }

    /// SHA-256 over the backbone, the form and what the form reads: the prompt's own digest, the response; and what it is
    /// cut to, where that is not the window. Every part comes with its length, so that no two texts run together alike.
    pub fn key(&mut self, input: &EmbedInput) -> Key {
        let mut parts = Parts::default();
        parts.add(self.backbone.as_bytes());
        parts.add(match input.form {
            TextForm::PromptResponse => b"prompt_response",
            TextForm::Prompt => b"prompt",
            TextForm::Response => b"response",
        });
        if reads_prompt(input) {
            let digest =
                self.prompts.entry(Arc::as_ptr(&input.prompt)).or_insert_with(|| digest(&input.prompt));
            parts.add(digest);
        }
        if input.form != TextForm::Prompt {
            parts.add(input.response.as_bytes());
        }
        if let Overflow::TruncateTo(tokens) = self.overflow {
            parts.add(b"truncate_to");
            parts.add(&(tokens as u64).to_le_bytes());
        }
        parts.finish()
    }
}

/// The keys of all inputs, in their order.
pub(crate) fn keys_of(backbone: &str, overflow: Overflow, inputs: &[EmbedInput]) -> Vec<Key> {
    let mut keys = Keys::of(backbone, overflow);
    inputs.iter().map(|input| keys.key(input)).collect()
}

/// Ids are a whole text, and what a response's form reads of it.
fn reads_prompt(input: &EmbedInput) -> bool {
    input.form != TextForm::Response || matches!(*input.prompt, Prompt::Tokens(_))
}

/// Whether [`keys_of`] reads more than `bytes` of these inputs.
pub(crate) fn reads_more_than(bytes: usize, inputs: &[EmbedInput]) -> bool {
    let mut prompts = HashSet::new();
    let mut left = bytes;
    let mut read = |size: usize| {
        let room = left.checked_sub(size);
        left = room.unwrap_or(0);
        room.is_none()
    };
    inputs.iter().any(|input| {
        let prompt_is_new = reads_prompt(input) && prompts.insert(Arc::as_ptr(&input.prompt));
        let mut more = input.form != TextForm::Prompt && read(input.response.len());
        if prompt_is_new {
            more |= match &*input.prompt {
                Prompt::Text(text) | Prompt::Raw(text) => read(text.len()),
                Prompt::Tokens(ids) => read(size_of_val(ids.as_slice())),
                Prompt::Chat(messages) => {
                    messages.iter().any(|message| read(message.role.len() + message.content.len() + 2 * 8))
                }
            };
        }
        more
    })
}

fn digest(prompt: &Prompt) -> Key {
    let mut parts = Parts::default();
    match prompt {
        Prompt::Text(text) => {
            parts.add(b"text");
            parts.add(text.as_bytes());
        }
        Prompt::Raw(text) => {
            parts.add(b"raw");
            parts.add(text.as_bytes());
        }
        Prompt::Tokens(ids) => {
            parts.add(b"tokens");
            parts.add(&ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
        }
        Prompt::Chat(messages) => {
            parts.add(b"chat");
            for message in messages {
                parts.add(message.role.as_bytes());
                parts.add(message.content.as_bytes());
            }
        }
    }
    parts.finish()
}

/// A hash over parts, each behind its length.
#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn finish(self) -> Key {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use polyreward_domain::Message;

    use super::*;

    fn key_of(backbone: &str, input: &EmbedInput) -> Key {
        Keys::of(backbone, Overflow::Truncate).key(input)
    }

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
    fn ids_and_what_is_cut_to_fewer_tokens_have_keys_of_their_own() {
        let text = input(TextForm::PromptResponse, "", "p");
        let ids = |ids: &[u32]| {
            key_of("a", &EmbedInput { prompt: Arc::new(Prompt::Tokens(ids.to_vec())), ..text.clone() })
        };
        let under = |overflow| Keys::of("a", overflow).key(&text);
        let keys = [
            ids(&[1, 2]),
            ids(&[2, 1]),
            ids(&[1 | 2 << 8]),
            key_of(
                "a",
                &EmbedInput {
                    form: TextForm::Response,
                    prompt: Arc::new(Prompt::Tokens(vec![1, 2])),
                    ..text.clone()
                },
            ),
            key_of(
                "a",
                &EmbedInput {
                    form: TextForm::Response,
                    prompt: Arc::new(Prompt::Tokens(vec![2, 1])),
                    ..text.clone()
                },
            ),
            key_of("a", &text),
            under(Overflow::TruncateTo(3)),
            under(Overflow::TruncateTo(4)),
        ];
        assert_eq!(HashSet::from(keys).len(), keys.len());
        assert_eq!(under(Overflow::Error), key_of("a", &text));
    }

    #[test]
    fn a_prompt_that_many_texts_share_is_hashed_once() {
        let prompt = Arc::new(Prompt::Text("p".repeat(1 << 20)));
        let share = |number: usize| EmbedInput {
            form: TextForm::PromptResponse,
            prompt: Arc::clone(&prompt),
            response: number.to_string().into(),
        };
        let inputs: Vec<EmbedInput> = (0..1024).map(share).collect();
        let mut keys = Keys::of("a", Overflow::Error);
        let shared: Vec<Key> = inputs.iter().map(|input| keys.key(input)).collect();
        assert_eq!(keys.prompts.len(), 1);
        assert!(!reads_more_than((1 << 20) + 4096, &inputs) && reads_more_than(1 << 20, &inputs));
        // A prompt of its own with the same text gives the same key.
        let own = EmbedInput { prompt: Arc::new((*prompt).clone()), ..inputs[7].clone() };
        assert_eq!(keys.key(&own), shared[7]);
    }

    #[test]
    fn chats_that_read_alike_in_one_line_have_keys_of_their_own() {
        let chat = |messages: &[(&str, &str)]| {
            let message =
                |(role, content): &(&str, &str)| Message { role: (*role).into(), content: (*content).into() };
            let prompt = Arc::new(Prompt::Chat(messages.iter().map(message).collect()));
            key_of("a", &EmbedInput { form: TextForm::Prompt, prompt, response: "".into() })
        };
        let keys = [
            chat(&[("user", "ab")]),
            chat(&[("usera", "b")]),
            chat(&[("user", "a"), ("user", "b")]),
            chat(&[("user", "a"), ("userb", "")]),
            key_of("a", &input(TextForm::Prompt, "userab", "")),
        ];
        assert_eq!(HashSet::from(keys).len(), keys.len());
    }

    #[test]
    fn the_cache_stays_within_its_bytes() {
        let cache = EmbeddingCache::new(10_000, None);
        let encoded =
            Encoded { embedding: vec![0.0; 100].into(), tokens: 1, full_tokens: 1, truncated: false };
        for number in 0..100_u8 {
            cache.insert([number; 32], encoded.clone());
        }
        let stats = cache.stats();
        assert!(stats.bytes <= 10_000 && stats.entries > 0, "{stats:?}");
        assert_eq!(EmbeddingCache::new(0, None).get(&[0; 32]), None);
    }
}
