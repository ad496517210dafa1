//! Fitting Bradley-Terry: features by mini-batch descent, then the reward weights and their posterior exactly.

use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use ndarray::{Array1, Array2, Axis};
use polyreward_domain::TextForm;
use polyreward_heads::{
    Activation, BradleyTerry, BtParameters, EmbeddedForm, ItemComparison, Layer, LogisticFit, LogisticMap,
    Mlp, fit_logistic_map, log_sigmoid,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Progress,
    data::{HoldOut, TrainingData, column_scale, difference},
    error::TrainingError,
    optimise::{bradley_terry_loss, dropout_mask, matrix, shuffled, tensor, uniform},
};

/// How a Bradley-Terry head is fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BtConfig {
    /// Which embedding the head reads.
    pub text_form: TextForm,
    /// Width of the hidden layer, 0 for a linear reward; by default both 0 and 128 are tried on held-out people.
    pub hidden: Option<usize>,
    /// Passes over the comparisons at most.
    pub max_epochs: usize,
    /// Passes without a better validation loss before stopping.
    pub patience: usize,
    /// Comparisons a step.
    pub batch: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Share of hidden units left out of a step.
    pub dropout: f32,
}

impl Default for BtConfig {
    fn default() -> Self {
        Self {
            text_form: TextForm::PromptResponse,
            hidden: None,
            max_epochs: 15,
            patience: 3,
            batch: 128,
            learning_rate: 1e-3,
            weight_decay: 0.1,
            dropout: 0.2,
        }
    }
}

impl BtConfig {
    fn check(&self) -> Result<(), TrainingError> {
        let refuse = |field, detail: &str| Err(TrainingError::Config { field, detail: detail.to_owned() });
        if self.hidden.is_some_and(|hidden| hidden > 4096) {
            return refuse("bt.hidden", "is at most 4096");
        }
        if self.max_epochs == 0 || self.max_epochs > 10_000 {
            return refuse("bt.max_epochs", "is between 1 and 10000");
        }
        if self.batch == 0 {
            return refuse("bt.batch", "is at least 1");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return refuse("bt.learning_rate", "is finite and positive");
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return refuse("bt.weight_decay", "is finite and not negative");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("bt.dropout", "is at least 0 and below 1");
        }
        Ok(())
    }
}

/// Precisions of the reward weights' Gaussian prior that are tried, on standardised features. The prior's mean is
/// where descent ended, so the highest precision keeps those weights and the lowest fits them anew.
const PRECISIONS: [f64; 6] = [10_000.0, 3000.0, 1000.0, 300.0, 100.0, 30.0];

/// Fits the head; the second value says what was tried and chosen.
///
/// # Errors
/// A refused configuration, data without a usable comparison, a diverging loss.
pub fn fit_bt(
    data: &TrainingData,
    hold_out: &HoldOut,
    config: &BtConfig,
    seed: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<(BradleyTerry, Value), TrainingError> {
    config.check()?;
    let problem = Problem::new(data, hold_out, config)?;
    let mut tried: Vec<(Fit, f64)> = Vec::new();
    let candidates = config.hidden.map_or_else(|| vec![0, 128], |hidden| vec![hidden]);
    for hidden in &candidates {
        let projector = match hidden {
            0 => None,
            _ => Some(problem.fit_projector(*hidden, seed, progress)?),
        };
        tried.push(problem.fit_weights(projector)?);
    }
    let report: Vec<Value> = tried
        .iter()
        .zip(&candidates)
        .map(|((fit, loss), hidden)| {
            json!({"hidden": hidden, "prior_precision": fit.precision, "validation_log_loss": loss})
        })
        .collect();
    let (best, _) =
        tried.into_iter().min_by(|(_, a), (_, b)| a.total_cmp(b)).expect("there is at least one candidate");
    let report = json!({
        "config": serde_json::to_value(config).expect("plain fields serialise"),
        "candidates": report,
        "chosen_by": "log loss on held-out people",
    });
    Ok((problem.head(best)?, report))
}

/// A comparison as rows of the embeddings.
struct Row {
    chosen: usize,
    rejected: usize,
    strength: f64,
    confidence: f64,
}

/// The standardised embeddings of the items, and the comparisons as rows of them.
struct Problem<'a> {
    form: TextForm,
    config: &'a BtConfig,
    mean: Array1<f32>,
    deviation: Array1<f32>,
    standardised: Array2<f32>,
    training: Vec<Row>,
    validation: Vec<Row>,
}

/// A hidden layer with the reward weights that descent gave it.
struct Projector {
    layer: Layer,
    reward: Array1<f64>,
}

