//! PAL-B under training: `sum_k w_k s cos(g_k(prompt), f(response)) + q`, `w` on the simplex.

use candle_core::Var;
use polyreward_domain::TextForm;
use polyreward_heads::{Activation, Head, Mlp, PalB, PalBParameters, Trunk};
use rand_chacha::ChaCha8Rng;

use super::{Common, Network, Prediction, Setting, concentrations};
use crate::{
    crowd::Reader,
    episode::{Prior, Step, linear_margins, moderated},
    error::TrainingError,
    network::{Affine, Parameters, gelu, number, thinned, unit_rows, vector},
};

/// The cosine's scale at the start.
const FIRST_SCALE: f64 = 4.0;
/// Width of the hidden layer that reads the prompt.
const PROMPT_HIDDEN: usize = 64;

pub(crate) struct PalBNetwork<'a> {
    common: Common<'a>,
    responses: Reader<'a>,
    prompts: Reader<'a>,
    item: [Affine; 2],
    mapping: [Affine; 2],
    constant: Var,
    log_scale: Var,
    log_alpha: Var,
    prototypes: usize,
    label_noise: f64,
}

impl std::fmt::Debug for PalBNetwork<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PalBNetwork").field("common", &self.common).finish_non_exhaustive()
    }
}

impl<'a> PalBNetwork<'a> {
    pub(crate) fn new(setting: &Setting<'a>, rng: &mut ChaCha8Rng) -> Result<Self, TrainingError> {
        let mut common = Common::new(setting, rng)?;
        let config = &setting.config.pal_b;
        let responses = setting.reader(&[TextForm::Response])?;
        let prompts = setting.reader(&[TextForm::Prompt])?;
        let prototypes = setting.size(config.prototypes, 3, 16);
        let (width, dim) = (common.latent_len()?, config.dim);
        let parameters = &mut common.parameters;
        let item = [
            Affine::new(parameters, (responses.width(), width), 1.0, rng)?,
            Affine::new(parameters, (width, dim), 1.0, rng)?,
        ];
        let mapping = [
            Affine::new(parameters, (prompts.width(), PROMPT_HIDDEN), 1.0, rng)?,
            Affine::new(parameters, (PROMPT_HIDDEN, prototypes * dim), 0.5, rng)?,
        ];
        let constant = parameters.normal(&[1, prototypes * dim], 0.5 / (dim as f64).sqrt(), rng)?;
        let log_scale = parameters.scales(vec![FIRST_SCALE.ln() as f32])?;
        let alpha = (config.concentration / prototypes as f64).ln() as f32;
        let log_alpha = parameters.scales(vec![alpha; prototypes])?;
        let label_noise = config.label_noise;
        Ok(Self {
            common,
            responses,
            prompts,
            item,
            mapping,
            constant,
            log_scale,
            log_alpha,
            prototypes,
            label_noise,
        })
    }
}

impl Network for PalBNetwork<'_> {
    fn parameters(&mut self) -> &mut Parameters {
        &mut self.common.parameters
    }

    fn predict(&self, step: &Step, rng: &mut ChaCha8Rng) -> Result<Prediction, TrainingError> {
        let seen = self.common.see(step, rng)?;
        let dropout = self.common.dropout;
        let responses = self.responses.read(&step.items, dropout[0], rng)?;
        let hidden = thinned(&gelu(&self.item[0].forward_data(&responses)?)?, dropout[1], rng)?;
        let points = step.difference(&unit_rows(&self.item[1].forward(&hidden)?)?)?;
        let dim = points.dim(1)?;
        let (prompts, of_place) = step.prompts(&self.prompts)?;
        let inputs = self.prompts.read(&prompts, dropout[0], rng)?;
        let mapped = self.mapping[1].forward(&gelu(&self.mapping[0].forward_data(&inputs)?)?)?;
        let mapped = mapped.broadcast_add(&self.constant)?.reshape((prompts.len(), self.prototypes, dim))?;
        let ideals = unit_rows(&mapped)?.index_select(&of_place, 0)?;
        let rows = ideals.matmul(&points.unsqueeze(2)?)?.squeeze(2)?;
        let rows = rows.broadcast_mul(&self.log_scale.exp()?)?;
        let log_alpha = concentrations(&self.log_alpha)?;
        let prior = Prior::Simplex(&log_alpha);
        let (mean, variance) = linear_margins(step, &rows, &seen.quality, prior, self.label_noise)?;
        Ok(moderated(&mean, &variance)?.into())
    }

    fn trunk(&self) -> Result<Trunk, TrainingError> {
        self.common.trunk()
    }

    fn head(&self) -> Result<Box<dyn Head>, TrainingError> {
        let mut last = self.mapping[1].layer()?;
        last.bias += &vector(&self.constant)?;
        Ok(Box::new(PalB::new(PalBParameters {
            trunk: self.common.trunk()?,
            response: self.responses.input(),
            prompt: self.prompts.input(),
            item: Mlp::new(vec![self.item[0].layer()?, self.item[1].layer()?], Activation::Gelu)?,
            prompts: Mlp::new(vec![self.mapping[0].layer()?, last], Activation::Gelu)?,
            scale: number(&self.log_scale)?.exp(),
            alpha: vector(&concentrations(&self.log_alpha)?)?.mapv(|a| f64::from(a).exp()),
            label_noise: self.label_noise,
            normalised: false,
        })?))
    }
}
