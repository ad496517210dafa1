//! MiCRo: Bradley-Terry heads mixed by a router that reads the prompt, and by what a person chose before
//! (arXiv:2505.24846).

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use polyreward_domain::{HeadFamily, TextForms};
use serde::{Deserialize, Serialize};

use crate::{
    calibration::{Calibration, log_sigmoid, sigmoid},
    engine::join,
    evidence::{Label, canonical, check_noise, negate, votes},
    head::{Head, HeadError, Moments, Observation, PairMoments, TextEmbeddings, check_len},
    information,
    input::{FormCard, TextInput},
    mlp::Layer,
    state::{StateView, UserState},
    trunk::{Trunk, TrunkCard},
    weights::{Tensors, WeightsError},
};

/// A sum below this is taken again in logarithms.
const SMALLEST: f64 = 1e-200;

/// Weights of a [`Micro`] head, unchecked.
#[derive(Debug, Clone)]
pub struct MicroParameters {
    /// The common quality; its latent is what the heads read.
    pub trunk: Trunk,
    /// `H` to the rewards of `K` heads.
    pub heads: Layer,
    /// What the router reads: the prompt; nothing if the prompt does not matter.
    pub router_input: TextInput,
    /// From there to `K` logits; the prior over heads is part of its bias.
    pub router: Layer,
    /// `eta`: how much of an example's likelihood counts; 1 is Bayes' rule for one head a person.
    pub temperature: f64,
    /// Share of labels taken to be wrong when adapting.
    pub label_noise: f64,
}

/// `P(a preferred to b) = sum_k w_k sigmoid(r_k(a) + q(a) - r_k(b) - q(b))`, `w = softmax(l(prompt) + b)`.
///
/// Features are the heads' rewards `r`, the router's logits `l` and `q`. A person is the evidence `b` of their
/// examples, centred log weights: `b_k = eta sum_i s_i ln P_k(label i)`. What the router already predicts of a label is
/// the same for every head, so that centring takes it out again; it is not subtracted first. One example moves the
/// log odds of two heads by at most `eta s ln((1 - e) / e)`.
///
/// A margin is `logit P`, averaged over the heads already ([`Head::margins_are_marginal`]); its variance is that of the
/// heads' margins under `w`.
#[derive(Debug, Clone)]
pub struct Micro {
    trunk: Trunk,
    heads: Layer,
    router_input: TextInput,
    router: Layer,
    temperature: f64,
    label_noise: f64,
    population: UserState,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hyperparameters {
    trunk: TrunkCard,
    router_input: Vec<FormCard>,
    temperature: f64,
    label_noise: f64,
}

impl Micro {
    /// Checks the weights against one another.
    ///
    /// # Errors
    /// Sizes that do not fit, a number that no weight can be.
    pub fn new(parameters: MicroParameters) -> Result<Self, HeadError> {
        let MicroParameters { trunk, heads, router_input, router, temperature, label_noise } = parameters;
        trunk.check()?;
        if !router_input.forms.is_empty() {
            router_input.check()?;
            let dim = trunk.input.embedding_dim();
            check_len("an embedding of a prompt", dim, router_input.embedding_dim())?;
        }
        check_noise(label_noise)?;
        heads.check("the heads' input", trunk.latent_len())?;
        router.check("the router's input", router_input.width())?;
        let size = heads.bias.len();
        check_len("the router's output", size, router.bias.len())?;
        if size == 0 {
            return Err(HeadError::Parameter { name: "heads", detail: "there is none".into() });
        }
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(HeadError::Parameter {
                name: "temperature",
                detail: "is finite and positive".into(),
            });
        }
        let population = state(&Array1::zeros(size), 0)?;
        Ok(Self { trunk, heads, router_input, router, temperature, label_noise, population })
    }

    pub(crate) fn from_tensors(tensors: &mut Tensors) -> Result<Self, WeightsError> {
        let hyper: Hyperparameters = tensors.fields()?;
        Ok(Self::new(MicroParameters {
            trunk: Trunk::take(tensors, &hyper.trunk)?,
            heads: tensors.take_layer("heads")?,
            router_input: TextInput::take(tensors, "router_input", &hyper.router_input)?,
            router: tensors.take_layer("router")?,
            temperature: hyper.temperature,
            label_noise: hyper.label_noise,
        })?)
    }