/// What a candidate came to.
struct Fit {
    projector: Option<Layer>,
    weights: LogisticFit,
    precision: f64,
}

impl<'a> Problem<'a> {
    fn new(data: &TrainingData, hold_out: &HoldOut, config: &'a BtConfig) -> Result<Self, TrainingError> {
        let embedded = data.items.form(config.text_form)?;
        let (mean, deviation) = column_scale(embedded.rows.view());
        let standardised = (&embedded.rows - &mean) / &deviation;
        let validation = hold_out.validation.iter().flat_map(|person| &data.people[*person].comparisons);
        Ok(Self {
            form: config.text_form,
            config,
            mean,
            deviation,
            standardised,
            training: rows(embedded, hold_out.training_rows(&data.people).into_iter().map(|(_, row)| row)),
            validation: rows(embedded, validation),
        })
    }

    /// A hidden layer on standardised embeddings, stopped at the best log loss on held-out people.
    fn fit_projector(
        &self,
        hidden: usize,
        seed: u64,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Projector, TrainingError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ hidden as u64);
        let inputs = self.standardised.ncols();
        let bound = 1.0 / (inputs as f32).sqrt();
        let network = Network {
            weight: uniform((inputs, hidden), bound, &mut rng)?,
            bias: uniform((1, hidden), bound, &mut rng)?,
            reward: uniform((hidden, 1), 1.0 / (hidden as f32).sqrt(), &mut rng)?,
        };
        let mut optimiser = AdamW::new(
            vec![network.weight.clone(), network.bias.clone(), network.reward.clone()],
            ParamsAdamW {
                lr: self.config.learning_rate,
                weight_decay: self.config.weight_decay,
                ..ParamsAdamW::default()
            },
        )?;
        let embeddings = tensor(self.standardised.view())?;
        let candidate = format!("bt, hidden {hidden}");
        let (mut best, mut best_loss, mut since_best) = (network.projector()?, f64::INFINITY, 0);
        for epoch in 1..=self.config.max_epochs {
            let mut total = 0.0;
            for batch in shuffled(self.training.len(), &mut rng).chunks(self.config.batch) {
                let batch: Vec<&Row> = batch.iter().map(|at| &self.training[*at]).collect();
                let mask = dropout_mask((2 * batch.len(), hidden), self.config.dropout, &mut rng)?;
                let margins = network.margins(&embeddings, &batch, Some(&mask))?;
                let loss = batch_loss(&margins, &batch)?;
                optimiser.backward_step(&loss)?;
                total += f64::from(loss.to_scalar::<f32>()?) * batch.len() as f64;
            }
            let loss = total / self.training.len() as f64;
            if !loss.is_finite() {
                return Err(TrainingError::Diverged { candidate, epoch });
            }
            let (validation_log_loss, validation_accuracy) = self.validate(&network, &embeddings)?;
            progress(Progress::Epoch {
                candidate: candidate.clone(),
                epoch,
                epochs: self.config.max_epochs,
                loss,
                validation_accuracy,
                validation_log_loss,
            });
            if validation_log_loss < best_loss {
                (best, best_loss, since_best) = (network.projector()?, validation_log_loss, 0);
            } else {
                since_best += 1;
                if since_best == self.config.patience {
                    break;
                }
            }
        }
        Ok(best)
    }

    fn validate(&self, network: &Network, embeddings: &Tensor) -> Result<(f64, f64), TrainingError> {
        let rows: Vec<&Row> = self.validation.iter().collect();
        let margins = network.margins(embeddings, &rows, None)?.to_vec1::<f32>()?;
        let right: f64 = margins.iter().map(|m| f64::from(u8::from(*m > 0.0))).sum();
        let count = margins.len() as f64;
        Ok((log_loss(&self.validation, margins.into_iter().map(f64::from)), right / count))
    }

    /// The reward weights and their posterior on given features, with the prior precision of least validation loss.
    fn fit_weights(&self, projector: Option<Projector>) -> Result<(Fit, f64), TrainingError> {
        let features = match &projector {
            Some(Projector { layer, .. }) => {
                layer.forward(self.standardised.view()).mapv(|t| Activation::Gelu.apply(t))
            }
            None => self.standardised.clone(),
        };
        let training = differences(&features, &self.training);
        let validation = differences(&features, &self.validation);
        let strengths: Vec<f64> = self.training.iter().map(|row| row.strength).collect();
        let confidences: Vec<f64> = self.training.iter().map(|row| row.confidence).collect();
        let (projector, prior_mean) = match projector {
            Some(Projector { layer, reward }) => (Some(layer), reward),
            None => (None, Array1::zeros(features.ncols())),
        };
        let mut start: Option<Array1<f64>> = None;
        let mut best: Option<(LogisticFit, f64, f64)> = None;
        for precision in PRECISIONS {
            let problem = LogisticMap {
                differences: training.view(),
                strengths: &strengths,
                confidences: &confidences,
                prior_mean: &prior_mean,
                prior_precision: precision,
                start: start.as_ref(),
            };
            let fit = fit_logistic_map(&problem)?;
            let margins = validation.mapv(f64::from).dot(&fit.weights);
            let loss = log_loss(&self.validation, margins.into_iter());
            start = Some(fit.weights.clone());
            if best.as_ref().is_none_or(|(_, _, best_loss)| loss < *best_loss) {
                best = Some((fit, precision, loss));
            }
        }
        let (weights, precision, loss) = best.expect("a precision was tried");
        Ok((Fit { projector, weights, precision }, loss))
    }

    /// Folds the standardisation into the first linear map, so that the head reads raw embeddings.
    fn head(&self, fit: Fit) -> Result<BradleyTerry, TrainingError> {
        let mut weights = fit.weights.weights.mapv(|w| w as f32);
        let mut covariance = fit.weights.covariance.mapv(|v| v as f32);
        let projector = if let Some(layer) = fit.projector {
            let weight = &layer.weight / &self.deviation;
            let bias = &layer.bias - &weight.dot(&self.mean);
            Some(Mlp::new(vec![Layer { weight, bias }], Activation::Gelu)?)
        } else {
            weights /= &self.deviation;
            covariance /= &self.deviation;
            covariance /= &self.deviation.view().insert_axis(Axis(1));
            None
        };
        Ok(BradleyTerry::new(BtParameters {
            form: self.form,
            embedding_dim: self.mean.len(),
            projector,
            weights,
            covariance,
        })?)
    }
}

