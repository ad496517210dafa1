//! Intervals of a spread: of what is never below zero, and what noise alone makes larger.
//!
//! The range of groups' accuracies and the calibration error are both norms of a vector `v` of differences. Of
//! `v + noise` they are larger than of `v`, so that percentiles of draws lie too high and never reach zero. What is asked
//! instead is for which sizes `s` of the vector the observed value is a usual one: `norm(s v + noise)`, with the noise that
//! the draws have about the estimate, is below it and above it in at least 2.5 % of the draws each. At `s = 0` that is the
//! test of no difference at all. Instead of `s v`, another vector of that norm may be put where it is less kind to a limit; see
//! `docs/adr/0011-intervals-of-groups.md`.

use crate::evaluation::Interval;

const TAIL: f64 = 0.025;
/// Halvings of the range of sizes: to 1 part in 4096.
const HALVINGS: usize = 12;
/// Doublings of the size for which an upper limit is looked.
const DOUBLINGS: usize = 12;

/// Which end of an interval is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Lower,
    Upper,
}

/// The 95 % interval of a norm that was observed to be `observed`. `norms(limit, s, out)` fills `out` with the norms of the
/// draws at `s` times the observed size, leaving out those that are not defined.
pub(super) fn interval_of_norm(
    observed: f64,
    mut norms: impl FnMut(Limit, f64, &mut Vec<f64>),
) -> Option<Interval> {
    let mut values = Vec::new();
    let mut shares = |limit: Limit, size: f64| {
        values.clear();
        norms(limit, size, &mut values);
        let count = values.len() as f64;
        let below = values.iter().filter(|value| **value <= observed).count() as f64 / count;
        let above = values.iter().filter(|value| **value >= observed).count() as f64 / count;
        (below, above)
    };
    if shares(Limit::Upper, 1.0).0.is_nan() {
        return None;
    }
    let mut too_small = |size: f64| shares(Limit::Lower, size).1 < TAIL;
    let lower = if too_small(0.0) { bisect(0.0, 1.0, too_small) } else { 0.0 };
    let mut not_too_large = |size: f64| shares(Limit::Upper, size).0 >= TAIL;
    let mut beyond = 1.0;
    for _ in 0..DOUBLINGS {
        if !not_too_large(beyond) {
            break;
        }
        beyond *= 2.0;
    }
    let upper = bisect(0.0, beyond, not_too_large);
    // What was observed stays in the interval even where noise alone would seldom leave so little: it then says less than it
    // might, and nothing that looks certain.
    Some([lower * observed, upper.max(1.0) * observed])
}

/// Where `holds`, true at `low`, ends to be.
fn bisect(mut low: f64, mut high: f64, mut holds: impl FnMut(f64) -> bool) -> f64 {
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if holds(middle) { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}
