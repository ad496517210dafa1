//! What a person's examples say, each comparison once, in an order that is not that of the examples.

use ndarray::{Array1, Array2};

use crate::{
    calibration::{log_sigmoid, sigmoid},
    head::{HeadError, Observation, check_len},
};

/// One example on its way to a likelihood.
#[derive(Debug, Clone)]
pub(crate) struct Vote {
    /// What was seen.
    pub row: Vec<f64>,
    /// Which two responses were compared, the chosen one first.
    pub names: [u64; 2],
    /// How much it counts, at least 0.
    pub strength: f64,
    /// Probability that the label is right.
    pub confidence: f64,
}

/// Votes as they enter every likelihood: those of [`usable`], no comparison twice (the stronger vote stands), sorted by
/// what was compared, so that sums do not depend on the order.
pub(crate) fn canonical(votes: Vec<Vote>, swap: impl Fn(&mut [f64])) -> Result<Vec<Vote>, HeadError> {
    let mut votes = usable(votes, swap)?;
    votes.sort_by(|a, b| {
        let stronger = b.strength.total_cmp(&a.strength).then(b.confidence.total_cmp(&a.confidence));
        a.names.cmp(&b.names).then(stronger)
    });
    votes.dedup_by(|later, earlier| later.names == earlier.names);
    Ok(votes)
}

/// Checked votes, all with a label more likely right than wrong, none without weight.
///
/// `swap` turns a row into that of the opposite choice.
pub(crate) fn usable(votes: Vec<Vote>, swap: impl Fn(&mut [f64])) -> Result<Vec<Vote>, HeadError> {
    let mut kept = Vec::with_capacity(votes.len());
    for mut vote in votes {
        if !(vote.strength >= 0.0 && vote.strength.is_finite()) {
            return Err(HeadError::Parameter {
                name: "strength",
                detail: "is finite and not negative".into(),
            });
        }
        if !(0.0..=1.0).contains(&vote.confidence) {
            return Err(HeadError::Parameter { name: "label_confidence", detail: "is in [0, 1]".into() });
        }
        if vote.row.iter().any(|x| !x.is_finite()) {
            return Err(HeadError::NotFinite("a comparison"));
        }
        if vote.confidence < 0.5 {
            swap(&mut vote.row);
            vote.names.reverse();
            vote.confidence = 1.0 - vote.confidence;
        }
        if vote.strength > 0.0 && vote.confidence > 0.5 {
            kept.push(vote);
        }
    }
    Ok(kept)
}

/// The choice the other way round, of a row that holds differences.
pub(crate) fn negate(row: &mut [f64]) {
    for x in row {
        *x = -*x;
    }
}

/// The choice the other way round, of a row that holds the chosen response before the rejected one.
pub(crate) fn exchange(row: &mut [f64]) {
    let (chosen, rejected) = row.split_at_mut(row.len() / 2);
    chosen.swap_with_slice(rejected);
}

/// Examples as votes, seen through `row`, which gets the features of the chosen and the rejected response.
pub(crate) fn votes(
    examples: &[Observation<'_>],
    feature_len: usize,
    row: impl Fn(&[f64], &[f64]) -> Vec<f64>,
) -> Result<Vec<Vote>, HeadError> {
    let wide = |features: ndarray::ArrayView1<'_, f32>| -> Vec<f64> {
        features.iter().map(|x| f64::from(*x)).collect()
    };
    examples
        .iter()
        .map(|example| {
            check_len("features", feature_len, example.chosen.len())?;
            check_len("features", feature_len, example.rejected.len())?;
            Ok(Vote {
                row: row(&wide(example.chosen), &wide(example.rejected)),
                names: example.names,
                strength: example.strength,
                confidence: example.label_confidence,
            })
        })
        .collect()
}

/// The rows of votes, `[n, row]`.
pub(crate) fn rows(votes: &[Vote], len: usize) -> Array2<f64> {
    Array2::from_shape_fn((votes.len(), len), |(n, at)| votes[n].row[at])
}

/// How a label is believed: `P(label | margin m) = (1 - e) sigmoid(m) + e sigmoid(-m)`, counted `strength` times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label {
    /// How often it counts.
    pub strength: f64,
    /// Probability `e` that it is wrong, in `[0, 0.5]`.
    pub noise: f64,
}

/// Loss of a label at a margin, with its first derivative and a curvature that is never negative.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Derivatives {
    /// First derivative.
    pub slope: f64,
    /// Second derivative, or 0 where that is negative.
    pub curvature: f64,
}

impl Label {
    /// A vote's label where a share `label_noise` of all labels is wrong: wrong if either errs and not both.
    pub(crate) fn of(vote: &Vote, label_noise: f64) -> Self {
        let noise = label_noise + (1.0 - 2.0 * label_noise) * (1.0 - vote.confidence);
        Self { strength: vote.strength, noise: noise.clamp(0.0, 0.5) }
    }

