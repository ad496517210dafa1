//! What can be configured about training; every default was chosen on held-out people.

use polyreward_domain::{HeadFamily, TextForm, TextForms};
use polyreward_heads::{Distance, IdealPoint};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::TrainingError;

/// How heads are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Comparisons that one person may bring; of more, so many are drawn by the seed, and the others are not read.
    pub max_comparisons_per_user: usize,
    /// What all heads share.
    pub episodes: EpisodeConfig,
    /// The LoRe head.
    pub lore: LoreConfig,
    /// The PAL-A head.
    pub pal_a: PalAConfig,
    /// The PAL-B head.
    pub pal_b: PalBConfig,
    /// The VPL head.
    pub vpl: VplConfig,
    /// The MiCRo head.
    pub micro: MicroConfig,
}

/// What one person may bring: far more than people do by hand, and far less than a script can.
const MAX_COMPARISONS_PER_USER: usize = 1000;

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            max_comparisons_per_user: MAX_COMPARISONS_PER_USER,
            episodes: EpisodeConfig::default(),
            lore: LoreConfig::default(),
            pal_a: PalAConfig::default(),
            pal_b: PalBConfig::default(),
            vpl: VplConfig::default(),
            micro: MicroConfig::default(),
        }
    }
}

/// How episodes are drawn and learned from. In an episode a head is shown some of a person's comparisons, and the loss is
/// that of what it then predicts for the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EpisodeConfig {
    /// Which embeddings the common quality (and what rests on it) reads; by default chosen on held-out people among the
    /// prompt with the response, the response alone, and both.
    pub text_forms: Option<Vec<TextForm>>,
    /// Passes over the people; by default 20, and of fewer than 350 people as many as show a network 7000 people, but no
    /// more than 80: a latent that is worth reading takes so many to find.
    pub epochs: Option<usize>,
    /// People in a step.
    pub people: usize,
    /// Episodes of each person in a step.
    pub draws: usize,
    /// Examples shown in an episode at most.
    pub examples: usize,
    /// Comparisons of one person in a step at most; by default twice the median person's, between 24 and 128.
    pub comparisons: Option<usize>,
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Share of hidden units left out of a step.
    pub dropout: f32,
    /// Share of input numbers left out of a step.
    pub input_dropout: f32,
    /// AdamW's step size at its highest, after a tenth of the steps; it then falls to 0 along a cosine.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Share of labels that the loss takes to be wrong.
    pub label_noise: f64,
    /// How often the head is tried on held-out people; the best of these moments is kept.
    pub checks: usize,
}

impl Default for EpisodeConfig {
    fn default() -> Self {
        Self {
            text_forms: None,
            epochs: None,
            people: 64,
            draws: 3,
            examples: 16,
            comparisons: None,
            hidden: 128,
            dropout: 0.1,
            input_dropout: 0.1,
            learning_rate: 3e-3,
            weight_decay: 0.1,
            label_noise: 0.02,
            checks: 4,
        }
    }
}

/// The share of a person's labels taken to be wrong: small, so that examples count nearly in full, and not 0, so that one wrong
/// click cannot own a person.
const LABEL_NOISE: f64 = 0.02;

/// Passes over this many people teach every head; see [`EpisodeConfig::epochs`].
const PERSON_PASSES: usize = 7000;

impl EpisodeConfig {
    /// Passes over so many people.
    pub(crate) fn epochs_of(&self, people: usize) -> usize {
        self.epochs.unwrap_or((PERSON_PASSES / people.max(1)).clamp(20, 80))
    }
}

/// LoRe: a basis of linear rewards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoreConfig {
    /// Rewards in the basis; by default a quarter of the trained people, between 2 and 16.
    pub rank: Option<usize>,
    /// Share of labels taken to be wrong when adapting.
    pub label_noise: f64,
}

impl Default for LoreConfig {
    fn default() -> Self {
        Self { rank: None, label_noise: LABEL_NOISE }
    }
}

