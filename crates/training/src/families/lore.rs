//! LoRe under training: `w . (basis x) + q(x)`, `w ~ N(0, I)`.

use candle_core::Var;
use polyreward_heads::{Head, Lore, LoreParameters, Trunk};
use rand_chacha::ChaCha8Rng;

use super::{Common, Network, Prediction, Setting};
use crate::{
    episode::{Prior, Step, linear_margins, moderated},
    error::TrainingError,
    network::{Affine, Parameters, transposed},
};

#[derive(Debug)]
pub(crate) struct LoreNetwork<'a> {
    common: Common<'a>,
    basis: Var,
    label_noise: f64,
}

impl<'a> LoreNetwork<'a> {
    pub(crate) fn new(setting: &Setting<'a>, rng: &mut ChaCha8Rng) -> Result<Self, TrainingError> {
        let mut common = Common::new(setting, rng)?;
        let rank = setting.size(setting.config.lore.rank, 2, 16);
        let inputs = common.reader.width();
        let basis = common.parameters.normal(&[inputs, rank], 0.3 / (inputs as f64).sqrt(), rng)?;
        Ok(Self { common, basis, label_noise: setting.config.lore.label_noise })
    }
}

impl Network for LoreNetwork<'_> {
    fn parameters(&mut self) -> &mut Parameters {
        &mut self.common.parameters
    }

    fn predict(&self, step: &Step, rng: &mut ChaCha8Rng) -> Result<Prediction, TrainingError> {
        let seen = self.common.see(step, rng)?;
        let rows = step.difference(&Affine::times_data(&seen.input, &self.basis)?)?;
        let (mean, variance) = linear_margins(step, &rows, &seen.quality, Prior::Gaussian, self.label_noise)?;
        Ok(moderated(&mean, &variance)?.into())
    }

    fn trunk(&self) -> Result<Trunk, TrainingError> {
        self.common.trunk()
    }

    fn head(&self) -> Result<Box<dyn Head>, TrainingError> {
        Ok(Box::new(Lore::new(LoreParameters {
            trunk: self.common.trunk()?,
            basis: transposed(&self.basis)?,
            label_noise: self.label_noise,
        })?))
    }
}
