//! What holds of every head, whatever its weights.

use std::f64::consts::LN_2;

use ndarray::{Array1, Array2, Axis, s};
use polyreward_domain::{HeadFamily, TextForm};
use polyreward_heads::{
    Activation, BradleyTerry, BtParameters, Calibration, Distance, FURTHEST_MEAN, FormInput, Head,
    IdealPoint, Layer, Lore, LoreParameters, Micro, MicroParameters, Mlp, Observation, PalA, PalAParameters,
    PalB, PalBParameters, SHARPEST_EXAMPLE, StateView, TextEmbeddings, TextInput, Trunk, UserState, Vpl,
    VplParameters, read_head, write_head,
};
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Sizes: embedding, latent, weights of a person.
#[derive(Clone, Copy)]
struct Sizes {
    dim: usize,
    latent: usize,
    weights: usize,
}

const SMALL: Sizes = Sizes { dim: 6, latent: 5, weights: 3 };

struct Maker {
    rng: ChaCha8Rng,
    sizes: Sizes,
}

impl Maker {
    fn matrix(&mut self, rows: usize, columns: usize) -> Array2<f32> {
        let scale = 3.0 / (columns.max(1) as f32).sqrt();
        Array2::from_shape_simple_fn((rows, columns), || self.rng.random_range(-scale..scale))
    }

    fn vector(&mut self, len: usize) -> Array1<f32> {
        Array1::from_shape_simple_fn(len, || self.rng.random_range(-0.5..0.5))
    }

    fn layer(&mut self, rows: usize, columns: usize) -> Layer {
        Layer { weight: self.matrix(rows, columns), bias: self.vector(rows) }
    }

    fn mlp(&mut self, sizes: [usize; 3]) -> Mlp {
        let layers = vec![self.layer(sizes[1], sizes[0]), self.layer(sizes[2], sizes[1])];
        Mlp::new(layers, Activation::Gelu).unwrap()
    }

    fn input(&mut self, forms: &[TextForm]) -> TextInput {
        let forms = forms.iter().map(|form| FormInput {
            form: *form,
            mean: self.vector(self.sizes.dim) * 0.1,
            scale: 0.3,
        });
        TextInput { forms: forms.collect() }
    }

    fn trunk(&mut self) -> Trunk {
        let input = self.input(&[TextForm::PromptResponse, TextForm::Response]);
        let hidden = Some(self.layer(self.sizes.latent, input.width()));
        Trunk { input, hidden, population: self.layer(1, self.sizes.latent) }
    }

    fn alpha(&mut self) -> Array1<f64> {
        self.vector(self.sizes.weights).mapv(|x| f64::from(x) + 0.7)
    }

    fn pal_a(&mut self, distance: Distance, ideal_point: IdealPoint) -> PalA {
        let trunk = self.trunk();
        let width = match ideal_point {
            IdealPoint::MixturePoints => trunk.latent_len(),
            IdealPoint::ProjectedMixture => trunk.input.width(),
        };
        PalA::new(PalAParameters {
            prototypes: self.matrix(self.sizes.weights, width),
            trunk,
            scale: 1.5,
            alpha: self.alpha(),
            label_noise: 0.02,
            distance,
            ideal_point,
        })
        .unwrap()
    }

    fn pal_b(&mut self, normalised: bool) -> PalB {
        let trunk = self.trunk();
        let (response, prompt) = (self.input(&[TextForm::Response]), self.input(&[TextForm::Prompt]));
        let Sizes { dim, latent, weights } = self.sizes;
        PalB::new(PalBParameters {
            trunk,
            response,
            prompt,
            item: self.mlp([dim, latent, 4]),
            prompts: self.mlp([dim, latent, 4 * weights]),
            scale: 3.0,
            alpha: self.alpha(),
            label_noise: 0.02,
            normalised,
        })
        .unwrap()
    }

