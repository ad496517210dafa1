//! What the product promises to cost, and whether it does.

use serde::{Deserialize, Serialize};

use crate::statistics::Spread;

/// Which side of the limit is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// No less than the limit.
    AtLeast,
    /// No more than the limit.
    AtMost,
}

/// One promise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// How benches name it.
    pub id: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// Which side of the limit is good.
    pub side: Side,
    /// The limit.
    pub limit: f64,
    /// What the limit counts; a ratio counts nothing.
    pub unit: &'static str,
    /// The bench and its section that measure it.
    pub measured_by: (&'static str, &'static str),
}

/// Section 9 of the product's contract.
pub const BUDGETS: [Budget; 8] = [
    Budget {
        id: "unseen-throughput",
        what: "/score on texts never seen / a bare ONNX Runtime loop with ideal batches over the same texts",
        side: Side::AtLeast,
        limit: 0.90,
        unit: "",
        measured_by: ("score", "texts never seen"),
    },
    Budget {
        id: "warm-throughput",
        what: "/score with warm embeddings / the same handler doing nothing but parse and answer, requests/s at 32 connections",
        side: Side::AtLeast,
        limit: 0.5,
        unit: "",
        measured_by: ("score", "warm embeddings"),
    },
    Budget {
        id: "warm-p99",
        what: "/score with warm embeddings, p99 at 32 connections",
        side: Side::AtMost,
        limit: 5.0,
        unit: "ms",
        measured_by: ("score", "warm embeddings"),
    },
    Budget {
        id: "many-people",
        what: "10 000 users x 1 pair more than 1 user x 1 pair, warm embeddings",
        side: Side::AtMost,
        limit: 10.0,
        unit: "ms",
        measured_by: ("people", "ten thousand people"),
    },
    Budget {
        id: "adapting",
        what: "a user with 8 new examples, embeddings known",
        side: Side::AtMost,
        limit: 1.0,
        unit: "ms",
        measured_by: ("people", "adapting"),
    },
    Budget {
        id: "adapting-vpl",
        what: "a user with 8 new examples, embeddings known, VPL",
        side: Side::AtMost,
        limit: 3.0,
        unit: "ms",
        measured_by: ("people", "adapting"),
    },
    Budget {
        id: "training",
        what: "training all six heads on persona.jsonl.gz (20 160 comparisons), embeddings known",
        side: Side::AtMost,
        limit: 60.0,
        unit: "s",
        measured_by: ("people", "training"),
    },
    Budget {
        id: "idle-memory",
        what: "memory of an idle server with the default backbone",
        side: Side::AtMost,
        limit: 350.0,
        unit: "MiB",
        measured_by: ("people", "memory"),
    },
];

/// Whether a budget is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// By the median.
    pub met: bool,
    /// And by every measurement: a verdict that is not the same in all rounds is a narrow one.
    pub in_every_round: bool,
    /// How far the median is on the good side of the limit, as a share of the limit; negative where it is on the other.
    pub margin: f64,
}

impl Budget {
    /// A budget by its name.
    pub fn find(id: &str) -> Option<&'static Self> {
        BUDGETS.iter().find(|budget| budget.id == id)
    }

    /// Judges what was measured.
    pub fn judge(&self, measured: &Spread) -> Verdict {
        let sign = match self.side {
            Side::AtLeast => 1.0,
            Side::AtMost => -1.0,
        };
        let good = |value: f64| sign * (value - self.limit) >= 0.0;
        let worst = if self.side == Side::AtLeast { measured.min } else { measured.max };
        let best = if self.side == Side::AtLeast { measured.max } else { measured.min };
        let met = good(measured.median);
        Verdict {
            met,
            in_every_round: if met { good(worst) } else { !good(best) },
            margin: sign * (measured.median - self.limit) / self.limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(id: &str, values: &[f64]) -> Verdict {
        Budget::find(id).unwrap().judge(&Spread::of(values).unwrap())
    }

    #[test]
    fn a_floor_is_kept_from_above_and_a_ceiling_from_below() {
        let kept = judged("unseen-throughput", &[0.95, 0.99, 0.97]);
        assert!(kept.met && kept.in_every_round && (kept.margin - 0.07 / 0.9).abs() < 1e-12, "{kept:?}");
        let kept = judged("idle-memory", &[175.0]);
        assert!(kept.met && kept.in_every_round && kept.margin == 0.5);
        let broken = judged("adapting", &[1.4, 1.5, 1.6]);
        assert!(!broken.met && broken.in_every_round && broken.margin == -0.5);
    }

    #[test]
    fn a_verdict_that_rounds_disagree_about_is_narrow() {
        let narrow = judged("unseen-throughput", &[0.85, 0.91, 0.95]);
        assert!(narrow.met && !narrow.in_every_round);
        let narrow = judged("warm-p99", &[4.0, 5.5, 6.0]);
        assert!(!narrow.met && !narrow.in_every_round);
    }

    #[test]
    fn names_are_told_apart() {
        let mut ids: Vec<&str> = BUDGETS.iter().map(|budget| budget.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), BUDGETS.len());
    }
}