    fn size(&self) -> usize {
        self.heads.bias.len()
    }

    fn evidence(&self, users: &[StateView<'_>]) -> Result<Evidence, HeadError> {
        let mut logs = Array2::zeros((users.len(), self.size()));
        for (user, mut row) in users.iter().zip(logs.rows_mut()) {
            check_len("a user state", self.size(), user.size())?;
            for (b, mean) in row.iter_mut().zip(user.mean_slice()) {
                *b = f64::from(*mean);
            }
        }
        Ok(Evidence { exponentials: exponentials(&logs), logs })
    }

    /// Means of the heads' rewards, and their variances if they are asked for.
    fn mixed(
        &self,
        evidence: &Evidence,
        features: &Array2<f64>,
        varies: bool,
    ) -> (Array2<f32>, Option<Array2<f32>>) {
        let size = self.size();
        let mixture = Mixture::new(evidence, features.slice(s![.., size..2 * size]));
        let (mean, variance) = mixture.spread(features.slice(s![.., ..size]), varies);
        let mean = mean + features.column(2 * size).insert_axis(Axis(0));
        (narrow(&mean), variance.as_ref().map(narrow))
    }

    fn between(&self, evidence: &Evidence, a: &Array2<f64>, b: &Array2<f64>) -> Moments {
        let (d, logits) = self.apart(a, b);
        let mixture = Mixture::new(evidence, logits.view());
        let (_, variance) = mixture.spread(d.view(), true);
        let variance = variance.expect("it was asked for");
        Moments { mean: narrow(&mixture.logits(&d)), variance: narrow(&variance) }
    }

    fn check_pairs(&self, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) -> Result<(), HeadError> {
        check_len("features", self.feature_len(), a.ncols())?;
        check_len("features", self.feature_len(), b.ncols())?;
        check_len("the second responses", a.nrows(), b.nrows())
    }

    /// The heads' margins of each pair, `[N, K]`, and the router's logits of its prompt, `[N, K]`.
    fn apart(&self, a: &Array2<f64>, b: &Array2<f64>) -> (Array2<f64>, Array2<f64>) {
        let size = self.size();
        let quality = (&a.column(2 * size) - &b.column(2 * size)).insert_axis(Axis(1));
        let d = &a.slice(s![.., ..size]) - &b.slice(s![.., ..size]) + quality;
        // Both responses answer the same prompt.
        let logits = (&a.slice(s![.., size..2 * size]) + &b.slice(s![.., size..2 * size])) / 2.0;
        (d, logits)
    }
}

/// `ln sum exp`.
fn log_sum_exp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let highest = x.clone().fold(f64::NEG_INFINITY, f64::max);
    highest + x.map(|x| (x - highest).exp()).sum::<f64>().ln()
}

/// `e^x / sum e^x`.
fn softmax(logits: ArrayView1<'_, f64>) -> Array1<f64> {
    let total = log_sum_exp(logits.iter().copied());
    logits.mapv(|x| (x - total).exp())
}

/// Evidence as a state: log weights of mean 0, and the covariance of "this head is the person's" under them.
fn state(log_weights: &Array1<f64>, examples: usize) -> Result<UserState, HeadError> {
    let centred = log_weights - log_weights.mean().unwrap_or(0.0);
    let weights = softmax(centred.view());
    let covariance = Array2::from_shape_fn((weights.len(), weights.len()), |(i, j)| {
        (if i == j { weights[i] * (1.0 - weights[i]) } else { -weights[i] * weights[j] }) as f32
    });
    UserState::new(centred.mapv(|x| x as f32), covariance, examples)
}

/// Texts up to which sums over heads are taken user by user, rather than by a product of matrices that is packed first.
const FEW_ROWS: usize = 8;

