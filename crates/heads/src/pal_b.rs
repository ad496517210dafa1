//! PAL-B: what a person looks for depends on the prompt, a mixture of prototypical mappings of it
//! (arXiv:2406.08469).

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use polyreward_domain::{HeadFamily, TextForms};
use serde::{Deserialize, Serialize};

use crate::{
    curved::{self, CurvedReward},
    engine::{LinearUsers, Prior, join},
    evidence::check_noise,
    head::{Head, HeadError, Moments, Observation, PairMoments, TextEmbeddings, check_len, one_by_one},
    input::{FormCard, TextInput},
    mlp::{Activation, Mlp},
    pal_a::check_scale,
    state::{StateView, UserState},
    trunk::{Trunk, TrunkCard},
    weights::{Tensors, WeightsError},
};

/// Below this length a vector is divided by it instead of its own length.
const SHORTEST: f32 = 1e-12;
/// Below this squared length a mixture of mappings is as long as its square root.
const SHORTEST_SQUARE: f64 = 1e-12;

/// Weights of a [`PalB`] head, unchecked.
#[derive(Debug, Clone)]
pub struct PalBParameters {
    /// The common quality, with an input of its own.
    pub trunk: Trunk,
    /// What `item` reads.
    pub response: TextInput,
    /// What `prompts` reads.
    pub prompt: TextInput,
    /// `f`: from response to `d` numbers.
    pub item: Mlp,
    /// `g_1 .. g_K`: from prompt to `K d` numbers, mapping after mapping.
    pub prompts: Mlp,
    /// Logits for a similarity of 1.
    pub scale: f64,
    /// Prior of a person's weights, `[K]`; see [`crate::simplex_posterior`].
    pub alpha: Array1<f64>,
    /// Share of labels taken to be wrong when adapting.
    pub label_noise: f64,
    /// Whether the mixture of mappings is brought to unit length, as in the paper, rather than each mapping.
    pub normalised: bool,
}

/// Texts against the `K` mappings of their prompt.
///
/// By default each `g_k` has unit length and the reward is `scale sum_k w_k (g_k . f / |f|) + q`: features
/// `z_k = scale g_k . f / |f|` and `q`, linear in `w`. As in the paper (`normalised`) it is
/// `scale cos(f, sum_k w_k g_k) + q`: features `z` of the `g_k` as they are, the lower triangle of their Gram matrix
/// `g_k . g_l` row by row, and `q`; the reward is `w . z / sqrt(wᵀ G w) + q`.
#[derive(Debug, Clone)]
pub struct PalB {
    trunk: Trunk,
    response: TextInput,
    prompt: TextInput,
    item: Mlp,
    prompts: Mlp,
    scale: f64,
    alpha: Array1<f64>,
    normalised: bool,
    users: LinearUsers,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hyperparameters {
    trunk: TrunkCard,
    response: Vec<FormCard>,
    prompt: Vec<FormCard>,
    activation: Activation,
    prompt_activation: Activation,
    scale: f64,
    label_noise: f64,
    normalised: bool,
}

impl PalB {
    /// Checks the weights against one another.
    ///
    /// # Errors
    /// Sizes that do not fit, a number that no weight can be.
    pub fn new(parameters: PalBParameters) -> Result<Self, HeadError> {
        let PalBParameters { trunk, response, prompt, item, prompts, scale, alpha, label_noise, normalised } =
            parameters;
        trunk.check()?;
        response.check()?;
        prompt.check()?;
        check_noise(label_noise)?;
        check_scale(scale)?;
        let dim = trunk.input.embedding_dim();
        check_len("an embedding of a response", dim, response.embedding_dim())?;
        check_len("an embedding of a prompt", dim, prompt.embedding_dim())?;
        check_len("the item network's input", response.width(), item.input_len())?;
        check_len("the prompt network's input", prompt.width(), prompts.input_len())?;
        check_len("the prompt network's output", alpha.len() * item.output_len(), prompts.output_len())?;
        // A file holds 32 bits of it.
        let alpha = alpha.mapv(|a| f64::from(a as f32));
        let users = LinearUsers::new(Prior::Simplex(alpha.clone()), label_noise)?;
        Ok(Self { trunk, response, prompt, item, prompts, scale, alpha, normalised, users })
    }