    fn heads(&mut self) -> Vec<Box<dyn Head>> {
        let Sizes { dim, latent, weights } = self.sizes;
        let trunk = self.trunk();
        let basis = self.matrix(weights, trunk.input.width());
        let lore = Lore::new(LoreParameters { trunk, basis, label_noise: 0.02 }).unwrap();
        let vpl = VplParameters {
            trunk: self.trunk(),
            encoder: self.mlp([2 * latent, 7, 2 * weights]),
            text: self.layer(8, latent),
            latent: self.matrix(8, weights),
            output: self.vector(8),
        };
        let micro = MicroParameters {
            trunk: self.trunk(),
            heads: self.layer(weights, latent),
            router_input: self.input(&[TextForm::Prompt]),
            router: self.layer(weights, dim),
            temperature: 0.7,
            label_noise: 0.02,
        };
        vec![
            Box::new(lore),
            Box::new(self.pal_a(Distance::Squared, IdealPoint::MixturePoints)),
            Box::new(self.pal_a(Distance::Plain, IdealPoint::MixturePoints)),
            Box::new(self.pal_a(Distance::Plain, IdealPoint::ProjectedMixture)),
            Box::new(self.pal_b(false)),
            Box::new(self.pal_b(true)),
            Box::new(Vpl::new(vpl).unwrap()),
            Box::new(Micro::new(micro).unwrap()),
        ]
    }

    /// Features of responses, two to a prompt.
    fn features(&mut self, head: &dyn Head, responses: usize) -> Array2<f32> {
        let [joint, response] = [0, 1].map(|_| self.matrix(responses, self.sizes.dim));
        let mut prompt = self.matrix(responses, self.sizes.dim);
        for row in (1..responses).step_by(2) {
            let (first, mut second) = prompt.multi_slice_mut((s![row - 1, ..], s![row, ..]));
            second.assign(&first);
        }
        let texts = TextEmbeddings::default()
            .with(TextForm::PromptResponse, joint.view())
            .with(TextForm::Prompt, prompt.view())
            .with(TextForm::Response, response.view());
        head.features(&texts).unwrap()
    }
}

fn maker(seed: u64) -> Maker {
    Maker { rng: ChaCha8Rng::seed_from_u64(seed), sizes: SMALL }
}

/// Every head with features of twelve responses to six prompts.
fn worlds(seed: u64) -> Vec<(Box<dyn Head>, Array2<f32>)> {
    let mut maker = maker(seed);
    let heads = maker.heads();
    heads
        .into_iter()
        .map(|head| (maker.features(head.as_ref(), 12), head))
        .map(|(x, head)| (head, x))
        .collect()
}

fn example(features: &Array2<f32>, chosen: usize, rejected: usize) -> Observation<'_> {
    Observation {
        chosen: features.row(chosen),
        rejected: features.row(rejected),
        names: [chosen as u64, rejected as u64],
        strength: 1.0,
        label_confidence: 1.0,
    }
}

/// The first response of each of the first `n` prompts over the second.
fn firsts(features: &Array2<f32>, n: usize) -> Vec<Observation<'_>> {
    (0..n).map(|at| example(features, 2 * at, 2 * at + 1)).collect()
}

/// Mean and variance of the margin of two responses.
fn margin(head: &dyn Head, user: &UserState, features: &Array2<f32>, a: usize, b: usize) -> (f64, f64) {
    let row = |at: usize| features.row(at).insert_axis(Axis(0));
    let moments = head.margins(&[user.view()], row(a), row(b)).unwrap();
    (f64::from(moments.mean[[0, 0]]), f64::from(moments.variance[[0, 0]]))
}

fn near(a: &UserState, b: &UserState) -> bool {
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * (1.0 + a.abs());
    a.mean().iter().zip(&b.mean()).all(close) && a.covariance().iter().zip(&b.covariance()).all(close)
}

#[test]
fn no_example_or_none_that_says_anything_is_exactly_the_population() {
    for (head, features) in worlds(1) {
        let adapted = head.adapt(&[], None).unwrap();
        assert_eq!(&adapted, head.population());
        let unsaid = [
            Observation { label_confidence: 0.5, ..example(&features, 0, 1) },
            Observation { strength: 0.0, ..example(&features, 2, 3) },
        ];
        let adapted = head.adapt(&unsaid, None).unwrap();
        assert_eq!(adapted, head.population().clone().with_examples(2));
    }
}

