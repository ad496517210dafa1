//! LoRe: a reward in a small basis that everybody shares, with a person's own weights (arXiv:2504.14439).

use ndarray::{Array2, ArrayView2, Axis};
use polyreward_domain::{HeadFamily, TextForms};
use serde::{Deserialize, Serialize};

use crate::{
    engine::{LinearUsers, Prior, join},
    head::{Head, HeadError, Moments, Observation, PairMoments, TextEmbeddings, check_len},
    state::{StateView, UserState},
    trunk::{Trunk, TrunkCard},
    weights::{Tensors, WeightsError},
};

/// Weights of a [`Lore`] head, unchecked.
#[derive(Debug, Clone)]
pub struct LoreParameters {
    /// The common quality.
    pub trunk: Trunk,
    /// From input to the `K` rewards of the basis, `[K, Dx]`.
    pub basis: Array2<f32>,
    /// Share of labels taken to be wrong when adapting.
    pub label_noise: f64,
}

/// `reward = w . (basis x) + q(x)` with `w ~ N(0, I)`: weights free of the simplex, so that a person may want the
/// opposite of a direction, and a prior instead of the papers' early stopping. A trained mean and covariance of
/// people are part of `q` and `basis`.
#[derive(Debug, Clone)]
pub struct Lore {
    trunk: Trunk,
    basis: Array2<f32>,
    users: LinearUsers,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hyperparameters {
    trunk: TrunkCard,
    label_noise: f64,
}

impl Lore {
    /// Checks the weights against one another.
    ///
    /// # Errors
    /// Sizes that do not fit, a number that no weight can be.
    pub fn new(parameters: LoreParameters) -> Result<Self, HeadError> {
        let LoreParameters { trunk, basis, label_noise } = parameters;
        trunk.check()?;
        check_len("the basis' input", trunk.input.width(), basis.ncols())?;
        if basis.nrows() == 0 || basis.iter().any(|w| !w.is_finite()) {
            return Err(HeadError::Parameter { name: "basis", detail: "has finite rows".into() });
        }
        let users = LinearUsers::new(Prior::Gaussian(basis.nrows()), label_noise)?;
        Ok(Self { trunk, basis, users })
    }

    pub(crate) fn from_tensors(tensors: &mut Tensors) -> Result<Self, WeightsError> {
        let hyper: Hyperparameters = tensors.fields()?;
        let trunk = Trunk::take(tensors, &hyper.trunk)?;
        let basis = tensors.take_matrix("basis")?;
        Ok(Self::new(LoreParameters { trunk, basis, label_noise: hyper.label_noise })?)
    }
}

impl Head for Lore {
    fn family(&self) -> HeadFamily {
        HeadFamily::Lore
    }

    fn text_forms(&self) -> TextForms {
        self.trunk.input.text_forms()
    }

    fn embedding_dim(&self) -> usize {
        self.trunk.input.embedding_dim()
    }

    fn feature_len(&self) -> usize {
        self.users.feature_len()
    }

    fn is_personal(&self) -> bool {
        true
    }

    fn features(&self, texts: &TextEmbeddings<'_>) -> Result<Array2<f32>, HeadError> {
        let encoded = self.trunk.encode(texts)?;
        let rewards = encoded.input.dot(&self.basis.t());
        join(&[rewards.view(), encoded.quality.view().insert_axis(Axis(1))])
    }

    fn population(&self) -> &UserState {
        self.users.population()
    }

    fn adapt(&self, examples: &[Observation<'_>], start: Option<&UserState>) -> Result<UserState, HeadError> {
        self.users.adapt(examples, start)
    }

    fn rewards(&self, users: &[StateView<'_>], features: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
        self.users.rewards(users, features)
    }

    fn mean_rewards(
        &self,
        users: &[StateView<'_>],
        features: ArrayView2<'_, f32>,
    ) -> Result<Array2<f32>, HeadError> {
        self.users.mean_rewards(users, features)
    }

    fn margins(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Moments, HeadError> {
        self.users.margins(users, a, b)
    }

    fn pairs(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<PairMoments, HeadError> {
        self.users.pairs(users, a, b)
    }

    fn tensors(&self) -> Tensors {
        let mut tensors = Tensors::with(&Hyperparameters {
            trunk: self.trunk.card(),
            label_noise: self.users.label_noise(),
        });
        self.trunk.insert(&mut tensors);
        tensors.insert("basis", self.basis.clone());
        tensors
    }
}
