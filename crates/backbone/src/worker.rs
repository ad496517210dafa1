//! The threads: tokenizers feed one queue, workers with a session each empty it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use polyreward_domain::Overflow;

use crate::cache::{EmbeddingCache, Encoded};
use crate::error::{BackboneError, InputError};
use crate::metrics;
use crate::queue::{Job, JobError, Places, Ticket, WorkQueue, pick_batch};
use crate::session::Embed;
use crate::tokenize::{EmbedInput, TokenizedText};

/// Texts that a tokenizer thread takes at once; its results go on before it takes more.
const TOKENIZE_AT_ONCE: usize = 64;

/// Text to tokens.
pub(crate) type Tokenize =
    Arc<dyn Fn(&EmbedInput, Overflow) -> Result<TokenizedText, InputError> + Send + Sync>;
/// A new session, for a worker that lost its own.
pub(crate) type Rebuild = Arc<dyn Fn() -> Result<Box<dyn Embed>, BackboneError> + Send + Sync>;

/// A text that waits for a tokenizer.
pub(crate) struct Waiting {
    pub input: EmbedInput,
    pub overflow: Overflow,
    pub ticket: Ticket,
}

/// The threads and what they share. Dropping it ends them; they are not waited for.
pub(crate) struct Engine {
    pub shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What threads and callers share.
pub(crate) struct Shared {
    pub cache: EmbeddingCache,
    pub places: Arc<Places>,
    pub texts: WorkQueue<Waiting>,
    pub jobs: WorkQueue<Job>,
    max_batch_tokens: usize,
    tokenizers: AtomicUsize,
    workers: AtomicUsize,
    closed: AtomicBool,
    /// Nanoseconds a worker needs for a text, smoothed.
    pace: AtomicU64,
}

impl Shared {
    pub fn new(max_queued_texts: usize, max_batch_tokens: usize, cache: EmbeddingCache) -> Arc<Self> {
        Arc::new(Self {
            cache,
            places: Places::new(max_queued_texts),
            texts: WorkQueue::new(),
            jobs: WorkQueue::new(),
            max_batch_tokens,
            tokenizers: AtomicUsize::new(0),
            workers: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            pace: AtomicU64::new(0),
        })
    }

    /// Whether texts that are queued now will be answered.
    pub fn is_ready(&self) -> bool {
        let running = |threads: &AtomicUsize| threads.load(Ordering::Acquire) > 0;
        running(&self.tokenizers) && running(&self.workers) && !self.closed.load(Ordering::Acquire)
    }

    /// How long a text should wait that comes now: the time it takes to empty the queue, at most an hour. Nothing
    /// while the queue is empty, so that one slow batch is no reason to refuse for ever.
    pub fn wait(&self) -> Duration {
        let workers = self.workers.load(Ordering::Relaxed).max(1) as u64;
        let nanos = self.pace.load(Ordering::Relaxed).saturating_mul(self.places.used() as u64) / workers;
        Duration::from_nanos(nanos).min(Duration::from_hours(1))
    }

    /// When a full queue should have room, 1 to 30 s.
    pub fn retry_after(&self) -> Duration {
        Duration::from_secs(self.wait().as_secs() + 1).min(Duration::from_secs(30))
    }

    /// Ends every thread once it is done with what it holds; what waits is dropped, which tells its callers.
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.texts.close();
        self.jobs.close();
    }

    /// Notes how long a worker took for so many texts.
    pub fn note_pace(&self, texts: usize, took: Duration) {
        let new = took.as_nanos() as u64 / texts.max(1) as u64;
        let old = self.pace.load(Ordering::Relaxed);
        let pace = if old == 0 { new } else { (7 * old + new) / 8 };
        self.pace.store(pace, Ordering::Relaxed);
    }
}

impl Engine {
    /// Starts `tokenizers` tokenizer threads and a worker for each embedder.
    pub fn start(
        shared: Arc<Shared>,
        tokenize: &Tokenize,
        tokenizers: usize,
        embedders: Vec<Box<dyn Embed>>,
        rebuild: &Rebuild,
    ) -> Result<Self, BackboneError> {
        let engine = Self { shared, threads: Mutex::new(Vec::new()) };
        for number in 0..tokenizers.max(1) {
            let (shared, tokenize) = (Arc::clone(&engine.shared), Arc::clone(tokenize));
            let alive = Alive::new(&engine.shared, |shared| &shared.tokenizers);
            engine.spawn(format!("tokenizer-{number}"), move || run_tokenizer(&shared, &tokenize, &alive))?;
        }
        for (number, embedder) in embedders.into_iter().enumerate() {
            let (shared, rebuild) = (Arc::clone(&engine.shared), Arc::clone(rebuild));
            let alive = Alive::new(&engine.shared, |shared| &shared.workers);
            let worker = Worker { shared, embedder, rebuild, _alive: alive };
            engine.spawn(format!("embedder-{number}"), move || worker.run())?;
        }
        Ok(engine)
    }

    /// Ends the threads and waits for them.
    pub fn shutdown(&self) {
        self.shared.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _panicked = thread.join(); // already counted as not alive
        }
    }

    fn spawn(&self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), BackboneError> {
        let thread = thread::Builder::new()
            .name(name)
            .spawn(run)
            .map_err(|error| BackboneError::Session(format!("cannot start a thread: {error}")))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Counts a thread while it runs. When the last of its kind ends, for whatever reason, so does the engine:
/// nobody waits for an answer that cannot come.
struct Alive {
    shared: Arc<Shared>,
    count: fn(&Shared) -> &AtomicUsize,
}

impl Alive {
    fn new(shared: &Arc<Shared>, count: fn(&Shared) -> &AtomicUsize) -> Self {
        count(shared).fetch_add(1, Ordering::AcqRel);
        Self { shared: Arc::clone(shared), count }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if (self.count)(&self.shared).fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.close();
        }
    }
}