#[test]
fn the_order_of_examples_is_nothing() {
    for (head, features) in worlds(2) {
        let mut examples = firsts(&features, 6);
        let first = head.adapt(&examples, None).unwrap();
        examples.reverse();
        assert_eq!(head.adapt(&examples, None).unwrap(), first);
        examples.rotate_left(2);
        assert_eq!(head.adapt(&examples, None).unwrap(), first, "{}", head.family());
    }
}

#[test]
fn an_example_said_twice_is_said_once() {
    for (head, features) in worlds(3) {
        let mut examples = firsts(&features, 3);
        let once = head.adapt(&examples, None).unwrap();
        // Embedded again, beside other texts: the same comparison though its last bits differ.
        let again = examples[1].chosen.mapv(|x| x * (1.0 + f32::EPSILON));
        examples.push(Observation { chosen: again.view(), strength: 0.9, ..examples[1] });
        examples.push(Observation { strength: 0.5, ..examples[0] });
        assert_eq!(head.adapt(&examples, None).unwrap(), once.with_examples(5), "{}", head.family());
    }
}

#[test]
fn different_examples_that_look_alike_to_the_head_are_two() {
    for (head, features) in worlds(3) {
        let mut examples = firsts(&features, 4);
        let once = head.adapt(&examples, None).unwrap();
        examples.extend(
            firsts(&features, 4).into_iter().map(|e| Observation { names: e.names.map(|n| n + 100), ..e }),
        );
        let twice = head.adapt(&examples, None).unwrap();
        assert_ne!(twice, once.with_examples(8), "{}", head.family());
    }
}

#[test]
fn an_answer_tells_of_its_person_at_most_one_bit_whichever_response_comes_first() {
    for seed in 20..30 {
        for (head, features) in worlds(seed) {
            let (a, b) = (features.slice(s![0..;2, ..]), features.slice(s![1..;2, ..]));
            for user in [head.population().clone(), head.adapt(&firsts(&features, 4), None).unwrap()] {
                let calibration =
                    Calibration { temperature: 1.7, label_noise: 0.03, ..Calibration::default() };
                let gains = |a, b| head.information(user.view(), a, b, calibration).unwrap();
                let there = gains(a, b);
                assert!(there.iter().all(|gain| (0.0..LN_2).contains(gain)), "{} {there}", head.family());
                assert!(there.iter().any(|gain| *gain > 1e-6), "{} {there}", head.family());
                assert_eq!(there, gains(b, a), "{}", head.family());
                assert!(gains(a, a).iter().all(|gain| *gain < 1e-12), "{}", head.family());
                let coin = Calibration { label_noise: 0.5, ..calibration };
                assert!(head.information(user.view(), a, b, coin).unwrap().iter().all(|gain| *gain < 1e-12));
            }
            assert!(
                head.information(head.population().view(), a, b.slice(s![1.., ..]), Calibration::default())
                    .is_err()
            );
        }
    }
}

#[test]
fn one_reward_for_all_learns_nothing_of_anybody() {
    let trunk = maker(9).trunk();
    let latent = trunk.latent_len();
    let head =
        BradleyTerry::new(BtParameters { trunk, weights_covariance: Some(Array2::eye(latent)) }).unwrap();
    let features = maker(10).features(&head, 4);
    let (a, b) = (features.slice(s![0..;2, ..]), features.slice(s![1..;2, ..]));
    assert!(head.margins(&[head.population().view()], a, b).unwrap().variance.iter().all(|v| *v > 0.0));
    let gains = head.information(head.population().view(), a, b, Calibration::default()).unwrap();
    assert_eq!(gains.to_vec(), [0.0; 2]);
}

