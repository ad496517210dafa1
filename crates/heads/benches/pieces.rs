//! What each head does: features of texts, margins of pairs, a person's state from eight examples; and calibration.
//!
//! Heads of the sizes that `polyreward train` makes for MiniLM, with random weights: what they cost does not depend on what
//! they believe.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array1, Array2, s};
use polyreward_domain::TextForm;
use polyreward_heads::{
    Activation, BradleyTerry, BtParameters, Calibration, Distance, FormInput, Head, IdealPoint, Layer, Lore,
    LoreParameters, Micro, MicroParameters, Mlp, Observation, PalA, PalAParameters, PalB, PalBParameters,
    StateView, TextEmbeddings, TextInput, Trunk, Vpl, VplParameters,
};
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Of MiniLM.
const EMBEDDING: usize = 384;
const LATENT: usize = 64;
/// Prototypes, rank or heads.
const WEIGHTS: usize = 16;
/// Hidden units of VPL's encoder and decoder.
const HIDDEN: usize = 128;
/// Texts that features are computed of at once.
const TEXTS: usize = 64;
/// Examples of a person.
const EXAMPLES: usize = 8;
/// People asked for at once.
const PEOPLE: usize = 1000;

const SIZES_FIT: &str = "the sizes fit together";

struct Maker(ChaCha8Rng);

impl Maker {
    fn matrix(&mut self, rows: usize, columns: usize) -> Array2<f32> {
        let scale = 3.0 / (columns.max(1) as f32).sqrt();
        Array2::from_shape_simple_fn((rows, columns), || self.0.random_range(-scale..scale))
    }

    fn vector(&mut self, len: usize) -> Array1<f32> {
        Array1::from_shape_simple_fn(len, || self.0.random_range(-0.5..0.5))
    }

    fn layer(&mut self, rows: usize, columns: usize) -> Layer {
        Layer { weight: self.matrix(rows, columns), bias: self.vector(rows) }
    }

    fn mlp(&mut self, sizes: [usize; 3]) -> Mlp {
        let layers = vec![self.layer(sizes[1], sizes[0]), self.layer(sizes[2], sizes[1])];
        Mlp::new(layers, Activation::Gelu).expect(SIZES_FIT)
    }

    fn input(&mut self, form: TextForm) -> TextInput {
        TextInput { forms: vec![FormInput { form, mean: self.vector(EMBEDDING) * 0.1, scale: 0.3 }] }
    }

    fn trunk(&mut self) -> Trunk {
        let input = self.input(TextForm::PromptResponse);
        let hidden = Some(self.layer(LATENT, input.width()));
        Trunk { input, hidden, population: self.layer(1, LATENT) }
    }

    fn alpha(&mut self) -> Array1<f64> {
        self.vector(WEIGHTS).mapv(|x| f64::from(x) + 0.7)
    }

