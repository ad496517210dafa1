//! What became of the headline figures from one model to another, about the same people.

use polyreward_domain::Tally;

use super::{
    Change, Changes, Grouped,
    crowd::{Order, Totals, group_sizes, shown},
    figures::{excesses, expected_calibration_error},
    rows::{Drawn, Row, add_each},
};
use crate::{
    evaluation::{Bootstrap, Interval},
    resampling::{TOGETHER, draw, percentiles},
};

/// Accuracy, worst group, gap, calibration error.
const FIGURES: usize = 4;

/// What one model has in one draw, or over all.
#[derive(Debug, Clone, Copy)]
struct Headline {
    accuracy: f64,
    /// Lowest and highest accuracy of shown groups; not numbers where there is none.
    worst: f64,
    best: f64,
    ece: f64,
}

impl Headline {
    /// These figures less earlier ones.
    fn since(self, previous: Self) -> [f64; FIGURES] {
        [
            self.accuracy - previous.accuracy,
            self.worst - previous.worst,
            (self.best - self.worst) - (previous.best - previous.worst),
            self.ece - previous.ece,
        ]
    }
}

/// One model about everybody.
struct Side<'a> {
    tallies: &'a [Tally],
    rows: Vec<Row>,
    totals: Totals,
    /// By segment of the order.
    shown: Vec<bool>,
    sizes: Vec<usize>,
}

impl<'a> Side<'a> {
    fn new(tallies: &'a [Tally], order: &Order, sizes: &[usize], group_shown: &[bool]) -> Self {
        Self {
            tallies,
            rows: order.rows(tallies, 0.0),
            totals: Totals::of(tallies),
            shown: order.segments.iter().map(|(group, _)| group_shown[*group]).collect(),
            sizes: sizes.to_vec(),
        }
    }

    fn observed(&self, order: &Order) -> Headline {
        let groups = order.segments.iter().zip(&self.shown).filter(|(_, shown)| **shown);
        let accuracies = groups.map(|((_, range), _)| {
            Totals::of(order.people[range.clone()].iter().map(|at| &self.tallies[*at])).accuracy()
        });
        let (worst, best) = ends(accuracies);
        let n = self.totals.sums.n();
        let ece = expected_calibration_error(n, excesses(&self.totals.sums));
        Headline { accuracy: self.totals.accuracy(), worst, best, ece }
    }

    fn drawn(&self, order: &Order, draws: &[Vec<u16>]) -> [Headline; TOGETHER] {
        let mut everybody = [Drawn::default(); TOGETHER];
        let mut ends = [(f64::NAN, f64::NAN); TOGETHER];
        let mut end = 0;
        for ((_, range), shown) in order.segments.iter().zip(&self.shown) {
            let sums = Drawn::of(&self.rows, draws, range.clone());
            add_each(&mut everybody, &sums);
            if *shown {
                for ((low, high), sums) in ends.iter_mut().zip(&sums) {
                    // A group of which nobody was drawn has no accuracy, and is neither.
                    (*low, *high) = (low.min(sums.accuracy()), high.max(sums.accuracy()));
                }
            }
            end = range.end;
        }
        add_each(&mut everybody, &Drawn::of(&self.rows, draws, end..self.rows.len()));
        std::array::from_fn(|draw| Headline {
            accuracy: everybody[draw].accuracy(),
            worst: ends[draw].0,
            best: ends[draw].1,
            ece: expected_calibration_error(self.totals.sums.n(), everybody[draw].excesses()),
        })
    }

    fn shown_groups(&self) -> usize {
        self.shown.iter().filter(|shown| **shown).count()
    }

    /// Whether each group that is shown can vary.
    fn groups_vary(&self, order: &Order) -> bool {
        let mut groups = order.segments.iter().zip(&self.shown);
        groups.all(|((group, _), shown)| !shown || self.sizes[*group] >= 2)
    }
}

/// The lowest and the highest number; not a number each where there is none.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::NAN, f64::NAN), |(low, high), value| (low.min(value), high.max(value)))
}

/// How figures changed between two models that predicted about the same people, row by row; somebody about whom only one of
/// them did has an empty row in the other. None where either has no prediction.
///
/// People are drawn once for both models, so that what is peculiar to the people cancels. The groups are those of `current`.
///
/// # Panics
/// If the two are not about the same number of people.
pub fn changes(current: Grouped<'_>, previous: Grouped<'_>, bootstrap: Bootstrap) -> Option<Changes> {
    assert_eq!(current.tallies.len(), previous.tallies.len(), "people, row by row");
    let previous = Grouped { group_of: current.group_of, groups: current.groups, ..previous };
    let sizes = [current, previous].map(group_sizes);
    let group_shown = [shown(&sizes[0], current.min_users), shown(&sizes[1], previous.min_users)];
    let either: Vec<bool> = group_shown[0].iter().zip(&group_shown[1]).map(|(a, b)| *a || *b).collect();
    let order =
        Order::new(current.group_of, &either, |at| current.tallies[at].n() + previous.tallies[at].n() > 0);
    let now = Side::new(current.tallies, &order, &sizes[0], &group_shown[0]);
    let before = Side::new(previous.tallies, &order, &sizes[1], &group_shown[1]);
    if now.totals.users == 0 || before.totals.users == 0 {
        return None;
    }
    let values = now.observed(&order).since(before.observed(&order));
    let drawn = draw(&order.places(current.tallies.len()), bootstrap, FIGURES, |draws, to| {
        let pairs = now.drawn(&order, draws).into_iter().zip(before.drawn(&order, draws));
        for ((now, before), to) in pairs.zip(to.chunks_exact_mut(FIGURES)) {
            to.copy_from_slice(&now.since(before));
        }
    });
    let change = |figure: usize, known: bool| {
        let value = values[figure];
        let mut drawn = drawn.iter().skip(figure).step_by(FIGURES).copied().collect();
        let ci = if known { percentiles(&mut drawn) } else { None };
        // All but accuracy are larger or smaller for noise, and in the draws by as much again: reflected at the estimate
        // they make up for it (`docs/adr/0011-intervals-of-groups.md`).
        let reflect =
            |[low, high]: Interval| [2.0 * value - high, 2.0 * value - low].map(|end| end.clamp(-1.0, 1.0));
        Change { value, ci: if figure == 0 { ci } else { ci.map(reflect) } }
    };
    let enough = now.totals.users >= 2 && before.totals.users >= 2;
    let vary = now.groups_vary(&order) && before.groups_vary(&order);
    let groups = now.shown_groups().min(before.shown_groups());
    Some(Changes {
        accuracy: change(0, enough),
        worst_group: (groups >= 1).then(|| change(1, vary)),
        gap: (groups >= 2).then(|| change(2, vary)),
        ece: change(3, enough),
    })
}
