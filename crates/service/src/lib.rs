//! Use cases: score, measure; joins backbone, heads and models, and knows no HTTP.

mod ask;
mod corpus;
mod few_shot;
mod inquiry;
mod judge;
pub mod metrics;
mod people;
mod registry;
mod score;

pub use ask::{AskOutcome, AskQuery, Asker, Candidate};
pub use corpus::{Corpus, CorpusError, embed_corpus, name_of};
pub use few_shot::{Shot, TestedPerson, few_shot};
pub use inquiry::{Inquiry, Policy, inquire};
pub use people::{
    Answering, Directory, DirectoryError, Examples, People, PeopleError, PeopleFile, PeopleOptions, Person,
    Resolved, StateVersion, StatesError, Unusable,
};
pub use registry::{FailedModel, Model, ModelRegistry, Registered, RegistryError, ReloadReport};
pub use score::{
    Aggregate, Answer, Asked, AudienceScore, Fault, HeldRoom, Item, ItemScore, Pair, PairScore, Part,
    RewardScale, ScoreError, ScoreLimits, ScoreOutcome, ScoreQuery, Scored, Scorer, Seen, Usage, UserSeen,
    Whose, Work,
};
