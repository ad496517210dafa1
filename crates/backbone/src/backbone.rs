//! The handle that callers hold: open a folder, embed texts.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ort::environment::Environment;
use polyreward_domain::{Overflow, Prompt, TextForm};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::cache::{CacheStats, EmbeddingCache, Encoded, Key, keys_of, reads_more_than};
use crate::error::{BackboneError, InputError};
use crate::folder::{BackboneFolder, InputShape, Pooling};
use crate::metrics;
use crate::queue::{Answer, JobError, Ticket};
use crate::runtime;
use crate::session::{Embed, Encoder};
use crate::shared_cache::SharedCache;
use crate::tokenize::{EmbedInput, TextTokenizer, TokenizedText};
use crate::worker::{Engine, Rebuild, Shared, Tokenize, Waiting};

/// Most sessions that are started by default; each holds the weights.
const MAX_DEFAULT_SESSIONS: usize = 8;
/// Texts that [`Backbone::embed_each`] queues at once.
const BLOCKING_WINDOW: usize = 1024;
/// Bytes of texts that are hashed on an async thread: a fraction of a millisecond. More go to a blocking one.
const HASHED_INLINE_BYTES: usize = 128 << 10;

/// What a backbone is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackboneInfo {
    /// The name in `backbone.json`.
    pub name: String,
    /// SHA-256, in hexadecimal, of everything that changes an embedding.
    pub hash: String,
    /// Width of an embedding.
    pub dim: usize,
    /// The window: tokens of one text, special tokens included.
    pub max_tokens: usize,
    /// How the weights are stored.
    pub precision: Option<String>,
    /// How prompt and response become tokens.
    pub input: InputShape,
    /// What becomes of the model's output.
    pub pooling: Pooling,
    /// Licence of the weights.
    pub licence: Option<String>,
    /// Where the weights come from.
    pub source: Option<String>,
}

/// How a backbone is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackboneOptions {
    /// Sessions, each with a thread and the weights. Default: one a core, at most 8.
    pub sessions: usize,
    /// Threads inside a session. Several sessions of one thread give more throughput than the reverse.
    pub intra_threads: usize,
    /// Threads that tokenize. One keeps many sessions busy.
    pub tokenizer_threads: usize,
    /// Tokens in one run of the model, padding included; a longer text runs alone.
    pub max_batch_tokens: usize,
    /// Texts that may wait or be worked on; more are refused.
    pub max_queued_texts: usize,
    /// Bytes of embeddings that are kept. 0 keeps none.
    pub cache_bytes: u64,
    /// ONNX Runtime's shared library; else `ORT_DYLIB_PATH` names it.
    pub library: Option<PathBuf>,
}

impl Default for BackboneOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            sessions: cores.min(MAX_DEFAULT_SESSIONS),
            intra_threads: 1,
            tokenizer_threads: 1,
            max_batch_tokens: 1024,
            max_queued_texts: 8192,
            cache_bytes: 256 << 20,
            library: None,
        }
    }
}

/// One text's embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// `[dim]`, every value finite.
    pub embedding: Arc<[f32]>,
    /// Tokens that the model read.
    pub tokens: usize,
    /// Whether the text was cut to the window.
    pub truncated: bool,
    /// Whether the embedding was there already, in memory or in the shared cache.
    pub cached: bool,
}

/// A running backbone; clones share it. Its threads end when the last clone is dropped, or on
/// [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Backbone {
    inner: Arc<Inner>,
}

struct Inner {
    info: BackboneInfo,
    tokenize: Tokenize,
    engine: Engine,
}

impl fmt::Debug for Backbone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backbone").field("info", &self.inner.info).finish_non_exhaustive()
    }
}

impl Backbone {
    /// Reads and checks a folder, starts the sessions and encodes one text to see that they work.
    ///
    /// # Errors
    /// A file is missing or not the one described, the library cannot be used, or the model does not do what
    /// `backbone.json` says.
    pub fn open(dir: &Path, options: &BackboneOptions) -> Result<Self, BackboneError> {
        Self::open_with(dir, options, None)
    }

