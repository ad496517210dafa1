//! Use cases: score, measure; joins backbone, heads and models, and knows no HTTP.

mod corpus;
mod few_shot;
pub mod metrics;
mod registry;
mod score;

pub use corpus::{Corpus, CorpusError, embed_corpus};
pub use few_shot::{Shot, UnseenPerson, few_shot};
pub use registry::{FailedModel, Model, ModelRegistry, Registered, RegistryError, ReloadReport};
pub use score::{
    Fault, Item, ItemScore, Pair, PairScore, Part, RewardScale, ScoreError, ScoreOutcome, ScoreQuery, Scored,
    Scorer, Usage, UserSeen, Whose, Work,
};
