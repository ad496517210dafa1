//! Drawing anew whoever or whatever was observed, with replacement.

use std::thread;

use rand::Rng as _;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::evaluation::{Bootstrap, Interval};

/// Additions below which another thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 22;

/// Draws that are made before their statistics are: whoever walks through all units does it once for all of these.
pub(crate) const TOGETHER: usize = 8;

/// `width` statistics of each draw, `[draws, width]`. `statistics` is given how often each unit was drawn, for up to
/// [`TOGETHER`] draws, and fills a row for each. `places` says where the count of each unit stands, so that the same units are
/// drawn in whatever order they are counted.
///
/// Each draw has a stream of random numbers of its own, so that the result is the same however many threads share the work.
/// They are half of the machine's at most: the other half goes on serving.
pub(crate) fn draw(
    places: &[u32],
    bootstrap: Bootstrap,
    width: usize,
    statistics: impl Fn(&[Vec<u16>], &mut [f64]) + Sync,
) -> Vec<f64> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let threads = cores.min((places.len() * bootstrap.draws).div_ceil(WORTH_A_THREAD));
    draw_on(threads, places, bootstrap, width, statistics)
}

fn draw_on(
    threads: usize,
    places: &[u32],
    bootstrap: Bootstrap,
    width: usize,
    statistics: impl Fn(&[Vec<u16>], &mut [f64]) + Sync,
) -> Vec<f64> {
    let mut drawn = vec![0.0; bootstrap.draws * width];
    if drawn.is_empty() || places.is_empty() {
        return drawn;
    }
    let share = bootstrap.draws.div_ceil(threads);
    let work = |first: usize, rows: &mut [f64]| {
        let mut counts = vec![vec![0_u16; places.len()]; TOGETHER];
        for (at, rows) in rows.chunks_mut(TOGETHER * width).enumerate() {
            let counts = &mut counts[..rows.len() / width];
            for (draw, counts) in counts.iter_mut().enumerate() {
                let draw = first + at * TOGETHER + draw;
                count_draw(counts, places, &mut stream(bootstrap.seed, draw as u64));
            }
            statistics(counts, rows);
        }
    };
    if threads == 1 {
        work(0, &mut drawn);
    } else {
        thread::scope(|scope| {
            for (part, rows) in drawn.chunks_mut(share * width).enumerate() {
                let work = &work;
                scope.spawn(move || work(part * share, rows));
            }
        });
    }
    drawn
}

/// Places of units that are counted in the order in which they are drawn.
pub(crate) fn in_order(units: usize) -> Vec<u32> {
    (0..).take(units).collect()
}

/// Random numbers of their own for each `stream` of a seed.
pub(crate) fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// A number below `bound`. Some are likelier than others by less than `bound / 2^32`, which no interval can show.
pub(crate) fn below(bound: usize, rng: &mut ChaCha8Rng) -> usize {
    ((u64::from(rng.next_u32()) * bound as u64) >> 32) as usize
}

/// How often each unit comes when as many are drawn as there are.
fn count_draw(counts: &mut [u16], places: &[u32], rng: &mut ChaCha8Rng) {
    counts.fill(0);
    for _ in places {
        // That one unit comes 65 536 times takes that many units, and then has a chance of 1 in 65 536 factorial.
        counts[places[below(places.len(), rng)] as usize] += 1;
    }
}

/// The 95 % percentile interval of drawn values; those on which the statistic is not defined (not a number) are left out.
/// None where all are.
pub(crate) fn percentiles(values: &mut Vec<f64>) -> Option<Interval> {
    values.retain(|value| !value.is_nan());
    if values.is_empty() {
        return None;
    }
    Some([0.025, 0.975].map(|q| selected_quantile(values, q)))
}

/// The `q` quantile, linear between two, of values that are not sorted, and need not be.
fn selected_quantile(values: &mut [f64], q: f64) -> f64 {
    let low = (q * (values.len() - 1) as f64).floor() as usize;
    let (_, at, above) = values.select_nth_unstable_by(low, f64::total_cmp);
    let next = above.iter().copied().min_by(f64::total_cmp).unwrap_or(*at);
    *at + (next - *at) * (q * (values.len() - 1) as f64).fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::quantile;

    #[test]
    fn a_draw_is_the_same_on_any_number_of_threads() {
        let bootstrap = Bootstrap { draws: 53, seed: 9 };
        let on = |threads| {
            draw_on(threads, &in_order(20), bootstrap, 20, |draws, to| {
                for (counts, to) in draws.iter().zip(to.chunks_exact_mut(20)) {
                    for (count, to) in counts.iter().zip(to) {
                        *to = f64::from(*count);
                    }
                }
            })
        };
        let drawn = on(1);
        assert!(drawn.chunks(20).all(|counts| counts.iter().sum::<f64>() == 20.0));
        assert_ne!(drawn[..20], drawn[20..40]);
        assert_eq!([&on(2), &on(3), &on(8)], [&drawn; 3]);
    }

    #[test]
    fn percentiles_are_quantiles_of_what_is_a_number() {
        let mut rng = stream(1, 0);
        let mut values: Vec<f64> = (0..211).map(|_| f64::from(rng.next_u32())).collect();
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        values.insert(17, f64::NAN);
        assert_eq!(percentiles(&mut values), Some([quantile(&sorted, 0.025), quantile(&sorted, 0.975)]));
        assert_eq!(percentiles(&mut vec![f64::NAN]), None);
        assert_eq!(percentiles(&mut vec![2.0]), Some([2.0; 2]));
    }
}
