//! Bradley-Terry: one reward for everybody, the yardstick that every other head is held against.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use polyreward_domain::{HeadFamily, TextForms};
use serde::{Deserialize, Serialize};

use crate::{
    head::{Head, HeadError, Moments, Observation, TextEmbeddings, check_len},
    state::{StateView, UserState},
    trunk::{Trunk, TrunkCard},
    weights::{Tensors, WeightsError},
};

/// Weights of a [`BradleyTerry`] head, unchecked.
#[derive(Debug, Clone)]
pub struct BtParameters {
    /// Its latent is the features, its `q` the reward; without a hidden layer the reward is linear.
    pub trunk: Trunk,
    /// Posterior covariance of the weights of `q`, `[H, H]`; `None` is certainty.
    pub weights_covariance: Option<Array2<f32>>,
}

/// `reward = q(x)`, `P(a preferred to b) = sigmoid(reward(a) - reward(b))` (Bradley and Terry 1952), with
/// Laplace's posterior over the last layer: what the training people leave open is the reward's uncertainty.
#[derive(Debug, Clone)]
pub struct BradleyTerry {
    trunk: Trunk,
    covariance: Array2<f32>,
    /// Of no numbers: there is nothing to know of a person.
    population: UserState,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hyperparameters {
    trunk: TrunkCard,
}

impl BradleyTerry {
    /// Checks the weights against one another.
    ///
    /// # Errors
    /// Sizes that do not fit, a number that is not finite.
    pub fn new(parameters: BtParameters) -> Result<Self, HeadError> {
        let BtParameters { trunk, weights_covariance } = parameters;
        trunk.check()?;
        let size = trunk.latent_len();
        let covariance = weights_covariance.unwrap_or_else(|| Array2::zeros((size, size)));
        // A posterior like any other: square, finite, no variance negative.
        let posterior = UserState::new(trunk.population.weight.row(0).to_owned(), covariance, 0)?;
        let covariance = posterior.covariance();
        let population = UserState::new(Array1::zeros(0), Array2::zeros((0, 0)), 0)?;
        Ok(Self { trunk, covariance, population })
    }

    /// Mean `x . w` and variance `xᵀ Σ x` of every row of `x`, computed once and the same for every user: `[U, N]`.
    fn moments(&self, users: &[StateView<'_>], x: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
        for user in users {
            check_len("a user state", 0, user.mean().len())?;
        }
        let mean = x.dot(&self.trunk.population.weight.row(0));
        let variance = (x.dot(&self.covariance) * x).sum_axis(Axis(1)).mapv(|v| v.max(0.0));
        let shape = (users.len(), x.nrows());
        let for_all = |row: &Array1<f32>| {
            row.broadcast(shape).expect("a row broadcasts to any number of users").to_owned()
        };
        Ok(Moments { mean: for_all(&mean), variance: for_all(&variance) })
    }

    pub(crate) fn from_tensors(tensors: &mut Tensors) -> Result<Self, WeightsError> {
        let hyper: Hyperparameters = tensors.fields()?;
        Ok(Self::new(BtParameters {
            trunk: Trunk::take(tensors, &hyper.trunk)?,
            weights_covariance: Some(tensors.take_matrix("weights.covariance")?),
        })?)
    }
}

impl Head for BradleyTerry {
    fn family(&self) -> HeadFamily {
        HeadFamily::Bt
    }

    fn text_forms(&self) -> TextForms {
        self.trunk.input.text_forms()
    }

    fn embedding_dim(&self) -> usize {
        self.trunk.input.embedding_dim()
    }

    fn feature_len(&self) -> usize {
        self.trunk.latent_len()
    }

    fn is_personal(&self) -> bool {
        false
    }

    fn features(&self, texts: &TextEmbeddings<'_>) -> Result<Array2<f32>, HeadError> {
        let latent = self.trunk.encode(texts)?.latent;
        if latent.iter().all(|x| x.is_finite()) { Ok(latent) } else { Err(HeadError::NotFinite("a feature")) }
    }

    fn population(&self) -> &UserState {
        &self.population
    }

    /// One reward for all: the examples change nothing but their count.
    fn adapt(
        &self,
        examples: &[Observation<'_>],
        _start: Option<&UserState>,
    ) -> Result<UserState, HeadError> {
        for example in examples {
            check_len("features", self.feature_len(), example.chosen.len())?;
            check_len("features", self.feature_len(), example.rejected.len())?;
        }
        Ok(self.population.clone().with_examples(examples.len()))
    }

    fn rewards(&self, users: &[StateView<'_>], features: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        let mut moments = self.moments(users, features)?;
        moments.mean += self.trunk.population.bias[0];
        Ok(moments)
    }

    fn margins(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), a.ncols())?;
        check_len("features", self.feature_len(), b.ncols())?;
        check_len("the second responses", a.nrows(), b.nrows())?;
        self.moments(users, (&a - &b).view())
    }