/// Users' evidence `b` `[U, K]`, and `e^b` but for a factor of each row.
struct Evidence {
    logs: Array2<f64>,
    exponentials: Array2<f64>,
}

/// Exponentials, but for a factor of each row that keeps them finite.
fn exponentials(x: &Array2<f64>) -> Array2<f64> {
    let mut x = x.as_standard_layout().into_owned();
    for mut row in x.rows_mut() {
        let row = row.as_slice_mut().expect("rows in standard layout are contiguous");
        let highest = row.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
        for x in row {
            *x = (*x - highest).exp();
        }
    }
    x
}

/// Sums over heads of `e^(b_u + l_n) f_n` for several `f`, each `[U, N]`; common factors of a user or a text are left out.
struct Mixture<'a> {
    evidence: &'a Evidence,
    /// Router logits `l`, `[N, K]`.
    logits: ArrayView2<'a, f64>,
    texts: Array2<f64>,
}

impl<'a> Mixture<'a> {
    fn new(evidence: &'a Evidence, logits: ArrayView2<'a, f64>) -> Self {
        Self { evidence, logits, texts: exponentials(&logits.to_owned()) }
    }

    fn sums(&self, f: &Array2<f64>) -> Array2<f64> {
        self.products(&(&self.texts * f))
    }

    fn totals(&self) -> Array2<f64> {
        self.products(&self.texts)
    }

    fn products(&self, texts: &Array2<f64>) -> Array2<f64> {
        let users = &self.evidence.exponentials;
        if texts.nrows() > FEW_ROWS {
            return users.dot(&texts.t());
        }
        let mut sums = Array2::zeros((users.nrows(), texts.nrows()));
        let (users, texts) = (users.as_standard_layout(), texts.as_standard_layout());
        for (user, mut sums) in users.rows().into_iter().zip(sums.rows_mut()) {
            let user = user.to_slice().expect("rows in standard layout are contiguous");
            for (text, sum) in texts.rows().into_iter().zip(&mut sums) {
                *sum = dot(user, text.to_slice().expect("rows in standard layout are contiguous"));
            }
        }
        sums
    }

    /// Mean over heads of `values` `[N, K]` under each user's weights, and their variance if it is asked for, `[U, N]` each.
    fn spread(&self, values: ArrayView2<'_, f64>, varies: bool) -> (Array2<f64>, Option<Array2<f64>>) {
        // About the mean over heads, so that squares do not cancel more than they must.
        let centre = values.mean_axis(Axis(1)).expect("there is a head").insert_axis(Axis(1));
        let about = &values - &centre;
        let squares = varies.then(|| &about * &about);
        let totals = self.totals();
        let under = |f: &Array2<f64>| {
            let mut mean = self.sums(f);
            for ((u, n), total) in totals.indexed_iter() {
                if *total < SMALLEST {
                    let weights = softmax((&self.evidence.logs.row(u) + &self.logits.row(n)).view());
                    mean[[u, n]] = weights.dot(&f.row(n));
                } else {
                    mean[[u, n]] /= total;
                }
            }
            mean
        };
        let mean = under(&about);
        let variance = squares.map(|squares| (under(&squares) - &mean * &mean).mapv_into(|v| v.max(0.0)));
        (mean + centre.t(), variance)
    }

    /// Logits of `sum_k w_k sigmoid(d_k)`, `[U, N]`: the log of the mixture less that of its complement, so that they
    /// change sign, and nothing else, with `d` `[N, K]`.
    fn logits(&self, d: &Array2<f64>) -> Array2<f64> {
        let for_a = self.sums(&d.mapv(sigmoid));
        let for_b = self.sums(&d.mapv(|d| sigmoid(-d)));
        Array2::from_shape_fn(for_a.dim(), |(u, n)| {
            let (p, complement) = (for_a[[u, n]], for_b[[u, n]]);
            if p > SMALLEST && complement > SMALLEST {
                return p.ln() - complement.ln();
            }
            let side = |sign: f64| {
                let heads = self.evidence.logs.row(u).into_iter().zip(self.logits.row(n)).zip(d.row(n));
                log_sum_exp(heads.map(move |((b, l), d)| b + l + log_sigmoid(sign * d)))
            };
            side(1.0) - side(-1.0)
        })
    }
}