#[test]
fn one_example_moves_a_vpl_latent_no_further_than_stated() {
    let mut maker = maker(8);
    let Sizes { latent, weights, .. } = maker.sizes;
    let huge = |layer: Layer| Layer { weight: layer.weight * 1e4, bias: layer.bias * 1e4 };
    let layers = vec![maker.layer(7, 2 * latent), huge(maker.layer(2 * weights, 7))];
    let head = Vpl::new(VplParameters {
        trunk: maker.trunk(),
        encoder: Mlp::new(layers, Activation::Gelu).unwrap(),
        text: maker.layer(8, latent),
        latent: maker.matrix(8, weights),
        output: maker.vector(8),
    })
    .unwrap();
    let features = maker.features(&head, 2);
    for strength in [0.5, 1.0, 4.0] {
        let user = head.adapt(&[Observation { strength, ..example(&features, 0, 1) }], None).unwrap();
        let sharpest = SHARPEST_EXAMPLE * strength;
        let bound = FURTHEST_MEAN * sharpest / (1.0 + sharpest);
        let furthest = user.mean().iter().fold(0.0_f64, |far, z| far.max(f64::from(z.abs())));
        assert!(furthest <= bound * (1.0 + 1e-6) && furthest > bound / 2.0, "{furthest} {bound}");
    }
}

#[test]
fn strength_and_confidence_count() {
    for (head, features) in worlds(4) {
        let moved = |strength: f64, label_confidence: f64| {
            let example = Observation { strength, label_confidence, ..example(&features, 0, 1) };
            let user = head.adapt(&[example], None).unwrap();
            margin(head.as_ref(), &user, &features, 0, 1).0
        };
        let nobody = margin(head.as_ref(), head.population(), &features, 0, 1).0;
        let family = head.family();
        if family == HeadFamily::Vpl {
            // An untrained encoder may read an example either way: only how far is known.
            let distance = |strength, confidence| (moved(strength, confidence) - nobody).abs();
            assert!(distance(1.0, 0.7) > 0.0 && moved(1.0, 0.7) != moved(1.0, 1.0));
        } else {
            assert!(moved(1.0, 1.0) > moved(0.3, 1.0) && moved(0.3, 1.0) > nobody, "{family}");
            assert!(moved(1.0, 1.0) > moved(1.0, 0.8) && moved(1.0, 0.8) > nobody, "{family}");
            assert!(moved(1.0, 0.1) < nobody, "{family}");
        }
        let swapped = Observation { label_confidence: 0.2, ..example(&features, 1, 0) };
        let plain = Observation { label_confidence: 1.0 - 0.2, ..example(&features, 0, 1) };
        assert_eq!(head.adapt(&[swapped], None).unwrap(), head.adapt(&[plain], None).unwrap(), "{family}");
    }
}

#[test]
fn contradictions_leave_an_answer_less_sure_than_agreement() {
    // Of the answer to a pair that nobody but the person could know. Under a Gaussian prior and to first order
    // Var p = p'^2 z^2 / (1 + n z^2 p'), which grows with the slope p' of the sigmoid: largest where votes cancel. First
    // order is votes of ordinary strength at z of length 1; many strong votes that cancel do say that a person is
    // indifferent. On the simplex and among heads, votes that agree end at a vertex, where nothing is left open.
    for (head, features) in worlds(5) {
        if head.family() == HeadFamily::Vpl {
            continue; // an untrained encoder may read anything; see the next test
        }
        let spread =
            |pair: &usize| margin(head.as_ref(), head.population(), &features, 2 * pair, 2 * pair + 1).1;
        let pair = (0..6).max_by(|a, b| spread(a).total_cmp(&spread(b))).unwrap();
        let mut pair = features.slice(s![2 * pair..2 * pair + 2, ..]).to_owned();
        let gaussian = head.family() == HeadFamily::Lore;
        if gaussian {
            pair /= margin(head.as_ref(), head.population(), &pair, 0, 1).1.sqrt() as f32;
        }
        // The last feature is the common quality: it makes the pair even for everybody else.
        for _ in 0..20 {
            let even = margin(head.as_ref(), head.population(), &pair, 0, 1).0 as f32;
            pair[[0, head.feature_len() - 1]] -= even / 2.0;
        }
        // One more pair that is almost this one: the same comparison, but not the same vote.
        let close = ndarray::concatenate![Axis(0), pair, &pair * 1.001];
        let ask = |examples: [Observation<'_>; 2]| {
            let strength = if gaussian { 1.0 } else { 20.0 };
            let examples = examples.map(|example| Observation { strength, ..example });
            let user = head.adapt(&examples, None).unwrap();
            let (mean, variance) = margin(head.as_ref(), &user, &close, 0, 1);
            Calibration::default().preference(mean, variance).uncertainty
        };
        let agree = ask([example(&close, 0, 1), example(&close, 2, 3)]);
        let contradict = ask([example(&close, 0, 1), example(&close, 3, 2)]);
        assert!(contradict > agree, "{} {contradict} {agree}", head.family());
    }
}