fn rows<'a>(form: &EmbeddedForm, comparisons: impl Iterator<Item = &'a ItemComparison>) -> Vec<Row> {
    comparisons
        .map(|comparison| Row {
            chosen: form.of_item[comparison.chosen],
            rejected: form.of_item[comparison.rejected],
            strength: comparison.strength,
            confidence: comparison.label_confidence,
        })
        .collect()
}

/// Mean log loss of margins, weighted by how much each comparison counts and how sure its label is.
fn log_loss(rows: &[Row], margins: impl Iterator<Item = f64>) -> f64 {
    let (mut loss, mut weight) = (0.0, 0.0);
    for (row, m) in rows.iter().zip(margins) {
        loss -= row.strength * (row.confidence * log_sigmoid(m) + (1.0 - row.confidence) * log_sigmoid(-m));
        weight += row.strength;
    }
    loss / weight
}

fn differences(features: &Array2<f32>, rows: &[Row]) -> Array2<f32> {
    let mut out = Array2::zeros((rows.len(), features.ncols()));
    for (mut target, row) in out.rows_mut().into_iter().zip(rows) {
        target.assign(&difference(features.row(row.chosen), features.row(row.rejected)));
    }
    out
}

fn batch_loss(margins: &Tensor, rows: &[&Row]) -> Result<Tensor, TrainingError> {
    let column = |value: fn(&Row) -> f64| {
        Tensor::from_iter(rows.iter().map(|row| value(row) as f32), margins.device())
    };
    bradley_terry_loss(margins, &column(|row| row.strength)?, &column(|row| row.confidence)?)
}

/// `reward = gelu(x W + b) v` while it is trained.
struct Network {
    weight: Var,
    bias: Var,
    reward: Var,
}

impl Network {
    /// Margins `[B]`; the mask covers chosen rows, then rejected ones.
    fn margins(
        &self,
        embeddings: &Tensor,
        rows: &[&Row],
        mask: Option<&Tensor>,
    ) -> Result<Tensor, TrainingError> {
        let ids = rows.iter().map(|row| row.chosen as u32).chain(rows.iter().map(|row| row.rejected as u32));
        let ids = Tensor::from_iter(ids, embeddings.device())?;
        let inputs = embeddings.index_select(&ids, 0)?;
        let mut hidden = inputs.matmul(&self.weight)?.broadcast_add(&self.bias)?.gelu_erf()?;
        if let Some(mask) = mask {
            hidden = (hidden * mask)?;
        }
        let rewards = hidden.matmul(&self.reward)?.squeeze(1)?;
        Ok((rewards.narrow(0, 0, rows.len())? - rewards.narrow(0, rows.len(), rows.len())?)?)
    }

