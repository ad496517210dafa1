//! How often intervals of groups hold what they should, by simulation: what `docs/adr/0011-intervals-of-groups.md` reports.
//!
//! `cargo test -p polyreward-heads simulation -- --ignored --nocapture` prints the tables: of each candidate, how often it held
//! the truth in %, and in parentheses how often it lay above it, how often it held zero, and its mean width.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{gap::range_of, *};
use crate::{
    evaluation::quantile,
    resampling::{draw, in_order, stream},
};

const DRAWS: usize = 400;
const REPEATS: u64 = 400;

/// People of a group: accuracies around the group's with as much spread as a beta distribution of 20 coins has.
fn group(users: usize, predictions: (usize, usize), accuracy: f64, rng: &mut ChaCha8Rng) -> Vec<(f64, f64)> {
    (0..users)
        .map(|_| {
            let n = rng.random_range(predictions.0..=predictions.1);
            let theirs = (0..20).filter(|_| rng.random_bool(accuracy)).count() as f64 / 20.0;
            (n as f64, (0..n).filter(|_| rng.random_bool(theirs)).count() as f64)
        })
        .collect()
}

fn ratio<'a>(people: impl Iterator<Item = (f64, &'a (f64, f64))>) -> f64 {
    let (n, x) =
        people.fold((0.0, 0.0), |(n, x), (count, person)| (n + count * person.0, x + count * person.1));
    x / n
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Standard normal distribution function.
fn normal(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// Its inverse, by bisection.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if normal(middle) < p { low = middle } else { high = middle }
    }
    low
}

/// Each candidate's interval of a norm: of `value` observed, `norms` of the draws, one contrast's `fixed` draws, and the norm
/// of (size, draw).
fn candidates(
    value: f64,
    norms: &[f64],
    fixed: &[f64],
    scaled: impl Fn(f64, usize) -> f64,
    chosen: impl Fn(inversion::Limit, f64, &mut Vec<f64>),
) -> [Interval; CANDIDATES] {
    let ends = |values: &[f64]| [quantile(values, 0.025), quantile(values, 0.975)];
    let [low, high] = ends(norms);
    let below = norms.iter().filter(|norm| **norm < value).count() as f64 / norms.len() as f64;
    let shift = 2.0 * normal_quantile(below.clamp(0.5 / norms.len() as f64, 1.0));
    let corrected = [-1.959_964, 1.959_964].map(|z| quantile(norms, normal(shift + z)));
    let inverted = inversion::interval_of_norm(value, |_, size, out| {
        out.extend((0..norms.len()).map(|draw| scaled(size, draw)).filter(|norm| norm.is_finite()));
    });
    [
        [low, high],
        [(2.0 * value - high).max(0.0), (2.0 * value - low).max(0.0)],
        ends(fixed).map(|end| end.max(0.0)),
        corrected,
        inverted.unwrap(),
        inversion::interval_of_norm(value, chosen).unwrap(),
    ]
}

const CANDIDATES: usize = 6;
const NAMES: [&str; CANDIDATES] = ["percentile", "basic", "fixed pair", "bias-corrected", "scaled", "chosen"];

#[derive(Debug, Default)]
struct Score {
    covered: [u64; CANDIDATES],
    zero: [u64; CANDIDATES],
    width: [f64; CANDIDATES],
    above: [u64; CANDIDATES],
    repeats: u64,
}

impl Score {
    fn add(&mut self, intervals: [Interval; CANDIDATES], truth: f64) {
        self.repeats += 1;
        for (at, [low, high]) in intervals.into_iter().enumerate() {
            self.covered[at] += u64::from(low <= truth + 1e-9 && truth <= high + 1e-9);
            self.above[at] += u64::from(low > truth + 1e-9);
            self.zero[at] += u64::from(low <= 0.0);
            self.width[at] += high - low;
        }
    }

    fn print(&self, what: &str) {
        let per = |count: u64| 100.0 * count as f64 / self.repeats as f64;
        let cells: Vec<String> = (0..NAMES.len())
            .map(|at| {
                let width = self.width[at] / self.repeats as f64;
                format!(
                    "{:.1} (-{:.1}, {:.0}, {width:.3})",
                    per(self.covered[at]),
                    per(self.above[at]),
                    per(self.zero[at])
                )
            })
            .collect();
        println!("| {what} | {} |", cells.join(" | "));
    }
}