#[test]
fn contradictions_leave_a_latent_where_answers_are_open() {
    // By hand, one number each: h is the text, the encoder reads m = h_c - h_r at constant precision (as
    // gelu(d) - gelu(-d) = d), the reward is leaky(h + z) - leaky(-h + z) - 1.2 h. So z = 0 says nothing of a pair.
    let layer = |weight: Array2<f32>| Layer { bias: Array1::zeros(weight.nrows()), weight };
    let mut precise = layer(ndarray::array![[1.0, -1.0], [0.0, 0.0]]);
    precise.bias[1] = 3.0;
    let form = FormInput { form: TextForm::Response, mean: Array1::zeros(1), scale: 1.0 };
    let head = Vpl::new(VplParameters {
        trunk: Trunk {
            input: TextInput { forms: vec![form] },
            hidden: None,
            population: layer(ndarray::array![[-1.2]]),
        },
        encoder: Mlp::new(vec![layer(ndarray::array![[1.0, 0.0], [-1.0, 0.0]]), precise], Activation::Gelu)
            .unwrap(),
        text: layer(ndarray::array![[1.0], [-1.0]]),
        latent: ndarray::array![[1.0], [1.0]],
        output: ndarray::array![1.0, -1.0],
    })
    .unwrap();
    let features = Array2::from_shape_fn((4, 4), |(row, at)| {
        [1.0, 1.0, -1.0, -1.2][at] * [1.0, -1.0, 1.001, -1.001][row]
    });
    let ask = |examples: &[Observation<'_>]| {
        let user = head.adapt(examples, None).unwrap();
        let (mean, variance) = margin(&head, &user, &features, 0, 1);
        (mean, Calibration::default().preference(mean, variance).uncertainty)
    };
    let (for_first, agree) = ask(&[example(&features, 0, 1), example(&features, 2, 3)]);
    let (neither, contradict) = ask(&[example(&features, 0, 1), example(&features, 3, 2)]);
    let (against, _) = ask(&[example(&features, 1, 0), example(&features, 3, 2)]);
    assert!(for_first > 1.0 && neither.abs() < 0.01 && against < -1.0, "{for_first} {neither} {against}");
    assert!(contradict > agree, "{contradict} {agree}");
    let half = ask(&[Observation { label_confidence: 0.55, ..example(&features, 0, 1) }]).0;
    assert!(0.0 < half && half < ask(&[example(&features, 0, 1)]).0);
}

#[test]
fn rewards_of_many_people_are_those_of_each() {
    for (head, features) in worlds(6) {
        let users: Vec<_> = (0..4).map(|n| head.adapt(&firsts(&features, n), None).unwrap()).collect();
        let all: Vec<StateView<'_>> = users.iter().map(UserState::view).collect();
        let together = head.rewards(&all, features.view()).unwrap();
        for (u, user) in users.iter().enumerate() {
            for r in 0..features.nrows() {
                let alone = head.rewards(&[user.view()], features.slice(s![r..=r, ..])).unwrap();
                let close = |a: f32, b: f32| (a - b).abs() <= 1e-4 * (1.0 + a.abs());
                assert!(close(alone.mean[[0, 0]], together.mean[[u, r]]), "{}", head.family());
                assert!(close(alone.variance[[0, 0]], together.variance[[u, r]]), "{}", head.family());
            }
        }
    }
}

