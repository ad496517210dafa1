//! Texts a second through a backbone, against a bare loop over ONNX Runtime that knows all texts beforehand.
//!
//! ```text
//! cargo run --release -p polyreward-backbone --example throughput -- .cache/backbones/NAME [WORDS]
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ort::session::Session;
use ort::value::TensorRef;
use polyreward_backbone::batch::least_cost_cuts;
use polyreward_backbone::{Backbone, BackboneOptions, EmbedInput, environment};
use polyreward_domain::{Overflow, Prompt, TextForm};

const TEXTS: usize = 4000;
const CALLERS: usize = 32;
const ROUNDS: usize = 3;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("name a backbone folder");
    let words: usize = arguments.next().map_or(6, |words| words.parse().expect("WORDS is a number"));
    let options = BackboneOptions { cache_bytes: 0, ..BackboneOptions::default() };
    let before = resident_mib();
    let backbone = Backbone::open(Path::new(&folder), &options).expect("the backbone opens");
    println!("{} sessions, {} MiB for the backbone", options.sessions, resident_mib() - before);
    let inputs: Vec<EmbedInput> = (0..TEXTS).map(|number| text(number, words)).collect();
    let texts = backbone.tokenize(&inputs, Overflow::Truncate);
    let ids: Vec<Vec<u32>> = texts.into_iter().map(|text| text.expect("it tokenizes").ids).collect();
    println!("{:.1} tokens a text", ids.iter().map(Vec::len).sum::<usize>() as f64 / TEXTS as f64);
    let started = Instant::now();
    backbone.tokenize(&inputs, Overflow::Truncate);
    println!("tokenizer alone: {:.0} texts/s", TEXTS as f64 / started.elapsed().as_secs_f64());
    let mut sessions = bare_sessions(&folder, options.sessions);
    for _ in 0..ROUNDS {
        let bare = rate(|| bare_loop(&mut sessions, ids.clone(), options.max_batch_tokens));
        let bulk = rate(|| {
            let results = backbone.embed_blocking(inputs.clone(), Overflow::Truncate, None, |_| ());
            assert_eq!(results.expect("it embeds").len(), TEXTS);
        });
        let callers = rate(|| many_callers(&backbone, &inputs));
        println!(
            "bare loop {bare:.0} texts/s; bulk {bulk:.0} ({:.2}); {CALLERS} callers {callers:.0} ({:.2})",
            bulk / bare,
            callers / bare
        );
    }
    println!("{} MiB at the end", resident_mib());
}

fn rate(run: impl FnOnce()) -> f64 {
    let started = Instant::now();
    run();
    TEXTS as f64 / started.elapsed().as_secs_f64()
}

/// A different text for each number, of a quarter to seven quarters of `words` words.
fn text(number: usize, words: usize) -> EmbedInput {
    let words_here = words / 4 + number * 7919 % (words * 3 / 2 + 1) + 1;
    let word =
        |at: usize| ["river", "trout", "garden", "kitchen", "summer", "letter"][(number + at * at) % 6];
    let response: Vec<&str> = (0..words_here).map(word).collect();
    EmbedInput {
        form: TextForm::PromptResponse,
        prompt: Arc::new(Prompt::Text(format!("Say number {number}."))),
        response: response.join(" ").into(),
    }
}

fn bare_sessions(folder: &str, count: usize) -> Vec<Session> {
    let environment = environment(None).expect("the library was loaded");
    let model = Path::new(folder).join("model.onnx");
    let session = || {
        let builder = Session::builder(&environment)?.with_intra_threads(1)?;
        builder.with_memory_pattern(false)?.commit_from_file(&model)
    };
    (0..count).map(|_| session().expect("a session starts")).collect()
}

/// All texts sorted and cut at least cost, each batch to the next free session.
fn bare_loop(sessions: &mut [Session], mut ids: Vec<Vec<u32>>, max_batch_tokens: usize) {
    ids.sort_by_key(Vec::len);
    let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
    let cuts = least_cost_cuts(&lengths, max_batch_tokens);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for session in sessions {
            scope.spawn(|| {
                loop {
                    let batch = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&end) = cuts.get(batch) else { return };
                    let start = if batch == 0 { 0 } else { cuts[batch - 1] };
                    run(session, &ids[start..end]);
                }
            });
        }
    });
}

fn run(session: &mut Session, texts: &[Vec<u32>]) {
    let width = texts.iter().map(Vec::len).max().unwrap_or(0);
    let (mut ids, mut mask) = (vec![0_i64; texts.len() * width], vec![0_i64; texts.len() * width]);
    for (row, text) in texts.iter().enumerate() {
        for (at, id) in text.iter().enumerate() {
            ids[row * width + at] = i64::from(*id);
            mask[row * width + at] = 1;
        }
    }
    let tensor = |cells| TensorRef::from_array_view(([texts.len(), width], cells)).expect("shapes agree");
    let inputs = vec![("input_ids", tensor(&ids[..])), ("attention_mask", tensor(&mask[..]))];
    session.run(inputs).expect("the model runs");
}

/// One text a request, as fast as answers come.
fn many_callers(backbone: &Backbone, inputs: &[EmbedInput]) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let mine: Vec<EmbedInput> = inputs.iter().skip(caller).step_by(CALLERS).cloned().collect();
                let backbone = backbone.clone();
                tokio::spawn(async move {
                    for input in mine {
                        backbone.embed(vec![input], Overflow::Truncate, None).await.expect("it embeds");
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("a caller ends");
        }
    });
}

/// Resident memory of this process; 0 where the system does not say.
fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap_or(0) / 1024
}
