//! PAL-A: a person is an ideal point among texts, a mixture of prototypes that everybody shares (arXiv:2406.08469).

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use polyreward_domain::{HeadFamily, TextForms};
use serde::{Deserialize, Serialize};

use crate::{
    curved::{self, CurvedReward},
    engine::{LinearUsers, Prior, join},
    evidence::check_noise,
    head::{Head, HeadError, Moments, Observation, PairMoments, TextEmbeddings, check_len, one_by_one},
    state::{StateView, UserState},
    trunk::{Trunk, TrunkCard},
    weights::{Tensors, WeightsError},
};

/// How far a text is from an ideal point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distance {
    /// `|h - a|^2`: margins linear in the mixture, as the paper's text has it.
    #[default]
    Squared,
    /// `|h - a|`: as its reference implementation has it.
    Plain,
}

/// Where prototypes are mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdealPoint {
    /// Among latents: `a = sum_k w_k p_k`, prototypes `[K, H]`.
    #[default]
    MixturePoints,
    /// Among inputs: `a = f(sum_k w_k p_k)` with the trunk's `f`, prototypes `[K, Dx]`.
    ProjectedMixture,
}

/// Weights of a [`PalA`] head, unchecked.
#[derive(Debug, Clone)]
pub struct PalAParameters {
    /// The common quality; its latent is where distances are taken.
    pub trunk: Trunk,
    /// `[K, H]`, or `[K, Dx]` for [`IdealPoint::ProjectedMixture`].
    pub prototypes: Array2<f32>,
    /// Logits for a unit of distance.
    pub scale: f64,
    /// Prior of a person's weights, `[K]`; see [`crate::simplex_posterior`].
    pub alpha: Array1<f64>,
    /// Share of labels taken to be wrong when adapting.
    pub label_noise: f64,
    /// How distance is taken.
    pub distance: Distance,
    /// Where prototypes are mixed.
    pub ideal_point: IdealPoint,
}

/// `reward = -scale d(h, a) + q`, `a` the person's ideal point.
///
/// With squared distances and points mixed among latents, `|h - a|^2 = sum_k w_k |h - p_k|^2` up to a number that
/// is the same for all texts. So the features are `z_k = -scale |h - p_k|^2` and `q`, and the reward is
/// `w . z + q`. The other forms keep `h` and `q` as features, and adapt by Gauss-Newton.
#[derive(Debug, Clone)]
pub struct PalA {
    trunk: Trunk,
    points: Points,
    users: LinearUsers,
    linear: bool,
}

/// Prototypes and how a person's point and distances come of them.
#[derive(Debug, Clone)]
struct Points {
    prototypes: Array2<f32>,
    scale: f64,
    alpha: Array1<f64>,
    distance: Distance,
    ideal_point: IdealPoint,
    /// What weights mix, `[K, H]`: the prototypes, or what the hidden layer makes of each before it bends.
    mixed: Array2<f64>,
    /// Of the hidden layer that bends the mixture, where one does.
    bias: Option<Array1<f64>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hyperparameters {
    trunk: TrunkCard,
    scale: f64,
    label_noise: f64,
    distance: Distance,
    ideal_point: IdealPoint,
}

/// A person's point in a space of prototypes `[K, H]`, `sum_k w_k p_k`, `[H]`.
pub(crate) fn mixture_point(prototypes: ArrayView2<'_, f64>, weights: &Array1<f64>) -> Array1<f64> {
    weights.dot(&prototypes)
}

/// Distance of a latent from a point and its derivative by the point.
pub(crate) fn distance(
    kind: Distance,
    latent: ArrayView1<'_, f64>,
    point: &Array1<f64>,
) -> (f64, Array1<f64>) {
    let away = point - &latent;
    let square = away.dot(&away);
    match kind {
        Distance::Squared => (square, away * 2.0),
        Distance::Plain => {
            let length = square.sqrt();
            (length, away / length.max(f64::MIN_POSITIVE))
        }
    }
}

impl PalA {
    /// Checks the weights against one another.
    ///
    /// # Errors
    /// Sizes that do not fit, a number that no weight can be.
    pub fn new(parameters: PalAParameters) -> Result<Self, HeadError> {
        let PalAParameters { trunk, prototypes, scale, alpha, label_noise, distance, ideal_point } =
            parameters;
        trunk.check()?;
        check_noise(label_noise)?;
        check_scale(scale)?;
        let width = match ideal_point {
            IdealPoint::MixturePoints => trunk.latent_len(),
            IdealPoint::ProjectedMixture => trunk.input.width(),
        };
        check_len("a prototype", width, prototypes.ncols())?;
        check_len("prototypes", alpha.len(), prototypes.nrows())?;
        if prototypes.iter().any(|p| !p.is_finite()) {
            return Err(HeadError::NotFinite("a prototype"));
        }
        // A file holds 32 bits of it.
        let alpha = alpha.mapv(|a| f64::from(a as f32));
        let linear = (distance, ideal_point) == (Distance::Squared, IdealPoint::MixturePoints);
        let users = LinearUsers::new(Prior::Simplex(alpha.clone()), label_noise)?;
        let (mut mixed, mut bias) = (prototypes.mapv(f64::from), None);
        if let (IdealPoint::ProjectedMixture, Some(layer)) = (ideal_point, &trunk.hidden) {
            mixed = mixed.dot(&layer.weight.mapv(f64::from).t());
            bias = Some(layer.bias.mapv(f64::from));
        }
        let points = Points { prototypes, scale, alpha, distance, ideal_point, mixed, bias };
        Ok(Self { trunk, points, users, linear })
    }

