//! From comparisons to a fitted head: episodes, checks on held-out people, the best moment kept.

use std::fmt::Debug;

use ndarray::Array1;
use polyreward_domain::{HeadFamily, TextForm};
use polyreward_heads::{
    BradleyTerry, BtParameters, Calibration, Head, LaplacePosterior, Observation, Trunk, kl_from_prior,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::{Value, json};

use crate::{
    Progress,
    assess::{CALIBRATED_SHOTS, PersonLoss, Trial, accuracy, log_loss, losses},
    config::TrainConfig,
    crowd::{Crowd, Pair},
    data::{HoldOut, TrainingData},
    episode::{Step, shuffled},
    error::TrainingError,
    families::{Setting, people_of_step},
    features::{COMPARISONS_AT_ONCE, ItemFeatures, parts},
    folder::Trained,
    network::number,
};

/// The short runs that compare text forms take this part of a whole run's passes, and no fewer than so many if there are.
const PROBE_SHARE: usize = 2;
const FEWEST_PROBE_EPOCHS: usize = 5;
/// A dimension of VPL's latent is in use if people's means in it vary by more.
const ACTIVE_VARIANCE: f64 = 0.005;
/// Fewer trained people than this do not show how people differ.
const FEWEST_PEOPLE: usize = 4;

/// One data set on which heads are fitted.
#[derive(Debug)]
pub struct Fitting<'a> {
    data: &'a TrainingData,
    config: &'a TrainConfig,
    seed: u64,
    crowd: Crowd,
    seen: Vec<usize>,
    trial: Trial,
    forms: Vec<TextForm>,
    forms_report: Value,
}

/// How a fit goes about it.
#[derive(Debug, Clone, Copy)]
struct Plan<'a> {
    family: HeadFamily,
    forms: &'a [TextForm],
    epochs: usize,
    checks: usize,
}

/// The best of a fit's checks.
struct Best {
    head: Box<dyn Head>,
    trunk: Trunk,
    loss: f64,
    /// Each held-out person's part in it.
    of_people: Vec<PersonLoss>,
    epoch: usize,
    tried: Vec<Value>,
}