#[test]
#[ignore = "minutes"]
fn coverage_of_the_gap() {
    println!("| groups x people x predictions: accuracies | {} |", NAMES.join(" | "));
    for (groups, users) in
        [(2, 10), (2, 50), (2, 200), (5, 10), (5, 50), (5, 200), (20, 10), (20, 50), (20, 200)]
    {
        for (what, accuracies) in [
            ("equal", vec![0.8; groups]),
            ("one .1 lower", (0..groups).map(|at| if at == 0 { 0.7 } else { 0.8 }).collect()),
            ("one .3 lower", (0..groups).map(|at| if at == 0 { 0.5 } else { 0.8 }).collect()),
            ("even, .7 to .85", (0..groups).map(|at| 0.7 + 0.15 * at as f64 / (groups - 1) as f64).collect()),
        ] {
            let accuracies: Vec<f64> = accuracies;
            let truth = f64::from(range_of(accuracies.iter().map(|a| *a as f32)));
            let mut score = Score::default();
            for repeat in 0..REPEATS {
                let mut rng = stream(repeat, 1 << 40);
                let mut starts = vec![0];
                let mut people = Vec::new();
                for accuracy in &accuracies {
                    people.extend(group(users, (5, 30), *accuracy, &mut rng));
                    starts.push(people.len());
                }
                let of = |counts: &[u16], at: usize| {
                    let range = starts[at]..starts[at + 1];
                    ratio(counts[range.clone()].iter().map(|count| f64::from(*count)).zip(&people[range]))
                };
                let ones = vec![1; people.len()];
                let estimates: Vec<f64> = (0..groups).map(|at| of(&ones, at)).collect();
                let drawn = draw(
                    &in_order(people.len()),
                    Bootstrap { draws: DRAWS, seed: repeat },
                    groups,
                    |draws, to| {
                        for (at, to) in to.iter_mut().enumerate() {
                            *to = of(&draws[at / groups], at % groups);
                        }
                    },
                );
                score.add(gap_candidates(&estimates, &drawn, users), truth);
            }
            score.print(&format!("{groups} x {users}: {what}"));
        }
    }
}

fn gap_candidates(estimates: &[f64], drawn: &[f64], users: usize) -> [Interval; CANDIDATES] {
    let groups = estimates.len();
    let range = |values: &mut dyn Iterator<Item = f64>| f64::from(range_of(values.map(|value| value as f32)));
    let value = range(&mut estimates.iter().copied());
    let norms = sorted(drawn.chunks(groups).map(|draw| range(&mut draw.iter().copied())));
    let order = |at: &usize, other: &usize| estimates[*at].total_cmp(&estimates[*other]);
    let best = (0..groups).max_by(order).unwrap();
    let worst = (0..groups).min_by(order).unwrap();
    let fixed = sorted(drawn.chunks(groups).map(|draw| draw[best] - draw[worst]));
    let stretch = (users as f64 / (users - 1) as f64).sqrt();
    let weights: Vec<f64> = (0..groups)
        .map(|at| 1.0 / drawn.chunks(groups).map(|draw| (draw[at] - estimates[at]).powi(2)).sum::<f64>())
        .collect();
    let scaled = |size: f64, draw: usize| {
        let at = |at: usize| size * estimates[at] + stretch * (drawn[draw * groups + at] - estimates[at]);
        range(&mut (0..groups).map(at))
    };
    candidates(value, &norms, &fixed, scaled, |limit, size, out| {
        let centre = match limit {
            inversion::Limit::Lower => gap::cut_off(size * value, estimates, &weights),
            inversion::Limit::Upper => estimates.iter().map(|estimate| size * estimate).collect(),
        };
        out.extend(
            drawn.chunks(groups).map(|draw| {
                range(&mut (0..groups).map(|at| centre[at] + stretch * (draw[at] - estimates[at])))
            }),
        );
    })
}

