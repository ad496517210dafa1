//! A body of `/score` read and its answer written, with nothing between.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use polyreward_http::{Limits, parse_and_answer};

fn json(criterion: &mut Criterion) {
    let pair = r#"{"prompt": "Which of the two routes to the lake is kinder on old knees?", "response_a": "The eastern one: it is
        longer, and hardly rises.", "response_b": "Take the western one, it is over sooner."}"#
        .replace('\n', " ");
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("parse and answer");
    for pairs in [1, 64] {
        let body = format!(r#"{{"model": "pal-a", "pairs": [{}]}}"#, vec![pair.as_str(); pairs].join(","));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("{pairs} pairs"), |bencher| {
            bencher.iter(|| {
                parse_and_answer(body.as_bytes(), &limits).expect("the body is as the route takes it")
            });
        });
    }
}

criterion_group!(benches, json);
criterion_main!(benches);