#[test]
fn mean_rewards_are_the_means_of_rewards() {
    for (head, features) in worlds(6) {
        let adapted = head.adapt(&firsts(&features, 3), None).unwrap();
        let users = [adapted.view(), head.population().view()];
        let (alone, both) = (
            head.mean_rewards(&users, features.view()).unwrap(),
            head.rewards(&users, features.view()).unwrap().mean,
        );
        for (alone, both) in alone.iter().zip(&both) {
            assert!((alone - both).abs() <= 1e-5 * (1.0 + both.abs()), "{}: {alone} {both}", head.family());
        }
    }
}

#[test]
fn pairs_are_rewards_and_margins_however_many_there_are() {
    for (head, features) in worlds(6) {
        let adapted = head.adapt(&firsts(&features, 3), None).unwrap();
        let users = [adapted.view(), head.population().view(), adapted.view()];
        let many = ndarray::concatenate![Axis(0), features, features];
        for features in [features, many] {
            let (a, b) = (features.slice(s![..;2, ..]), features.slice(s![1..;2, ..]));
            let (pairs, back) = (head.pairs(&users, a, b).unwrap(), head.pairs(&users, b, a).unwrap());
            let margins = head.margins(&users, a, b).unwrap();
            let close = |(x, y): (&f32, &f32)| (x - y).abs() <= 1e-5 * (1.0 + y.abs());
            for (found, expected) in [
                (&pairs.reward_a, head.mean_rewards(&users, a).unwrap()),
                (&pairs.reward_b, head.mean_rewards(&users, b).unwrap()),
                (&pairs.margin.mean, margins.mean),
                (&pairs.margin.variance, margins.variance),
            ] {
                assert!(found.iter().zip(&expected).all(close), "{}: {found} {expected}", head.family());
            }
            assert_eq!(pairs.margin.mean, -back.margin.mean, "{}", head.family());
            assert_eq!(pairs.margin.variance, back.margin.variance, "{}", head.family());
        }
        let (a, b) = (features_of(head.as_ref(), 2), features_of(head.as_ref(), 1));
        assert!(head.pairs(&users, a.view(), b.view()).is_err());
    }
}

fn features_of(head: &dyn Head, rows: usize) -> Array2<f32> {
    Array2::zeros((rows, head.feature_len()))
}

#[test]
fn a_margin_is_the_difference_of_rewards_where_rewards_are_exact() {
    for (head, features) in worlds(7) {
        if head.family() == HeadFamily::Micro {
            continue;
        }
        let user = head.adapt(&firsts(&features, 3), None).unwrap();
        let rewards = head.rewards(&[user.view()], features.view()).unwrap().mean;
        let difference = f64::from(rewards[[0, 8]] - rewards[[0, 9]]);
        assert!((margin(head.as_ref(), &user, &features, 8, 9).0 - difference).abs() < 1e-4);
    }
}

#[test]
fn a_search_that_starts_elsewhere_ends_in_the_same_place() {
    for (head, features) in worlds(8) {
        let examples = firsts(&features, 5);
        let cold = head.adapt(&examples, None).unwrap();
        for start in [&cold, &head.adapt(&firsts(&features, 2), None).unwrap()] {
            assert!(near(&head.adapt(&examples, Some(start)).unwrap(), &cold), "{}", head.family());
        }
    }
}

#[test]
fn extreme_features_leave_finite_numbers() {
    for (head, features) in worlds(9) {
        // Scaled together, so that the Gram matrices among them stay what they are.
        let largest = features.fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let features = features * (1e4 / largest);
        let mut examples = firsts(&features, 6);
        examples.push(example(&features, 1, 0));
        let user = head.adapt(&examples, None).unwrap();
        for (a, b) in [(0, 1), (4, 2), (9, 3)] {
            let (mean, variance) = margin(head.as_ref(), &user, &features, a, b);
            assert!(mean.is_finite() && variance.is_finite() && variance >= 0.0, "{}", head.family());
        }
        let rewards = head.rewards(&[user.view()], features.view()).unwrap();
        assert!(rewards.mean.iter().chain(&rewards.variance).all(|x| x.is_finite()), "{}", head.family());
    }
}

