//! VPL under training: `o . leaky_relu(text(h) + latent z) + q`, with `z` inferred from a person's comparisons.

use candle_core::{Tensor, Var};
use polyreward_heads::{Activation, FURTHEST_MEAN, Head, Mlp, SHARPEST_EXAMPLE, Trunk, Vpl, VplParameters};
use rand_chacha::ChaCha8Rng;

use super::{Common, Network, Prediction, Setting};
use crate::{
    episode::{Step, moderated},
    error::TrainingError,
    network::{Affine, Parameters, bent_margins, bent_slopes, gelu, softplus, transposed, vector},
};

#[derive(Debug)]
pub(crate) struct VplNetwork<'a> {
    common: Common<'a>,
    first: Affine,
    second: Affine,
    text: Affine,
    latent: Var,
    output: Var,
    kl_weight: f64,
}

impl<'a> VplNetwork<'a> {
    pub(crate) fn new(setting: &Setting<'a>, rng: &mut ChaCha8Rng) -> Result<Self, TrainingError> {
        let mut common = Common::new(setting, rng)?;
        let config = &setting.config.vpl;
        let (width, latent) = (common.latent_len()?, setting.size(config.latent, 4, 24));
        let parameters = &mut common.parameters;
        let first = Affine::new(parameters, (2 * width, config.encoder), 1.0, rng)?;
        let second = Affine::new(parameters, (config.encoder, 2 * latent), 0.5, rng)?;
        let text = Affine::new(parameters, (width, config.text), 1.0, rng)?;
        let latent = parameters.normal(&[latent, config.text], 0.5 / (latent as f64).sqrt(), rng)?;
        let output = parameters.normal(&[config.text, 1], 1.0 / (config.text as f64).sqrt(), rng)?;
        Ok(Self { common, first, second, text, latent, output, kl_weight: config.kl })
    }
}

/// `[B, P, R]` evidence weights to totals of `[B * P, K]` rows in each episode, `[B, R, K]`.
fn pooled(weights: &Tensor, rows: &Tensor) -> Result<Tensor, TrainingError> {
    let (people, places, _) = weights.dims3()?;
    Ok(weights.transpose(1, 2)?.contiguous()?.matmul(&rows.reshape((people, places, ()))?)?)
}

impl Network for VplNetwork<'_> {
    fn parameters(&mut self) -> &mut Parameters {
        &mut self.common.parameters
    }

    fn predict(&self, step: &Step, rng: &mut ChaCha8Rng) -> Result<Prediction, TrainingError> {
        let seen = self.common.see(step, rng)?;
        let chosen = seen.latent.index_select(&step.chosen, 0)?;
        let rejected = seen.latent.index_select(&step.rejected, 0)?;
        let pairs = Tensor::cat(&[(&chosen - &rejected)?, (chosen + rejected)?], 1)?;
        let encoded = self.second.forward(&gelu(&self.first.forward(&pairs)?)?)?;
        let size = encoded.dim(1)? / 2;
        let means = encoded.narrow(1, 0, size)?.affine(1.0 / FURTHEST_MEAN, 0.0)?.tanh()?;
        let means = means.affine(FURTHEST_MEAN, 0.0)?;
        let certainty = softplus(&encoded.narrow(1, size, size)?)?;
        let precisions = (&certainty / certainty.affine(1.0 / SHARPEST_EXAMPLE, 1.0)?)?;
        // A label that says nothing is no evidence: weight 2 c - 1.
        let weights = step.shown.broadcast_mul(&step.doubts.affine(-2.0, 1.0)?)?;
        let precision = pooled(&weights, &precisions)?.affine(1.0, 1.0)?;
        let mean = (pooled(&weights, &(means * precisions)?)? / &precision)?;
        let divergence = ((mean.sqr()? + precision.recip()?)? + (precision.log()? - 1.0)?)?;
        let penalty = divergence.sum(2)?.mean_all()?.affine(0.5 * self.kl_weight, 0.0)?;

        let texts = self.text.forward(&seen.latent)?;
        let (people, places, draws) = (step.people, step.places, step.draws);
        let users = mean.reshape((people * draws, size))?.matmul(&self.latent)?;
        let (chosen, rejected) =
            (texts.index_select(&step.chosen, 0)?, texts.index_select(&step.rejected, 0)?);
        let bent = bent_margins(&chosen, &rejected, &users, [places, draws])?;
        let margins = bent.matmul(&self.output)?.reshape((people, places, draws))?;
        let margins = margins.broadcast_add(&seen.quality.reshape((people, places, 1))?)?;
        // The margin's slope in z, for its variance: linear between the kinks.
        let slopes = bent_slopes(&chosen, &rejected, &users, [places, draws])?;
        let decoder = self.latent.t()?.broadcast_mul(&self.output)?;
        let slopes = slopes.matmul(&decoder.contiguous()?)?.reshape((people, places, draws, size))?;
        let spread = precision.recip()?.reshape((people, 1, draws, size))?;
        let variance = slopes.sqr()?.broadcast_mul(&spread)?.sum(3)?;
        Ok(Prediction { probabilities: moderated(&margins, &variance)?, penalty: Some(penalty) })
    }

    fn trunk(&self) -> Result<Trunk, TrainingError> {
        self.common.trunk()
    }

    fn head(&self) -> Result<Box<dyn Head>, TrainingError> {
        Ok(Box::new(Vpl::new(VplParameters {
            trunk: self.common.trunk()?,
            encoder: Mlp::new(vec![self.first.layer()?, self.second.layer()?], Activation::Gelu)?,
            text: self.text.layer()?,
            latent: transposed(&self.latent)?,
            output: vector(&self.output)?,
        })?))
    }
}
