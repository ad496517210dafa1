//! The six families under training: what each predicts in an episode, and the head its parameters make.

use std::fmt::Debug;

use candle_core::{Tensor, Var};
use ndarray::Array1;
use polyreward_domain::{HeadFamily, TextForm};
use polyreward_heads::{Head, Items, Layer, Trunk};
use rand_chacha::ChaCha8Rng;

use crate::{
    config::{EpisodeConfig, TrainConfig},
    crowd::{Crowd, Reader},
    episode::Step,
    error::TrainingError,
    network::{Affine, Parameters, gelu, thinned, transposed},
};

mod bt;
mod lore;
mod micro;
mod pal_a;
mod pal_a_curved;
mod pal_b;
mod vpl;

/// A network under training.
pub(crate) trait Network: Debug {
    /// All that is trained.
    fn parameters(&mut self) -> &mut Parameters;

    /// Predicts every place of a step in every episode.
    fn predict(&self, step: &Step, rng: &mut ChaCha8Rng) -> Result<Prediction, TrainingError>;

    /// The part that every network has, as it is now.
    fn trunk(&self) -> Result<Trunk, TrainingError>;

    /// The head that the parameters make as they are now.
    fn head(&self) -> Result<Box<dyn Head>, TrainingError>;
}

/// What a network says of a step.
#[derive(Debug)]
pub(crate) struct Prediction {
    /// Probability of the truth of each label, `[B, P, R]`.
    pub(crate) probabilities: Tensor,
    /// Added to the loss.
    pub(crate) penalty: Option<Tensor>,
}

impl From<Tensor> for Prediction {
    fn from(probabilities: Tensor) -> Self {
        Self { probabilities, penalty: None }
    }
}

/// What a network is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) items: &'a Items,
    /// The items trained on.
    pub(crate) seen: &'a [usize],
    pub(crate) people: usize,
    /// Forms the common quality reads.
    pub(crate) forms: &'a [TextForm],
    pub(crate) config: &'a TrainConfig,
    /// Share of input numbers and of hidden units left out of a step.
    pub(crate) dropout: [f32; 2],
}

impl<'a> Setting<'a> {
    pub(crate) fn reader(&self, forms: &[TextForm]) -> Result<Reader<'a>, TrainingError> {
        Reader::fit(self.items, forms, self.seen)
    }

    /// A size that grows with the people there are to tell apart.
    pub(crate) fn size(&self, asked: Option<usize>, smallest: usize, largest: usize) -> usize {
        asked.unwrap_or((self.people / 4).clamp(smallest, largest))
    }

    /// A fresh network of a family.
    pub(crate) fn network(
        &self,
        family: HeadFamily,
        rng: &mut ChaCha8Rng,
    ) -> Result<Box<dyn Network + 'a>, TrainingError> {
        Ok(match family {
            HeadFamily::Bt => Box::new(bt::BtNetwork::new(self, rng)?),
            HeadFamily::Lore => Box::new(lore::LoreNetwork::new(self, rng)?),
            HeadFamily::PalA if self.config.pal_a.is_linear() => {
                Box::new(pal_a::PalANetwork::new(self, rng)?)
            }
            HeadFamily::PalA => Box::new(pal_a_curved::CurvedPalANetwork::new(self, rng)?),
            HeadFamily::PalB => Box::new(pal_b::PalBNetwork::new(self, rng)?),
            HeadFamily::Vpl => Box::new(vpl::VplNetwork::new(self, rng)?),
            HeadFamily::Micro => Box::new(micro::MicroNetwork::new(self, rng)?),
        })
    }
}

/// Logarithms of a prior's concentrations, kept where a search on the simplex is well-conditioned.
pub(crate) fn concentrations(log_alpha: &Tensor) -> Result<Tensor, TrainingError> {
    Ok(log_alpha.clamp(-12.0, 5.0)?)
}

