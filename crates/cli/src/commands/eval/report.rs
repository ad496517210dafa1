//! What an evaluation found, as `--json` writes it.

use std::collections::BTreeMap;

use super::queries::QueriesReport;
use polyreward_domain::HeadFamily;
use polyreward_heads::evaluation::{Interval, Summary};
use serde::Serialize;

/// Groups of fewer people are shown, but not called the worst: a few people are bad luck as easily as a bad model.
const FEWEST_OF_WORST_GROUP: usize = 5;

/// The whole outcome.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub data_sha256: String,
    pub backbone: String,
    pub bootstrap_draws: usize,
    pub group_by: Option<String>,
    pub models: Vec<ModelReport>,
    /// Names that several models share, as those of several seeds do.
    pub by_name: Vec<NameReport>,
    pub oracle: Option<OracleReport>,
}

/// One model.
#[derive(Debug, Serialize)]
pub(super) struct ModelReport {
    pub model: String,
    pub name: String,
    pub head: HeadFamily,
    pub seed: u64,
    /// By split, with no examples.
    pub splits: BTreeMap<&'static str, Summary>,
    /// Unseen people, by number of examples.
    pub shots: Vec<ShotReport>,
    /// People it was trained on, tested on what was kept out of training; where the data are the model's own.
    pub seen_shots: Vec<ShotReport>,
    /// What choosing the questions is worth; where it was asked for, and the model learns from answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries: Option<QueriesReport>,
}

/// People after a number of examples.
#[derive(Debug, Serialize)]
pub(super) struct ShotReport {
    /// People with fewer were shown all they have.
    pub examples: usize,
    pub overall: Measured,
    pub groups: BTreeMap<String, Measured>,
    /// The least accurate group of at least five people.
    pub worst_group: Option<WorstGroup>,
}

/// A model on some comparisons.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    #[serde(flatten)]
    pub summary: Summary,
    /// Accuracy less that of Bradley-Terry on the same comparisons.
    pub gain_over_bt: Option<f64>,
    pub gain_over_bt_ci: Option<Interval>,
}

/// The group a model is least right for.
#[derive(Debug, Clone, Serialize)]
pub(super) struct WorstGroup {
    pub group: String,
    pub users: usize,
    pub accuracy: f64,
    pub accuracy_ci: Option<Interval>,
}

impl WorstGroup {
    pub(super) fn of(groups: &BTreeMap<String, Measured>) -> Option<Self> {
        let many = groups.iter().filter(|(_, measured)| measured.summary.users >= FEWEST_OF_WORST_GROUP);
        let (group, worst) = many.min_by(|a, b| a.1.summary.accuracy.total_cmp(&b.1.summary.accuracy))?;
        Some(Self {
            group: group.clone(),
            users: worst.summary.users,
            accuracy: worst.summary.accuracy,
            accuracy_ci: worst.summary.accuracy_ci,
        })
    }
}

/// Bradley-Terry told each person's group: one head for each value of the attribute, trained on its people alone.
#[derive(Debug, Serialize)]
pub(super) struct OracleReport {
    pub attribute: String,
    /// Values with enough trained people for a head of their own.
    pub groups: BTreeMap<String, Measured>,
    /// Everybody in those groups.
    pub overall: Measured,
    /// Unseen people in all groups, of whom `overall` leaves out some.
    pub unseen_users: usize,
}

/// Several models of one name.
#[derive(Debug, Serialize)]
pub(super) struct NameReport {
    pub name: String,
    pub models: usize,
    pub shots: Vec<NameShot>,
}

/// Accuracy of several models after a number of examples.
#[derive(Debug, Serialize)]
pub(super) struct NameShot {
    pub examples: usize,
    pub mean: f64,
    pub lowest: f64,
    pub highest: f64,
    /// Mean of their expected calibration errors.
    pub ece: f64,
}

/// Averages over the models of each name that has several.
pub(super) fn by_name(models: &[ModelReport]) -> Vec<NameReport> {
    let mut names: BTreeMap<&str, Vec<&ModelReport>> = BTreeMap::new();
    for model in models {
        names.entry(&model.name).or_default().push(model);
    }
    names.retain(|_, models| models.len() > 1);
    let shot = |models: &[&ModelReport], at: usize| {
        let of = |measure: fn(&Summary) -> f64| {
            models.iter().filter_map(move |model| Some(measure(&model.shots.get(at)?.overall.summary)))
        };
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        NameShot {
            examples: models[0].shots[at].examples,
            mean: mean(of(|summary| summary.accuracy).collect()),
            lowest: of(|summary| summary.accuracy).fold(f64::INFINITY, f64::min),
            highest: of(|summary| summary.accuracy).fold(f64::NEG_INFINITY, f64::max),
            ece: mean(of(|summary| summary.ece).collect()),
        }
    };
    names
        .into_iter()
        .map(|(name, models)| NameReport {
            name: name.to_owned(),
            models: models.len(),
            shots: (0..models[0].shots.len()).map(|at| shot(&models, at)).collect(),
        })
        .collect()
}