/// A product in four sums side by side, which become vector instructions.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((chunks_a, rest_a), (chunks_b, rest_b)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sums = [0.0; 4];
    for (a, b) in chunks_a.iter().zip(chunks_b) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f64>()
}

/// In the precision that states and features have.
fn narrow(x: &Array2<f64>) -> Array2<f32> {
    x.mapv(|x| x as f32)
}

/// A row of evidence: the heads' margins.
fn head_margins(size: usize, a: &[f64], b: &[f64]) -> Vec<f64> {
    let quality = a[2 * size] - b[2 * size];
    (0..size).map(|k| a[k] - b[k] + quality).collect()
}

impl Head for Micro {
    fn family(&self) -> HeadFamily {
        HeadFamily::Micro
    }

    fn text_forms(&self) -> TextForms {
        self.trunk.input.text_forms().union(self.router_input.text_forms())
    }

    fn embedding_dim(&self) -> usize {
        self.trunk.input.embedding_dim()
    }

    fn feature_len(&self) -> usize {
        2 * self.size() + 1
    }

    fn is_personal(&self) -> bool {
        true
    }

    fn margins_are_marginal(&self) -> bool {
        true
    }

    fn features(&self, texts: &TextEmbeddings<'_>) -> Result<Array2<f32>, HeadError> {
        let encoded = self.trunk.encode(texts)?;
        let rewards = self.heads.forward(encoded.latent.view());
        let logits = if self.router_input.forms.is_empty() {
            Array2::zeros(rewards.dim()) + &self.router.bias
        } else {
            self.router.forward(self.router_input.apply(texts)?.view())
        };
        check_len("prompts", rewards.nrows(), logits.nrows())?;
        join(&[rewards.view(), logits.view(), encoded.quality.view().insert_axis(Axis(1))])
    }

    fn population(&self) -> &UserState {
        &self.population
    }

