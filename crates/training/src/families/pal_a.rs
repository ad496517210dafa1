//! PAL-A under training: `sum_k w_k (-s |h - p_k|^2) + q`, `w` on the simplex.

use candle_core::Var;
use polyreward_heads::{Distance, Head, IdealPoint, PalA, PalAParameters, Trunk};
use rand_chacha::ChaCha8Rng;

use super::{Common, Network, Prediction, Setting, concentrations};
use crate::{
    episode::{Prior, Step, linear_margins, moderated},
    error::TrainingError,
    network::{Parameters, number, transposed, vector},
};

/// Where the distance's scale starts.
const FIRST_SCALE: f64 = 0.05;

/// The prototypes are trained as the directions `v_k = 2 s p_k`, by which a margin depends on the person linearly:
/// `z_k = v_k . h - s |h|^2` up to what is the same for every text.
#[derive(Debug)]
pub(crate) struct PalANetwork<'a> {
    common: Common<'a>,
    directions: Var,
    log_scale: Var,
    log_alpha: Var,
    label_noise: f64,
}

impl<'a> PalANetwork<'a> {
    pub(crate) fn new(setting: &Setting<'a>, rng: &mut ChaCha8Rng) -> Result<Self, TrainingError> {
        let mut common = Common::new(setting, rng)?;
        let config = &setting.config.pal_a;
        let prototypes = setting.size(config.prototypes, 3, 32);
        let width = common.latent_len()?;
        let directions = common.parameters.normal(&[width, prototypes], 0.3 / (width as f64).sqrt(), rng)?;
        let log_scale = common.parameters.scales(vec![FIRST_SCALE.ln() as f32])?;
        let alpha = (config.concentration / prototypes as f64).ln() as f32;
        let log_alpha = common.parameters.scales(vec![alpha; prototypes])?;
        Ok(Self { common, directions, log_scale, log_alpha, label_noise: config.label_noise })
    }
}

impl Network for PalANetwork<'_> {
    fn parameters(&mut self) -> &mut Parameters {
        &mut self.common.parameters
    }

    fn predict(&self, step: &Step, rng: &mut ChaCha8Rng) -> Result<Prediction, TrainingError> {
        let seen = self.common.see(step, rng)?;
        let rows = step.difference(&seen.latent.matmul(&self.directions)?)?;
        let lengths = seen.latent.sqr()?.sum_keepdim(1)?.broadcast_mul(&self.log_scale.exp()?)?;
        let offsets = (seen.quality - step.difference(&lengths)?.squeeze(1)?)?;
        let log_alpha = concentrations(&self.log_alpha)?;
        let prior = Prior::Simplex(&log_alpha);
        let (mean, variance) = linear_margins(step, &rows, &offsets, prior, self.label_noise)?;
        Ok(moderated(&mean, &variance)?.into())
    }

    fn trunk(&self) -> Result<Trunk, TrainingError> {
        self.common.trunk()
    }

    fn head(&self) -> Result<Box<dyn Head>, TrainingError> {
        let scale = number(&self.log_scale)?.exp();
        Ok(Box::new(PalA::new(PalAParameters {
            trunk: self.common.trunk()?,
            prototypes: transposed(&self.directions)?.mapv(|v| (f64::from(v) / (2.0 * scale)) as f32),
            scale,
            alpha: vector(&concentrations(&self.log_alpha)?)?.mapv(|a| f64::from(a).exp()),
            label_noise: self.label_noise,
            distance: Distance::Squared,
            ideal_point: IdealPoint::MixturePoints,
        })?))
    }
}