    /// `ln P(label | m)`, finite wherever `m` is.
    pub(crate) fn log_likelihood(self, m: f64) -> f64 {
        if self.noise == 0.0 {
            log_sigmoid(m)
        } else {
            (self.noise + (1.0 - 2.0 * self.noise) * sigmoid(m)).ln()
        }
    }

    /// `-strength ln P(label | m)`: bounded above by `-strength ln e`, so one wrong label cannot own a fit.
    pub(crate) fn loss(self, m: f64) -> f64 {
        -self.strength * self.log_likelihood(m)
    }

    pub(crate) fn derivatives(self, m: f64) -> Derivatives {
        let (e, right, wrong) = (self.noise, sigmoid(m), sigmoid(-m));
        if e == 0.0 {
            return Derivatives { slope: -self.strength * wrong, curvature: self.strength * right * wrong };
        }
        let p = e + (1.0 - 2.0 * e) * right;
        Derivatives {
            slope: -self.strength * (1.0 - 2.0 * e) * right * wrong / p,
            curvature: self.strength * right * wrong * (1.0 - e * (1.0 - e) / (p * p)).max(0.0),
        }
    }

    /// `-strength [(1 - e) ln sigmoid(m) + e ln sigmoid(-m)]`: convex, and the same where `e = 0`.
    pub(crate) fn convex_loss(self, m: f64) -> f64 {
        -self.strength * ((1.0 - self.noise) * log_sigmoid(m) + self.noise * log_sigmoid(-m))
    }

    pub(crate) fn convex_derivatives(self, m: f64) -> Derivatives {
        let (right, wrong) = (sigmoid(m), sigmoid(-m));
        Derivatives {
            slope: self.strength * (self.noise * right - (1.0 - self.noise) * wrong),
            curvature: self.strength * right * wrong,
        }
    }
}

/// Checks a share of wrong labels.
pub(crate) fn check_noise(label_noise: f64) -> Result<(), HeadError> {
    if (0.0..0.5).contains(&label_noise) {
        Ok(())
    } else {
        Err(HeadError::Parameter { name: "label_noise", detail: "is in [0, 0.5)".into() })
    }
}

/// The labels of votes.
pub(crate) fn labels(votes: &[Vote], label_noise: f64) -> Vec<Label> {
    votes.iter().map(|vote| Label::of(vote, label_noise)).collect()
}

/// Slopes and curvatures of labels at their margins.
pub(crate) fn derivatives(labels: &[Label], margins: &Array1<f64>, convex: bool) -> [Array1<f64>; 2] {
    let at = labels
        .iter()
        .zip(margins)
        .map(|(label, m)| if convex { label.convex_derivatives(*m) } else { label.derivatives(*m) });
    let (slopes, curvatures): (Vec<f64>, Vec<f64>) = at.map(|d| (d.slope, d.curvature)).unzip();
    [slopes.into(), curvatures.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_and_curvatures_are_derivatives_of_the_loss() {
        // Central differences, step 1e-4, tolerance 1e-6 relative to a loss of order 1.
        for noise in [0.0, 0.02, 0.3] {
            let label = Label { strength: 1.7, noise };
            for m in [-1.5, -0.3, 0.0, 0.4, 3.0] {
                let h = 1e-4;
                let exact = label.derivatives(m);
                let slope = (label.loss(m + h) - label.loss(m - h)) / (2.0 * h);
                let curvature = (label.loss(m + h) - 2.0 * label.loss(m) + label.loss(m - h)) / (h * h);
                assert!((exact.slope - slope).abs() < 1e-6, "{noise} {m}");
                assert!((exact.curvature - curvature.max(0.0)).abs() < 1e-5, "{noise} {m}");
                let convex = label.convex_derivatives(m);
                let slope = (label.convex_loss(m + h) - label.convex_loss(m - h)) / (2.0 * h);
                assert!((convex.slope - slope).abs() < 1e-6, "{noise} {m}");
            }
        }
    }

    #[test]
    fn a_vote_that_is_probably_wrong_is_the_opposite_vote() {
        let vote = |names, row: [f64; 2], strength, confidence| Vote {
            row: row.to_vec(),
            names,
            strength,
            confidence,
        };
        let votes = vec![
            vote([1, 2], [1.0, -2.0], 1.0, 0.2),
            vote([2, 1], [-1.0, 2.0], 3.0, 0.9),
            vote([3, 4], [5.0, 5.0], 1.0, 0.5),
            vote([3, 4], [5.0, 5.0], 0.0, 1.0),
        ];
        let kept = canonical(votes, negate).unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].row.clone(), kept[0].strength, kept[0].confidence), (vec![-1.0, 2.0], 3.0, 0.9));
        let refused =
            |row, strength, confidence| canonical(vec![vote([1, 2], row, strength, confidence)], negate);
        assert!(refused([0.0, 0.0], -1.0, 1.0).is_err());
        assert!(refused([0.0, 0.0], 1.0, 1.1).is_err());
        assert!(refused([0.0, f64::NAN], 1.0, 1.0).is_err());
    }
}
