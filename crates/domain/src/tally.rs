//! Predictions of what somebody chose, added up.

/// Classes of confidence: 0 for a preference of exactly one half, then (0.5, 0.6] to (0.9, 1].
pub const CONFIDENCE_BINS: usize = 6;

/// Predictions of one class of confidence.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BinSums {
    /// Predictions.
    pub n: u64,
    /// Of them right; an undecided one counts one half.
    pub correct: f64,
    /// Their confidences added up: the preference for what the model preferred, at least one half.
    pub confidence: f64,
}

/// Predictions by one model, added up: all that accuracy, calibration and gain are counted from.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// By class of confidence.
    pub bins: [BinSums; CONFIDENCE_BINS],
    /// Negative log preferences for what was chosen, in nats.
    pub log_loss: f64,
    /// How often the population's reward was right about the same comparisons.
    pub population_correct: f64,
    /// Comparisons of which the Bradley-Terry baseline's prediction is known as well.
    pub baseline_n: u64,
    /// How often that was right.
    pub baseline_correct: f64,
}

impl Tally {
    /// Adds one prediction: what the model, the population's state and the baseline gave to what was chosen.
    pub fn add(&mut self, preference: f64, population_preference: f64, baseline_preference: Option<f64>) {
        let confidence = preference.max(1.0 - preference);
        let bin = &mut self.bins[confidence_bin(preference)];
        bin.n += 1;
        bin.correct += correctness(preference);
        bin.confidence += confidence;
        self.log_loss -= preference.max(f64::MIN_POSITIVE).ln();
        self.population_correct += correctness(population_preference);
        if let Some(preference) = baseline_preference {
            self.baseline_n += 1;
            self.baseline_correct += correctness(preference);
        }
    }

    /// Predictions.
    pub fn n(&self) -> u64 {
        self.bins.iter().map(|bin| bin.n).sum()
    }

    /// Of them right.
    pub fn correct(&self) -> f64 {
        self.bins.iter().map(|bin| bin.correct).sum()
    }
}

/// The class of confidence of a prediction. Edges belong to the class below them.
pub fn confidence_bin(preference: f64) -> usize {
    let confidence = preference.max(1.0 - preference);
    if preference == 0.5 { 0 } else { ((confidence * 10.0).ceil() as usize).clamp(6, 10) - 5 }
}

/// Right 1, wrong 0, undecided one half.
pub fn correctness(preference_for_chosen: f64) -> f64 {
    if preference_for_chosen > 0.5 {
        1.0
    } else if preference_for_chosen < 0.5 {
        0.0
    } else {
        0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_falls_into_the_class_of_its_confidence() {
        let bins = [0.5, 0.51, 0.49, 0.6, 0.61, 0.3, 0.9, 0.95, 1.0, 0.0].map(confidence_bin);
        assert_eq!(bins, [0, 1, 1, 1, 2, 2, 4, 5, 5, 5]);
    }

    #[test]
    fn what_is_added_up_can_be_counted() {
        let mut tally = Tally::default();
        tally.add(0.9, 0.4, Some(0.6));
        tally.add(0.5, 0.5, None);
        tally.add(0.25, 0.7, Some(0.5));
        assert_eq!((tally.n(), tally.correct()), (3, 1.5));
        assert_eq!((tally.population_correct, tally.baseline_n, tally.baseline_correct), (1.5, 2, 1.5));
        assert!((tally.log_loss - (-(0.9_f64.ln() + 0.5_f64.ln() + 0.25_f64.ln()))).abs() < 1e-12);
        assert_eq!(tally.bins[3], BinSums { n: 1, correct: 0.0, confidence: 0.75 });
    }
}