    /// The weights as they are now.
    fn projector(&self) -> Result<Projector, TrainingError> {
        let weight = matrix(&self.weight)?.t().as_standard_layout().into_owned();
        let bias = matrix(&self.bias)?.row(0).to_owned();
        let reward = matrix(&self.reward)?.column(0).mapv(f64::from);
        Ok(Projector { layer: Layer { weight, bias }, reward })
    }
}

#[cfg(test)]
mod tests {
    use polyreward_domain::Attributes;
    use polyreward_heads::{Head, Items, Person};
    use rand::RngExt;

    use super::*;

    /// People who agree on one direction of random embeddings.
    fn data(people: usize) -> TrainingData {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let rows = Array2::from_shape_fn((60, 6), |_| rng.random_range(-1.0_f32..1.0) + 0.5);
        let people = (0..people)
            .map(|at| {
                let comparisons = (0..20).map(|n| {
                    let (a, b) = ((at * 7 + n) % 60, (at * 3 + n * 11 + 1) % 60);
                    let (chosen, rejected) = if rows[[a, 0]] > rows[[b, 0]] { (a, b) } else { (b, a) };
                    ItemComparison { chosen, rejected, strength: 1.0, label_confidence: 1.0 }
                });
                let comparisons = comparisons.filter(|c| c.chosen != c.rejected).collect();
                let user_id = format!("p{at}").parse().unwrap();
                Person { user_id, attributes: Attributes::new(), comparisons }
            })
            .collect();
        let form = EmbeddedForm { of_item: (0..60).collect(), rows };
        TrainingData { items: Items { len: 60, prompt_response: Some(form), ..Items::default() }, people }
    }

    fn fit(hidden: usize) -> (TrainingData, BradleyTerry) {
        let data = data(30);
        let hold_out = HoldOut::choose(&data.people, 1).unwrap();
        let config = BtConfig { hidden: Some(hidden), max_epochs: 5, ..BtConfig::default() };
        let (head, _) = fit_bt(&data, &hold_out, &config, 1, &mut |_| ()).unwrap();
        (data, head)
    }

    #[test]
    fn the_direction_that_people_agree_on_is_found_and_the_fit_is_deterministic() {
        for hidden in [0, 16] {
            let ((data, head), (_, again)) = (fit(hidden), fit(hidden));
            assert_eq!(head.population(), again.population());
            let items: Vec<usize> = (0..60).collect();
            let features = data.items.features(&head, &items).unwrap();
            let rewards = head.rewards(&[head.population()], features.view()).unwrap().mean;
            let rows = &data.items.prompt_response.as_ref().unwrap().rows;
            let right = (0..59)
                .filter(|n| (rewards[[0, *n]] > rewards[[0, n + 1]]) == (rows[[*n, 0]] > rows[[n + 1, 0]]));
            assert!(right.count() > 50, "hidden {hidden}");
        }
    }

    #[test]
    fn the_served_head_computes_what_was_trained() {
        // The network in candle on standardised rows against the head on raw ones; tolerance 1e-5 of the scale.
        let data = data(30);
        let hold_out = HoldOut::choose(&data.people, 1).unwrap();
        let config = BtConfig::default();
        let problem = Problem::new(&data, &hold_out, &config).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let network = Network {
            weight: uniform((6, 8), 0.5, &mut rng).unwrap(),
            bias: uniform((1, 8), 0.5, &mut rng).unwrap(),
            reward: uniform((8, 1), 0.5, &mut rng).unwrap(),
        };
        let Projector { layer, reward } = network.projector().unwrap();
        let weights = LogisticFit { weights: reward, covariance: Array2::eye(8), steps: 0 };
        let head = problem.head(Fit { projector: Some(layer), weights, precision: 1.0 }).unwrap();
        let rows: Vec<&Row> = problem.validation.iter().collect();
        let embeddings = tensor(problem.standardised.view()).unwrap();
        let trained = network.margins(&embeddings, &rows, None).unwrap().to_vec1::<f32>().unwrap();
        let of = |side: fn(&Row) -> usize| {
            let items: Vec<usize> = rows.iter().map(|row| side(row)).collect();
            data.items.features(&head, &items).unwrap()
        };
        let (chosen, rejected) = (of(|row| row.chosen), of(|row| row.rejected));
        let served = head.margins(&[head.population()], chosen.view(), rejected.view()).unwrap().mean;
        for (a, b) in trained.iter().zip(served.iter()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}