    /// As [`open`](Self::open), with a second level of the cache that other processes share. [`embed`](Self::embed) asks it
    /// for what is not in memory, and whatever is encoded goes there.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn open_with(
        dir: &Path,
        options: &BackboneOptions,
        shared_cache: Option<Arc<dyn SharedCache>>,
    ) -> Result<Self, BackboneError> {
        let folder = BackboneFolder::open(dir)?;
        let template = folder.read_template()?;
        let info = describe(&folder, template.as_deref());
        let tokenizer = TextTokenizer::open(&folder, template)?;
        let tokenize: Tokenize = Arc::new(move |input, overflow| tokenizer.tokenize(input, overflow));
        let environment = runtime::environment(options.library.as_deref())?;
        let embedders = start_sessions(&environment, &folder, options, &tokenize)?;
        let intra_threads = options.intra_threads;
        let rebuild: Rebuild = Arc::new(move || {
            let encoder =
                Encoder::build(&environment, &folder.read_model()?, folder.config(), intra_threads)?;
            Ok(Box::new(encoder) as Box<dyn Embed>)
        });
        Self::start(info, options, tokenize, embedders, &rebuild, shared_cache)
    }

    fn start(
        info: BackboneInfo,
        options: &BackboneOptions,
        tokenize: Tokenize,
        embedders: Vec<Box<dyn Embed>>,
        rebuild: &Rebuild,
        shared_cache: Option<Arc<dyn SharedCache>>,
    ) -> Result<Self, BackboneError> {
        let cache = EmbeddingCache::new(options.cache_bytes, shared_cache);
        let shared = Shared::new(options.max_queued_texts, options.max_batch_tokens, cache);
        let engine = Engine::start(shared, &tokenize, options.tokenizer_threads, embedders, rebuild)?;
        Ok(Self { inner: Arc::new(Inner { info, tokenize, engine }) })
    }

    /// What this backbone is.
    pub fn info(&self) -> &BackboneInfo {
        &self.inner.info
    }

    /// One result for each input, in their order; equal inputs are encoded once. Dropping the future takes
    /// what still waits out of the queue. Needs a tokio runtime with its timer when there is a deadline.
    ///
    /// # Errors
    /// The queue has no room or would take longer than the deadline allows, the deadline passed, the model failed
    /// or the backbone has stopped. What is wrong with one input alone stands in its place in the list.
    #[tracing::instrument(name = "backbone.embed", skip_all, fields(texts = inputs.len()))]
    pub async fn embed(
        &self,
        inputs: Vec<EmbedInput>,
        overflow: Overflow,
        deadline: Option<Instant>,
    ) -> Result<Vec<Result<Embedded, InputError>>, BackboneError> {
        let answer = async {
            let inputs = self.with_keys(inputs, overflow).await?;
            let (mut request, mut missing) = self.look_up(inputs, overflow);
            self.look_up_shared(&mut request, &mut missing).await;
            self.queue(&mut request, missing, deadline, Room::OrRefuse)?;
            request.collect().await?;
            Ok(request.into_results())
        };
        match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), answer)
                .await
                .map_err(|_elapsed| BackboneError::DeadlineExceeded)?,
            None => answer.await,
        }
    }

    /// The inputs with their keys; long texts are hashed where they hold up nobody else.
    async fn with_keys(&self, inputs: Vec<EmbedInput>, overflow: Overflow) -> Result<Keyed, BackboneError> {
        if !reads_more_than(HASHED_INLINE_BYTES, &inputs) {
            return Ok(Keyed::of(&self.inner.info, inputs, overflow));
        }
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || Keyed::of(&inner.info, inputs, overflow)).await {
            Ok(keyed) => Ok(keyed),
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(BackboneError::Stopped),
            },
        }
    }

    /// As [`embed`](Self::embed), for any number of inputs and outside of async code: feeds the queue a part
    /// at a time and waits while it is full. Does not ask the shared cache. `progress` is told how many inputs are done.
    ///
    /// # Errors
    /// The deadline passed, the model failed or the backbone has stopped.
    ///
    /// # Panics
    /// If called from async code.
    pub fn embed_blocking(
        &self,
        inputs: Vec<EmbedInput>,
        overflow: Overflow,
        deadline: Option<Instant>,
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<Result<Embedded, InputError>>, BackboneError> {
        let mut results = Vec::with_capacity(inputs.len());
        let inputs = inputs.into_iter().map(|input| Ok(((), input)));
        self.embed_each(inputs, overflow, deadline, |(), result| {
            results.push(result);
            progress(results.len());
            Ok::<_, BackboneError>(())
        })?;
        Ok(results)
    }

    /// As [`embed_blocking`](Self::embed_blocking), of inputs that are read when there is room for them, each with something
    /// to know it by: `each` gets the results, in the order of the inputs. No more than two parts of 1024 inputs are held, and
    /// one of them is encoded while the next is read and while `each` works on the one before.
    ///
    /// # Errors
    /// As [`embed_blocking`](Self::embed_blocking); the first error of `inputs` or `each`, after which nothing is read.
    ///
    /// # Panics
    /// If called from async code.
    pub fn embed_each<T, E: From<BackboneError>>(
        &self,
        mut inputs: impl Iterator<Item = Result<(T, EmbedInput), E>>,
        overflow: Overflow,
        deadline: Option<Instant>,
        mut each: impl FnMut(T, Result<Embedded, InputError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let window = BLOCKING_WINDOW.min(self.inner.engine.shared.places.max() / 2).max(1);
        let mut finish = |(tags, mut request): (Vec<T>, Request)| {
            request.collect_blocking()?;
            tags.into_iter().zip(request.into_results()).try_for_each(|(tag, result)| each(tag, result))
        };
        let mut running = None; // collected only once its successor is queued, so that workers never pause
        loop {
            let part: Vec<(T, EmbedInput)> = inputs.by_ref().take(window).collect::<Result<_, E>>()?;
            if part.is_empty() {
                return running.map_or(Ok(()), finish);
            }
            let (tags, part): (Vec<T>, Vec<EmbedInput>) = part.into_iter().unzip();
            let part = Keyed::of(&self.inner.info, part, overflow);
            let (mut next, missing) = self.look_up(part, overflow);
            self.queue(&mut next, missing, deadline, Room::Wait)?;
            if let Some(previous) = running.replace((tags, next)) {
                finish(previous)?;
            }
        }
    }

    /// The inputs as the model would read them, on the calling thread, past queue and cache.
    pub fn tokenize(
        &self,
        inputs: &[EmbedInput],
        overflow: Overflow,
    ) -> Vec<Result<TokenizedText, InputError>> {
        inputs.iter().map(|input| (self.inner.tokenize)(input, overflow)).collect()
    }

    /// Whether texts can be embedded: threads of both kinds run.
    pub fn is_ready(&self) -> bool {
        self.inner.engine.shared.is_ready()
    }

    /// How full the cache is and how often it helped.
    pub fn cache_stats(&self) -> CacheStats {
        self.inner.engine.shared.cache.stats()
    }

    /// Removes the embeddings of texts from the cache, as when whoever wrote them is erased, and asks the shared one to. A
    /// text that is being encoded meanwhile for somebody else comes back.
    pub fn forget(&self, inputs: &[EmbedInput]) {
        let keys = keys_of(&self.inner.info.hash, Overflow::Truncate, inputs);
        self.inner.engine.shared.cache.remove(keys);
    }

    /// Texts that wait or are worked on.
    pub fn queued_texts(&self) -> usize {
        self.inner.engine.shared.places.used()
    }

    /// Ends the threads and waits for them. Whoever still waits for an embedding gets
    /// [`BackboneError::Stopped`].
    pub fn shutdown(&self) {
        self.inner.engine.shutdown();
    }

    /// Queues what a request misses: all or none.
    fn queue(
        &self,
        request: &mut Request,
        missing: Vec<Missing>,
        deadline: Option<Instant>,
        room: Room,
    ) -> Result<(), BackboneError> {
        let shared = &self.inner.engine.shared;
        let accepted_at = Instant::now();
        if missing.is_empty() {
            return Ok(());
        }
        if !shared.is_ready() {
            return Err(BackboneError::Stopped);
        }
        if deadline.is_some_and(|deadline| deadline <= accepted_at) {
            return Err(BackboneError::DeadlineExceeded);
        }
        let (texts, max) = (missing.len(), shared.places.max());
        if texts > max {
            return Err(BackboneError::TooManyTexts { texts, max });
        }
        let overloaded = || BackboneError::Overloaded { retry_after: shared.retry_after() };
        let places = match room {
            Room::Wait => shared.places.wait_for(texts),
            Room::OrRefuse => {
                // To wait for an answer that comes too late would only lengthen the queue for the others.
                if deadline.is_some_and(|deadline| accepted_at + shared.wait() > deadline) {
                    return Err(overloaded());
                }
                shared.places.take(texts).ok_or_else(overloaded)?
            }
        };
        let overflow = request.overflow;
        let (answers, receiver) = unbounded_channel();
        let waiting = missing.into_iter().zip(places).map(|(missing, place)| {
            let Missing { index, key, input } = missing;
            let answers = answers.clone();
            let ticket = Ticket { index, key, deadline, accepted_at, answers, place };
            Waiting { input, overflow, ticket }
        });
        shared.texts.push(waiting.collect::<Vec<_>>());
        (request.answers, request.outstanding) = (Some(receiver), texts);
        Ok(())
    }

    /// Looks up in the shared cache what is not in memory; what is there is missing no longer.
    async fn look_up_shared(&self, request: &mut Request, missing: &mut Vec<Missing>) {
        let cache = &self.inner.engine.shared.cache;
        if missing.is_empty() || !cache.has_second() {
            return;
        }
        let keys: Vec<Key> = missing.iter().map(|missing| missing.key).collect();
        let mut found = cache.get_second(&keys, self.inner.info.dim).await.into_iter();
        missing.retain(|missing| match found.next().flatten() {
            Some(encoded) => {
                request.results[missing.index] = Some(request.result(encoded, true));
                false
            }
            None => true,
        });
    }

    fn look_up(&self, keyed: Keyed, overflow: Overflow) -> (Request, Vec<Missing>) {
        let Inner { info, engine, .. } = &*self.inner;
        let Keyed { inputs, keys } = keyed;
        let mut slots: HashMap<Key, usize> = HashMap::with_capacity(inputs.len());
        let mut request = Request {
            max_tokens: info.max_tokens,
            overflow,
            positions: Vec::with_capacity(inputs.len()),
            results: Vec::new(),
            answers: None,
            outstanding: 0,
        };
        let (mut missing, mut hits) = (Vec::new(), 0);
        for (input, key) in inputs.into_iter().zip(keys) {
            let index = match slots.entry(key) {
                Entry::Occupied(slot) => *slot.get(),
                Entry::Vacant(slot) => {
                    let index = *slot.insert(request.results.len());
                    let cached = engine.shared.cache.get(&key);
                    if cached.is_none() {
                        missing.push(Missing { index, key, input });
                    }
                    request.results.push(cached.map(|encoded| request.result(encoded, true)));
                    index
                }
            };
            hits += u64::from(request.results[index].is_some());
            request.positions.push(index);
        }
        engine.shared.cache.count_lookups(hits, missing.len() as u64);
        (request, missing)
    }
}

/// What to do while there is no room in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Wait,
    OrRefuse,
}