    pub(crate) fn from_tensors(tensors: &mut Tensors) -> Result<Self, WeightsError> {
        let hyper: Hyperparameters = tensors.fields()?;
        Ok(Self::new(PalBParameters {
            trunk: Trunk::take(tensors, &hyper.trunk)?,
            response: TextInput::take(tensors, "response", &hyper.response)?,
            prompt: TextInput::take(tensors, "prompt", &hyper.prompt)?,
            item: tensors.take_mlp("item", hyper.activation)?,
            prompts: tensors.take_mlp("prompts", hyper.prompt_activation)?,
            scale: hyper.scale,
            alpha: tensors.take_vector("alpha")?.mapv(f64::from),
            label_noise: hyper.label_noise,
            normalised: hyper.normalised,
        })?)
    }

    /// The features that depend on the person's side: `z`, and the Gram matrix if mixtures are normalised.
    fn similarities(&self, items: &Array2<f32>, prompts: &Array2<f32>) -> Array2<f32> {
        let (k, d) = (self.alpha.len(), self.item.output_len());
        let gram = if self.normalised { k * (k + 1) / 2 } else { 0 };
        let mut features = Array2::zeros((items.nrows(), k + gram));
        for ((item, mappings), mut row) in
            items.rows().into_iter().zip(prompts.rows()).zip(features.rows_mut())
        {
            let item = unit(item);
            let mappings: Vec<Array1<f32>> = (0..k)
                .map(|at| mappings.slice(s![at * d..(at + 1) * d]))
                .map(|mapping| if self.normalised { mapping.to_owned() } else { unit(mapping) })
                .collect();
            for (z, mapping) in row.iter_mut().zip(&mappings) {
                *z = (self.scale * f64::from(mapping.dot(&item))) as f32;
            }
            if self.normalised {
                let pairs = (0..k).flat_map(|i| (0..=i).map(move |j| (i, j)));
                for ((i, j), product) in pairs.zip(row.iter_mut().skip(k)) {
                    *product = mappings[i].dot(&mappings[j]);
                }
            }
        }
        features
    }
}

fn unit(x: ArrayView1<'_, f32>) -> Array1<f32> {
    &x / x.dot(&x).sqrt().max(SHORTEST)
}

/// `w . z / sqrt(wᵀ G w)` and its derivative by `w`; `gram` is the lower triangle of `G`, row by row.
pub(crate) fn normalised_similarity(
    weights: &Array1<f64>,
    z: ArrayView1<'_, f64>,
    gram: ArrayView1<'_, f64>,
) -> (f64, Array1<f64>) {
    let mut along = Array1::<f64>::zeros(weights.len());
    let pairs = (0..weights.len()).flat_map(|i| (0..=i).map(move |j| (i, j)));
    for ((i, j), product) in pairs.zip(gram) {
        along[i] += product * weights[j];
        if i != j {
            along[j] += product * weights[i];
        }
    }
    let length = weights.dot(&along).max(SHORTEST_SQUARE).sqrt();
    let value = weights.dot(&z) / length;
    (value, (&z - &(along * (value / length))) / length)
}

impl CurvedReward for PalB {
    fn len(&self) -> usize {
        self.alpha.len()
    }

    fn rewards(&self, weights: &Array1<f64>, features: ArrayView2<'_, f64>) -> (Array1<f64>, Array2<f64>) {
        let (k, last) = (self.alpha.len(), features.ncols() - 1);
        let mut rewards = features.column(last).to_owned();
        let mut slopes = Array2::zeros((features.nrows(), k));
        for ((row, reward), mut slope) in features.rows().into_iter().zip(&mut rewards).zip(slopes.rows_mut())
        {
            let (value, by_weights) =
                normalised_similarity(weights, row.slice(s![..k]), row.slice(s![k..last]));
            *reward += value;
            slope.assign(&by_weights);
        }
        (rewards, slopes)
    }
}

impl Head for PalB {
    fn family(&self) -> HeadFamily {
        HeadFamily::PalB
    }

    fn text_forms(&self) -> TextForms {
        let items = self.response.text_forms().union(self.prompt.text_forms());
        self.trunk.input.text_forms().union(items)
    }

    fn embedding_dim(&self) -> usize {
        self.trunk.input.embedding_dim()
    }

    fn feature_len(&self) -> usize {
        let k = self.alpha.len();
        if self.normalised { k + k * (k + 1) / 2 + 1 } else { k + 1 }
    }

    fn is_personal(&self) -> bool {
        true
    }

    fn features(&self, texts: &TextEmbeddings<'_>) -> Result<Array2<f32>, HeadError> {
        let quality = self.trunk.encode(texts)?.quality;
        let items = self.item.forward(self.response.apply(texts)?.view())?;
        let prompts = self.prompts.forward(self.prompt.apply(texts)?.view())?;
        check_len("prompts", items.nrows(), prompts.nrows())?;
        let personal = self.similarities(&items, &prompts);
        join(&[personal.view(), quality.view().insert_axis(Axis(1))])
    }

