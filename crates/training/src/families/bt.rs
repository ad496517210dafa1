//! Bradley-Terry under training: the common quality alone.

use candle_core::Tensor;
use polyreward_heads::{BradleyTerry, BtParameters, Head, Trunk};
use rand_chacha::ChaCha8Rng;

use super::{Common, Network, Prediction, Setting};
use crate::{
    episode::Step,
    error::TrainingError,
    network::{Parameters, sigmoid},
};

#[derive(Debug)]
pub(crate) struct BtNetwork<'a> {
    common: Common<'a>,
}

impl<'a> BtNetwork<'a> {
    pub(crate) fn new(setting: &Setting<'a>, rng: &mut ChaCha8Rng) -> Result<Self, TrainingError> {
        Ok(Self { common: Common::new(setting, rng)? })
    }
}

impl Network for BtNetwork<'_> {
    fn parameters(&mut self) -> &mut Parameters {
        &mut self.common.parameters
    }

    fn predict(&self, step: &Step, rng: &mut ChaCha8Rng) -> Result<Prediction, TrainingError> {
        let seen = self.common.see(step, rng)?;
        let margins = seen.quality.reshape((step.people, step.places, 1))?;
        let margins = Tensor::broadcast_as(&margins, (step.people, step.places, step.draws))?;
        Ok(sigmoid(&margins.contiguous()?)?.into())
    }

    fn trunk(&self) -> Result<Trunk, TrainingError> {
        self.common.trunk()
    }

    fn head(&self) -> Result<Box<dyn Head>, TrainingError> {
        let trunk = self.common.trunk()?;
        Ok(Box::new(BradleyTerry::new(BtParameters { trunk, weights_covariance: None })?))
    }
}