/// Inputs and the key of each.
struct Keyed {
    inputs: Vec<EmbedInput>,
    keys: Vec<Key>,
}

impl Keyed {
    fn of(info: &BackboneInfo, inputs: Vec<EmbedInput>, overflow: Overflow) -> Self {
        // What is cut to the window or more is cut as ever.
        let overflow = match overflow {
            Overflow::TruncateTo(tokens) if tokens >= info.max_tokens => Overflow::Truncate,
            other => other,
        };
        let keys = keys_of(&info.hash, overflow, &inputs);
        Self { inputs, keys }
    }
}

/// An input that must be encoded.
struct Missing {
    index: usize,
    key: Key,
    input: EmbedInput,
}

/// A caller's inputs on their way.
struct Request {
    max_tokens: usize,
    overflow: Overflow,
    /// For each input, its place in `results`; equal inputs share one.
    positions: Vec<usize>,
    results: Vec<Option<Result<Embedded, InputError>>>,
    answers: Option<UnboundedReceiver<Answer>>,
    outstanding: usize,
}

impl Request {
    async fn collect(&mut self) -> Result<(), BackboneError> {
        let Some(mut answers) = self.answers.take() else { return Ok(()) };
        while self.outstanding > 0 {
            self.note(answers.recv().await)?;
        }
        Ok(())
    }