#[test]
#[ignore = "minutes"]
fn coverage_of_the_calibration_error() {
    println!("| people, confidence too high by | {} |", NAMES.join(" | "));
    for users in [10, 50, 200, 1000] {
        for excess in [0.0, 0.02, 0.05, 0.1] {
            let mut score = Score::default();
            for repeat in 0..REPEATS {
                let mut rng = stream(repeat, 1 << 40);
                let people: Vec<Tally> = (0..users)
                    .map(|_| {
                        // Somebody is easier or harder to predict than confidence says, on average by nothing.
                        let theirs = rng.random_range(-0.1..0.1);
                        let mut tally = Tally::default();
                        for _ in 0..rng.random_range(5..=30) {
                            let confidence: f64 = rng.random_range(0.7..0.9);
                            let right = rng.random_bool(confidence - excess + theirs);
                            tally.add(if right { confidence } else { 1.0 - confidence }, 0.5, None);
                        }
                        tally
                    })
                    .collect();
                let rows: Vec<_> = people.iter().map(|person| rows::row(person, 0.0)).collect();
                let totals = Totals::of(&people);
                let n = totals.sums.n();
                let bins = |excesses| figures::calibration_bins(n, excesses);
                let estimate = bins(figures::excesses(&totals.sums));
                let drawn = draw(
                    &in_order(users),
                    Bootstrap { draws: DRAWS, seed: repeat },
                    rows::CLASSES,
                    |draws, to| {
                        let sums = Drawn::of(&rows, draws, 0..users);
                        for (sums, to) in sums.iter().zip(to.chunks_exact_mut(rows::CLASSES)) {
                            to.copy_from_slice(&bins(sums.excesses()));
                        }
                    },
                );
                let norm = |values: &mut dyn Iterator<Item = f64>| values.map(f64::abs).sum::<f64>();
                let norms = sorted(drawn.chunks(rows::CLASSES).map(|draw| norm(&mut draw.iter().copied())));
                let signed =
                    |draw: &[f64]| draw.iter().zip(&estimate).map(|(a, b)| a * b.signum()).sum::<f64>();
                let fixed = sorted(drawn.chunks(rows::CLASSES).map(signed));
                let stretch = (f64::from(users as u32) / f64::from(users as u32 - 1)).sqrt();
                let value = norm(&mut estimate.iter().copied());
                let intervals = candidates(
                    value,
                    &norms,
                    &fixed,
                    |size, draw| {
                        let draw = &drawn[draw * rows::CLASSES..][..rows::CLASSES];
                        norm(&mut draw.iter().zip(&estimate).map(|(a, b)| size * b + stretch * (a - b)))
                    },
                    |_, size, out| {
                        out.extend(drawn.chunks(rows::CLASSES).map(|draw| {
                            norm(&mut draw.iter().zip(&estimate).map(|(a, b)| size * b + stretch * (a - b)))
                        }));
                    },
                );
                // All of the classes are off by as much and in one direction.
                score.add(intervals, excess);
            }
            score.print(&format!("{users}, {excess}"));
        }
    }
}

#[test]
#[ignore = "minutes"]
fn coverage_of_changes() {
    println!("| 8 groups of 30 | worst group: chosen | the other | gap: chosen | the other |");
    let level = [0.8; 8];
    let low = [0.6, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8];
    let other = [0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.6];
    let better = [0.7, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9];
    for (what, before, after) in [
        ("level, level", level, level),
        ("low, level", low, level),
        ("low, low", low, low),
        ("low, another low", low, other),
        ("low, all better", low, better),
    ] {
        let mut covered = [0_u32; 4];
        for repeat in 0..REPEATS {
            let mut rng = stream(repeat, 1 << 43);
            let group_of: Vec<usize> = (0..240).map(|at| at / 30).collect();
            let tallies = [after, before].map(|accuracies| -> Vec<Tally> {
                let people = accuracies.iter().flat_map(|accuracy| group(30, (5, 30), *accuracy, &mut rng));
                let tally = |(n, right): (f64, f64)| {
                    let mut tally = Tally::default();
                    for at in 0..n as u32 {
                        tally.add(if f64::from(at) < right { 0.8 } else { 0.2 }, 0.5, None);
                    }
                    tally
                };
                people.collect::<Vec<_>>().into_iter().map(tally).collect()
            });
            let sides = [&tallies[0], &tallies[1]].map(|tallies| Grouped {
                tallies,
                group_of: &group_of,
                groups: 8,
                min_users: 5,
            });
            let found = changes(sides[0], sides[1], Bootstrap { draws: DRAWS, seed: repeat }).unwrap();
            let ends = |accuracies: [f64; 8]| {
                accuracies.iter().fold((1.0_f64, 0.0_f64), |(low, high), a| (low.min(*a), high.max(*a)))
            };
            let (now, then) = (ends(after), ends(before));
            for (at, (change, truth)) in [
                (found.worst_group.unwrap(), now.0 - then.0),
                (found.gap.unwrap(), (now.1 - now.0) - (then.1 - then.0)),
            ]
            .into_iter()
            .enumerate()
            {
                let [low, high] = change.ci.unwrap();
                let reflected = [2.0 * change.value - high, 2.0 * change.value - low];
                for (kind, [low, high]) in [[low, high], reflected].into_iter().enumerate() {
                    covered[2 * at + kind] += u32::from(low <= truth + 1e-9 && truth <= high + 1e-9);
                }
            }
        }
        let cells = covered.map(|count| format!("{:.1}", 100.0 * f64::from(count) / REPEATS as f64));
        println!("| {what} | {} |", cells.join(" | "));
    }
}