    fn tensors(&self) -> Tensors {
        let mut tensors = Tensors::with(&Hyperparameters { trunk: self.trunk.card() });
        self.trunk.insert(&mut tensors);
        tensors.insert("weights.covariance", self.covariance.clone());
        tensors
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use polyreward_domain::TextForm;

    use super::*;
    use crate::input::{FormInput, TextInput};
    use crate::mlp::Layer;
    use crate::weights::{read_head, write_head};

    fn head() -> BradleyTerry {
        let input = FormInput { form: TextForm::PromptResponse, mean: array![0.1, -0.1], scale: 0.5 };
        BradleyTerry::new(BtParameters {
            trunk: Trunk {
                input: TextInput { forms: vec![input] },
                hidden: Some(Layer {
                    weight: array![[0.5, -0.3], [0.2, 0.8], [-0.4, 0.1]],
                    bias: array![0.1, -0.2, 0.0],
                }),
                population: Layer { weight: array![[1.0, -0.5, 0.25]], bias: array![0.75] },
            },
            weights_covariance: Some(array![[0.2, 0.0, 0.1], [0.0, 0.3, 0.0], [0.1, 0.0, 0.4]]),
        })
        .unwrap()
    }

    fn features(head: &BradleyTerry) -> Array2<f32> {
        let rows = array![[1.0_f32, 2.0], [-0.5, 1.5]];
        head.features(&TextEmbeddings::default().with(TextForm::PromptResponse, rows.view())).unwrap()
    }

    #[test]
    fn a_margin_is_the_difference_of_rewards_and_swaps_its_sign_exactly() {
        let head = head();
        let features = features(&head);
        let (a, b) = (features.slice(ndarray::s![0..1, ..]), features.slice(ndarray::s![1..2, ..]));
        let users = [head.population().view()];
        let rewards = head.rewards(&users, features.view()).unwrap();
        let there = head.margins(&users, a, b).unwrap();
        let back = head.margins(&users, b, a).unwrap();
        assert!((there.mean[[0, 0]] - (rewards.mean[[0, 0]] - rewards.mean[[0, 1]])).abs() < 1e-6);
        assert_eq!(there.mean[[0, 0]].to_bits(), (-back.mean[[0, 0]]).to_bits());
        assert_eq!(there.variance, back.variance);
        assert!(there.variance[[0, 0]] > 0.0);
    }

    #[test]
    fn a_head_reads_back_from_its_bytes() {
        let head = head();
        let features = features(&head);
        let (hyper, bytes) = write_head(&head, &features).unwrap();
        assert_eq!(bytes, write_head(&head, &features).unwrap().1, "the bytes are not deterministic");
        let loaded = read_head(HeadFamily::Bt, &hyper, &bytes).unwrap();
        assert_eq!(loaded.reference_features, features);
        let pair = (features.slice(ndarray::s![0..1, ..]), features.slice(ndarray::s![1..2, ..]));
        let margins = |head: &dyn Head| head.margins(&[head.population().view()], pair.0, pair.1).unwrap();
        assert_eq!(margins(loaded.head.as_ref()), margins(&head));
        assert!(read_head(HeadFamily::Bt, &hyper, &bytes[..bytes.len() - 1]).is_err());
        assert!(read_head(HeadFamily::Bt, &serde_json::json!({}), &bytes).is_err());
    }

    #[test]
    fn inputs_of_another_size_are_refused() {
        let head = head();
        let rows = Array2::<f32>::zeros((1, 3));
        let texts = TextEmbeddings::default();
        assert_eq!(head.features(&texts), Err(HeadError::MissingForm(TextForm::PromptResponse)));
        assert!(head.features(&texts.with(TextForm::PromptResponse, rows.view())).is_err());
        let nan = array![[f32::NAN, 0.0]];
        let texts = texts.with(TextForm::PromptResponse, nan.view());
        assert_eq!(head.features(&texts), Err(HeadError::NotFinite("an input")));
    }

    #[test]
    fn examples_move_nobody() {
        let head = head();
        let features = features(&head);
        let example = Observation {
            chosen: features.row(0),
            rejected: features.row(1),
            names: [0, 1],
            strength: 1.0,
            label_confidence: 1.0,
        };
        let adapted = head.adapt(&[example], None).unwrap();
        assert_eq!(adapted.mean(), head.population().mean());
        assert_eq!(adapted.examples(), 1);
    }
}
