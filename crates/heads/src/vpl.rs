//! VPL: a latent of the person, read off their comparisons by an encoder (arXiv:2408.10075).

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate};
use polyreward_domain::{HeadFamily, TextForms};
use serde::{Deserialize, Serialize};

use crate::{
    engine::join,
    evidence::{canonical, exchange, rows, votes},
    head::{Head, HeadError, Moments, Observation, PairMoments, TextEmbeddings, check_len},
    mlp::{Activation, Layer, Mlp},
    state::{Spread, StateView, UserState},
    trunk::{Trunk, TrunkCard},
    weights::{Tensors, WeightsError},
};

/// Weights of a [`Vpl`] head, unchecked.
#[derive(Debug, Clone)]
pub struct VplParameters {
    /// The common quality; its latent `h` is what the others read.
    pub trunk: Trunk,
    /// From `[h_c - h_r, h_c + h_r]` (`2H`) to `K` means and `K` raw precisions.
    pub encoder: Mlp,
    /// `H` to `Hd`, the text's half of the decoder's hidden layer.
    pub text: Layer,
    /// The person's half, `[Hd, K]`.
    pub latent: Array2<f32>,
    /// From the hidden layer to the reward, `[Hd]`.
    pub output: Array1<f32>,
}

/// How far from the prior's mean one example may put a person, in the prior's standard deviations.
pub const FURTHEST_MEAN: f64 = 4.0;
/// How many times the prior's precision one example may be worth.
pub const SHARPEST_EXAMPLE: f64 = 16.0;

/// `reward = output . leaky_relu(text(h) + latent z) + q` with `z` of the person, a Gaussian pooled by precision:
/// `Λ = 1 + sum_i s_i λ_i` and `mean = sum_i s_i λ_i m_i / Λ`, `(m_i, λ_i)` the encoder's reading of example `i`, with
/// `|m_i| < 4` ([`FURTHEST_MEAN`]) and `0 < λ_i < 16` ([`SHARPEST_EXAMPLE`]) in each dimension.
///
/// So no example gives the prior `N(0, I)`, each sharpens it, and one alone moves `z` by less than `4 * 16 s / (1 + 16 s)`,
/// and a margin by that times the sum of the absolute slopes of its reward in `z`. A label right with probability `c` counts `2c - 1`. Features are `h`, the text's half of the hidden layer,
/// and `q`, so that many people do not repeat it. Variances are linearised about the mean of `z`.
#[derive(Debug, Clone)]
pub struct Vpl {
    trunk: Trunk,
    encoder: Mlp,
    text: Layer,
    latent: Array2<f32>,
    output: Array1<f32>,
    population: UserState,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hyperparameters {
    trunk: TrunkCard,
    activation: Activation,
}

impl Vpl {
    /// Checks the weights against one another.
    ///
    /// # Errors
    /// Sizes that do not fit, a number that no weight can be.
    pub fn new(parameters: VplParameters) -> Result<Self, HeadError> {
        let VplParameters { trunk, encoder, text, latent, output } = parameters;
        trunk.check()?;
        let (hidden, size) = latent.dim();
        check_len("the encoder's input", 2 * trunk.latent_len(), encoder.input_len())?;
        check_len("the encoder's output", 2 * size, encoder.output_len())?;
        text.check("the text half's input", trunk.latent_len())?;
        check_len("the text half's output", hidden, text.bias.len())?;
        check_len("the output weights", hidden, output.len())?;
        if latent.iter().chain(&output).any(|w| !w.is_finite()) {
            return Err(HeadError::NotFinite("a weight"));
        }
        let latent = latent.as_standard_layout().into_owned();
        let population = UserState::independent(&Array1::zeros(size), &Array1::ones(size), 0)?;
        Ok(Self { trunk, encoder, text, latent, output, population })
    }

    pub(crate) fn from_tensors(tensors: &mut Tensors) -> Result<Self, WeightsError> {
        let hyper: Hyperparameters = tensors.fields()?;
        Ok(Self::new(VplParameters {
            trunk: Trunk::take(tensors, &hyper.trunk)?,
            encoder: tensors.take_mlp("encoder", hyper.activation)?,
            text: tensors.take_layer("text")?,
            latent: tensors.take_matrix("latent")?,
            output: tensors.take_vector("output")?,
        })?)
    }

    /// The decoder's value for a person, given their half `latent z` of the hidden layer, and a text's features; writes its
    /// derivatives by the hidden layer, `[Hd]`.
    fn decode(&self, half: &[f32], features: &[f32], slopes: &mut [f32]) -> f32 {
        let (from, last) = (self.trunk.latent_len(), features.len() - 1);
        let output = self.output.as_slice().expect("a vector of its own is contiguous");
        bend(&features[from..last], half, output, slopes) + features[last]
    }