    fn population(&self) -> &UserState {
        self.users.population()
    }

    fn adapt(&self, examples: &[Observation<'_>], start: Option<&UserState>) -> Result<UserState, HeadError> {
        if !self.normalised {
            return self.users.adapt(examples, start);
        }
        let noise = self.users.label_noise();
        let adapted = curved::adapt(self, &self.alpha, noise, self.feature_len(), examples)?;
        Ok(adapted.unwrap_or_else(|| self.population().clone().with_examples(examples.len())))
    }

    fn rewards(&self, users: &[StateView<'_>], features: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        if self.normalised {
            curved::rewards(self, users, features)
        } else {
            self.users.rewards(users, features)
        }
    }

    fn mean_rewards(
        &self,
        users: &[StateView<'_>],
        features: ArrayView2<'_, f32>,
    ) -> Result<Array2<f32>, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        if self.normalised {
            Ok(curved::rewards(self, users, features)?.mean)
        } else {
            self.users.mean_rewards(users, features)
        }
    }

    fn margins(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), a.ncols())?;
        check_len("features", self.feature_len(), b.ncols())?;
        if self.normalised { curved::margins(self, users, a, b) } else { self.users.margins(users, a, b) }
    }

    fn pairs(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<PairMoments, HeadError> {
        if self.normalised { one_by_one(self, users, a, b) } else { self.users.pairs(users, a, b) }
    }

    fn tensors(&self) -> Tensors {
        let mut tensors = Tensors::with(&Hyperparameters {
            trunk: self.trunk.card(),
            response: self.response.card(),
            prompt: self.prompt.card(),
            activation: self.item.activation(),
            prompt_activation: self.prompts.activation(),
            scale: self.scale,
            label_noise: self.users.label_noise(),
            normalised: self.normalised,
        });
        self.trunk.insert(&mut tensors);
        self.response.insert(&mut tensors, "response");
        self.prompt.insert(&mut tensors, "prompt");
        tensors.insert_mlp("item", &self.item);
        tensors.insert_mlp("prompts", &self.prompts);
        tensors.insert("alpha", self.alpha.mapv(|a| a as f32));
        tensors
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::{
        calibration::{log_sigmoid, sigmoid},
        evidence::Label,
        mlp::{Layer, tests::golden_projector},
        posterior::simplex_newton,
    };

    fn network(layers: [(Array2<f32>, Array1<f32>); 3]) -> Mlp {
        let layers = layers.map(|(weight, bias)| Layer { weight, bias });
        Mlp::new(layers.into(), Activation::Gelu).unwrap()
    }

    #[test]
    fn normalised_mixtures_agree_with_golden_g4() {
        // PAL specification G4 (float64 numpy), tolerance 1e-5 relative as the networks are in f32.
        let first = network([
            (array![[0.2, 0.5], [-0.4, 0.3]], array![0.0, 0.1]),
            (array![[0.9, -0.2], [0.1, 0.7]], array![0.05, -0.05]),
            (array![[0.6, 0.2], [-0.3, 0.8]], array![0.1, 0.0]),
        ]);
        let second = network([
            (array![[-0.7, 0.1], [0.6, 0.2]], array![0.2, 0.0]),
            (array![[0.3, 0.8], [-0.5, 0.4]], array![0.0, 0.1]),
            (array![[-0.2, 0.9], [0.7, 0.1]], array![0.0, -0.1]),
        ]);
        let prompt = array![[0.8, -1.2]];
        let g = [first, second].map(|g| g.forward(prompt.view()).unwrap().row(0).to_owned());
        let items =
            golden_projector(Activation::Gelu).forward(array![[1.0, 2.0], [-0.5, 1.5]].view()).unwrap();
        let weights = array![0.689_974, 0.310_026];
        let gram = array![g[0].dot(&g[0]), g[1].dot(&g[0]), g[1].dot(&g[1])].mapv(f64::from);
        let logits = [0, 1].map(|row| {
            let item = unit(items.row(row));
            let z = array![g[0].dot(&item), g[1].dot(&item)].mapv(|m| f64::from(m) / 0.07);
            normalised_similarity(&weights, z.view(), gram.view()).0
        });
        for (actual, expected) in logits.iter().zip([-10.797_913, -12.482_589]) {
            assert!((actual - expected).abs() < 2e-4, "{actual} {expected}");
        }
        // The mappings, their Gram matrix, and the items' products with them, of which all the rest is made; tolerance 1e-6.
        let m = [0, 1].map(|row| [0, 1].map(|k| f64::from(g[k].dot(&unit(items.row(row))))));
        let found = gram.iter().chain(m.as_flattened()).copied();
        let mapped = g.iter().flatten().chain(&items).map(|x| f64::from(*x));
        let expected = [
            0.007_970, 0.011_579, 0.017_348, -0.071_382, -0.089_950, -0.080_838, -0.107_725, 0.070_803,
            -0.054_375, 0.116_823, -0.060_829, -0.309_713, 1.111_680, -0.318_257, 0.614_799,
        ];
        for (actual, expected) in found.chain(mapped).zip(expected) {
            assert!((actual - expected).abs() < 1e-6, "{actual} {expected}");
        }
        let margin = logits[0] - logits[1];
        assert!((log_sigmoid(margin) + 0.170_168).abs() < 2e-5);
        assert!((log_sigmoid(-margin) + 1.854_844).abs() < 2e-5);
        // The gradient of both losses by the weights' logits.
        let slopes = [0, 1].map(|row| {
            let item = unit(items.row(row));
            let z = array![g[0].dot(&item), g[1].dot(&item)].mapv(|m| f64::from(m) / 0.07);
            normalised_similarity(&weights, z.view(), gram.view()).1
        });
        let by_weights = &slopes[0] - &slopes[1];
        let by_logits = (&by_weights - weights.dot(&by_weights)) * &weights;
        for (loss_slope, expected) in [(-sigmoid(-margin), 0.015_816), (sigmoid(margin), -0.085_260)] {
            assert!((by_logits[0] * loss_slope - expected).abs() < 2e-5, "{by_logits} {loss_slope}");
            assert!((by_logits[1] * loss_slope + expected).abs() < 2e-5, "{by_logits} {loss_slope}");
        }
    }

    /// G14: similarities of four pairs under one Gram matrix.
    struct Pairs;

    impl crate::posterior::MarginModel for Pairs {
        fn margins(&self, weights: &Array1<f64>) -> Array1<f64> {
            Self::each(weights).map(|(m, _)| *m)
        }

        fn jacobian(&self, weights: &Array1<f64>) -> ndarray::CowArray<'_, f64, ndarray::Ix2> {
            let rows = Self::each(weights);
            Array2::from_shape_fn((4, 2), |(n, k)| rows[n].1[k]).into()
        }
    }

    impl Pairs {
        fn each(weights: &Array1<f64>) -> Array1<(f64, Array1<f64>)> {
            let deltas: Array2<f64> = array![[0.30, -0.10], [0.05, 0.20], [-0.02, 0.15], [0.25, 0.02]] / 0.07;
            let gram = array![1.0, 0.3, 2.0];
            deltas.rows().into_iter().map(|row| normalised_similarity(weights, row, gram.view())).collect()
        }
    }

    #[test]
    fn the_normalised_optimum_agrees_with_golden_g14() {
        // PAL specification G14 (float64 numpy): weights of the constrained convex problem, its objective and logits.
        // The search has a prior of 1e-7 in place of none; tolerance 1e-4.
        let weights = array![0.598_167, 0.401_833];
        let logits = [2.190_447, 1.734_451, 0.759_865, 2.478_460];
        let model: &dyn crate::posterior::MarginModel = &Pairs;
        for (actual, expected) in model.margins(&weights).iter().zip(logits) {
            assert!((actual - expected).abs() < 1e-5, "{actual} {expected}");
        }
        let objective: f64 = model.margins(&weights).iter().map(|m| -log_sigmoid(*m)).sum();
        assert!((objective - 0.732_838).abs() < 1e-6);
        let labels = [Label { strength: 1.0, noise: 0.0 }; 4];
        let alpha = array![1e-7, 1e-7];
        let posterior = simplex_newton(model, &labels, alpha.view(), None).unwrap();
        for (actual, expected) in posterior.mean.iter().zip(&weights) {
            assert!((actual - expected).abs() < 1e-4, "{actual} {expected}");
        }
    }

    #[test]
    fn mappings_that_cancel_stay_finite() {
        let (value, slope) =
            normalised_similarity(&array![0.5, 0.5], array![1.0, -1.0].view(), array![1.0, -1.0, 1.0].view());
        assert!(value.is_finite() && slope.iter().all(|x| x.is_finite()));
    }
}
