//! Reward heads behind one trait: score, adapt, calibrate, evaluate. Arrays in, arrays out; no text, no async.
//!
//! A head splits a reward in two. [`Head::features`] is what depends on the text alone, computed once per text
//! and cached; a [`UserState`] is what depends on the person, a small vector with its covariance. Rewards of `U`
//! users for `R` responses are then one product of `[U, S]` by `[R, F]` ([`Head::rewards`]).

pub mod accuracy;
pub mod agreement;
mod bt;
mod calibration;
mod card;
mod cholesky;
mod curved;
mod engine;
pub mod evaluation;
mod evidence;
mod head;
mod information;
mod input;
mod items;
mod linear;
mod lore;
mod micro;
mod mlp;
mod pal_a;
mod pal_b;
mod posterior;
mod resampling;
mod scalarisation;
mod state;
mod tournament;
mod trunk;
mod vpl;
mod weights;
pub mod welfare;

pub use bt::{BradleyTerry, BtParameters};
pub use calibration::{Calibration, Preference, log_sigmoid, sigmoid};
pub use card::{
    BackboneCard, CARD_FORMAT, CardError, ModelCard, RewardStatistics, TrainingDataCard, sha256_hex,
};
pub use head::{Head, HeadError, Moments, Observation, PairMoments, TextEmbeddings};
pub use information::information_gain;
pub use input::{FormInput, TextInput};
pub use items::{EmbeddedForm, EmbeddingRows, ItemComparison, Items, Person};
pub use linear::LaplacePosterior;
pub use lore::{Lore, LoreParameters};
pub use micro::{Micro, MicroParameters};
pub use mlp::{Activation, Layer, Mlp};
pub use pal_a::{Distance, IdealPoint, PalA, PalAParameters};
pub use pal_b::{PalB, PalBParameters};
pub use posterior::{LinearEvidence, Posterior, gaussian_posterior, simplex_posterior};
pub use scalarisation::{borda, plackett_luce};
pub use state::{StateView, UserState};
pub use tournament::{Tournament, TournamentError, shares};
pub use trunk::Trunk;
pub use vpl::{FURTHEST_MEAN, SHARPEST_EXAMPLE, Vpl, VplParameters, kl_from_prior};
pub use weights::{LoadedHead, Tensors, WeightsError, read_head, write_head};
