//! MiCRo under training: a mixture of Bradley-Terry heads, routed by the prompt and by a person's comparisons.

use candle_core::Var;
use ndarray::{Array1, Array2};
use polyreward_domain::TextForm;
use polyreward_heads::{Head, Layer, Micro, MicroParameters, TextInput, Trunk};
use rand_chacha::ChaCha8Rng;

use super::{Common, Network, Prediction, Setting};
use crate::{
    crowd::Reader,
    episode::Step,
    error::TrainingError,
    network::{Affine, Parameters, log_softmax, number, sigmoid, transposed, vector},
};

/// The prompt's part of the router.
struct Router<'a> {
    reader: Reader<'a>,
    weight: Var,
}

impl std::fmt::Debug for Router<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("weight", &self.weight).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct MicroNetwork<'a> {
    common: Common<'a>,
    heads: Var,
    prior: Var,
    router: Option<Router<'a>>,
    log_temperature: Var,
    label_noise: f64,
    entropy: f64,
}

impl<'a> MicroNetwork<'a> {
    pub(crate) fn new(setting: &Setting<'a>, rng: &mut ChaCha8Rng) -> Result<Self, TrainingError> {
        let mut common = Common::new(setting, rng)?;
        let config = &setting.config.micro;
        let (width, heads) = (common.latent_len()?, setting.size(config.heads, 3, 20));
        let parameters = &mut common.parameters;
        let weights = parameters.normal(&[width, heads], 1.0 / (width as f64).sqrt(), rng)?;
        let prior = parameters.scales(vec![0.0; heads])?;
        let log_temperature = parameters.scales(vec![0.0])?;
        let router = if config.router {
            let reader = setting.reader(&[TextForm::Prompt])?;
            let weight = parameters.zeros(&[reader.width(), heads])?;
            Some(Router { reader, weight })
        } else {
            None
        };
        Ok(Self {
            common,
            heads: weights,
            prior,
            router,
            log_temperature,
            label_noise: config.label_noise,
            entropy: config.entropy,
        })
    }
}

impl Network for MicroNetwork<'_> {
    fn parameters(&mut self) -> &mut Parameters {
        &mut self.common.parameters
    }

    fn predict(&self, step: &Step, rng: &mut ChaCha8Rng) -> Result<Prediction, TrainingError> {
        let seen = self.common.see(step, rng)?;
        let (people, places, draws) = (step.people, step.places, step.draws);
        let margins = step.difference(&seen.latent.matmul(&self.heads)?)?;
        let heads = margins.dim(1)?;
        let margins = margins.broadcast_add(&seen.quality.unsqueeze(1)?)?.reshape((people, places, heads))?;
        let right = sigmoid(&margins)?;
        let noise = step.noise(self.label_noise)?;
        let observed = right.broadcast_mul(&noise.affine(-2.0, 1.0)?)?.broadcast_add(&noise)?;
        let likelihoods = observed.clamp(1e-12, 1.0)?.log()?;
        let evidence = step.shown.transpose(1, 2)?.contiguous()?.matmul(&likelihoods)?;
        let evidence = evidence.broadcast_mul(&self.log_temperature.exp()?)?;
        let mut logits = self.prior.reshape((1, 1, 1, heads))?;
        if let Some(router) = &self.router {
            let (prompts, of_place) = step.prompts(&router.reader)?;
            let inputs = router.reader.read(&prompts, self.common.dropout[0], rng)?;
            let routed = Affine::times_data(&inputs, &router.weight)?.index_select(&of_place, 0)?;
            logits = routed.reshape((people, places, 1, heads))?.broadcast_add(&logits)?;
        }
        let penalty = if self.entropy > 0.0 {
            // Equation 3's second term: the mean over prompts of sum_k f_k ln f_k.
            let log_weights = log_softmax(&logits)?;
            let negative_entropy = (log_weights.exp()? * &log_weights)?.sum(3)?.mean_all()?;
            Some(negative_entropy.affine(self.entropy, 0.0)?)
        } else {
            None
        };
        let logits = logits.broadcast_add(&evidence.reshape((people, 1, draws, heads))?)?;
        let weights = log_softmax(&logits)?.exp()?;
        let mixed = weights.broadcast_mul(&right.reshape((people, places, 1, heads))?)?.sum(3)?;
        Ok(Prediction { probabilities: mixed, penalty })
    }

    fn trunk(&self) -> Result<Trunk, TrainingError> {
        self.common.trunk()
    }

    fn head(&self) -> Result<Box<dyn Head>, TrainingError> {
        let heads = self.heads.dim(1)?;
        let bias = vector(&self.prior)?;
        let (router_input, weight) = match &self.router {
            Some(router) => (router.reader.input(), transposed(&router.weight)?),
            None => (TextInput { forms: Vec::new() }, Array2::zeros((heads, 0))),
        };
        Ok(Box::new(Micro::new(MicroParameters {
            trunk: self.common.trunk()?,
            heads: Layer { weight: transposed(&self.heads)?, bias: Array1::zeros(heads) },
            router_input,
            router: Layer { weight, bias },
            temperature: number(&self.log_temperature)?.exp(),
            label_noise: self.label_noise,
        })?))
    }
}