    fn collect_blocking(&mut self) -> Result<(), BackboneError> {
        let Some(mut answers) = self.answers.take() else { return Ok(()) };
        while self.outstanding > 0 {
            self.note(answers.blocking_recv())?;
        }
        Ok(())
    }

    fn note(&mut self, answer: Option<Answer>) -> Result<(), BackboneError> {
        // No sender is left: the queue was closed with texts in it.
        let (index, result) = answer.ok_or(BackboneError::Stopped)?;
        self.outstanding -= 1;
        self.results[index] = Some(match result {
            Ok(encoded) => self.result(encoded, false),
            Err(JobError::Input(error)) => Err(error),
            Err(JobError::Deadline) => return Err(BackboneError::DeadlineExceeded),
            Err(JobError::Inference(error)) => return Err(BackboneError::Inference(error)),
        });
        Ok(())
    }

    /// A cached embedding may come from a request that let the text be cut.
    fn result(&self, encoded: Encoded, cached: bool) -> Result<Embedded, InputError> {
        let Encoded { embedding, tokens, full_tokens, truncated } = encoded;
        if truncated && self.overflow == Overflow::Error {
            let max_tokens = self.max_tokens;
            return Err(InputError::TooLong { tokens: full_tokens.max(max_tokens + 1), max_tokens });
        }
        if truncated {
            metrics::truncated();
        }
        Ok(Embedded { embedding, tokens, truncated, cached })
    }