    fn adapt(
        &self,
        examples: &[Observation<'_>],
        _start: Option<&UserState>,
    ) -> Result<UserState, HeadError> {
        let row = |chosen: &[f64], rejected: &[f64]| head_margins(self.size(), chosen, rejected);
        let votes = canonical(votes(examples, self.feature_len(), row)?, negate)?;
        if votes.is_empty() {
            return Ok(self.population.clone().with_examples(examples.len()));
        }
        let mut evidence = Array1::zeros(self.size());
        for vote in &votes {
            let label = Label::of(vote, self.label_noise);
            for (b, d) in evidence.iter_mut().zip(&vote.row) {
                *b += self.temperature * vote.strength * label.log_likelihood(*d);
            }
        }
        state(&evidence, examples.len())
    }

    /// Means of the heads' rewards: what a mixture of pair probabilities is to first order.
    fn rewards(&self, users: &[StateView<'_>], features: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        let (mean, variance) = self.mixed(&self.evidence(users)?, &features.mapv(f64::from), true);
        Ok(Moments { mean, variance: variance.expect("it was asked for") })
    }

    fn mean_rewards(
        &self,
        users: &[StateView<'_>],
        features: ArrayView2<'_, f32>,
    ) -> Result<Array2<f32>, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        Ok(self.mixed(&self.evidence(users)?, &features.mapv(f64::from), false).0)
    }

    fn margins(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Moments, HeadError> {
        self.check_pairs(a, b)?;
        Ok(self.between(&self.evidence(users)?, &a.mapv(f64::from), &b.mapv(f64::from)))
    }

    fn pairs(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<PairMoments, HeadError> {
        self.check_pairs(a, b)?;
        let (evidence, a, b) = (self.evidence(users)?, a.mapv(f64::from), b.mapv(f64::from));
        Ok(PairMoments {
            reward_a: self.mixed(&evidence, &a, false).0,
            reward_b: self.mixed(&evidence, &b, false).0,
            margin: self.between(&evidence, &a, &b),
        })
    }

    /// An answer tells which head speaks for the person on this prompt: an exact sum over the heads, each calibrated as the
    /// margin is that they make together.
    fn information(
        &self,
        user: StateView<'_>,
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
        calibration: Calibration,
    ) -> Result<Array1<f64>, HeadError> {
        self.check_pairs(a, b)?;
        let evidence = self.evidence(&[user])?.logs;
        let (d, logits) = self.apart(&a.mapv(f64::from), &b.mapv(f64::from));
        let gain = |(d, logits): (ArrayView1<'_, f64>, ArrayView1<'_, f64>)| {
            let weights = softmax((&evidence.row(0) + &logits).view());
            information::of_answers(d.iter().map(|d| calibration.answers(*d)).zip(weights))
        };
        Ok(d.rows().into_iter().zip(logits.rows()).map(gain).collect())
    }

    fn tensors(&self) -> Tensors {
        let mut tensors = Tensors::with(&Hyperparameters {
            trunk: self.trunk.card(),
            router_input: self.router_input.card(),
            temperature: self.temperature,
            label_noise: self.label_noise,
        });
        self.trunk.insert(&mut tensors);
        self.router_input.insert(&mut tensors, "router_input");
        tensors.insert_layer("heads", &self.heads);
        tensors.insert_layer("router", &self.router);
        tensors
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use polyreward_domain::TextForm;

    use super::*;
    use crate::input::FormInput;

    /// A head of `size` heads, told features rather than texts.
    fn head(size: usize, temperature: f64, label_noise: f64) -> Micro {
        let form = FormInput { form: TextForm::PromptResponse, mean: Array1::zeros(1), scale: 1.0 };
        let layer =
            |rows, columns| Layer { weight: Array2::zeros((rows, columns)), bias: Array1::zeros(rows) };
        Micro::new(MicroParameters {
            trunk: Trunk { input: TextInput { forms: vec![form] }, hidden: None, population: layer(1, 1) },
            heads: layer(size, 1),
            router_input: TextInput { forms: vec![] },
            router: layer(size, 0),
            temperature,
            label_noise,
        })
        .unwrap()
    }

    /// Features of a response with head rewards `r` to a prompt with router weights `f`.
    fn features(r: &[f64], f: &[f64]) -> Array1<f32> {
        r.iter().copied().chain(f.iter().map(|f| f.ln())).chain([0.0]).map(|x| x as f32).collect()
    }

    fn adapted(head: &Micro, margins: &[&[f64]], f: &[f64]) -> UserState {
        let rejected = features(&vec![0.0; f.len()], f);
        let chosen: Vec<_> = margins.iter().map(|d| features(d, f)).collect();
        let examples: Vec<_> = chosen
            .iter()
            .enumerate()
            .map(|(at, chosen)| Observation {
                chosen: chosen.view(),
                rejected: rejected.view(),
                names: [at as u64, u64::MAX],
                strength: 1.0,
                label_confidence: 1.0,
            })
            .collect();
        head.adapt(&examples, None).unwrap()
    }

    fn probability(head: &Micro, user: &UserState, a: &Array1<f32>, b: &Array1<f32>) -> f64 {
        let row = |x: &Array1<f32>| x.clone().insert_axis(Axis(0));
        let moments = head.margins(&[user.view()], row(a).view(), row(b).view()).unwrap();
        let (mean, variance) = (moments.mean[[0, 0]], moments.variance[[0, 0]]);
        let calibration = Calibration { moderated: false, ..Calibration::default() };
        calibration.probability(f64::from(mean), f64::from(variance))
    }

    fn weights(user: &UserState, f: &[f64]) -> Array1<f64> {
        let prior: Array1<f64> = f.iter().map(|f| f.ln()).collect();
        softmax((prior + user.mean().mapv(f64::from)).view())
    }

    fn close(actual: impl IntoIterator<Item = f64>, expected: &[f64], tolerance: f64) {
        let actual: Vec<f64> = actual.into_iter().collect();
        assert_eq!(actual.len(), expected.len());
        for (actual, expected) in actual.iter().zip(expected) {
            assert!((actual - expected).abs() < tolerance, "{actual} {expected}");
        }
    }

    /// PAL and MiCRo specification G7 (float64 numpy): margins and router weights of two triples.
    const TRIPLES: [([f64; 3], [f64; 3]); 2] = [
        ([0.90, 0.54, -0.72], [0.346_771, 0.175_680, 0.477_548]),
        ([1.55, 0.21, -1.24], [0.304_290, 0.565_652, 0.130_058]),
    ];

    #[test]
    fn the_router_and_heads_agree_with_golden_g7() {
        // Tolerance 1e-6 for the layers, in f32.
        let heads = Layer { weight: array![[0.5, -1.0], [1.2, 0.3], [-0.4, 0.8]], bias: Array1::zeros(3) };
        let router =
            Layer { weight: array![[0.3, 0.1], [-0.2, 0.5], [0.6, -0.4]], bias: array![0.05, -0.1, 0.0] };
        let chosen = heads.forward(array![[1.0, 0.5], [0.2, -0.7]].view());
        let rejected = heads.forward(array![[0.4, 1.1], [-0.3, 0.6]].view());
        let routed = router.forward(array![[0.9, -0.2], [-0.5, 1.3]].view());
        for (at, (margins, f)) in TRIPLES.iter().enumerate() {
            close((&chosen.row(at) - &rejected.row(at)).mapv(f64::from), margins, 1e-6);
            close(softmax(routed.row(at).mapv(f64::from).view()), f, 1e-6);
        }
    }

    #[test]
    fn mixtures_and_responsibilities_agree_with_golden_g7_and_g8() {
        // G7: P and the responsibilities, which are G8's targets at tau = 1; tolerance 1e-5, from inputs of six digits.
        let (one, tenth) = (head(3, 1.0, 0.0), head(3, 10.0, 0.0));
        let expected = [
            (0.513_880, [0.479_756, 0.215_998, 0.304_246], [0.864_865, 0.134_624, 0.000_511]),
            (0.592_617, [0.423_567, 0.527_178, 0.049_256], [0.967_444, 0.032_555, 0.000_001]),
        ];
        for ((margins, f), (p, at_one, at_tenth)) in TRIPLES.iter().zip(expected) {
            let (a, b) = (features(margins, f), features(&[0.0; 3], f));
            assert!((probability(&one, one.population(), &a, &b) - p).abs() < 1e-5);
            close(weights(&adapted(&one, &[margins], f), f), &at_one, 1e-5);
            close(weights(&adapted(&tenth, &[margins], f), f), &at_tenth, 1e-5);
        }
        // tau = 0.001: log weights finite, within 1e-5 relative.
        let logs = [[0.0, -118.688_862, -775.120_172], [0.0, -400.553_115, -1_302.538_288]];
        let sharp = head(3, 1000.0, 0.0);
        for ((margins, f), expected) in TRIPLES.iter().zip(logs) {
            let state = adapted(&sharp, &[margins], f);
            let prior: Array1<f64> = f.iter().map(|f| f.ln()).collect();
            let log_weights = prior + state.mean().mapv(f64::from);
            let total = log_sum_exp(log_weights.iter().copied());
            // States are in single precision, the margins come with six digits: 2e-5 of the largest.
            close(log_weights.mapv(|w| w - total), &expected, 0.02);
            assert!(state.covariance().iter().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn a_person_agrees_with_golden_g9() {
        // G9: posterior over three heads after four pairs, at tau 1, 0.5 and 4, and the sequential predictions.
        let margins: [&[f64]; 4] =
            [&[1.2, -0.4, 0.1], &[0.8, 0.5, -0.9], &[-0.3, 1.1, 0.2], &[2.0, -1.0, 0.4]];
        let prior = [0.5, 0.3, 0.2];
        for (tau, expected) in [
            (1.0, [0.798_287, 0.121_464, 0.080_249]),
            (0.5, [0.939_982, 0.036_270, 0.023_748]),
            (4.0, [0.585_139, 0.249_141, 0.165_720]),
        ] {
            close(weights(&adapted(&head(3, 1.0 / tau, 0.0), &margins, &prior), &prior), &expected, 1e-6);
        }
        let head = head(3, 1.0, 0.0);
        let rejected = features(&[0.0; 3], &prior);
        for (seen, expected) in [0.609_652, 0.607_593, 0.501_431, 0.670_240].into_iter().enumerate() {
            let user = adapted(&head, &margins[..seen], &prior);
            let p = probability(&head, &user, &features(margins[seen], &prior), &rejected);
            assert!((p - expected).abs() < 1e-6, "{p} {expected}");
        }
    }

    #[test]
    fn evidence_agrees_with_golden_g9_and_the_mixtures_loss_with_g7_and_g8() {
        // G9: cumulative losses, and the log evidence that the sequential predictions multiply to.
        let deltas = [[1.2, -0.4, 0.1], [0.8, 0.5, -0.9], [-0.3, 1.1, 0.2], [2.0, -1.0, 0.4]];
        let losses = [0, 1, 2].map(|k| deltas.iter().map(|d| -log_sigmoid(d[k])).sum::<f64>());
        close(losses, &[1.615_666, 2.987_689, 2.996_705], 1e-6);
        let prior: [f64; 3] = [0.5, 0.3, 0.2];
        let evidence = log_sum_exp(prior.iter().zip(losses).map(|(p, loss)| p.ln() - loss));
        assert!((evidence + 2.083_526).abs() < 1e-6, "{evidence}");
        // G7: mean negative log likelihood of the two triples. G8 at tau = 0.1: -tau lse(ln f - L / tau).
        let head = head(3, 1.0, 0.0);
        let p = TRIPLES.map(|(margins, f)| {
            probability(&head, head.population(), &features(&margins, &f), &features(&[0.0; 3], &f))
        });
        assert!((-(p[0].ln() + p[1].ln()) / 2.0 - 0.594_487).abs() < 1e-5);
        let objectives = TRIPLES.map(|(margins, f)| {
            -0.1 * log_sum_exp(f.iter().zip(&margins).map(|(f, d)| f.ln() + log_sigmoid(*d) / 0.1))
        });
        close(objectives, &[0.432_545, 0.308_144], 1e-5);
    }

    #[test]
    fn weak_preferences_agree_with_golden_g13() {
        // G13: mixtures of probabilities at margins scaled by 1 and 0.1, and one example's update at a tenth.
        let head = head(3, 1.0, 0.0);
        let (f, b) = ([0.5, 0.3, 0.2], features(&[0.0; 3], &[0.5, 0.3, 0.2]));
        for (scale, expected) in [(1.0, 0.609_652), (0.1, 0.512_482), (0.01, 0.501_250)] {
            let a = features(&[1.2 * scale, -0.4 * scale, 0.1 * scale], &f);
            assert!((probability(&head, head.population(), &a, &b) - expected).abs() < 1e-6);
        }
        let user = adapted(&head, &[&[0.12, -0.04, 0.01]], &f);
        close(weights(&user, &f), &[0.517_056, 0.286_840, 0.196_104], 1e-6);
    }

    #[test]
    fn a_cycle_of_pairs_agrees_with_golden_g10() {
        // G10, Condorcet: A beats B beats C beats A, which no single reward can say; tolerance 1e-6.
        let head = head(3, 1.0, 0.0);
        let responses = [[3.0, 0.0, -3.0], [0.0, -3.0, 3.0], [-3.0, 3.0, 0.0]];
        let rows = responses.map(|r| features(&r, &[1.0; 3]));
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            let p = probability(&head, head.population(), &rows[a], &rows[b]);
            assert!((p - 0.635_874).abs() < 1e-6, "{p}");
        }
        // The other three pairs of G10.
        let (head, f) = (self::head(2, 1.0, 0.0), [0.4, 0.6]);
        let rows = [[2.0, -1.0], [0.0, 0.6], [1.0, 0.2]].map(|r| features(&r, &f));
        for (a, b, expected) in [(0, 1, 0.453_108), (0, 2, 0.431_309), (1, 2, 0.466_789)] {
            let p = probability(&head, head.population(), &rows[a], &rows[b]);
            assert!((p - expected).abs() < 1e-6, "{p} {expected}");
        }
    }

    #[test]
    fn equal_heads_are_one_head_of_their_common_weight() {
        let two: [&[f64]; 2] = [&[1.2, -0.4], &[-0.2, 0.9]];
        let three: [&[f64]; 2] = [&[1.2, 1.2, -0.4], &[-0.2, -0.2, 0.9]];
        let merged = weights(&adapted(&head(2, 1.0, 0.02), &two, &[0.6, 0.4]), &[0.6, 0.4]);
        let split = weights(&adapted(&head(3, 1.0, 0.02), &three, &[0.25, 0.35, 0.4]), &[0.25, 0.35, 0.4]);
        close([split[0] + split[1], split[2]], &[merged[0], merged[1]], 1e-6);
    }

    #[test]
    fn an_example_moves_log_odds_no_further_than_its_noise_allows() {
        let head = head(2, 1.5, 0.02);
        let user = adapted(&head, &[&[1e4, -1e4]], &[0.5, 0.5]);
        let moved = f64::from(user.mean()[0] - user.mean()[1]);
        assert!((moved - 1.5 * (0.98_f64 / 0.02).ln()).abs() < 1e-5);
    }

    #[test]
    fn information_is_how_far_an_answer_is_expected_to_move_the_weights() {
        // At eta = 1 the weights after an answer are Bayes' posterior: sum_y P(y) KL(w given y, w); tolerance 1e-6, in f32.
        let (head, f, d) = (head(3, 1.0, 0.0), [0.5, 0.3, 0.2], [1.2, -0.4, 0.1]);
        let user = adapted(&head, &[&[0.8, 0.5, -0.9]], &f);
        let (a, b) = (features(&d, &f), features(&[0.0; 3], &f));
        let before = weights(&user, &f);
        let expected: f64 = [1.0, -1.0]
            .into_iter()
            .map(|side| {
                let after = adapted(&head, &[&[0.8, 0.5, -0.9], &d.map(|d| side * d)], &f);
                let likelihoods = before.iter().zip(d).map(|(w, d)| w * sigmoid(side * d)).sum::<f64>();
                let moved =
                    weights(&after, &f).iter().zip(&before).map(|(v, w)| v * (v / w).ln()).sum::<f64>();
                likelihoods * moved
            })
            .sum();
        let row = |x: &Array1<f32>| x.clone().insert_axis(Axis(0));
        let information = |a: &Array1<f32>, b: &Array1<f32>, label_noise| {
            let calibration = Calibration { label_noise, moderated: false, ..Calibration::default() };
            head.information(user.view(), row(a).view(), row(b).view(), calibration).unwrap()[0]
        };
        assert!((information(&a, &b, 0.0) - expected).abs() < 1e-6, "{expected}");
        assert!(information(&a, &b, 0.1) < expected);
        // Heads that agree, or answers that are noise, leave the weights where they are.
        assert!(information(&features(&[0.7; 3], &f), &b, 0.0) < 1e-12);
        assert!(information(&a, &b, 0.5) < 1e-12);
    }

    #[test]
    fn sums_that_underflow_are_taken_in_logarithms() {
        let head = head(2, 1000.0, 0.0);
        let user = adapted(&head, &[&[1e4, -1e4]], &[0.5, 0.5]);
        let (a, b) = (array![3.0, -2.0, -1e4, 1e4, 0.0], array![0.0, 0.0, -1e4, 1e4, 0.0]);
        let moments =
            head.margins(&[user.view()], a.view().insert_axis(Axis(0)), b.view().insert_axis(Axis(0)));
        let moments = moments.unwrap();
        // The evidence, ten million, outweighs the router: the first head decides.
        assert!((moments.mean[[0, 0]] - 3.0).abs() < 1e-4, "{moments:?}");
        let reward = head.rewards(&[user.view()], a.view().insert_axis(Axis(0))).unwrap();
        assert!((reward.mean[[0, 0]] - 3.0).abs() < 1e-4, "{reward:?}");
    }
}
