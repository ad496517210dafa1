//! PAL-B under training: `sum_k w_k s cos(g_k(prompt), f(response)) + q`, `w` on the simplex; or, as in the paper,
//! `s cos(sum_k w_k g_k(prompt), f(response)) + q`.

use candle_core::{Tensor, Var};
use ndarray::{Array1, Array2, Axis, concatenate};
use polyreward_domain::TextForm;
use polyreward_heads::{Activation, Head, Mlp, PalB, PalBParameters, Trunk};
use rand_chacha::ChaCha8Rng;

use super::{Common, Network, Prediction, Setting, concentrations};
use crate::{
    crowd::Reader,
    episode::{Prior, Step, curved_margins, linear_margins, moderated},
    error::TrainingError,
    network::{Affine, Parameters, gelu, matrix, number, thinned, unit_rows, vector},
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
    normalised: bool,
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
            normalised: config.normalised,
        })
    }

    /// As in the paper: the mixture of mappings has unit length, not each mapping. A margin is `w . z / sqrt(wᵀ G w)` with
    /// `z` of chosen less rejected and the mappings' Gram matrix `G`.
    fn normalised(
        &self,
        step: &Step,
        mapped: &Tensor,
        sides: [&Tensor; 2],
        quality: &Tensor,
    ) -> Result<(Tensor, Tensor), TrainingError> {
        let (people, places, width) = (step.people, step.places, self.prototypes);
        let scale = self.log_scale.exp()?;
        let similar = |side: &Tensor| -> Result<Tensor, TrainingError> {
            Ok(mapped.matmul(&side.unsqueeze(2)?)?.squeeze(2)?.broadcast_mul(&scale)?)
        };
        let (chosen, rejected) = (similar(sides[0])?, similar(sides[1])?);
        let gram = mapped.matmul(&mapped.transpose(1, 2)?.contiguous()?)?;

        let of_quality = vector(quality)?;
        let features = |z: &Tensor, of_quality: Array1<f32>| -> Result<Array2<f32>, TrainingError> {
            let (z, gram) = (matrix(z)?, matrix(&gram.flatten_from(1)?)?);
            let lower: Vec<usize> = (0..width).flat_map(|i| (0..=i).map(move |j| i * width + j)).collect();
            Ok(concatenate![Axis(1), z, gram.select(Axis(1), &lower), of_quality.insert_axis(Axis(1))])
        };
        let none = Array1::zeros(of_quality.len());
        let of_sides = [features(&chosen, of_quality)?, features(&rejected, none)?];
        let states = step.states(self.head()?.as_ref(), [&of_sides[0], &of_sides[1]])?;

        let z = (chosen - rejected)?.reshape((people, places, width))?;
        let gram = gram.reshape((people, places * width, width))?;
        let quality = quality.reshape((people, places, 1))?;
        let margins = |weights: &Tensor| -> Result<(Tensor, Tensor), TrainingError> {
            let columns = weights.transpose(1, 2)?.contiguous()?;
            let along = gram.matmul(&columns)?.reshape((people, places, width, step.draws))?;
            let along = along.transpose(2, 3)?.contiguous()?;
            let square = along.broadcast_mul(&weights.unsqueeze(1)?)?.sum(3)?;
            let length = square.clamp(SHORTEST_SQUARE, f64::INFINITY)?.sqrt()?;
            let similarity = (z.matmul(&columns)? / &length)?;
            let turned = along.broadcast_mul(&(&similarity / &length)?.unsqueeze(3)?)?;
            let slopes = z.unsqueeze(2)?.broadcast_sub(&turned)?.broadcast_div(&length.unsqueeze(3)?)?;
            Ok((similarity.broadcast_add(&quality)?, slopes))
        };
        curved_margins(step, &states, &margins, &concentrations(&self.log_alpha)?, self.label_noise)
    }
}

/// Below this squared length a mixture of mappings is as long as its square root.
const SHORTEST_SQUARE: f64 = 1e-12;

impl Network for PalBNetwork<'_> {
    fn parameters(&mut self) -> &mut Parameters {
        &mut self.common.parameters
    }

    fn predict(&self, step: &Step, rng: &mut ChaCha8Rng) -> Result<Prediction, TrainingError> {
        let seen = self.common.see(step, rng)?;
        let dropout = self.common.dropout;
        let responses = self.responses.read(&step.items, dropout[0], rng)?;
        let hidden = thinned(&gelu(&self.item[0].forward_data(&responses)?)?, dropout[1], rng)?;
        let items = unit_rows(&self.item[1].forward(&hidden)?)?;
        let points = step.difference(&items)?;
        let dim = points.dim(1)?;
        let (prompts, of_place) = step.prompts(&self.prompts)?;
        let inputs = self.prompts.read(&prompts, dropout[0], rng)?;
        let mapped = self.mapping[1].forward(&gelu(&self.mapping[0].forward_data(&inputs)?)?)?;
        let mapped = mapped.broadcast_add(&self.constant)?.reshape((prompts.len(), self.prototypes, dim))?;
        if self.normalised {
            let mapped = mapped.index_select(&of_place, 0)?;
            let (chosen, rejected) =
                (items.index_select(&step.chosen, 0)?, items.index_select(&step.rejected, 0)?);
            let (mean, variance) = self.normalised(step, &mapped, [&chosen, &rejected], &seen.quality)?;
            return Ok(moderated(&mean, &variance)?.into());
        }
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
            normalised: self.normalised,
        })?))
    }
}
