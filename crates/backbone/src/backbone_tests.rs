//! Queue, workers and handle together, around an encoder that runs only when the test lets it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::task::Poll;
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, KeyName, Metadata, SharedString, Unit};

use super::*;
use crate::batch::PaddedBatch;
use crate::folder::PaddingSide;

const WINDOW: usize = 16;

/// Lets batches run and remembers them.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    open: bool,
    /// The first letters of each batch that was started, sorted.
    batches: Vec<String>,
}

impl Gate {
    fn opened() -> Arc<Self> {
        let gate = Arc::new(Self::default());
        gate.open();
        gate
    }

    fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    fn enter(&self, letters: String) {
        let mut state = self.state.lock().unwrap();
        state.batches.push(letters);
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.open).unwrap());
    }

    fn wait_for_batches(&self, count: usize) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.batches.len() < count).unwrap());
    }

    fn batches(&self) -> Vec<String> {
        self.state.lock().unwrap().batches.clone()
    }
}

/// Letters in, their sum and their number out. Fails on `!`, panics on `?`, is not finite on `~`.
struct Fake(Arc<Gate>);

impl Embed for Fake {
    fn embed(&mut self, batch: &PaddedBatch) -> Result<Vec<Arc<[f32]>>, String> {
        let rows: Vec<&[i64]> = batch.input_ids.chunks(batch.width).collect();
        let mut letters: Vec<u8> = rows.iter().map(|row| u8::try_from(row[0]).unwrap()).collect();
        letters.sort_unstable();
        self.0.enter(String::from_utf8(letters).unwrap());
        let has = |letter: char| batch.input_ids.contains(&i64::from(u32::from(letter)));
        assert!(!has('?'), "asked to");
        if has('!') {
            return Err("asked to".into());
        }
        let value =
            |row: &[i64]| if row[0] == i64::from(b'~') { f32::NAN } else { row.iter().sum::<i64>() as f32 };
        let row =
            |(at, row): (usize, &&[i64])| [value(row), batch.mask(at).iter().sum::<i64>() as f32].into();
        Ok(rows.iter().enumerate().map(row).collect())
    }

    fn pad(&self, texts: &[&TokenizedText]) -> PaddedBatch {
        PaddedBatch::new(texts, PaddingSide::Right, 0)
    }
}

fn start_with(
    gate: &Arc<Gate>,
    options: &BackboneOptions,
    rebuild: &Rebuild,
    shared_cache: Option<Arc<dyn SharedCache>>,
) -> Backbone {
    let info = BackboneInfo {
        name: "letters".into(),
        hash: "0".repeat(64),
        dim: 2,
        max_tokens: WINDOW,
        precision: None,
        input: InputShape::Pair,
        pooling: Pooling::None,
        licence: None,
        source: None,
    };
    let tokenize: Tokenize = Arc::new(|input, overflow| {
        let ids: Vec<u32> = input.response.bytes().map(u32::from).collect();
        let (full_tokens, truncated) = (ids.len(), ids.len() > WINDOW);
        if truncated && overflow == Overflow::Error {
            return Err(InputError::TooLong { tokens: full_tokens, max_tokens: WINDOW });
        }
        let ids = ids[..full_tokens.min(WINDOW)].to_vec();
        Ok(TokenizedText { type_ids: vec![0; ids.len()], ids, full_tokens, truncated })
    });
    let fake = || Box::new(Fake(Arc::clone(gate))) as Box<dyn Embed>;
    let embedders = (0..options.sessions).map(|_| fake()).collect();
    Backbone::start(info, options, tokenize, embedders, rebuild, shared_cache).unwrap()
}

fn start(gate: &Arc<Gate>, options: &BackboneOptions) -> Backbone {
    start_with(gate, options, &rebuild_of(gate), None)
}

/// Sessions of the same kind.
fn rebuild_of(gate: &Arc<Gate>) -> Rebuild {
    let gate = Arc::clone(gate);
    Arc::new(move || Ok(Box::new(Fake(Arc::clone(&gate))) as Box<dyn Embed>))
}

fn options(sessions: usize, max_queued_texts: usize) -> BackboneOptions {
    BackboneOptions { sessions, max_queued_texts, max_batch_tokens: 64, ..BackboneOptions::default() }
}

fn texts(responses: &[&str]) -> Vec<EmbedInput> {
    let input = |response: &&str| EmbedInput {
        form: TextForm::Response,
        prompt: Arc::new(Prompt::default()),
        response: (*response).into(),
    };
    responses.iter().map(input).collect()
}

