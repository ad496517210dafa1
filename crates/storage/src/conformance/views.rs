//! What views of a database must say, for the tests of each backend, which ask in SQL.

use polyreward_domain::{Tally, TenantId, correctness};
use time::{Duration, OffsetDateTime, macros::datetime};

use super::fixtures::{Made, come, made, predicted, predictions};
use crate::{PersonSums, Span, Storage};

/// The figures of one row of `accuracy_by_group` or `accuracy_overall`.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewFigures {
    /// People.
    pub users: i64,
    /// Predictions.
    pub n: i64,
    /// Accuracy, the mean of people's, log loss, calibration error, the population's accuracy, gain, the baseline's
    /// accuracy: as the columns follow one another.
    pub figures: [f64; 7],
}

impl ViewFigures {
    /// # Panics
    /// They differ by more than rounding.
    #[track_caller]
    pub fn assert_close(&self, other: &Self) {
        assert_eq!((self.users, self.n), (other.users, other.n));
        let close = self.figures.iter().zip(&other.figures).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close, "{self:?} is not {other:?}");
    }
}

const START: OffsetDateTime = datetime!(2026-03-02 09:00 UTC);
const PEOPLE: u64 = 60;

/// In [0, 1), from a number.
fn drawn(number: u64) -> f64 {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Makes people of two values of `country`, of whom one has fewer than 500 predictions and one more, and people without; what
/// is to be seen of `UK`, of `FR` and of everybody.
pub async fn people_in_views(storage: &dyn Storage) -> [ViewFigures; 3] {
    let tenant = TenantId::default();
    let mut told = Vec::new();
    for number in 0..PEOPLE {
        let id = format!("u{number}");
        let country = match number % 10 {
            0 => None,
            1..=3 => Some("FR"),
            _ => Some("UK"),
        };
        if let Some(country) = country {
            come(storage, &tenant, &[(id.as_str(), &[("country", country)])]).await;
        }
        let predictions: Vec<Made> = (0..5 + number % 20)
            .map(|shot| Made {
                shot,
                preference: if shot == 7 { 0.5 } else { drawn(number * 1000 + shot).sqrt() },
                population_preference: drawn(number * 2000 + shot),
                baseline_preference: (shot % 3 > 0).then(|| drawn(number * 3000 + shot)),
                ..made(START + Duration::hours(shot.cast_signed()))
            })
            .collect();
        predicted(storage, &tenant, &id, &predictions).await;
        told.push((country, predictions));
    }
    let people = storage.person_sums(&tenant, &predictions(Span::default()), &["country".to_owned()]).await;
    let people = people.unwrap();
    [Some("UK"), Some("FR"), None].map(|country| {
        let ours = |person: &&PersonSums| country.is_none() || person.group[0].as_deref() == country;
        let tallies: Vec<Tally> = people.iter().filter(ours).map(|person| person.tally).collect();
        let preferences = told.iter().filter(|(of, _)| country.is_none() || *of == country);
        let preferences: Vec<f64> =
            preferences.flat_map(|(_, predictions)| predictions.iter().map(|one| one.preference)).collect();
        figures(&tallies, &preferences)
    })
}

fn figures(tallies: &[Tally], preferences: &[f64]) -> ViewFigures {
    let sum = |of: fn(&Tally) -> f64| tallies.iter().map(of).sum::<f64>();
    let n = sum(|tally| tally.n() as f64);
    let (correct, population) = (sum(Tally::correct), sum(|tally| tally.population_correct));
    assert_eq!(correct, preferences.iter().map(|p| correctness(*p)).sum::<f64>());
    ViewFigures {
        users: tallies.len().try_into().expect("a number of people"),
        n: preferences.len().try_into().expect("a number of predictions"),
        figures: [
            correct / n,
            sum(|tally| tally.correct() / tally.n() as f64) / tallies.len() as f64,
            sum(|tally| tally.log_loss) / n,
            calibration_error(preferences),
            population / n,
            (correct - population) / n,
            sum(|tally| tally.baseline_correct) / sum(|tally| tally.baseline_n as f64),
        ],
    }
}

/// By its definition: both orientations of each pair, in equal bins of the probability.
fn calibration_error(preferences: &[f64]) -> f64 {
    let bins = if preferences.len() < 500 { 5 } else { 10 };
    let mut gaps = vec![0.0; bins];
    for preference in preferences {
        for (probability, outcome) in [(*preference, 1.0), (1.0 - preference, 0.0)] {
            gaps[((probability * bins as f64).ceil() as usize).clamp(1, bins) - 1] += outcome - probability;
        }
    }
    gaps.iter().map(|gap: &f64| gap.abs()).sum::<f64>() / (2 * preferences.len()) as f64
}