/// PAL-A: ideal points in a mixture of prototypes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PalAConfig {
    /// Prototypes; by default a quarter of the trained people, between 3 and 32.
    pub prototypes: Option<usize>,
    /// Sum of the prior's concentrations at the start: the lower, the closer to one prototype a person is taken to be.
    pub concentration: f64,
    /// Share of labels taken to be wrong when adapting.
    pub label_noise: f64,
    /// How far a text is from an ideal point: `squared`, or `plain` as in the paper's code, whose margins are not linear in
    /// the person and whose training takes several times as long.
    #[serde(skip_serializing_if = "is_default")]
    pub distance: Distance,
    /// Where prototypes are mixed: `mixture-points` among latents, or `projected-mixture` among inputs, before the hidden
    /// layer, as in the paper's code.
    #[serde(skip_serializing_if = "is_default")]
    pub ideal_point: IdealPoint,
}

/// Whether a value need not be written down: what was trained before there was a choice was trained with the default.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for PalAConfig {
    fn default() -> Self {
        Self {
            prototypes: None,
            concentration: 0.2,
            label_noise: LABEL_NOISE,
            distance: Distance::Squared,
            ideal_point: IdealPoint::MixturePoints,
        }
    }
}

impl PalAConfig {
    /// Whether a person's weights enter a margin linearly.
    pub(crate) fn is_linear(&self) -> bool {
        (self.distance, self.ideal_point) == (Distance::Squared, IdealPoint::MixturePoints)
    }
}

/// PAL-B: ideal points that depend on the prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PalBConfig {
    /// Mappings from a prompt to an ideal point; by default a quarter of the trained people, between 3 and 16.
    pub prototypes: Option<usize>,
    /// Dimension of the points.
    pub dim: usize,
    /// Sum of the prior's concentrations at the start.
    pub concentration: f64,
    /// Share of labels taken to be wrong when adapting.
    pub label_noise: f64,
    /// Whether the mixture of mappings is brought to unit length, as in the paper, rather than each mapping. Margins are then
    /// not linear in the person, and training takes several times as long.
    #[serde(skip_serializing_if = "is_default")]
    pub normalised: bool,
}

impl Default for PalBConfig {
    fn default() -> Self {
        Self { prototypes: None, dim: 32, concentration: 0.2, label_noise: LABEL_NOISE, normalised: false }
    }
}

/// VPL: a latent inferred by an encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VplConfig {
    /// Dimension of the latent; by default a quarter of the trained people, between 4 and 24.
    pub latent: Option<usize>,
    /// Width of the encoder's hidden layer.
    pub encoder: usize,
    /// Width of the layer in which text and latent meet.
    pub text: usize,
    /// Weight of the divergence from the prior.
    pub kl: f64,
}

impl Default for VplConfig {
    fn default() -> Self {
        Self { latent: None, encoder: 96, text: 128, kl: 1e-4 }
    }
}

/// MiCRo: a routed mixture of Bradley-Terry heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MicroConfig {
    /// Heads in the mixture; by default a quarter of the trained people, between 3 and 20.
    pub heads: Option<usize>,
    /// Whether the prompt moves the mixture's weights.
    pub router: bool,
    /// Weight of the paper's regulariser, the router's negative entropy, which pulls every prompt's weights to equal ones. The
    /// paper has 0.5; by default it is left out, as people's own examples, which the paper has not, keep weights from collapsing.
    pub entropy: f64,
    /// Share of labels taken to be wrong when adapting.
    pub label_noise: f64,
}

impl Default for MicroConfig {
    fn default() -> Self {
        Self { heads: None, router: true, entropy: 0.0, label_noise: LABEL_NOISE }
    }
}

fn refuse(field: &'static str, detail: &str) -> Result<(), TrainingError> {
    Err(TrainingError::Config { field, detail: detail.to_owned() })
}

fn within(field: &'static str, value: usize, least: usize, most: usize) -> Result<(), TrainingError> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        refuse(field, &format!("is between {least} and {most}"))
    }
}

fn noise(field: &'static str, value: f64) -> Result<(), TrainingError> {
    if (0.0..0.5).contains(&value) { Ok(()) } else { refuse(field, "is at least 0 and below 0.5") }
}

fn positive(field: &'static str, value: f64) -> Result<(), TrainingError> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { refuse(field, "is finite and positive") }
}