/// The part that every network has: inputs, the latent and the common quality.
pub(crate) struct Common<'a> {
    pub(crate) reader: Reader<'a>,
    pub(crate) parameters: Parameters,
    pub(crate) dropout: [f32; 2],
    pub(crate) hidden: Affine,
    population: Var,
}

impl Debug for Common<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common").field("hidden", &self.hidden).finish_non_exhaustive()
    }
}

/// The items of a step as a network sees them.
pub(crate) struct Seen {
    /// `x`, `[M, Dx]`.
    pub(crate) input: Tensor,
    /// `h`, `[M, H]`.
    pub(crate) latent: Tensor,
    /// `q` of chosen less rejected, `[B * P]`.
    pub(crate) quality: Tensor,
}

impl<'a> Common<'a> {
    pub(crate) fn new(setting: &Setting<'a>, rng: &mut ChaCha8Rng) -> Result<Self, TrainingError> {
        let reader = setting.reader(setting.forms)?;
        let mut parameters = Parameters::default();
        let width = setting.config.episodes.hidden;
        let hidden = Affine::new(&mut parameters, (reader.width(), width), 1.0, rng)?;
        let population = parameters.normal(&[width, 1], 0.1 / (width as f64).sqrt(), rng)?;
        Ok(Self { reader, parameters, dropout: setting.dropout, hidden, population })
    }

    pub(crate) fn latent_len(&self) -> Result<usize, TrainingError> {
        Ok(self.population.dim(0)?)
    }

    pub(crate) fn see(&self, step: &Step, rng: &mut ChaCha8Rng) -> Result<Seen, TrainingError> {
        let input = self.reader.read(&step.items, self.dropout[0], rng)?;
        let latent = thinned(&gelu(&self.hidden.forward_data(&input)?)?, self.dropout[1], rng)?;
        let quality = step.difference(&latent.matmul(&self.population)?)?.squeeze(1)?;
        Ok(Seen { input, latent, quality })
    }

    pub(crate) fn trunk(&self) -> Result<Trunk, TrainingError> {
        Ok(Trunk {
            input: self.reader.input(),
            hidden: Some(self.hidden.layer()?),
            population: Layer { weight: transposed(&self.population)?, bias: Array1::zeros(1) },
        })
    }
}