    fn heads(&mut self) -> Vec<Box<dyn Head>> {
        let weights_covariance = Some(Array2::eye(LATENT) * 0.01);
        let bt = BtParameters { trunk: self.trunk(), weights_covariance };
        let basis = self.matrix(WEIGHTS, EMBEDDING);
        let lore = LoreParameters { trunk: self.trunk(), basis, label_noise: 0.02 };
        let pal_a = PalAParameters {
            trunk: self.trunk(),
            prototypes: self.matrix(WEIGHTS, LATENT),
            scale: 1.5,
            alpha: self.alpha(),
            label_noise: 0.02,
            distance: Distance::Squared,
            ideal_point: IdealPoint::MixturePoints,
        };
        let pal_b = PalBParameters {
            trunk: self.trunk(),
            response: self.input(TextForm::Response),
            prompt: self.input(TextForm::Prompt),
            item: self.mlp([EMBEDDING, LATENT, LATENT]),
            prompts: self.mlp([EMBEDDING, LATENT, LATENT * WEIGHTS]),
            scale: 3.0,
            alpha: self.alpha(),
            label_noise: 0.02,
            normalised: true,
        };
        let vpl = VplParameters {
            trunk: self.trunk(),
            encoder: self.mlp([2 * LATENT, HIDDEN, 2 * WEIGHTS]),
            text: self.layer(HIDDEN, LATENT),
            latent: self.matrix(HIDDEN, WEIGHTS),
            output: self.vector(HIDDEN),
        };
        let micro = MicroParameters {
            trunk: self.trunk(),
            heads: self.layer(WEIGHTS, LATENT),
            router_input: self.input(TextForm::Prompt),
            router: self.layer(WEIGHTS, EMBEDDING),
            temperature: 0.7,
            label_noise: 0.02,
        };
        vec![
            Box::new(BradleyTerry::new(bt).expect(SIZES_FIT)),
            Box::new(Lore::new(lore).expect(SIZES_FIT)),
            Box::new(PalA::new(pal_a).expect(SIZES_FIT)),
            Box::new(PalB::new(pal_b).expect(SIZES_FIT)),
            Box::new(Vpl::new(vpl).expect(SIZES_FIT)),
            Box::new(Micro::new(micro).expect(SIZES_FIT)),
        ]
    }
}

/// The first of two responses to each of some prompts over the second.
fn examples(features: &Array2<f32>, count: usize) -> Vec<Observation<'_>> {
    (0..count)
        .map(|at| Observation {
            chosen: features.row(2 * at),
            rejected: features.row(2 * at + 1),
            names: [2 * at as u64, 2 * at as u64 + 1],
            strength: 1.0,
            label_confidence: 1.0,
        })
        .collect()
}

fn heads(criterion: &mut Criterion) {
    let mut maker = Maker(ChaCha8Rng::seed_from_u64(1));
    let forms = [TextForm::PromptResponse, TextForm::Prompt, TextForm::Response];
    let embeddings = forms.map(|form| (form, maker.matrix(TEXTS, EMBEDDING)));
    let texts = embeddings
        .iter()
        .fold(TextEmbeddings::default(), |texts, (form, rows)| texts.with(*form, rows.view()));
    for head in maker.heads() {
        let name = head.family();
        let features = head.features(&texts).expect(SIZES_FIT);
        let examples = examples(&features, EXAMPLES);
        let (a, b) = (features.slice(s![0..1, ..]), features.slice(s![1..2, ..]));
        let known = head.adapt(&examples, None).expect(SIZES_FIT);
        let people: Vec<StateView<'_>> = vec![known.view(); PEOPLE];

        let mut group = criterion.benchmark_group("features");
        group.throughput(Throughput::Elements(TEXTS as u64));
        group.bench_function(format!("{name}, {TEXTS} texts"), |bencher| {
            bencher.iter(|| head.features(black_box(&texts)).expect(SIZES_FIT));
        });
        group.finish();
        let mut group = criterion.benchmark_group("pairs");
        for people in [&people[..1], &people[..]] {
            group.throughput(Throughput::Elements(people.len() as u64));
            group.bench_function(format!("{name}, {} people", people.len()), |bencher| {
                bencher.iter(|| head.pairs(black_box(people), a, b).expect(SIZES_FIT));
            });
        }
        group.finish();
        if head.is_personal() {
            criterion.bench_function(&format!("adapt/{name}, {EXAMPLES} examples"), |bencher| {
                bencher.iter(|| head.adapt(black_box(&examples), None).expect(SIZES_FIT));
            });
        }
    }
}

fn calibration(criterion: &mut Criterion) {
    let calibration = Calibration { temperature: 1.7, label_noise: 0.03, ..Calibration::default() };
    criterion.bench_function("calibration/preference", |bencher| {
        bencher.iter(|| calibration.preference(black_box(0.8), black_box(0.3)));
    });
}

criterion_group!(benches, heads, calibration);
criterion_main!(benches);
