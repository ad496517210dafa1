//! Figures as they are answered: to six decimals, here and nowhere else, so that every form of an answer shows the same.

use polyreward_heads::{
    accuracy::{Change, Changes, Figures, Gap, ReliabilityBin},
    agreement::{Agreement, Alpha},
    evaluation::Interval,
};

/// Parts of one that a figure is rounded to.
const PARTS: f64 = 1e6;

/// A number that is rounded wherever it has figures in it.
pub(super) trait Rounded {
    /// The same to six decimals; what would be a negative zero is zero.
    fn rounded(self) -> Self;
}

impl Rounded for f64 {
    fn rounded(self) -> Self {
        (self * PARTS).round() / PARTS + 0.0
    }
}

impl Rounded for Interval {
    fn rounded(self) -> Self {
        self.map(Rounded::rounded)
    }
}

impl<T: Rounded> Rounded for Option<T> {
    fn rounded(self) -> Self {
        self.map(Rounded::rounded)
    }
}

impl Rounded for ReliabilityBin {
    fn rounded(self) -> Self {
        Self {
            from: self.from.rounded(),
            to: self.to.rounded(),
            n: self.n,
            confidence: self.confidence.rounded(),
            accuracy: self.accuracy.rounded(),
            accuracy_ci: self.accuracy_ci.rounded(),
        }
    }
}

impl Rounded for Figures {
    fn rounded(self) -> Self {
        Self {
            users: self.users,
            n: self.n,
            accuracy: self.accuracy.rounded(),
            accuracy_ci: self.accuracy_ci.rounded(),
            user_accuracy: self.user_accuracy.rounded(),
            user_accuracy_ci: self.user_accuracy_ci.rounded(),
            log_loss: self.log_loss.rounded(),
            ece: self.ece.rounded(),
            ece_ci: self.ece_ci.rounded(),
            population_accuracy: self.population_accuracy.rounded(),
            gain: self.gain.rounded(),
            gain_ci: self.gain_ci.rounded(),
            bt_accuracy: self.bt_accuracy.rounded(),
            reliability: self.reliability.into_iter().map(Rounded::rounded).collect(),
        }
    }
}

impl Rounded for Gap {
    fn rounded(self) -> Self {
        Self { value: self.value.rounded(), ci: self.ci.rounded(), p_value: self.p_value.rounded(), ..self }
    }
}

impl Rounded for Alpha {
    fn rounded(self) -> Self {
        Self { value: self.value.rounded(), ci: self.ci.rounded() }
    }
}

impl Rounded for Agreement {
    fn rounded(self) -> Self {
        Self {
            overall: self.overall.rounded(),
            within_groups: self.within_groups.rounded(),
            between_groups: self.between_groups.rounded(),
            ..self
        }
    }
}

impl Rounded for Change {
    fn rounded(self) -> Self {
        Self { value: self.value.rounded(), ci: self.ci.rounded() }
    }
}

impl Rounded for Changes {
    fn rounded(self) -> Self {
        Self {
            accuracy: self.accuracy.rounded(),
            worst_group: self.worst_group.rounded(),
            gap: self.gap.rounded(),
            ece: self.ece.rounded(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_six_decimals_and_no_negative_zero() {
        assert_eq!((0.123_456_78_f64.rounded(), 2.0_f64.rounded()), (0.123_457, 2.0));
        assert!((-1e-9_f64).rounded().is_sign_positive());
        assert_eq!([-0.000_000_6_f64, 1.0].rounded(), [-0.000_001, 1.0]);
    }
}