impl TrainConfig {
    /// Checks every value, of heads that are not trained too.
    ///
    /// # Errors
    /// [`TrainingError::Config`] names the field.
    pub fn check(&self) -> Result<(), TrainingError> {
        within("max_comparisons_per_user", self.max_comparisons_per_user, 1, 1_000_000)?;
        let shared = &self.episodes;
        if let Some(forms) = &shared.text_forms {
            let distinct = forms.iter().copied().collect::<TextForms>().iter().count();
            if forms.is_empty() || distinct != forms.len() {
                return refuse("episodes.text_forms", "names at least one form, and none twice");
            }
        }
        shared.epochs.map_or(Ok(()), |epochs| within("episodes.epochs", epochs, 1, 10_000))?;
        within("episodes.people", shared.people, 1, 4096)?;
        within("episodes.draws", shared.draws, 1, 64)?;
        within("episodes.examples", shared.examples, 1, 16)?;
        shared.comparisons.map_or(Ok(()), |cap| within("episodes.comparisons", cap, 2, 4096))?;
        within("episodes.hidden", shared.hidden, 1, 4096)?;
        within("episodes.checks", shared.checks, 1, 1000)?;
        for (field, rate) in
            [("episodes.dropout", shared.dropout), ("episodes.input_dropout", shared.input_dropout)]
        {
            if !(0.0..=0.9).contains(&rate) {
                return refuse(field, "is between 0 and 0.9");
            }
        }
        positive("episodes.learning_rate", shared.learning_rate)?;
        if !(shared.weight_decay >= 0.0 && shared.weight_decay.is_finite()) {
            return refuse("episodes.weight_decay", "is finite and not negative");
        }
        noise("episodes.label_noise", shared.label_noise)?;
        self.lore.rank.map_or(Ok(()), |rank| within("lore.rank", rank, 1, 256))?;
        noise("lore.label_noise", self.lore.label_noise)?;
        self.pal_a.prototypes.map_or(Ok(()), |k| within("pal_a.prototypes", k, 2, 256))?;
        positive("pal_a.concentration", self.pal_a.concentration)?;
        noise("pal_a.label_noise", self.pal_a.label_noise)?;
        self.pal_b.prototypes.map_or(Ok(()), |k| within("pal_b.prototypes", k, 2, 256))?;
        within("pal_b.dim", self.pal_b.dim, 2, 1024)?;
        positive("pal_b.concentration", self.pal_b.concentration)?;
        noise("pal_b.label_noise", self.pal_b.label_noise)?;
        self.vpl.latent.map_or(Ok(()), |k| within("vpl.latent", k, 1, 256))?;
        within("vpl.encoder", self.vpl.encoder, 1, 4096)?;
        within("vpl.text", self.vpl.text, 1, 4096)?;
        if !(self.vpl.kl >= 0.0 && self.vpl.kl.is_finite()) {
            return refuse("vpl.kl", "is finite and not negative");
        }
        if !(self.micro.entropy >= 0.0 && self.micro.entropy.is_finite()) {
            return refuse("micro.entropy", "is finite and not negative");
        }
        self.micro.heads.map_or(Ok(()), |k| within("micro.heads", k, 2, 256))?;
        noise("micro.label_noise", self.micro.label_noise)
    }

    /// All that has a part in a head's training, as its report holds it.
    pub fn of(&self, family: HeadFamily) -> Value {
        let head = match family {
            HeadFamily::Bt => Ok(Value::Null),
            HeadFamily::Lore => serde_json::to_value(&self.lore),
            HeadFamily::PalA => serde_json::to_value(&self.pal_a),
            HeadFamily::PalB => serde_json::to_value(&self.pal_b),
            HeadFamily::Vpl => serde_json::to_value(&self.vpl),
            HeadFamily::Micro => serde_json::to_value(&self.micro),
        };
        let mut all = json!({
            "episodes": serde_json::to_value(&self.episodes).expect("plain fields serialise"),
            "head": head.expect("plain fields serialise"),
        });
        // As with what else was added later: models that were trained before had no need of it.
        if self.max_comparisons_per_user != MAX_COMPARISONS_PER_USER {
            all["max_comparisons_per_user"] = self.max_comparisons_per_user.into();
        }
        all
    }

    /// The embeddings that training a head may read.
    pub fn text_forms(&self, family: HeadFamily) -> TextForms {
        let mut forms: TextForms = match &self.episodes.text_forms {
            Some(forms) => forms.iter().copied().collect(),
            None => [TextForm::PromptResponse, TextForm::Response].into_iter().collect(),
        };
        forms.prompt |= family == HeadFamily::PalB || (family == HeadFamily::Micro && self.micro.router);
        forms.response |= family == HeadFamily::PalB;
        forms
    }
}