impl<'a> Fitting<'a> {
    /// Checks that the data can teach what is asked of them, and chooses which text forms to read.
    ///
    /// # Errors
    /// A refused configuration, or data that these families cannot be trained on.
    pub fn prepare(
        data: &'a TrainingData,
        hold_out: &HoldOut,
        config: &'a TrainConfig,
        families: &[HeadFamily],
        seed: u64,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, TrainingError> {
        config.check()?;
        let crowd = Crowd::of(data, hold_out, config.episodes.comparisons);
        refuse_hopeless(&crowd, families)?;
        let seen = crowd.items();
        let trial = Trial::of(&data.people, hold_out, seed);
        let mut fitting =
            Self { data, config, seed, crowd, seen, trial, forms: Vec::new(), forms_report: Value::Null };
        fitting.choose_forms(progress)?;
        Ok(fitting)
    }

    /// The forms that the common quality reads.
    pub fn text_forms(&self) -> &[TextForm] {
        &self.forms
    }

    /// Fits a head.
    ///
    /// # Errors
    /// A diverging loss, embeddings in which a form is missing.
    pub fn fit(
        &self,
        family: HeadFamily,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Trained, TrainingError> {
        let shared = &self.config.episodes;
        let epochs = shared.epochs_of(self.crowd.people.len());
        let plan = Plan { family, forms: &self.forms, epochs, checks: shared.checks };
        let best = self.descend(plan, progress)?;
        let mut report = json!({
            "config": self.config.of(family),
            "text_forms": self.forms_report,
            "people": self.crowd.people.len(),
            "epochs": epochs,
            "comparisons_of_one_person_in_a_step": self.crowd.cap,
            "comparisons_of_one_person": self.data.capped,
            "checks": best.tried,
            "epoch": best.epoch,
            "chosen_by": "log loss on held-out people after 0, 1, 4, 8 and 16 of their comparisons, a quarter of it on held-out texts",
        });
        let head = if family == HeadFamily::Bt { self.with_posterior(&best)? } else { best.head };
        if head.is_personal() {
            report["numbers_of_a_person"] = head.population().mean().len().into();
        }
        if family == HeadFamily::Vpl {
            report["latent"] = self.latent_use(head.as_ref())?;
        }
        Ok(Trained { head, report })
    }

    /// A shorter run for each candidate; both forms unless one alone is better.
    fn choose_forms(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), TrainingError> {
        if let Some(forms) = &self.config.episodes.text_forms {
            self.forms.clone_from(forms);
            self.forms_report = json!({"chosen": forms, "by": "configuration"});
            return Ok(());
        }
        let (joint, response) = (TextForm::PromptResponse, TextForm::Response);
        let candidates = [vec![joint], vec![response], vec![joint, response]];
        let mut runs = Vec::new();
        for forms in &candidates {
            let epochs = self.config.episodes.epochs_of(self.crowd.people.len());
            let epochs = epochs.div_ceil(PROBE_SHARE).max(FEWEST_PROBE_EPOCHS).min(epochs);
            let plan = Plan { family: HeadFamily::Lore, forms, epochs, checks: 1 };
            runs.push(self.descend(plan, progress)?);
        }
        let single = usize::from(runs[1].loss < runs[0].loss);
        // A tie goes to both: a form too many costs an encoder pass, a form too few costs what only it tells of new texts, and of
        // those held-out people show little.
        let (gain, error) = gain(&runs[single].of_people, &runs[2].of_people);
        let chosen = if gain > 0.0 { 2 } else { single };
        self.forms.clone_from(&candidates[chosen]);
        let tried: Vec<Value> = candidates
            .iter()
            .zip(&runs)
            .map(|(forms, run)| json!({"text_forms": forms, "validation_log_loss": run.loss}))
            .collect();
        self.forms_report = json!({
            "chosen": self.forms,
            "by": "log loss on held-out people after a shorter run; both forms unless one alone is better",
            "gain_of_two_forms": gain,
            "standard_error": error,
            "tried": tried,
        });
        Ok(())
    }

    fn descend(&self, plan: Plan<'_>, progress: &mut dyn FnMut(Progress)) -> Result<Best, TrainingError> {
        let shared = &self.config.episodes;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(plan.family as u64 + 1);
        let setting = Setting {
            items: &self.data.items,
            seen: &self.seen,
            people: self.crowd.people.len(),
            forms: plan.forms,
            config: self.config,
            dropout: [shared.input_dropout, shared.dropout],
        };
        let mut network = setting.network(plan.family, &mut rng)?;
        let personal = plan.family != HeadFamily::Bt;
        let (draws, examples) = if personal { (shared.draws, shared.examples) } else { (1, 0) };
        let people = people_of_step(&self.crowd, shared);
        let steps = plan.epochs * self.crowd.people.len().div_ceil(people);
        let candidate = candidate(plan);
        let mut step_number = 0;
        let mut best: Option<Best> = None;
        let mut tried = Vec::new();
        for epoch in 1..=plan.epochs {
            let mut total = 0.0;
            let order = shuffled(self.crowd.people.len(), &mut rng);
            for batch in order.chunks(people) {
                let step = Step::draw(&self.crowd, batch, draws, examples, &mut rng)?;
                let prediction = network.predict(&step, &mut rng)?;
                let mut loss = step.loss(&prediction.probabilities, shared.label_noise)?;
                let of_step = number(&loss)?;
                if !of_step.is_finite() {
                    return Err(TrainingError::Diverged { candidate, epoch });
                }
                total += of_step * batch.len() as f64;
                if let Some(penalty) = prediction.penalty {
                    loss = (loss + penalty)?;
                }
                let rate = shared.learning_rate * schedule(step_number, steps);
                network.parameters().update(&loss.backward()?, rate, shared.weight_decay)?;
                step_number += 1;
            }
            let loss = total / self.crowd.people.len() as f64;
            let mut check = None;
            if epoch * plan.checks / plan.epochs > (epoch - 1) * plan.checks / plan.epochs {
                let head = network.head()?;
                let shots = self.trial.run(self.data, head.as_ref(), &CALIBRATED_SHOTS)?;
                let (calibration, validation_log_loss) = log_loss(head.as_ref(), &shots, shared.label_noise)?;
                let (none, eight) = (accuracy(&shots, 0), accuracy(&shots, 8));
                tried.push(report_of(epoch, loss, validation_log_loss, [none, eight], calibration));
                check = Some((validation_log_loss, none, eight));
                if best.as_ref().is_none_or(|best| validation_log_loss < best.loss - 1e-4) {
                    let trunk = network.trunk()?;
                    best = Some(Best {
                        head,
                        trunk,
                        loss: validation_log_loss,
                        of_people: losses(&shots, calibration),
                        epoch,
                        tried: Vec::new(),
                    });
                }
            }
            progress(Progress::Epoch {
                candidate: candidate.clone(),
                epoch,
                epochs: plan.epochs,
                loss,
                validation_log_loss: check.map(|(loss, _, _)| loss),
                accuracy_without_examples: check.and_then(|(_, none, _)| none),
                accuracy_after_8: check.and_then(|(_, _, eight)| eight),
            });
        }
        let best = best.expect("the last epoch is always checked");
        Ok(Best { tried, ..best })
    }

    /// Bradley-Terry with Laplace's posterior about the last layer that descent ended at. The prior is as wide as the weights
    /// themselves are (empirical Bayes); whether the posterior is as wide as it should be, calibration says.
    fn with_posterior(&self, descent: &Best) -> Result<Box<dyn Head>, TrainingError> {
        let trunk = descent.trunk.clone();
        let weights: Array1<f64> = trunk.population.weight.row(0).mapv(f64::from);
        let prior_precision = weights.len() as f64 / weights.dot(&weights).max(f64::MIN_POSITIVE);
        let mut posterior = LaplacePosterior::new(weights, prior_precision)?;
        let weighted: Vec<(&Pair, f64)> = self
            .crowd
            .people
            .iter()
            .flat_map(|person| {
                // Somebody with many comparisons counts as in the steps: no more than the cap.
                let share = (self.crowd.cap as f64 / person.len() as f64).min(1.0);
                // A label that may be wrong says less: `(1 - 2 doubt)^2` of what a certain one says of the margin.
                let says =
                    |pair: &Pair| f64::from(pair.strength) * (1.0 - 2.0 * f64::from(pair.doubt)).powi(2);
                person.iter().map(move |pair| (pair, share * says(pair)))
            })
            .collect();
        for part in weighted.chunks(COMPARISONS_AT_ONCE) {
            let items = part.iter().flat_map(|(pair, _)| [pair.chosen as usize, pair.rejected as usize]);
            let features = ItemFeatures::of(&self.data.items, descent.head.as_ref(), items)?;
            let mut differences = features.rows(part.iter().map(|(pair, _)| pair.chosen as usize));
            differences -= &features.rows(part.iter().map(|(pair, _)| pair.rejected as usize));
            let strengths: Vec<f64> = part.iter().map(|(_, strength)| *strength).collect();
            posterior.add(differences.view(), &strengths)?;
        }
        let covariance = posterior.covariance()?;
        let weights_covariance = Some(covariance.mapv(|v| v as f32));
        Ok(Box::new(BradleyTerry::new(BtParameters { trunk, weights_covariance })?))
    }

    /// Whether the latent is used at all: a decoder strong enough without it leaves every posterior at the prior (posterior
    /// collapse, specification P5).
    fn latent_use(&self, head: &dyn Head) -> Result<Value, TrainingError> {
        let shown = |person: &[Pair]| self.config.episodes.examples.min(person.len());
        let mut means: Vec<Array1<f64>> = Vec::new();
        let mut divergence = 0.0;
        for people in parts(&self.crowd.people, |person| shown(person)) {
            let pairs = people.iter().flat_map(|person| &person[..shown(person)]);
            let items = pairs.flat_map(|pair| [pair.chosen as usize, pair.rejected as usize]);
            let features = ItemFeatures::of(&self.data.items, head, items)?;
            for person in people {
                let examples: Vec<Observation<'_>> = person[..shown(person)]
                    .iter()
                    .map(|pair| Observation {
                        chosen: features.row(pair.chosen as usize),
                        rejected: features.row(pair.rejected as usize),
                        names: [pair.chosen, pair.rejected].map(u64::from),
                        strength: f64::from(pair.strength),
                        label_confidence: 1.0 - f64::from(pair.doubt),
                    })
                    .collect();
                let state = head.adapt(&examples, None)?;
                let mean = state.mean().mapv(f64::from);
                divergence += kl_from_prior(mean.view(), state.variances().mapv(f64::from).view());
                means.push(mean);
            }
        }
        let people = means.len() as f64;
        let size = head.population().mean().len();
        let spread = |k: usize| {
            let mean = means.iter().map(|z| z[k]).sum::<f64>() / people;
            means.iter().map(|z| (z[k] - mean).powi(2)).sum::<f64>() / people
        };
        let active = (0..size).filter(|k| spread(*k) > ACTIVE_VARIANCE).count();
        Ok(json!({"units": size, "active_units": active, "mean_divergence_from_prior": divergence / people}))
    }
}

/// By how much the mean loss falls from one run to another on the same people, and the standard error of that: people, not
/// comparisons, are independent.
fn gain(from: &[PersonLoss], to: &[PersonLoss]) -> (f64, f64) {
    let weight: f64 = from.iter().map(|person| person.weight).sum();
    let differences = || from.iter().zip(to).map(|(from, to)| (from.total - to.total, from.weight));
    let gain = differences().map(|(difference, _)| difference).sum::<f64>() / weight;
    let squares: f64 = differences().map(|(difference, of)| (difference - gain * of).powi(2)).sum();
    // One person says nothing of how people differ.
    let people = from.len() as f64;
    let error =
        if people > 1.0 { (squares * people / (people - 1.0)).sqrt() / weight } else { f64::INFINITY };
    (gain, error)
}

/// Up over a tenth of the steps, then down to 0 along a cosine.
fn schedule(step: usize, steps: usize) -> f64 {
    let (step, steps) = (step as f64, steps as f64);
    ((step + 1.0) / (0.1 * steps)).min(1.0) * (0.5 + 0.5 * (std::f64::consts::PI * step / steps).cos())
}

fn candidate(plan: Plan<'_>) -> String {
    let forms: Vec<String> = plan.forms.iter().map(ToString::to_string).collect();
    format!("{}, reading the {}", plan.family, forms.join(" and the "))
}

fn report_of(
    epoch: usize,
    loss: f64,
    validation_log_loss: f64,
    [none, eight]: [Option<f64>; 2],
    calibration: Calibration,
) -> Value {
    json!({
        "epoch": epoch,
        "loss": loss,
        "validation_log_loss": validation_log_loss,
        "validation_accuracy_without_examples": none,
        "validation_accuracy_after_8_examples": eight,
        "calibration": calibration,
    })
}

/// Explains itself where a head could be fitted but not mean anything.
fn refuse_hopeless(crowd: &Crowd, families: &[HeadFamily]) -> Result<(), TrainingError> {
    if crowd.people.is_empty() {
        return Err(TrainingError::Data(
            "besides those held out, nobody preferred one text to another; every comparison is a tie".into(),
        ));
    }
    let Some(personal) = families.iter().find(|family| **family != HeadFamily::Bt) else {
        return Ok(());
    };
    let several = crowd.people.iter().filter(|person| person.len() >= 3).count();
    if several < FEWEST_PEOPLE {
        return Err(TrainingError::Data(format!(
            "{personal} learns from how people differ, which takes at least {FEWEST_PEOPLE} people to train on with 3 \
             distinct comparisons each; there are {several} besides those held out. Bradley-Terry (bt) can be trained"
        )));
    }
    Ok(())
}
