//! Reward heads behind one trait: score, adapt, calibrate, evaluate. Arrays in, arrays out; no text, no async.
//!
//! A head splits a reward in two. [`Head::features`] is what depends on the text alone, computed once per text
//! and cached; a [`UserState`] is what depends on the person, a small vector with its covariance. Rewards of `U`
//! users for `R` responses are then one product of `[U, S]` by `[R, F]` ([`Head::rewards`]).

mod bt;
mod calibration;
mod card;
pub mod evaluation;
mod head;
mod items;
mod linear;
mod mlp;
mod state;
mod weights;

pub use bt::{BradleyTerry, BtParameters};
pub use calibration::{Calibration, Preference, log_sigmoid, sigmoid};
pub use card::{
    BackboneCard, CARD_FORMAT, CardError, ModelCard, RewardStatistics, TrainingDataCard, sha256_hex,
};
pub use head::{Head, HeadError, Moments, Observation, TextEmbeddings};
pub use items::{EmbeddedForm, ItemComparison, Items, Person};
pub use linear::{LogisticFit, LogisticMap, fit_logistic_map};
pub use mlp::{Activation, Layer, Mlp};
pub use state::UserState;
pub use weights::{LoadedHead, Tensors, WeightsError, read_head, write_head};