    fn into_results(self) -> Vec<Result<Embedded, InputError>> {
        let result = |&index: &usize| self.results[index].clone().expect("every text was answered");
        self.positions.iter().map(result).collect()
    }
}

fn describe(folder: &BackboneFolder, template: Option<&str>) -> BackboneInfo {
    let config = folder.config().clone();
    BackboneInfo {
        hash: folder.hash(template),
        name: config.name,
        dim: config.dim,
        max_tokens: config.max_tokens,
        precision: config.precision,
        input: config.input,
        pooling: config.pooling,
        licence: config.licence,
        source: config.source,
    }
}

/// Starts the sessions; each encodes a word, so that a model that cannot is refused here.
fn start_sessions(
    environment: &Environment,
    folder: &BackboneFolder,
    options: &BackboneOptions,
    tokenize: &Tokenize,
) -> Result<Vec<Box<dyn Embed>>, BackboneError> {
    let probe = EmbedInput {
        form: TextForm::PromptResponse,
        prompt: Arc::new(Prompt::Text("Hello".into())),
        response: "World".into(),
    };
    let probe = tokenize(&probe, Overflow::Truncate)
        .map_err(|error| BackboneError::Session(format!("a short text {error}")))?;
    let model = folder.read_model()?;
    (0..options.sessions.max(1))
        .map(|_| {
            let mut encoder = Encoder::build(environment, &model, folder.config(), options.intra_threads)?;
            let rows = encoder.embed(&encoder.pad(&[&probe])).map_err(BackboneError::Session)?;
            if !rows.iter().flat_map(|row| row.iter()).all(|value| value.is_finite()) {
                return Err(BackboneError::Session("its output for a short text is not finite".into()));
            }
            Ok(Box::new(encoder) as Box<dyn Embed>)
        })
        .collect()
}

#[cfg(test)]
#[path = "backbone_tests.rs"]
mod tests;