#[test]
#[ignore = "a minute"]
fn coverage_of_clustered_intervals() {
    for users in [2, 3, 5, 10, 30, 100] {
        for accuracy in [0.5, 0.8, 0.95] {
            let (mut share, mut difference, mut width) = (0, 0, 0.0);
            for repeat in 0..4000 {
                let mut rng = stream(repeat, 1 << 41);
                let people = group(users, (1, 30), accuracy, &mut rng);
                let other = group(users, (1, 30), 0.7, &mut rng);
                let mut sums =
                    [RatioSums { users: users as u64, n: 0.0, x: 0.0, n_n: 0.0, n_x: 0.0, x_x: 0.0 }; 2];
                for ((n, right), (m, theirs)) in people.iter().zip(&other) {
                    let gain = right - (theirs / m * n).round();
                    for (sums, x) in sums.iter_mut().zip([*right, gain]) {
                        sums.n += n;
                        sums.x += x;
                        sums.n_n += n * n;
                        sums.n_x += n * x;
                        sums.x_x += x * x;
                    }
                }
                let [low, high] = share_interval(sums[0]).unwrap();
                share += u32::from(low <= accuracy && accuracy <= high);
                width += high - low;
                let [low, high] = difference_interval(sums[1]).unwrap();
                difference += u32::from(low <= accuracy - 0.7 && accuracy - 0.7 <= high);
            }
            let per = |count: u32| f64::from(count) / 40.0;
            println!(
                "| {users}, {accuracy} | {:.1} ({:.3}) | {:.1} |",
                per(share),
                width / 4000.0,
                per(difference)
            );
        }
    }
}

#[test]
#[ignore = "seconds, and says something in release only"]
fn time_of_20_000_people_in_200_groups() {
    let mut rng = stream(0, 1 << 42);
    let mut people = (Vec::new(), Vec::new());
    for at in 0..20_000 {
        let mut tally = Tally::default();
        for _ in 0..50 {
            let confidence: f64 = rng.random_range(0.5..1.0);
            let right = rng.random_bool(confidence);
            tally.add(if right { confidence } else { 1.0 - confidence }, 0.5, Some(0.6));
        }
        people.0.push(tally);
        people.1.push(at % 200);
    }
    let grouped = Grouped { tallies: &people.0, group_of: &people.1, groups: 200, min_users: 5 };
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let figures = by_group(grouped, Bootstrap::default()).unwrap();
        let by_group = start.elapsed();
        let start = std::time::Instant::now();
        let changes = changes(grouped, grouped, Bootstrap::default());
        println!("{by_group:?} {:?} {:?} {}", start.elapsed(), figures.gap, changes.is_some());
    }
}

#[test]
#[ignore = "seconds, and says something in release only"]
fn time_of_agreement_of_400_000_rows() {
    use crate::agreement::{Votes, agreement};
    let mut rng = stream(0, 1 << 44);
    let votes: Vec<Votes> = (0..400_000)
        .map(|at| Votes {
            pair: at / 2,
            group: at % 2,
            first: rng.random_range(0..3),
            second: rng.random_range(0..3),
        })
        .collect();
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let found = agreement(&votes, Bootstrap::default()).unwrap();
        println!("{:?} {:?}", start.elapsed(), found.overall);
    }
}
