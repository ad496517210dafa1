//! Figures of a crowd, with intervals from draws of its people.

use polyreward_domain::Tally;

use super::{
    Figures, ReliabilityBin,
    crowd::Totals,
    inversion::interval_of_norm,
    rows::{CLASSES, Drawn},
};
use crate::{evaluation::Interval, resampling::percentiles};

/// Statistics of a draw that intervals are made of: accuracy, mean share, gain, accuracy by class, excess by class.
pub(super) const STATISTICS: usize = 3 + 2 * CLASSES;

/// Predictions below which calibration is seen in 5 classes rather than 10 (pluralism specification section 2).
const FEW: u64 = 500;

/// Writes the statistics of a draw; not numbers where nobody was drawn.
pub(super) fn write_statistics(drawn: &Drawn, to: &mut [f64]) {
    to[0] = drawn.accuracy();
    to[1] = drawn.share();
    to[2] = drawn.gain();
    to[3..3 + CLASSES].copy_from_slice(&drawn.class_accuracies());
    to[3 + CLASSES..].copy_from_slice(&drawn.excesses());
}

/// How classes of confidence are put together to see calibration: with five bins over both orientations the class next to
/// one half shares a bin with its mirror, and cancels; the others go together by twos.
pub(super) fn calibration_bins<T: Copy + std::ops::Add<Output = T> + Default>(
    n: u64,
    by_class: [T; CLASSES],
) -> [T; CLASSES] {
    let [_, b, c, d, e] = by_class;
    if n < FEW { [b + c, d + e, T::default(), T::default(), T::default()] } else { by_class }
}

/// Expected calibration error of the excess of confidence by class, in parts of all predictions.
pub(super) fn expected_calibration_error(n: u64, excesses: [f64; CLASSES]) -> f64 {
    calibration_bins(n, excesses).iter().map(|excess| excess.abs()).sum()
}

/// The excess of confidence by class, in parts of all predictions.
pub(super) fn excesses(sums: &Tally) -> [f64; CLASSES] {
    let n = sums.n() as f64;
    std::array::from_fn(|class| {
        let bin = sums.bins[class + 1];
        (bin.confidence - bin.correct) / n
    })
}

/// The figures of people who add up to `totals`. `draws` are the statistics of each draw; `mean_share` is what was taken off
/// people's accuracies in them.
pub(super) fn figures<'a>(
    totals: &Totals,
    draws: impl Iterator<Item = &'a [f64]>,
    mean_share: f64,
) -> Figures {
    let mut columns = columns(draws);
    let n = totals.sums.n();
    let share = |part: f64| part / n as f64;
    let accuracy = totals.accuracy();
    let population_accuracy = share(totals.sums.population_correct);
    let enough = totals.users >= 2;
    let mut percentile = |column: usize| if enough { percentiles(&mut columns[column]) } else { None };
    let [accuracy_ci, user_accuracy_ci, gain_ci] = [0, 1, 2].map(&mut percentile);
    let class_cis = std::array::from_fn(|class| percentile(3 + class));
    Figures {
        users: totals.users,
        n,
        accuracy,
        accuracy_ci,
        user_accuracy: totals.user_accuracy(),
        user_accuracy_ci: user_accuracy_ci.map(|ends| ends.map(|end| end + mean_share)),
        log_loss: share(totals.sums.log_loss),
        ece: expected_calibration_error(n, excesses(&totals.sums)),
        ece_ci: if enough { calibration_interval(totals, &columns[3 + CLASSES..]) } else { None },
        population_accuracy,
        gain: accuracy - population_accuracy,
        gain_ci,
        bt_accuracy: (totals.sums.baseline_n > 0)
            .then(|| totals.sums.baseline_correct / totals.sums.baseline_n as f64),
        reliability: reliability(totals, class_cis),
    }
}

/// The statistics of all draws by what they are.
fn columns<'a>(draws: impl Iterator<Item = &'a [f64]>) -> [Vec<f64>; STATISTICS] {
    let mut columns: [Vec<f64>; STATISTICS] =
        std::array::from_fn(|_| Vec::with_capacity(draws.size_hint().0));
    for draw in draws {
        for (column, value) in columns.iter_mut().zip(draw) {
            column.push(*value);
        }
    }
    columns
}

/// The interval of the expected calibration error of two people or more: see [`interval_of_norm`].
fn calibration_interval(totals: &Totals, drawn: &[Vec<f64>]) -> Option<Interval> {
    let n = totals.sums.n();
    let observed = calibration_bins(n, excesses(&totals.sums));
    // Draws of a few people vary less than a few people do.
    let stretch = (totals.users as f64 / (totals.users - 1) as f64).sqrt();
    let noise: Vec<[f32; CLASSES]> = (0..drawn[0].len())
        .map(|draw| calibration_bins(n, std::array::from_fn(|class| drawn[class][draw])))
        .filter(|excesses| excesses.iter().all(|excess| !excess.is_nan()))
        .map(|excesses| std::array::from_fn(|bin| (stretch * (excesses[bin] - observed[bin])) as f32))
        .collect();
    let value = observed.iter().map(|excess| excess.abs()).sum();
    interval_of_norm(value, |_, size, out| {
        let centre = observed.map(|excess| (size * excess) as f32);
        out.extend(noise.iter().map(|noise| {
            let sum: f32 = centre.iter().zip(noise).map(|(centre, noise)| (centre + noise).abs()).sum();
            f64::from(sum)
        }));
    })
}

/// One bin of each class that has a prediction.
fn reliability(totals: &Totals, cis: [Option<Interval>; CLASSES]) -> Vec<ReliabilityBin> {
    let bins = totals.sums.bins.iter().zip(totals.class_users).enumerate();
    bins.filter(|(_, (bin, _))| bin.n > 0)
        .map(|(class, (bin, users))| {
            let accuracy = bin.correct / bin.n as f64;
            ReliabilityBin {
                from: if class == 0 { 0.5 } else { (class + 4) as f64 / 10.0 },
                to: if class == 0 { 0.5 } else { (class + 5) as f64 / 10.0 },
                n: bin.n,
                confidence: bin.confidence / bin.n as f64,
                accuracy,
                accuracy_ci: match class {
                    _ if users < 2 => None,
                    // An undecided prediction is half right, whoever it is about.
                    0 => Some([accuracy; 2]),
                    _ => cis[class - 1],
                },
            }
        })
        .collect()
}