#[test]
fn a_head_reads_back_from_its_bytes_and_from_no_others() {
    let mut plain = maker(10);
    let trunk = Trunk { hidden: None, ..plain.trunk() };
    let trunk = Trunk { population: plain.layer(1, trunk.input.width()), ..trunk };
    let linear = BradleyTerry::new(BtParameters { trunk, weights_covariance: None }).unwrap();
    let features = plain.features(&linear, 12);
    let linear: Box<dyn Head> = Box::new(linear);
    for (head, features) in worlds(10).into_iter().chain([(linear, features)]) {
        let (hyper, bytes) = write_head(head.as_ref(), &features).unwrap();
        let loaded = read_head(head.family(), &hyper, &bytes).unwrap();
        assert_eq!(loaded.head.population(), head.population());
        assert_eq!(loaded.reference_features, features);
        let examples = firsts(&features, 4);
        let user = head.adapt(&examples, None).unwrap();
        assert_eq!(loaded.head.adapt(&examples, None).unwrap(), user);
        let rewards = head.rewards(&[user.view()], features.view()).unwrap();
        assert_eq!(loaded.head.rewards(&[user.view()], features.view()).unwrap(), rewards);
        assert_eq!(write_head(loaded.head.as_ref(), &features).unwrap(), (hyper.clone(), bytes.clone()));
        assert_eq!(loaded.head.text_forms(), head.text_forms());

        assert!(read_head(head.family(), &serde_json::json!({}), &bytes).is_err());
        assert!(read_head(head.family(), &hyper, &bytes[..bytes.len() - 4]).is_err());
        for other in HeadFamily::ALL.into_iter().filter(|other| *other != head.family()) {
            assert!(read_head(other, &hyper, &bytes).is_err());
        }
        // One tensor after another with a row or number too many.
        for name in head.tensors().arrays.into_keys() {
            let mut tensors = head.tensors();
            let array = &tensors.arrays[&name];
            let longer =
                ndarray::concatenate(Axis(0), &[array.view(), array.slice_axis(Axis(0), (0..1).into())]);
            tensors.arrays.insert(name.clone(), longer.unwrap());
            let corrupted = Corrupted { head: head.as_ref(), tensors };
            let (hyper, bytes) = write_head(&corrupted, &features).unwrap();
            assert!(read_head(head.family(), &hyper, &bytes).is_err(), "{} {name}", head.family());
        }
    }
}

/// A head that writes other tensors than its own.
#[derive(Debug)]
struct Corrupted<'a> {
    head: &'a dyn Head,
    tensors: polyreward_heads::Tensors,
}