/// People to draw for a step: enough steps in an epoch to learn from few people, too.
pub(crate) fn people_of_step(crowd: &Crowd, config: &EpisodeConfig) -> usize {
    config.people.min(crowd.people.len().div_ceil(4)).max(1)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use polyreward_heads::{Calibration, Distance, EmbeddedForm, IdealPoint, Observation};
    use rand::RngExt;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::{
        config::{PalAConfig, PalBConfig},
        crowd::Pair,
        network::vector,
    };

    const ITEMS: usize = 60;

    fn items(rng: &mut ChaCha8Rng) -> Items {
        let mut form = |texts: usize| {
            let rows = Array2::from_shape_fn((texts, 7), |_| rng.random_range(-1.0_f32..1.0));
            EmbeddedForm::in_memory(rows, (0..ITEMS).map(|item| (item % texts) as u32).collect())
        };
        Items {
            len: ITEMS,
            names: (0..ITEMS as u64).collect(),
            prompt_response: Some(form(ITEMS)),
            prompt: Some(form(5)),
            response: Some(form(ITEMS)),
        }
    }

    /// Both responses of a pair have the same prompt: items are equal modulo 5.
    fn crowd(rng: &mut ChaCha8Rng) -> Crowd {
        let mut pair = || {
            let (prompt, a) = (rng.random_range(0..5_u32), rng.random_range(0..12_u32));
            let b = (a + rng.random_range(1..12)) % 12;
            Pair {
                chosen: prompt + 5 * a,
                rejected: prompt + 5 * b,
                strength: rng.random_range(0.5..2.0),
                doubt: rng.random_range(0.0..0.3),
            }
        };
        Crowd { people: (0..4).map(|_| (0..9).map(|_| pair()).collect()).collect(), cap: 24 }
    }

    #[test]
    fn training_and_serving_predict_the_same() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (items, crowd) = (items(&mut rng), crowd(&mut rng));
        let seen = crowd.items();
        let mut config = TrainConfig::default();
        config.episodes.hidden = 10;
        config.lore.label_noise = 0.03;
        config.pal_a.concentration = 3.0;
        let forms = [TextForm::PromptResponse, TextForm::Response];
        let mut cases: Vec<(HeadFamily, TrainConfig)> =
            HeadFamily::ALL.map(|family| (family, config.clone())).into();
        for (distance, ideal_point) in [
            (Distance::Plain, IdealPoint::MixturePoints),
            (Distance::Plain, IdealPoint::ProjectedMixture),
            (Distance::Squared, IdealPoint::ProjectedMixture),
        ] {
            let pal_a = PalAConfig { distance, ideal_point, ..config.pal_a.clone() };
            cases.push((HeadFamily::PalA, TrainConfig { pal_a, ..config.clone() }));
        }
        let pal_b = PalBConfig { normalised: true, ..config.pal_b.clone() };
        cases.push((HeadFamily::PalB, TrainConfig { pal_b, ..config.clone() }));
        for (family, config) in &cases {
            let family = *family;
            let setting = Setting {
                items: &items,
                seen: &seen,
                people: 16,
                forms: &forms,
                config,
                dropout: [0.0, 0.0],
            };
            let mut network = setting.network(family, &mut rng).unwrap();
            // A few steps, so that no weight is at its start.
            for _ in 0..3 {
                let step = Step::draw(&crowd, &[0, 1, 2, 3], 3, 6, &mut rng).unwrap();
                let loss = step.loss(&network.predict(&step, &mut rng).unwrap().probabilities, 0.02).unwrap();
                network.parameters().update(&loss.backward().unwrap(), 0.02, 0.1).unwrap();
            }
            let step = Step::draw(&crowd, &[0, 1, 2, 3], 3, 6, &mut rng).unwrap();
            let trained = vector(&network.predict(&step, &mut rng).unwrap().probabilities).unwrap();
            let head = network.head().unwrap();
            let places = |ids: &Tensor| -> Vec<usize> {
                let ids = ids.to_vec1::<u32>().unwrap();
                ids.iter().map(|at| step.items[*at as usize] as usize).collect()
            };
            let chosen = items.features(head.as_ref(), &places(&step.chosen)).unwrap();
            let rejected = items.features(head.as_ref(), &places(&step.rejected)).unwrap();
            let shown = vector(&step.shown).unwrap();
            for episode in 0..12 {
                let (person, draw) = (episode / 3, episode % 3);
                let cells = person * step.places..(person + 1) * step.places;
                let examples: Vec<Observation<'_>> = cells
                    .clone()
                    .filter(|cell| shown[cell * 3 + draw] > 0.0)
                    .map(|cell| Observation {
                        chosen: chosen.row(cell),
                        rejected: rejected.row(cell),
                        names: [cell as u64, u64::MAX],
                        strength: f64::from(shown[cell * 3 + draw]),
                        label_confidence: 1.0 - f64::from(crowd_doubt(&step, cell)),
                    })
                    .collect();
                let examples = if head.is_personal() { examples } else { Vec::new() };
                let state = head.adapt(&examples, None).unwrap();
                let margins = head.margins(&[state.view()], chosen.view(), rejected.view()).unwrap();
                for cell in cells {
                    let (mean, variance) = (margins.mean[[0, cell]], margins.variance[[0, cell]]);
                    let calibration =
                        Calibration { moderated: !head.margins_are_marginal(), ..Calibration::default() };
                    let served = calibration.probability(f64::from(mean), f64::from(variance));
                    let trained = f64::from(trained[cell * 3 + draw]);
                    assert!((served - trained).abs() < 1e-5, "{family}: served {served}, trained {trained}");
                }
            }
        }
    }

    fn crowd_doubt(step: &Step, cell: usize) -> f32 {
        vector(&step.doubts).unwrap()[cell]
    }
}