fn run_tokenizer(shared: &Shared, tokenize: &Tokenize, _alive: &Alive) {
    let some = |texts: &mut std::collections::VecDeque<Waiting>, _| {
        let count = texts.len().min(TOKENIZE_AT_ONCE);
        texts.drain(..count).collect::<Vec<_>>()
    };
    while let Some(waiting) = shared.texts.take(some) {
        let mut ready = Vec::new();
        let mut tokens = 0;
        for text in waiting {
            let Some(job) = tokenize_one(shared, tokenize, text) else { continue };
            tokens += job.text.ids.len();
            ready.push(job);
            if tokens >= shared.max_batch_tokens {
                shared.jobs.push(ready.drain(..));
                tokens = 0;
            }
        }
        if !ready.is_empty() {
            shared.jobs.push(ready);
        }
    }
}

/// A job for the workers, or `None` if the text is answered already or no longer wanted.
fn tokenize_one(shared: &Shared, tokenize: &Tokenize, waiting: Waiting) -> Option<Job> {
    let Waiting { input, overflow, ticket } = waiting;
    let started = Instant::now();
    let ticket = ticket.still_wanted(started)?;
    let result = catch_unwind(AssertUnwindSafe(|| tokenize(&input, overflow)));
    metrics::tokenized(started.elapsed());
    match result {
        Ok(Ok(text)) => {
            if let Some(encoded) = shared.cache.get(&ticket.key) {
                // Another request brought the same text meanwhile.
                ticket.answer(Ok(encoded));
                return None;
            }
            return Some(Job { text, ticket });
        }
        Ok(Err(error)) => ticket.answer(Err(JobError::Input(error))),
        Err(_panic) => ticket.answer(Err(JobError::Inference("the tokenizer panicked".into()))),
    }
    None
}

/// A thread that owns a session.
struct Worker {
    shared: Arc<Shared>,
    embedder: Box<dyn Embed>,
    rebuild: Rebuild,
    _alive: Alive,
}

impl Worker {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let pick = |jobs: &mut _, idle| pick_batch(jobs, idle, shared.max_batch_tokens);
        while let Some(batch) = shared.jobs.take(pick) {
            if !batch.is_empty() && !self.encode(batch) {
                return; // no session is left to this worker
            }
        }
    }

    /// Runs a batch and answers all of it. Whether the worker can go on.
    fn encode(&mut self, batch: Vec<Job>) -> bool {
        let started = Instant::now();
        for job in &batch {
            metrics::queued_for(started.saturating_duration_since(job.ticket.accepted_at));
        }
        match self.run_model(&batch) {
            Outcome::Rows(rows) => {
                self.shared.note_pace(batch.len(), started.elapsed());
                for (job, row) in batch.into_iter().zip(rows) {
                    self.answer(job, row);
                }
                true
            }
            // One text may have done it: let the others have their answer.
            Outcome::Failed(_) if batch.len() > 1 => batch.into_iter().all(|job| self.encode(vec![job])),
            Outcome::Failed(error) => {
                fail(batch, &error);
                true
            }
            Outcome::Panicked => {
                fail(batch, "the model's thread panicked");
                self.replace_embedder()
            }
        }
    }

    fn run_model(&mut self, batch: &[Job]) -> Outcome {
        let texts: Vec<&TokenizedText> = batch.iter().map(|job| &job.text).collect();
        let padded = self.embedder.pad(&texts);
        let span = tracing::info_span!("backbone.batch", texts = padded.texts, tokens = padded.tokens);
        let started = Instant::now();
        let result = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| self.embedder.embed(&padded))));
        metrics::ran_batch(padded.texts, padded.tokens, padded.padded_tokens(), started.elapsed());
        match result {
            Ok(Ok(rows)) if rows.len() == batch.len() => Outcome::Rows(rows),
            Ok(Ok(rows)) => Outcome::Failed(format!("{} rows for {} texts", rows.len(), batch.len())),
            Ok(Err(error)) => Outcome::Failed(error),
            Err(_panic) => Outcome::Panicked,
        }
    }

    fn answer(&self, job: Job, embedding: Arc<[f32]>) {
        let Job { text, ticket } = job;
        if !embedding.iter().all(|value| value.is_finite()) {
            return ticket.answer(Err(JobError::Input(InputError::NotFinite)));
        }
        let TokenizedText { ids, full_tokens, truncated, .. } = text;
        let encoded = Encoded { embedding, tokens: ids.len(), full_tokens, truncated };
        self.shared.cache.insert(ticket.key, encoded.clone());
        ticket.answer(Ok(encoded));
    }

    /// A session that panicked is in an unknown state.
    fn replace_embedder(&mut self) -> bool {
        match (self.rebuild)() {
            Ok(embedder) => {
                tracing::error!("a session panicked and was replaced");
                self.embedder = embedder;
                true
            }
            Err(error) => {
                tracing::error!(%error, "a session panicked and could not be replaced");
                false
            }
        }
    }
}

enum Outcome {
    Rows(Vec<Arc<[f32]>>),
    Failed(String),
    Panicked,
}

fn fail(batch: Vec<Job>, error: &str) {
    for job in batch {
        job.ticket.answer(Err(JobError::Inference(error.to_owned())));
    }
}