impl Head for Corrupted<'_> {
    fn family(&self) -> HeadFamily {
        self.head.family()
    }
    fn text_forms(&self) -> polyreward_domain::TextForms {
        self.head.text_forms()
    }
    fn embedding_dim(&self) -> usize {
        self.head.embedding_dim()
    }
    fn feature_len(&self) -> usize {
        self.head.feature_len()
    }
    fn is_personal(&self) -> bool {
        self.head.is_personal()
    }
    fn features(&self, texts: &TextEmbeddings<'_>) -> Result<Array2<f32>, polyreward_heads::HeadError> {
        self.head.features(texts)
    }
    fn population(&self) -> &UserState {
        self.head.population()
    }
    fn adapt(
        &self,
        examples: &[Observation<'_>],
        start: Option<&UserState>,
    ) -> Result<UserState, polyreward_heads::HeadError> {
        self.head.adapt(examples, start)
    }
    fn rewards(
        &self,
        users: &[StateView<'_>],
        features: ndarray::ArrayView2<'_, f32>,
    ) -> Result<polyreward_heads::Moments, polyreward_heads::HeadError> {
        self.head.rewards(users, features)
    }
    fn margins(
        &self,
        users: &[StateView<'_>],
        a: ndarray::ArrayView2<'_, f32>,
        b: ndarray::ArrayView2<'_, f32>,
    ) -> Result<polyreward_heads::Moments, polyreward_heads::HeadError> {
        self.head.margins(users, a, b)
    }
    fn tensors(&self) -> polyreward_heads::Tensors {
        self.tensors.clone()
    }
}

#[test]
fn the_vpl_latent_hears_the_order_of_a_pair_and_sharpens_with_each() {
    for (head, features) in worlds(11).into_iter().filter(|(head, _)| head.family() == HeadFamily::Vpl) {
        let there = head.adapt(&[example(&features, 0, 1)], None).unwrap();
        let back = head.adapt(&[example(&features, 1, 0)], None).unwrap();
        assert_ne!(there.mean(), back.mean());
        let mut before = head.population().clone();
        assert!(before.mean().iter().all(|m| *m == 0.0) && before.covariance() == Array2::<f32>::eye(3));
        for n in 1..=6 {
            let after = head.adapt(&firsts(&features, n), None).unwrap();
            assert!(after.variances().iter().zip(&before.variances()).all(|(a, b)| a < b));
            before = after;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_swapped_margin_changes_its_sign_and_nothing_else(seed in 0..1000_u64, n in 0..6_usize) {
        for (head, features) in worlds(seed) {
            let users: Vec<_> = (0..=n).map(|n| head.adapt(&firsts(&features, n), None).unwrap()).collect();
            let users: Vec<StateView<'_>> = users.iter().map(UserState::view).collect();
            let (a, b) = (features.slice(s![..;2, ..]), features.slice(s![1..;2, ..]));
            let (there, back) = (head.margins(&users, a, b).unwrap(), head.margins(&users, b, a).unwrap());
            prop_assert_eq!(there.mean, -back.mean);
            prop_assert_eq!(there.variance, back.variance);
        }
    }

    /// `|w| <= sum strength |z|` under `N(0, I)`: a reward `w . x` moves by at most `strength |z| |x|` for an example.
    #[test]
    fn an_example_moves_a_reward_no_further_than_it_is_strong(
        seed in 0..1000_u64, strength in 0.1..5.0_f64, scale in 0.1..30.0_f32,
    ) {
        let mut maker = maker(seed);
        let trunk = maker.trunk();
        let basis = maker.matrix(3, trunk.input.width()) * scale;
        let head = Lore::new(LoreParameters { trunk, basis, label_noise: 0.0 }).unwrap();
        let features = maker.features(&head, 4);
        let user = head.adapt(&[Observation { strength, ..example(&features, 0, 1) }], None).unwrap();
        let length = |x: Array1<f32>| f64::from(x.dot(&x)).sqrt();
        let z = &features.slice(s![0, ..3]) - &features.slice(s![1, ..3]);
        prop_assert!(length(user.mean().to_owned()) <= strength * length(z) * (1.0 + 1e-5));
    }

    /// No weight falls below `alpha_k / (sum alpha + strength (max z - min z))`: one example rules no prototype out.
    #[test]
    fn an_example_rules_no_prototype_out(seed in 0..1000_u64, strength in 0.1..5.0_f64) {
        let mut maker = maker(seed);
        let head = maker.pal_a(Distance::Squared, IdealPoint::MixturePoints);
        let features = maker.features(&head, 4);
        let user = head.adapt(&[Observation { strength, ..example(&features, 0, 1) }], None).unwrap();
        let alpha = head.tensors().arrays.remove("alpha").unwrap().mapv(f64::from);
        let z = (&features.slice(s![0, ..3]) - &features.slice(s![1, ..3])).mapv(f64::from);
        let (low, high) = z.iter().fold((f64::MAX, f64::MIN), |(l, h), z| (l.min(*z), h.max(*z)));
        for (w, alpha) in user.mean().iter().zip(&alpha) {
            let total = f64::from(head.tensors().arrays["alpha"].sum());
            let least = alpha / (total + strength * (high - low));
            prop_assert!(f64::from(*w) >= least * (1.0 - 1e-4), "{w} {least}");
        }
    }
}