async fn embed(
    backbone: &Backbone,
    responses: &[&str],
) -> Result<Vec<Result<Embedded, InputError>>, BackboneError> {
    backbone.embed(texts(responses), Overflow::Truncate, None).await
}

/// Lets a future put its texts into the queue.
async fn poll_once<F: Future>(future: &mut Pin<Box<F>>) {
    poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn results_come_in_order_and_equal_texts_run_once() {
    let gate = Gate::opened();
    let backbone = start(&gate, &options(2, 100));
    let results = embed(&backbone, &["ab", "c", "ab"]).await.unwrap();
    let rows: Vec<&[f32]> = results.iter().map(|result| &*result.as_ref().unwrap().embedding).collect();
    assert_eq!(rows, [[195.0, 2.0], [99.0, 1.0], [195.0, 2.0]]);
    assert_eq!(gate.batches().concat().len(), 2);
    let again = embed(&backbone, &["c", "d"]).await.unwrap();
    assert!(again[0].as_ref().unwrap().cached && !again[1].as_ref().unwrap().cached);
    assert_eq!(gate.batches().concat().len(), 3);
    let stats = backbone.cache_stats();
    assert_eq!((stats.entries, stats.hits, stats.misses), (3, 1, 3));
    assert!(embed(&backbone, &[]).await.unwrap().is_empty());
    assert_eq!(backbone.queued_texts(), 0);
}

#[tokio::test]
async fn work_of_a_caller_who_left_is_dropped_before_it_runs() {
    let gate = Arc::new(Gate::default());
    let backbone = start(&gate, &options(1, 100));
    let mut first = Box::pin(embed(&backbone, &["a"]));
    poll_once(&mut first).await;
    gate.wait_for_batches(1);
    let mut leaves = Box::pin(embed(&backbone, &["b"]));
    poll_once(&mut leaves).await;
    drop(leaves);
    let mut stays = Box::pin(embed(&backbone, &["c"]));
    poll_once(&mut stays).await;
    gate.open();
    first.await.unwrap();
    stays.await.unwrap();
    assert_eq!(gate.batches(), ["a", "c"]);
    assert_eq!(backbone.queued_texts(), 0);
}

#[tokio::test]
async fn a_full_queue_refuses_whole_requests_at_once() {
    let gate = Arc::new(Gate::default());
    let backbone = start(&gate, &options(1, 3));
    let mut first = Box::pin(embed(&backbone, &["a", "b"]));
    poll_once(&mut first).await;
    let refused = embed(&backbone, &["c", "d"]).await;
    assert!(matches!(refused, Err(BackboneError::Overloaded { retry_after }) if retry_after.as_secs() >= 1));
    assert_eq!(backbone.queued_texts(), 2);
    let too_many = embed(&backbone, &["1", "2", "3", "4"]).await;
    assert!(matches!(too_many, Err(BackboneError::TooManyTexts { texts: 4, max: 3 })));
    let mut fits = Box::pin(embed(&backbone, &["e"]));
    poll_once(&mut fits).await;
    gate.open();
    assert_eq!(first.await.unwrap().len() + fits.await.unwrap().len(), 3);
    assert!(!gate.batches().concat().contains(['c', 'd']));
}

#[tokio::test]
async fn a_text_whose_deadline_passed_never_runs() {
    let gate = Arc::new(Gate::default());
    let backbone = start(&gate, &options(1, 100));
    let mut first = Box::pin(embed(&backbone, &["a"]));
    poll_once(&mut first).await;
    gate.wait_for_batches(1);
    let deadline = Some(Instant::now() + Duration::from_millis(20));
    let late = backbone.embed(texts(&["b"]), Overflow::Truncate, deadline).await;
    assert!(matches!(late, Err(BackboneError::DeadlineExceeded)));
    let later = backbone.embed(texts(&["b"]), Overflow::Truncate, deadline).await;
    assert!(matches!(later, Err(BackboneError::DeadlineExceeded)));
    gate.open();
    first.await.unwrap();
    embed(&backbone, &["c"]).await.unwrap();
    assert_eq!(gate.batches(), ["a", "c"]);
}

#[tokio::test]
async fn two_sessions_share_one_request() {
    let gate = Arc::new(Gate::default());
    let backbone = start(&gate, &BackboneOptions { max_batch_tokens: 8, ..options(2, 100) });
    let mut request = Box::pin(embed(&backbone, &["aaaa", "bbbb", "cccc", "dddd"]));
    poll_once(&mut request).await;
    gate.wait_for_batches(2); // neither has finished: both run at once
    gate.open();
    assert_eq!(request.await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_text_that_fails_takes_no_other_callers_text_along() {
    let gate = Arc::new(Gate::default());
    let backbone = start(&gate, &options(1, 100));
    let mut held = Box::pin(embed(&backbone, &["a"]));
    poll_once(&mut held).await;
    gate.wait_for_batches(1);
    let mut bad = Box::pin(embed(&backbone, &["!"]));
    let mut good = Box::pin(embed(&backbone, &["b"]));
    poll_once(&mut bad).await;
    poll_once(&mut good).await;
    gate.open();
    held.await.unwrap();
    assert!(matches!(bad.await, Err(BackboneError::Inference(_))));
    assert_eq!(good.await.unwrap().len(), 1);
    assert!(backbone.is_ready());
}

#[tokio::test]
async fn a_worker_that_panics_answers_and_goes_on_with_a_new_session() {
    let backbone = start(&Gate::opened(), &options(1, 100));
    assert!(matches!(embed(&backbone, &["?"]).await, Err(BackboneError::Inference(_))));
    assert_eq!(embed(&backbone, &["a"]).await.unwrap().len(), 1);
    assert!(backbone.is_ready());
}

#[tokio::test]
async fn a_backbone_without_workers_is_not_ready_and_leaves_nobody_waiting() {
    let rebuild: Rebuild = Arc::new(|| Err(BackboneError::Session("gone".into())));
    let backbone = start_with(&Gate::opened(), &options(1, 100), &rebuild, None);
    assert!(matches!(embed(&backbone, &["?"]).await, Err(BackboneError::Inference(_))));
    backbone.shutdown(); // joins the worker, which ended by itself
    assert!(!backbone.is_ready());
    assert!(matches!(embed(&backbone, &["a"]).await, Err(BackboneError::Stopped)));
}

#[tokio::test]
async fn whoever_waits_at_shutdown_is_told() {
    let gate = Arc::new(Gate::default());
    let backbone = start(&gate, &options(1, 100));
    let mut running = Box::pin(embed(&backbone, &["a"]));
    poll_once(&mut running).await;
    gate.wait_for_batches(1);
    let mut waiting = Box::pin(embed(&backbone, &["b"]));
    poll_once(&mut waiting).await;
    let stopping = std::thread::spawn({
        let backbone = backbone.clone();
        move || backbone.shutdown()
    });
    assert!(matches!(waiting.await, Err(BackboneError::Stopped)));
    gate.open();
    assert_eq!(running.await.unwrap().len(), 1);
    stopping.join().unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_one_input_stands_in_its_place() {
    let backbone = start(&Gate::opened(), &options(1, 100));
    let long = "x".repeat(WINDOW + 1);
    let too_long = InputError::TooLong { tokens: WINDOW + 1, max_tokens: WINDOW };
    let results = embed(&backbone, &["a", "~", &long]).await.unwrap();
    assert_eq!(results[1], Err(InputError::NotFinite));
    assert!(results[0].is_ok() && results[2].as_ref().unwrap().truncated);
    // From the cache too.
    let results = backbone.embed(texts(&[&long, "a"]), Overflow::Error, None).await.unwrap();
    assert_eq!(results[0], Err(too_long));
    assert!(results[1].as_ref().unwrap().cached);
}

#[test]
fn any_number_of_texts_goes_through_a_small_queue() {
    let backbone = start(&Gate::opened(), &options(2, 8));
    let responses: Vec<String> = (0..1000).map(|number| format!("{number:x}")).collect();
    let responses: Vec<&str> = responses.iter().map(String::as_str).collect();
    let mut seen = Vec::new();
    let results =
        backbone.embed_blocking(texts(&responses), Overflow::Truncate, None, |done| seen.push(done)).unwrap();
    for (response, result) in responses.iter().zip(&results) {
        let sum: u32 = response.bytes().map(u32::from).sum();
        assert_eq!(*result.as_ref().unwrap().embedding, [sum as f32, response.len() as f32]);
    }
    assert_eq!((results.len(), seen.last()), (1000, Some(&1000)));
    assert!(seen.is_sorted());
    assert_eq!(backbone.queued_texts(), 0);
}

#[test]
fn a_stream_of_texts_is_read_no_further_ahead_than_two_parts() {
    use std::cell::Cell;

    let backbone = start(&Gate::opened(), &options(2, 8));
    let (read, done) = (Cell::new(0_usize), Cell::new(0_usize));
    let furthest = Cell::new(0);
    let inputs = (0..1000).map(|number| {
        read.set(read.get() + 1);
        furthest.set(furthest.get().max(read.get() - done.get()));
        Ok((number, texts(&[&format!("{number:x}")]).remove(0)))
    });
    let answered = backbone.embed_each(inputs, Overflow::Truncate, None, |number, result| {
        assert_eq!(number, done.get(), "the results keep no order");
        let sum: u32 = format!("{number:x}").bytes().map(u32::from).sum();
        assert_eq!(result.unwrap().embedding[0], sum as f32);
        done.set(done.get() + 1);
        Ok::<_, BackboneError>(())
    });
    answered.unwrap();
    // The queue has room for eight: parts of four, one of which runs while the next is read.
    assert_eq!((done.get(), furthest.get()), (1000, 8));
    assert_eq!(backbone.queued_texts(), 0);
}

#[test]
fn a_stream_ends_at_the_first_error_of_either_side() {
    let backbone = start(&Gate::opened(), &options(1, 8));
    let input = |number: usize| ((), texts(&[&format!("{number:x}")]).remove(0));
    let bad =
        (0..100).map(|number| if number == 50 { Err(BackboneError::Stopped) } else { Ok(input(number)) });
    let mut done = 0;
    let ended = backbone.embed_each(bad, Overflow::Truncate, None, |(), _| {
        done += 1;
        Ok(())
    });
    assert!(matches!(ended, Err(BackboneError::Stopped)));
    assert!((1..50).contains(&done), "{done}");
    let good = (0..100).map(|number| Ok(input(number)));
    let ended =
        backbone.embed_each(good, Overflow::Truncate, None, |(), _| Err(BackboneError::DeadlineExceeded));
    assert!(matches!(ended, Err(BackboneError::DeadlineExceeded)));
}

#[test]
fn long_texts_are_hashed_off_the_async_threads() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let backbone = start(&Gate::opened(), &options(1, 100));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let holds_the_only_thread = tokio::task::spawn_blocking(move || released.recv().is_err());
        let long = "a".repeat(HASHED_INLINE_BYTES + 1);
        let responses = [long.as_str()];
        let mut request = Box::pin(embed(&backbone, &responses));
        poll_once(&mut request).await;
        assert_eq!(backbone.queued_texts(), 0, "it was hashed here");
        // Nobody waits for it beyond the deadline either.
        let deadline = Some(Instant::now() + Duration::from_millis(20));
        let late = backbone.embed(texts(&responses), Overflow::Truncate, deadline).await;
        assert!(matches!(late, Err(BackboneError::DeadlineExceeded)));
        drop(release);
        assert!(holds_the_only_thread.await.unwrap());
        assert!(request.await.unwrap()[0].as_ref().unwrap().truncated);
    });
}

#[tokio::test]
async fn a_request_that_the_queue_cannot_answer_in_time_is_refused_at_once() {
    let gate = Arc::new(Gate::default());
    let backbone = start(&gate, &options(1, 100));
    let in_a_second = || Some(Instant::now() + Duration::from_secs(1));
    backbone.inner.engine.shared.note_pace(1, Duration::from_secs(10));
    // An empty queue refuses nobody, however slow the last batch was.
    let mut first = Box::pin(backbone.embed(texts(&["a"]), Overflow::Truncate, in_a_second()));
    poll_once(&mut first).await;
    let refused = backbone.embed(texts(&["b"]), Overflow::Truncate, in_a_second()).await;
    assert!(matches!(refused, Err(BackboneError::Overloaded { retry_after }) if retry_after.as_secs() == 11));
    let in_an_hour = Some(Instant::now() + Duration::from_hours(1));
    let mut patient = Box::pin(backbone.embed(texts(&["c"]), Overflow::Truncate, in_an_hour));
    poll_once(&mut patient).await;
    gate.open();
    patient.await.unwrap();
    assert!(!gate.batches().concat().contains('b'));
}

/// What processes share, in one.
#[derive(Debug, Default)]
struct Shelf(Mutex<HashMap<Key, Vec<u8>>>);

#[async_trait::async_trait]
impl SharedCache for Shelf {
    async fn get(&self, keys: &[Key], _max_bytes: usize) -> Vec<Option<Vec<u8>>> {
        let values = self.0.lock().unwrap();
        keys.iter().map(|key| values.get(key).cloned()).collect()
    }

    fn put(&self, key: Key, value: Vec<u8>) {
        self.0.lock().unwrap().insert(key, value);
    }

    fn remove(&self, keys: Vec<Key>) {
        let mut values = self.0.lock().unwrap();
        for key in keys {
            values.remove(&key);
        }
    }
}

fn start_sharing(gate: &Arc<Gate>, shelf: &Arc<Shelf>) -> Backbone {
    let shared: Arc<dyn SharedCache> = Arc::<Shelf>::clone(shelf);
    start_with(gate, &options(1, 100), &rebuild_of(gate), Some(shared))
}

#[tokio::test]
async fn what_one_backbone_has_encoded_another_finds_in_the_shared_cache() {
    let (shelf, gate) = (Arc::new(Shelf::default()), Gate::opened());
    let long = "x".repeat(WINDOW + 1);
    let first = embed(&start_sharing(&Gate::opened(), &shelf), &["ab", &long]).await.unwrap();
    let second = start_sharing(&gate, &shelf);
    let found = embed(&second, &["ab", "c", &long, "ab"]).await.unwrap();
    assert_eq!(gate.batches(), ["c"]);
    let encoded = |at: usize| {
        let Embedded { embedding, tokens, truncated, cached } = found[at].clone().unwrap();
        (cached, Embedded { embedding, tokens, truncated, cached: false })
    };
    assert_eq!(encoded(0), (true, first[0].clone().unwrap()));
    assert_eq!(encoded(2), (true, first[1].clone().unwrap()));
    assert!(!encoded(1).0 && encoded(3).0);
    // It is in memory now; and whoever does not let a text be cut is refused, whoever let it be cut before.
    shelf.0.lock().unwrap().clear();
    let refused = second.embed(texts(&["ab", &long]), Overflow::Error, None).await.unwrap();
    assert!(refused[0].as_ref().unwrap().cached);
    assert_eq!(refused[1], Err(InputError::TooLong { tokens: WINDOW + 1, max_tokens: WINDOW }));
}

#[tokio::test]
async fn a_value_that_is_no_embedding_of_its_text_is_encoded_again_and_replaced() {
    let (shelf, gate) = (Arc::new(Shelf::default()), Gate::opened());
    let first = embed(&start_sharing(&gate, &shelf), &["a", "b"]).await.unwrap();
    let right = shelf.0.lock().unwrap().clone();
    // Each under the key of the other.
    let (keys, mut values): (Vec<Key>, Vec<Vec<u8>>) = right.clone().into_iter().unzip();
    values.reverse();
    *shelf.0.lock().unwrap() = keys.into_iter().zip(values).collect();
    let again = embed(&start_sharing(&gate, &shelf), &["a", "b"]).await.unwrap();
    let numbers = |results: &[Result<Embedded, InputError>]| -> Vec<Arc<[f32]>> {
        results.iter().map(|result| Arc::clone(&result.as_ref().unwrap().embedding)).collect()
    };
    assert_eq!(numbers(&again), numbers(&first));
    assert_eq!(gate.batches().concat().len(), 4);
    assert_eq!(*shelf.0.lock().unwrap(), right);
}

#[tokio::test]
async fn what_is_forgotten_leaves_both_levels() {
    let (shelf, gate) = (Arc::new(Shelf::default()), Gate::opened());
    let backbone = start_sharing(&gate, &shelf);
    embed(&backbone, &["a", "b"]).await.unwrap();
    backbone.forget(&texts(&["a"]));
    assert_eq!(shelf.0.lock().unwrap().len(), 1);
    let again = embed(&backbone, &["a", "b"]).await.unwrap();
    assert!(!again[0].as_ref().unwrap().cached && again[1].as_ref().unwrap().cached);
}

/// Remembers one counter.
struct Truncations(Arc<AtomicU64>);

impl ::metrics::Recorder for Truncations {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &::metrics::Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            "polyreward_embedding_truncated_total" => Counter::from_arc(Arc::clone(&self.0)),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, _: &::metrics::Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &::metrics::Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn a_cut_text_is_counted_each_time_it_is_answered() {
    let count = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    ::metrics::with_local_recorder(&Truncations(Arc::clone(&count)), || {
        runtime.block_on(async {
            let backbone = start(&Gate::opened(), &options(1, 100));
            let long = "x".repeat(WINDOW + 1);
            for times in 1..=3 {
                embed(&backbone, &["a", &long]).await.unwrap();
                assert_eq!(count.load(Ordering::Relaxed), times);
            }
            // Refused is not cut.
            backbone.embed(texts(&[&long]), Overflow::Error, None).await.unwrap();
            assert_eq!(count.load(Ordering::Relaxed), 3);
        });
    });
}