    pub(crate) fn from_tensors(tensors: &mut Tensors) -> Result<Self, WeightsError> {
        let hyper: Hyperparameters = tensors.fields()?;
        Ok(Self::new(PalAParameters {
            trunk: Trunk::take(tensors, &hyper.trunk)?,
            prototypes: tensors.take_matrix("prototypes")?,
            scale: hyper.scale,
            alpha: tensors.take_vector("alpha")?.mapv(f64::from),
            label_noise: hyper.label_noise,
            distance: hyper.distance,
            ideal_point: hyper.ideal_point,
        })?)
    }

    /// `-scale |h - p_k|^2`, `[N, K]`.
    fn closeness(&self, latents: &Array2<f32>) -> Array2<f32> {
        let prototypes = self.points.prototypes.mapv(f64::from);
        let latents = latents.mapv(f64::from);
        let mut closeness = Array2::zeros((latents.nrows(), prototypes.nrows()));
        for (latent, mut row) in latents.rows().into_iter().zip(closeness.rows_mut()) {
            for (prototype, z) in prototypes.rows().into_iter().zip(&mut row) {
                let square: f64 = latent.iter().zip(prototype).map(|(h, p)| (h - p) * (h - p)).sum();
                *z = (-self.points.scale * square) as f32;
            }
        }
        closeness
    }
}

/// Checks a factor from distance or similarity to logits.
pub(crate) fn check_scale(scale: f64) -> Result<(), HeadError> {
    if scale.is_finite() && scale > 0.0 {
        Ok(())
    } else {
        Err(HeadError::Parameter { name: "scale", detail: "is finite and positive".into() })
    }
}

impl PalA {
    /// A person's point `[H]` and its derivatives by their weights, `[K, H]`.
    fn point(&self, weights: &Array1<f64>) -> (Array1<f64>, Array2<f64>) {
        let mixture = mixture_point(self.points.mixed.view(), weights);
        let Some(bias) = &self.points.bias else { return (mixture, self.points.mixed.clone()) };
        let before = mixture + bias;
        let (point, slope) = (before.mapv(gelu), before.mapv(gelu_slope));
        (point, &self.points.mixed * &slope.insert_axis(Axis(0)))
    }
}

/// Standard normal cumulative probability.
fn normal(t: f64) -> f64 {
    0.5 * (1.0 + libm::erf(t * std::f64::consts::FRAC_1_SQRT_2))
}

fn gelu(t: f64) -> f64 {
    t * normal(t)
}

fn gelu_slope(t: f64) -> f64 {
    normal(t) + t * (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

impl CurvedReward for PalA {
    fn len(&self) -> usize {
        self.points.alpha.len()
    }

    fn rewards(&self, weights: &Array1<f64>, features: ArrayView2<'_, f64>) -> (Array1<f64>, Array2<f64>) {
        let (point, point_slopes) = self.point(weights);
        let latent_len = features.ncols() - 1;
        let mut rewards = features.column(latent_len).to_owned();
        let mut slopes = Array2::zeros((features.nrows(), point.len()));
        let rows = features.slice(s![.., ..latent_len]);
        for ((latent, reward), mut slope) in rows.rows().into_iter().zip(&mut rewards).zip(slopes.rows_mut())
        {
            let (distance, by_point) = distance(self.points.distance, latent, &point);
            *reward -= self.points.scale * distance;
            slope.assign(&(by_point * -self.points.scale));
        }
        (rewards, slopes.dot(&point_slopes.t()))
    }
}

impl Head for PalA {
    fn family(&self) -> HeadFamily {
        HeadFamily::PalA
    }

    fn text_forms(&self) -> TextForms {
        self.trunk.input.text_forms()
    }

    fn embedding_dim(&self) -> usize {
        self.trunk.input.embedding_dim()
    }

    fn feature_len(&self) -> usize {
        if self.linear { self.users.feature_len() } else { self.trunk.latent_len() + 1 }
    }

    fn is_personal(&self) -> bool {
        true
    }

    fn features(&self, texts: &TextEmbeddings<'_>) -> Result<Array2<f32>, HeadError> {
        let encoded = self.trunk.encode(texts)?;
        let personal = if self.linear { self.closeness(&encoded.latent) } else { encoded.latent };
        join(&[personal.view(), encoded.quality.view().insert_axis(Axis(1))])
    }

    fn population(&self) -> &UserState {
        self.users.population()
    }

    fn adapt(&self, examples: &[Observation<'_>], start: Option<&UserState>) -> Result<UserState, HeadError> {
        if self.linear {
            return self.users.adapt(examples, start);
        }
        let noise = self.users.label_noise();
        let adapted = curved::adapt(self, &self.points.alpha, noise, self.feature_len(), examples)?;
        Ok(adapted.unwrap_or_else(|| self.population().clone().with_examples(examples.len())))
    }

    fn rewards(&self, users: &[StateView<'_>], features: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        if self.linear { self.users.rewards(users, features) } else { curved::rewards(self, users, features) }
    }

    fn mean_rewards(
        &self,
        users: &[StateView<'_>],
        features: ArrayView2<'_, f32>,
    ) -> Result<Array2<f32>, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        if self.linear {
            self.users.mean_rewards(users, features)
        } else {
            Ok(curved::rewards(self, users, features)?.mean)
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
        if self.linear { self.users.margins(users, a, b) } else { curved::margins(self, users, a, b) }
    }

    fn pairs(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<PairMoments, HeadError> {
        if self.linear { self.users.pairs(users, a, b) } else { one_by_one(self, users, a, b) }
    }

    fn tensors(&self) -> Tensors {
        let mut tensors = Tensors::with(&Hyperparameters {
            trunk: self.trunk.card(),
            scale: self.points.scale,
            label_noise: self.users.label_noise(),
            distance: self.points.distance,
            ideal_point: self.points.ideal_point,
        });
        self.trunk.insert(&mut tensors);
        tensors.insert("prototypes", self.points.prototypes.clone());
        tensors.insert("alpha", self.points.alpha.mapv(|a| a as f32));
        tensors
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use polyreward_domain::TextForm;

    use super::*;
    use crate::{
        calibration::{log_sigmoid, sigmoid},
        input::{FormInput, TextInput},
        mlp::{Activation, Layer, tests::golden_projector},
    };

    /// The golden checks' projector, residual.
    fn project(x: &Array2<f64>) -> Array2<f64> {
        let x = x.mapv(|x| x as f32);
        (golden_projector(Activation::Relu).forward(x.view()).unwrap() + &x).mapv(f64::from)
    }

    #[test]
    fn ideal_points_and_distances_agree_with_golden_g3() {
        // PAL specification G3 (float64 numpy), tolerance 1e-5 as the projector is in f32.
        let prototypes = array![[0.6, 0.8], [-0.8, 0.6]];
        let weights = array![0.689_974, 0.310_026];
        let latents = project(&array![[1.0, 2.0], [-0.5, 1.5]]);
        let mixed = mixture_point(prototypes.view(), &weights);
        let projected = project(&mixed.clone().insert_axis(Axis(0))).row(0).to_owned();
        let chord = mixture_point(project(&prototypes).view(), &weights);
        let close =
            |actual: f64, expected: f64| assert!((actual - expected).abs() < 1e-5, "{actual} {expected}");
        for (point, expected, [left, right], logistic, preference, squared) in [
            (
                mixed,
                [0.165_964, 0.737_995],
                [2.624_503, 1.792_833],
                [1.193_059, 0.361_389],
                0.303_292,
                3.673_767,
            ),
            (
                projected,
                [0.019_785, 1.247_563],
                [2.180_867, 1.278_483],
                [1.242_850, 0.340_465],
                0.288_561,
                3.121_663,
            ),
            (
                chord,
                [0.130_181, 1.231_004],
                [2.159_859, 1.354_596],
                [1.174_736, 0.369_472],
                0.308_901,
                2.830_064,
            ),
        ] {
            close(point[0], expected[0]);
            close(point[1], expected[1]);
            let plain = [0, 1].map(|row| distance(Distance::Plain, latents.row(row), &point).0);
            close(plain[0], left);
            close(plain[1], right);
            close(sigmoid(plain[1] - plain[0]), preference);
            let margin = plain[0] - plain[1];
            close(-log_sigmoid(-margin), logistic[0]);
            close(-log_sigmoid(margin), logistic[1]);
            let square = [0, 1].map(|row| distance(Distance::Squared, latents.row(row), &point).0);
            close(square[0] - square[1], squared);
        }
    }

    #[test]
    fn the_low_rank_form_agrees_with_golden_g3() {
        // D^2 = n - 2 M w + wT G w for prototypes f(P): the identity that makes the margin linear in w; tolerance 1e-5.
        let weights = array![0.689_974, 0.310_026];
        let latents = project(&array![[1.0, 2.0], [-0.5, 1.5]]);
        let prototypes = project(&array![[0.6, 0.8], [-0.8, 0.6]]);
        let (m, gram) = (latents.dot(&prototypes.t()), prototypes.dot(&prototypes.t()));
        let lengths = (&latents * &latents).sum_axis(Axis(1));
        let close = |actual: &Array2<f64>, expected: [f64; 4]| {
            for (actual, expected) in actual.iter().zip(expected) {
                assert!((actual - expected).abs() < 1e-5, "{actual} {expected}");
            }
        };
        close(&m, [5.002_787, 2.247_486, 2.790_204, 2.736_751]);
        close(&gram, [2.260_724, 0.685_579, 0.685_579, 1.693_406]);
        let squares = &lengths - &(m.dot(&weights) * 2.0) + weights.dot(&gram.dot(&weights));
        let margin = squares[0] - squares[1];
        let expected = [11.429_821, 5.849_876, 4.664_993, 1.834_929, 2.830_064];
        for (actual, expected) in lengths.iter().chain(&squares).chain([&margin]).zip(expected) {
            assert!((actual - expected).abs() < 1e-5, "{actual} {expected}");
        }
    }

    #[test]
    fn softmax_weights_agree_with_golden_g2() {
        // PAL specification G2: the weights of the population come of alpha as softmax of its logarithm; at T = 1 and 0.5.
        for (temperature, expected) in
            [(1.0, [0.280_697, 0.154_050, 0.565_254]), (0.5, [0.186_693, 0.056_231, 0.757_076])]
        {
            let alpha = array![0.4_f64, -0.2, 1.1].mapv(|w| (w / temperature).exp());
            let users = LinearUsers::new(Prior::Simplex(alpha), 0.0).unwrap();
            for (actual, expected) in users.population().mean().iter().zip(expected) {
                assert!((actual - expected).abs() < 1e-6);
            }
        }
    }

    fn head(kind: Distance, ideal_point: IdealPoint) -> PalA {
        let form = FormInput { form: TextForm::PromptResponse, mean: array![0.1, 0.0], scale: 0.5 };
        PalA::new(PalAParameters {
            trunk: Trunk {
                input: TextInput { forms: vec![form] },
                hidden: Some(Layer { weight: array![[0.5, -0.3], [0.2, 0.8]], bias: array![0.1, -0.2] }),
                population: Layer { weight: array![[0.3, -0.7]], bias: array![0.2] },
            },
            prototypes: array![[0.6, 0.8], [-0.8, 0.6], [0.3, -0.9]],
            scale: 1.3,
            alpha: array![0.4, 0.2, 0.3],
            label_noise: 0.0,
            distance: kind,
            ideal_point,
        })
        .unwrap()
    }

    #[test]
    fn the_linear_form_is_the_distance_to_the_ideal_point() {
        let head = head(Distance::Squared, IdealPoint::MixturePoints);
        let rows = array![[1.0_f32, 2.0], [-0.5, 1.5]];
        let texts = TextEmbeddings::default().with(TextForm::PromptResponse, rows.view());
        let features = head.features(&texts).unwrap();
        let (a, b) = (features.slice(s![0..1, ..]), features.slice(s![1..2, ..]));
        let margin = head.margins(&[head.population().view()], a, b).unwrap().mean[[0, 0]];
        let encoded = head.trunk.encode(&texts).unwrap();
        let latents = encoded.latent.mapv(f64::from);
        let (point, _) = head.point(&head.population().mean().mapv(f64::from));
        let reward = |row: usize| {
            f64::from(encoded.quality[row]) - 1.3 * distance(Distance::Squared, latents.row(row), &point).0
        };
        assert!((f64::from(margin) - (reward(0) - reward(1))).abs() < 1e-5);
    }

    #[test]
    fn derivatives_of_the_curved_forms_are_derivatives() {
        // Central differences, step 1e-5, tolerance 1e-7.
        for kind in [Distance::Squared, Distance::Plain] {
            for ideal_point in [IdealPoint::MixturePoints, IdealPoint::ProjectedMixture] {
                let head = head(kind, ideal_point);
                let (weights, texts) = (array![0.5, 0.2, 0.3], array![[0.4, -0.3, 0.1], [1.0, 0.2, -0.4]]);
                let (_, slopes) = CurvedReward::rewards(&head, &weights, texts.view());
                for k in 0..3 {
                    let at = |step: f64| {
                        let mut moved = weights.clone();
                        moved[k] += step;
                        CurvedReward::rewards(&head, &moved, texts.view()).0
                    };
                    let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                    for (actual, expected) in slopes.column(k).iter().zip(&numeric) {
                        assert!((actual - expected).abs() < 1e-7, "{actual} {expected}");
                    }
                }
            }
        }
    }
}