    /// Every user's half of the hidden layer, `[U, Hd]`.
    fn halves(&self, users: &[StateView<'_>]) -> Result<Array2<f32>, HeadError> {
        let size = self.latent.ncols();
        let mut latents = Array2::zeros((users.len(), size));
        for (user, mut latent) in users.iter().zip(latents.rows_mut()) {
            check_len("a user state", size, user.size())?;
            latent.assign(&user.mean());
        }
        Ok(latents.dot(&self.latent.t()))
    }

    /// Values, and their variances, of what `decoded` makes of a user and a row, and of the user's half of the hidden layer: it
    /// returns the value and writes the derivatives by the hidden layer.
    fn moments(
        &self,
        users: &[StateView<'_>],
        rows: usize,
        mut decoded: impl FnMut([usize; 2], &[f32], &mut [f32]) -> f32,
    ) -> Result<Moments, HeadError> {
        let mut mean = Array2::zeros((users.len(), rows));
        let mut variance = Array2::zeros((users.len(), rows));
        let mut slopes = vec![0.0; self.output.len()];
        let mut by_latent = vec![0.0; self.latent.ncols()];
        for (block, some) in users.chunks(BLOCK).enumerate() {
            let halves = self.halves(some)?;
            for (at, (user, half)) in some.iter().zip(halves.rows()).enumerate() {
                let Spread::Diagonal(variances) = user.spread() else {
                    return Err(HeadError::Parameter { name: "a user state", detail: "is diagonal".into() });
                };
                let at = block * BLOCK + at;
                for row in 0..rows {
                    mean[[at, row]] = decoded([at, row], contiguous(half), &mut slopes);
                    self.pull_back(&slopes, &mut by_latent);
                    let spread = by_latent.iter().zip(variances).map(|(slope, v)| slope * slope * v);
                    variance[[at, row]] = spread.sum();
                }
            }
        }
        Ok(Moments { mean, variance })
    }

    /// Derivatives by `z` from those by the hidden layer. Of a pair most are 0: only where one side bends and the other does
    /// not does the person's half matter.
    fn pull_back(&self, slopes: &[f32], by_latent: &mut [f32]) {
        by_latent.fill(0.0);
        let weights = self.latent.as_slice().expect("the latent's weights are in standard layout");
        for (slope, row) in slopes.iter().zip(weights.chunks_exact(by_latent.len().max(1))) {
            if *slope != 0.0 {
                for (sum, weight) in by_latent.iter_mut().zip(row) {
                    *sum += slope * weight;
                }
            }
        }
    }
}

/// Users whose halves of the hidden layer are held at once: few enough to stay near the processor.
const BLOCK: usize = 256;

fn contiguous(row: ArrayView1<'_, f32>) -> &[f32] {
    row.to_slice().expect("rows in standard layout are contiguous")
}

/// `output . leaky_relu(text + person)`; writes the derivatives by the sums. Sixteen sums side by side.
fn bend(text: &[f32], person: &[f32], output: &[f32], slopes: &mut [f32]) -> f32 {
    const LANES: usize = 16;
    let one = |text: f32, person: f32, output: f32, slope: &mut f32| {
        let hidden = text + person;
        *slope = if hidden > 0.0 { output } else { 0.2 * output };
        *slope * hidden
    };
    let (texts, text) = text.as_chunks::<LANES>();
    let (people, person) = person.as_chunks::<LANES>();
    let (outputs, output) = output.as_chunks::<LANES>();
    let (slope_chunks, slopes) = slopes.as_chunks_mut::<LANES>();
    let mut sums = [0.0; LANES];
    for (((text, person), output), slopes) in texts.iter().zip(people).zip(outputs).zip(slope_chunks) {
        for lane in 0..LANES {
            sums[lane] += one(text[lane], person[lane], output[lane], &mut slopes[lane]);
        }
    }
    let rest = text.iter().zip(person).zip(output).zip(slopes);
    sums.iter().sum::<f32>() + rest.map(|(((t, p), o), slope)| one(*t, *p, *o, slope)).sum::<f32>()
}

/// `ln(1 + e^t)`.
fn softplus(t: f64) -> f64 {
    t.max(0.0) + (-t.abs()).exp().ln_1p()
}

/// Nats by which a diagonal Gaussian differs from the prior `N(0, I)`: what examples have said of a person, and what
/// training holds small. `sum (mean^2 + variance - 1 - ln variance) / 2`.
pub fn kl_from_prior(mean: ArrayView1<'_, f64>, variance: ArrayView1<'_, f64>) -> f64 {
    mean.iter().zip(variance).map(|(m, v)| (m * m + v - 1.0 - v.ln()) / 2.0).sum()
}

impl Head for Vpl {
    fn family(&self) -> HeadFamily {
        HeadFamily::Vpl
    }

    fn text_forms(&self) -> TextForms {
        self.trunk.input.text_forms()
    }

    fn embedding_dim(&self) -> usize {
        self.trunk.input.embedding_dim()
    }

    fn feature_len(&self) -> usize {
        self.trunk.latent_len() + self.output.len() + 1
    }

    fn is_personal(&self) -> bool {
        true
    }

    fn features(&self, texts: &TextEmbeddings<'_>) -> Result<Array2<f32>, HeadError> {
        let encoded = self.trunk.encode(texts)?;
        let half = self.text.forward(encoded.latent.view());
        join(&[encoded.latent.view(), half.view(), encoded.quality.view().insert_axis(Axis(1))])
    }

    fn population(&self) -> &UserState {
        &self.population
    }

    fn adapt(
        &self,
        examples: &[Observation<'_>],
        _start: Option<&UserState>,
    ) -> Result<UserState, HeadError> {
        let (len, size) = (self.trunk.latent_len(), self.latent.ncols());
        let row = |chosen: &[f64], rejected: &[f64]| [&chosen[..len], &rejected[..len]].concat();
        let votes = canonical(votes(examples, self.feature_len(), row)?, exchange)?;
        if votes.is_empty() {
            return Ok(self.population.clone().with_examples(examples.len()));
        }
        let rows = rows(&votes, 2 * len).mapv(|x| x as f32);
        let (chosen, rejected) = rows.view().split_at(Axis(1), len);
        let input = concatenate![Axis(1), &chosen - &rejected, &chosen + &rejected];
        let encoded = self.encoder.forward(input.view())?.mapv(f64::from);
        let mut precision = Array1::<f64>::ones(size);
        let mut weighted = Array1::<f64>::zeros(size);
        for (vote, code) in votes.iter().zip(encoded.rows()) {
            let weight = vote.strength * (2.0 * vote.confidence - 1.0);
            for k in 0..size {
                let (reading, certainty) = (code[k], softplus(code[size + k]));
                let sharpness = weight * certainty / (1.0 + certainty / SHARPEST_EXAMPLE);
                precision[k] += sharpness;
                weighted[k] += sharpness * FURTHEST_MEAN * (reading / FURTHEST_MEAN).tanh();
            }
        }
        let mean = (weighted / &precision).mapv(|x| x as f32);
        let variances = precision.mapv(|p| (1.0 / p) as f32);
        UserState::independent(&mean, &variances, examples.len())
    }

    fn rewards(&self, users: &[StateView<'_>], features: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        let texts = features.as_standard_layout();
        self.moments(users, features.nrows(), |[_, row], half, slopes| {
            self.decode(half, contiguous(texts.row(row)), slopes)
        })
    }

    fn mean_rewards(
        &self,
        users: &[StateView<'_>],
        features: ArrayView2<'_, f32>,
    ) -> Result<Array2<f32>, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        let texts = features.as_standard_layout();
        let mut slopes = vec![0.0; self.output.len()];
        let mut mean = Array2::zeros((users.len(), features.nrows()));
        for (users, mut mean) in users.chunks(BLOCK).zip(mean.axis_chunks_iter_mut(Axis(0), BLOCK)) {
            for (half, mut mean) in self.halves(users)?.rows().into_iter().zip(mean.rows_mut()) {
                for (text, mean) in texts.rows().into_iter().zip(&mut mean) {
                    *mean = self.decode(contiguous(half), contiguous(text), &mut slopes);
                }
            }
        }
        Ok(mean)
    }

    fn margins(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Moments, HeadError> {
        Ok(self.pairs(users, a, b)?.margin)
    }

    fn pairs(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<PairMoments, HeadError> {
        check_len("features", self.feature_len(), a.ncols())?;
        check_len("features", self.feature_len(), b.ncols())?;
        check_len("the second responses", a.nrows(), b.nrows())?;
        let (first, second) = (a.as_standard_layout(), b.as_standard_layout());
        let mut other = vec![0.0; self.output.len()];
        let zeros = || Array2::zeros((users.len(), a.nrows()));
        let (mut reward_a, mut reward_b) = (zeros(), zeros());
        let margin = self.moments(users, a.nrows(), |at, half, slopes| {
            reward_a[at] = self.decode(half, contiguous(first.row(at[1])), slopes);
            reward_b[at] = self.decode(half, contiguous(second.row(at[1])), &mut other);
            for (slope, other) in slopes.iter_mut().zip(&other) {
                *slope -= other;
            }
            reward_a[at] - reward_b[at]
        })?;
        Ok(PairMoments { reward_a, reward_b, margin })
    }

    fn tensors(&self) -> Tensors {
        let mut tensors = Tensors::with(&Hyperparameters {
            trunk: self.trunk.card(),
            activation: self.encoder.activation(),
        });
        self.trunk.insert(&mut tensors);
        tensors.insert_mlp("encoder", &self.encoder);
        tensors.insert_layer("text", &self.text);
        tensors.insert("latent", self.latent.clone());
        tensors.insert("output", self.output.clone());
        tensors
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{array, s};

    use super::*;
    use crate::{
        calibration::{log_sigmoid, sigmoid},
        information::information_gain,
    };

    /// Layer `k` of the VPL/LoRe specification's golden checks, case A (0.7, 0.1) or B (1.3, 0.2).
    fn layer(k: u8, [s, t]: [f64; 2], (rows, columns): (usize, usize)) -> Layer {
        let rounded = |x: f64| ((x * 1000.0).round() / 1000.0) as f32;
        let k = f64::from(k);
        Layer {
            weight: Array2::from_shape_fn((rows, columns), |(a, b)| {
                rounded(s * (0.5 + 1.7 * k + 0.9 * a as f64 + 0.6 * b as f64).sin())
            }),
            bias: Array1::from_shape_fn(rows, |a| rounded(t * (0.3 + k + a as f64).cos())),
        }
    }

    const CASES: [[f64; 2]; 2] = [[0.7, 0.1], [1.3, 0.2]];

    fn decoder(case: [f64; 2]) -> Mlp {
        let layers = vec![layer(9, case, (4, 5)), layer(10, case, (4, 4)), layer(11, case, (1, 4))];
        Mlp::new(layers, Activation::LeakyRelu).unwrap()
    }

    /// The golden decoder's rewards of items at a latent.
    fn rewards(case: [f64; 2], items: &Array2<f32>, z: [f32; 2]) -> Vec<f64> {
        let rows: Vec<f32> = items.rows().into_iter().flat_map(|e| e.to_vec().into_iter().chain(z)).collect();
        let rows = Array2::from_shape_vec((items.nrows(), 5), rows).unwrap();
        decoder(case).forward(rows.view()).unwrap().iter().map(|x| f64::from(*x)).collect()
    }

    fn close(actual: impl IntoIterator<Item = f64>, expected: &[f64]) {
        for (actual, expected) in actual.into_iter().zip(expected) {
            assert!((actual - expected).abs() < 5e-6, "{actual} {expected}");
        }
    }

    #[test]
    fn pair_codes_agree_with_golden_g1_1() {
        // VPL/LoRe specification G1.1 (float64 numpy), tolerance 5e-6 as networks are in f32.
        let pairs = array![
            [0.5, -0.2, 0.8, -0.1, 0.6, 0.2],
            [-0.4, 0.9, 0.1, 0.7, -0.5, 0.4],
            [0.3, 0.3, -0.6, -0.8, 0.2, 0.5]
        ];
        let expected = [
            [-0.161_026, 0.003_556, -0.192_151, -0.022_006, 0.457_298, 0.324_567],
            [-0.693_307, 0.394_187, -0.907_542, 0.196_595, 3.229_195, 2.183_094],
        ];
        for (case, expected) in CASES.into_iter().zip(expected) {
            let layers = vec![layer(1, case, (4, 6)), layer(2, case, (4, 4)), layer(3, case, (2, 4))];
            let codes = Mlp::new(layers, Activation::LeakyRelu).unwrap().forward(pairs.view()).unwrap();
            close(codes.iter().map(|x| f64::from(*x)), &expected);
        }
    }

    #[test]
    fn the_decoder_agrees_with_golden_g1_5_and_splits_in_two_halves() {
        // G1.5 at the latents of G1.4 on the sphere, at the clamped mean, and at the raw latents.
        let items = array![[0.2, 0.7, -0.3], [-0.5, 0.1, 0.6]];
        for (case, z, expected) in [
            (CASES[0], [0.687_229, -1.236_008], [-0.012_429, 0.242_196, 0.436_685]),
            (CASES[0], [0.054_544, -0.030_033], [0.039_540, 0.848_190, 0.308_178]),
            (CASES[1], [0.119_844, -1.409_126], [-0.252_524, -0.126_820, 0.468_615]),
            (CASES[1], [-0.166_633, -1.0], [-0.043_218, -0.051_347, 0.502_032]),
            (CASES[0], [0.547_594, -0.984_869], [-0.004_871, 0.315_914, 0.420_484]),
            (CASES[1], [0.136_633, -1.606_531], [-0.181_874, -0.169_971, 0.497_024]),
        ] {
            let r = rewards(case, &items, z);
            close([r[0], r[1], sigmoid(r[0] - r[1])], &expected);
            // The first layer is a text's half, with the bias, and a person's half.
            let Layer { weight, bias } = layer(9, case, (4, 5));
            let text = Layer { weight: weight.slice(s![.., ..3]).to_owned(), bias };
            let person = weight.slice(s![.., 3..]).dot(&array![z[0], z[1]]);
            let hidden = (text.forward(items.view()) + &person).mapv(|t| Activation::LeakyRelu.apply(t));
            let rest = Mlp::new(decoder(case).layers()[1..].to_vec(), Activation::LeakyRelu).unwrap();
            let split = rest.forward(hidden.view()).unwrap();
            close(split.iter().map(|x| f64::from(*x)), &r);
        }
    }

    #[test]
    fn losses_and_bounds_agree_with_golden_g1_5() {
        // Negative log likelihood and evidence bound (beta = 1) at the latents of training and of evaluation.
        let items = array![[0.2, 0.7, -0.3], [-0.5, 0.1, 0.6]];
        for (case, z, divergence, [nll, bound]) in [
            (CASES[0], [0.687_229, -1.236_008], 0.004_204, [0.828_542, -0.832_746]),
            (CASES[0], [0.054_544, -0.030_033], 0.004_204, [1.177_077, -1.181_281]),
            (CASES[1], [0.119_844, -1.409_126], 0.881_763, [0.757_973, -1.639_736]),
            (CASES[1], [-0.166_633, -1.0], 0.881_763, [0.689_091, -1.570_854]),
        ] {
            let r = rewards(case, &items, z);
            let loss = -log_sigmoid(r[0] - r[1]);
            close([loss, -loss - divergence], &[nll, bound]);
        }
    }

    #[test]
    fn win_rates_agree_with_golden_g1_8_and_information_with_g1_9() {
        // G1.8: mean preference against three others, at the clamped mean. G1.9: four latents about it.
        let others = array![[-0.5, 0.1, 0.6], [0.4, -0.6, 0.2], [0.1, 0.1, 0.1]];
        let pair = array![[0.2, 0.7, -0.3], [-0.5, 0.1, 0.6]];
        let posteriors =
            [([0.054_544, -0.030_033], [-0.027_993, -0.092_430]), ([-0.166_633, -1.0], [-1.0, -1.0])];
        let expected = [[0.410_332, 0.335_006, 0.023_336], [0.386_891, 0.358_433, 0.119_601]];
        let of_latents = [
            [-1.145_487, -0.584_558, -1.112_418, -0.026_378],
            [-4.376_995, -0.329_831, -0.062_243, 0.074_431],
        ];
        let of_cases = CASES.into_iter().zip(posteriors).zip(expected).zip(of_latents);
        for (((case, (mean, log_variance)), expected), at_latents) in of_cases {
            let mean: [f32; 2] = mean;
            let r = rewards(case, &others, mean);
            let a = rewards(case, &pair, mean)[0];
            let win_rate = r.iter().map(|r| sigmoid(a - r)).sum::<f64>() / 3.0;
            let log_variance: [f32; 2] = log_variance;
            let margins = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]].map(|signs: [f32; 2]| {
                let z = [0, 1].map(|d| mean[d] + (log_variance[d] / 2.0).exp() * signs[d]);
                let r = rewards(case, &pair, z);
                r[0] - r[1]
            });
            close(margins, &at_latents);
            let probabilities = margins.map(sigmoid);
            let information = information_gain(&probabilities, &[1.0; 4]);
            close([win_rate, probabilities.iter().sum::<f64>() / 4.0, information], &expected);
        }
    }

    #[test]
    fn divergence_agrees_with_golden_g1_3_and_g1_7() {
        for (mean, log_variance, expected) in [
            ([0.4_f64, -0.2], [-0.5_f64, 0.1], 0.155_851),
            ([0.054_544, -0.030_033], [-0.027_993, -0.092_430], 0.004_204),
            ([-0.166_633, -1.0], [-1.0, -1.0], 0.881_763),
        ] {
            let variance = log_variance.map(f64::exp);
            let actual = kl_from_prior(ArrayView1::from(&mean), ArrayView1::from(&variance));
            assert!((actual - expected).abs() < 1e-6, "{actual} {expected}");
        }
    }
}
