//! What is done to texts around a run of the model: tokens are made of them, and they are cut into batches.

use std::{hint::black_box, path::PathBuf, sync::Arc};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use polyreward_backbone::{Backbone, BackboneOptions, EmbedInput, batch::least_cost_cuts};
use polyreward_domain::{Overflow, Prompt, TextForm};

/// Padded tokens in a batch, the server's default.
const MAX_BATCH_TOKENS: usize = 1024;

fn cuts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("least_cost_cuts");
    for texts in [64_usize, 1024, 4096] {
        // Lengths of 4 to 256 tokens, most of them short.
        let mut lengths: Vec<usize> = (0..texts).map(|at| 4 + (at * 7919 % 1009).pow(2) / 4040).collect();
        lengths.sort_unstable();
        group.throughput(Throughput::Elements(texts as u64));
        group.bench_with_input(BenchmarkId::from_parameter(texts), &lengths, |bencher, lengths| {
            bencher.iter(|| least_cost_cuts(black_box(lengths), MAX_BATCH_TOKENS));
        });
    }
}

fn tokenizer(criterion: &mut Criterion) {
    let cache = std::env::var_os("POLYREWARD_CACHE").map(PathBuf::from).expect("run it by `make bench`");
    let folder = cache.join("backbones").join("all-minilm-l6-v2-int8");
    let options = BackboneOptions { sessions: 1, ..BackboneOptions::default() };
    let backbone = Backbone::open(&folder, &options).expect("`make setup` builds the default backbone");
    let words = "The eastern route is longer but kinder on old knees, and the view of the lake is worth it. ";
    let mut group = criterion.benchmark_group("tokenizer");
    for (name, repeated) in [("short", 1), ("long", 11)] {
        let inputs: Vec<EmbedInput> = (0..64)
            .map(|at| EmbedInput {
                form: TextForm::PromptResponse,
                prompt: Arc::new(Prompt::Text(format!("Which route shall we take, number {at}?"))),
                response: Arc::from(words.repeat(repeated)),
            })
            .collect();
        group.throughput(Throughput::Elements(inputs.len() as u64));
        group.bench_function(format!("64 {name} texts"), |bencher| {
            bencher.iter(|| backbone.tokenize(black_box(&inputs), Overflow::Truncate));
        });
    }
    backbone.shutdown();
}

criterion_group!(benches, cuts, tokenizer);
criterion_main!(benches);
