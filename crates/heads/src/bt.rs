//! Bradley-Terry: one reward for everybody, the yardstick that every other head is held against.

use ndarray::{Array1, Array2, ArrayView2};
use polyreward_domain::{HeadFamily, TextForm, TextForms};
use serde::{Deserialize, Serialize};

use crate::{
    head::{Head, HeadError, Moments, Observation, TextEmbeddings, check_len},
    linear::linear_moments,
    mlp::{Activation, Layer, Mlp},
    state::UserState,
    weights::{Tensors, WeightsError},
};

/// Weights of a [`BradleyTerry`] head, unchecked.
#[derive(Debug, Clone)]
pub struct BtParameters {
    /// Which embedding it reads.
    pub form: TextForm,
    /// `D`, the length of that embedding.
    pub embedding_dim: usize,
    /// From embedding to features, `D` to `F`; `None` is the identity, a linear reward.
    pub projector: Option<Mlp>,
    /// Reward weights over the features, `[F]`.
    pub weights: Array1<f32>,
    /// Their posterior covariance, `[F, F]`.
    pub covariance: Array2<f32>,
}

/// `reward = w · f(e)`, `P(a preferred to b) = sigmoid(reward(a) - reward(b))` (Bradley and Terry 1952), with
/// Laplace's posterior over `w`: what the training people leave open is the reward's uncertainty.
#[derive(Debug, Clone)]
pub struct BradleyTerry {
    form: TextForm,
    embedding_dim: usize,
    projector: Option<Mlp>,
    population: UserState,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hyperparameters {
    text_form: TextForm,
    embedding_dim: usize,
    /// Width of the hidden layer; 0 is a linear reward.
    hidden: usize,
    activation: Activation,
}

impl BradleyTerry {
    /// Checks the weights against one another.
    ///
    /// # Errors
    /// Sizes that do not fit, a number that is not finite.
    pub fn new(parameters: BtParameters) -> Result<Self, HeadError> {
        let BtParameters { form, embedding_dim, projector, weights, covariance } = parameters;
        let features = match &projector {
            Some(mlp) => {
                check_len("the projector's input", embedding_dim, mlp.input_len())?;
                mlp.output_len()
            }
            None => embedding_dim,
        };
        check_len("the reward weights", features, weights.len())?;
        Ok(Self { form, embedding_dim, projector, population: UserState::new(weights, covariance, 0)? })
    }

    pub(crate) fn from_tensors(tensors: &mut Tensors) -> Result<Self, WeightsError> {
        let hyper: Hyperparameters =
            serde_json::from_value(tensors.hyperparameters.clone()).map_err(WeightsError::Hyperparameters)?;
        let projector = if hyper.hidden == 0 {
            None
        } else {
            let layer = Layer {
                weight: tensors.take_matrix("projector.weight")?,
                bias: tensors.take_vector("projector.bias")?,
            };
            check_len("the hidden layer", hyper.hidden, layer.bias.len())?;
            Some(Mlp::new(vec![layer], hyper.activation)?)
        };
        Ok(Self::new(BtParameters {
            form: hyper.text_form,
            embedding_dim: hyper.embedding_dim,
            projector,
            weights: tensors.take_vector("reward.weight")?,
            covariance: tensors.take_matrix("reward.covariance")?,
        })?)
    }
}

impl Head for BradleyTerry {
    fn family(&self) -> HeadFamily {
        HeadFamily::Bt
    }

    fn text_forms(&self) -> TextForms {
        TextForms::only(self.form)
    }

    fn embedding_dim(&self) -> usize {
        self.embedding_dim
    }

    fn feature_len(&self) -> usize {
        self.population.mean().len()
    }

    fn is_personal(&self) -> bool {
        false
    }

    fn features(&self, texts: &TextEmbeddings<'_>) -> Result<Array2<f32>, HeadError> {
        let rows = texts.form(self.form)?;
        check_len("an embedding", self.embedding_dim, rows.ncols())?;
        let features = match &self.projector {
            Some(mlp) => {
                let mut hidden = mlp.forward(rows)?;
                hidden.mapv_inplace(|t| mlp.activation().apply(t));
                hidden
            }
            None => rows.to_owned(),
        };
        if features.iter().all(|x| x.is_finite()) {
            Ok(features)
        } else {
            Err(HeadError::NotFinite("a feature"))
        }
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

    fn rewards(&self, users: &[&UserState], features: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        linear_moments(users, features)
    }

    fn margins(
        &self,
        users: &[&UserState],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), a.ncols())?;
        check_len("features", self.feature_len(), b.ncols())?;
        check_len("the second responses", a.nrows(), b.nrows())?;
        linear_moments(users, (&a - &b).view())
    }

    fn tensors(&self) -> Tensors {
        let hidden = self.projector.as_ref().map_or(0, Mlp::output_len);
        let hyper = Hyperparameters {
            text_form: self.form,
            embedding_dim: self.embedding_dim,
            hidden,
            activation: self.projector.as_ref().map_or(Activation::Gelu, Mlp::activation),
        };
        let mut tensors = Tensors {
            hyperparameters: serde_json::to_value(hyper).expect("plain fields serialise"),
            ..Tensors::default()
        };
        if let Some(mlp) = &self.projector {
            tensors.insert("projector.weight", mlp.layers()[0].weight.clone());
            tensors.insert("projector.bias", mlp.layers()[0].bias.clone());
        }
        tensors.insert("reward.weight", self.population.mean().to_owned());
        tensors.insert("reward.covariance", self.population.covariance().clone());
        tensors
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::weights::{read_head, write_head};

    fn head() -> BradleyTerry {
        let layer =
            Layer { weight: array![[0.5, -0.3], [0.2, 0.8], [-0.4, 0.1]], bias: array![0.1, -0.2, 0.0] };
        BradleyTerry::new(BtParameters {
            form: TextForm::PromptResponse,
            embedding_dim: 2,
            projector: Some(Mlp::new(vec![layer], Activation::Gelu).unwrap()),
            weights: array![1.0, -0.5, 0.25],
            covariance: array![[0.2, 0.0, 0.1], [0.0, 0.3, 0.0], [0.1, 0.0, 0.4]],
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
        let users = [head.population()];
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
        assert_eq!(loaded.head.population(), head.population());
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
        assert_eq!(head.features(&texts), Err(HeadError::NotFinite("a feature")));
    }

    #[test]
    fn examples_move_nobody() {
        let head = head();
        let features = features(&head);
        let example = Observation {
            chosen: features.row(0),
            rejected: features.row(1),
            strength: 1.0,
            label_confidence: 1.0,
        };
        let adapted = head.adapt(&[example], None).unwrap();
        assert_eq!(adapted.mean(), head.population().mean());
        assert_eq!(adapted.examples(), 1);
    }
}
