//! People as rows of sums, so that a draw of people is a weighted sum of rows.

use std::ops::Range;

use polyreward_domain::{CONFIDENCE_BINS, Tally};

use crate::resampling::TOGETHER;

/// Classes of confidence that can be right or wrong: all but that of the undecided.
pub(super) const CLASSES: usize = CONFIDENCE_BINS - 1;

const UNDECIDED: usize = 0;
const N: usize = 1;
const CORRECT: usize = N + CLASSES;
const EXCESS: usize = CORRECT + CLASSES;
const SHARE: usize = EXCESS + CLASSES;
const POPULATION: usize = SHARE + 1;
const USERS: usize = POPULATION + 1;
/// Filled up to whole vectors of four.
const WIDTH: usize = 20;

/// People whose rows are added up in single precision before they are added in double: counts below 2^24 stay exact.
const BLOCK: usize = 256;

/// One person's sums. Single precision, as a draw walks through all of them.
pub(super) type Row = [f32; WIDTH];

/// The row of a person; `mean_share` is taken off their accuracy, so that people who are alike add up to exactly nothing.
pub(super) fn row(tally: &Tally, mean_share: f64) -> Row {
    let mut row = [0.0; WIDTH];
    let n = tally.n();
    if n == 0 {
        return row;
    }
    row[UNDECIDED] = tally.bins[0].n as f32;
    for (class, bin) in tally.bins[1..].iter().enumerate() {
        row[N + class] = bin.n as f32;
        row[CORRECT + class] = bin.correct as f32;
        row[EXCESS + class] = (bin.confidence - bin.correct) as f32;
    }
    row[SHARE] = (tally.correct() / n as f64 - mean_share) as f32;
    row[POPULATION] = tally.population_correct as f32;
    row[USERS] = 1.0;
    row
}

/// Rows added up, each as often as its person was drawn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Drawn([f64; WIDTH]);

impl Drawn {
    /// Of the people in `range`, for each of up to [`TOGETHER`] draws.
    pub(super) fn of(rows: &[Row], draws: &[Vec<u16>], range: Range<usize>) -> [Self; TOGETHER] {
        let mut totals = [Self::default(); TOGETHER];
        for start in range.clone().step_by(BLOCK) {
            // A block stays in the nearest cache for all draws.
            let block = start..range.end.min(start + BLOCK);
            for (total, counts) in totals.iter_mut().zip(draws) {
                let sums = block_sum(&rows[block.clone()], &counts[block.clone()]);
                for (total, sum) in total.0.iter_mut().zip(sums) {
                    *total += f64::from(sum);
                }
            }
        }
        totals
    }

    /// Predictions.
    fn n(&self) -> f64 {
        self.0[UNDECIDED] + self.0[N..CORRECT].iter().sum::<f64>()
    }

    fn correct(&self) -> f64 {
        0.5 * self.0[UNDECIDED] + self.0[CORRECT..EXCESS].iter().sum::<f64>()
    }

    /// Share of right predictions; not a number where there is none.
    pub(super) fn accuracy(&self) -> f64 {
        self.correct() / self.n()
    }

    /// How much better than the population's reward.
    pub(super) fn gain(&self) -> f64 {
        (self.correct() - self.0[POPULATION]) / self.n()
    }

    /// Mean over people of their own accuracy, less what was taken off.
    pub(super) fn share(&self) -> f64 {
        self.0[SHARE] / self.0[USERS]
    }

    /// Accuracy by class; not a number where there is no prediction.
    pub(super) fn class_accuracies(&self) -> [f64; CLASSES] {
        std::array::from_fn(|class| self.0[CORRECT + class] / self.0[N + class])
    }

    /// By class, by how much confidence exceeds what was right, in parts of all predictions.
    pub(super) fn excesses(&self) -> [f64; CLASSES] {
        let n = self.n();
        std::array::from_fn(|class| self.0[EXCESS + class] / n)
    }
}

/// A few rows added up. It stands alone so that the sums stay in registers.
#[inline(never)]
fn block_sum(rows: &[Row], counts: &[u16]) -> Row {
    let mut block: Row = [0.0; WIDTH];
    for (row, count) in rows.iter().zip(counts) {
        let count = f32::from(*count);
        for (sum, value) in block.iter_mut().zip(row) {
            *sum += count * value;
        }
    }
    block
}

/// Adds to each draw's sums what others are of the same draw.
pub(super) fn add_each(totals: &mut [Drawn; TOGETHER], sums: &[Drawn; TOGETHER]) {
    for (total, sums) in totals.iter_mut().zip(sums) {
        for (total, sum) in total.0.iter_mut().zip(sums.0) {
            *total += sum;
        }
    }
}
