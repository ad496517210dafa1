//! From comparisons to a fitted head: episodes, checks on held-out people, the best moment kept.

use std::fmt::Debug;

use ndarray::{Array1, Array2};
use polyreward_domain::{HeadFamily, TextForm};
use polyreward_heads::{BradleyTerry, BtParameters, Calibration, Head, LogisticMap, Trunk, fit_logistic_map};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::{Value, json};

use crate::{
    Progress,
    assess::{CALIBRATED_SHOTS, PersonLoss, Trial, accuracy, calibrate, losses},
    config::TrainConfig,
    crowd::Crowd,
    data::{HoldOut, TrainingData},
    episode::{Step, shuffled},
    error::TrainingError,
    families::{Setting, people_of_step},
    folder::Trained,
    network::number,
};

/// The short runs that compare text forms take this part of a whole run's passes, and no fewer than so many if there are.
const PROBE_SHARE: usize = 4;
const FEWEST_PROBE_EPOCHS: usize = 5;
/// Reading two forms costs an encoder pass more for every text served: it must lower the held-out loss by this much, in nats.
const SECOND_FORM_GAIN: f64 = 0.01;
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
        let trial = Trial::of(&data.people, &hold_out.validation, seed);
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
            "checks": best.tried,
            "epoch": best.epoch,
            "chosen_by": "log loss on held-out people after 0, 1, 4 and 8 of their comparisons",
        });
        let head = if family == HeadFamily::Bt && self.config.bt.refit {
            let (head, refits) = self.refit(best)?;
            report["last_layer"] = refits;
            head
        } else {
            best.head
        };
        Ok(Trained { head, report })
    }

    /// A short run for each candidate; a single form unless two are clearly better, by more than chance among the held-out people.
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
        // A few held-out people may favour either by chance.
        let (gain, error) = gain(&runs[single].of_people, &runs[2].of_people);
        let chosen = if gain - error > SECOND_FORM_GAIN { 2 } else { single };
        self.forms.clone_from(&candidates[chosen]);
        let tried: Vec<Value> = candidates
            .iter()
            .zip(&runs)
            .map(|(forms, run)| json!({"text_forms": forms, "validation_log_loss": run.loss}))
            .collect();
        self.forms_report = json!({
            "chosen": self.forms,
            "by": "log loss on held-out people after a short run; two forms must gain 0.01 nats and a standard error",
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
                total += number(&loss)? * batch.len() as f64;
                if let Some(penalty) = prediction.penalty {
                    loss = (loss + penalty)?;
                }
                let rate = shared.learning_rate * schedule(step_number, steps);
                network.parameters().update(&loss.backward()?, rate, shared.weight_decay)?;
                step_number += 1;
            }
            let loss = total / self.crowd.people.len() as f64;
            if !loss.is_finite() {
                return Err(TrainingError::Diverged { candidate, epoch });
            }
            let mut check = None;
            if epoch * plan.checks / plan.epochs > (epoch - 1) * plan.checks / plan.epochs {
                let head = network.head()?;
                let shots = self.trial.run(self.data, head.as_ref(), &CALIBRATED_SHOTS)?;
                let (calibration, validation_log_loss) = calibrate(&shots)?;
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

    /// Bradley-Terry's last layer by Newton's method, with the posterior of its weights: where descent ended is the prior's
    /// mean, and its precision is that of least loss on held-out people.
    fn refit(&self, descent: Best) -> Result<(Box<dyn Head>, Value), TrainingError> {
        let trunk = &descent.trunk;
        let rows = self.differences(descent.head.as_ref())?;
        let mut strengths = Vec::new();
        let mut confidences = Vec::new();
        for person in &self.crowd.people {
            // Somebody with many comparisons counts as in the steps: no more than the cap.
            let share = (self.crowd.cap as f64 / person.len() as f64).min(1.0);
            strengths.extend(person.iter().map(|pair| f64::from(pair.strength) * share));
            confidences.extend(person.iter().map(|pair| 1.0 - f64::from(pair.doubt)));
        }
        let prior_mean: Array1<f64> = trunk.population.weight.row(0).mapv(f64::from);
        let mut best: (Option<Box<dyn Head>>, f64) = (None, descent.loss);
        let mut tried = vec![json!({"prior_precision": null, "validation_log_loss": descent.loss})];
        for prior_precision in [10_000.0, 3000.0, 1000.0, 300.0, 100.0] {
            let fit = fit_logistic_map(&LogisticMap {
                differences: rows.view(),
                strengths: &strengths,
                confidences: &confidences,
                prior_mean: &prior_mean,
                prior_precision,
                start: None,
            })?;
            let mut refitted: Trunk = trunk.clone();
            refitted.population.weight.row_mut(0).assign(&fit.weights.mapv(|w| w as f32));
            let covariance = Some(fit.covariance.mapv(|v| v as f32));
            let head = BradleyTerry::new(BtParameters { trunk: refitted, weights_covariance: covariance })?;
            let (_, loss) = calibrate(&self.trial.run(self.data, &head, &CALIBRATED_SHOTS)?)?;
            tried.push(json!({"prior_precision": prior_precision, "validation_log_loss": loss}));
            // The first that does no harm brings the weights' posterior with it.
            if loss < best.1 || (best.0.is_none() && loss < best.1 + 1e-3) {
                best = (Some(Box::new(head)), loss);
            }
        }
        Ok((best.0.unwrap_or(descent.head), Value::Array(tried)))
    }

    /// Features of chosen less rejected, of all that is trained on.
    fn differences(&self, head: &dyn Head) -> Result<Array2<f32>, TrainingError> {
        let features = self.data.items.features(head, &self.seen)?;
        let at = |item: u32| self.seen.binary_search(&(item as usize)).expect("every trained item was seen");
        let pairs: Vec<_> = self.crowd.people.iter().flatten().collect();
        let mut rows = Array2::zeros((pairs.len(), features.ncols()));
        for (mut row, pair) in rows.rows_mut().into_iter().zip(pairs) {
            row.assign(&features.row(at(pair.chosen)));
            row -= &features.row(at(pair.rejected));
        }
        Ok(rows)
    }
}

/// By how much the mean loss falls from one run to another on the same people, and the standard error of that: people, not
/// comparisons, are independent.
fn gain(from: &[PersonLoss], to: &[PersonLoss]) -> (f64, f64) {
    let weight: f64 = from.iter().map(|person| person.weight).sum();
    let differences = || from.iter().zip(to).map(|(from, to)| (from.total - to.total, from.weight));
    let gain = differences().map(|(difference, _)| difference).sum::<f64>() / weight;
    let squares: f64 = differences().map(|(difference, of)| (difference - gain * of).powi(2)).sum();
    (gain, squares.sqrt() / weight)
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
