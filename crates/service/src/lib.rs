//! Use cases: score, learn, measure; joins backbone, heads and models, and knows no HTTP.

mod access;
mod aside;
mod ask;
mod clock;
mod corpus;
mod examples;
mod few_shot;
mod inquiry;
mod judge;
mod measure;
pub mod metrics;
mod people;
mod registry;
mod score;
mod tournament;
mod users;

pub use access::{Access, AccessError, AccessOptions, Caller, NewKey};
pub use ask::{AskOutcome, AskQuery, Asker, Candidate};
pub use clock::{Clock, SystemClock};
pub use corpus::{Corpus, CorpusError, StreamedCorpus, embed_corpus, embed_stream, name_of};
pub use examples::{
    LearnError, LearnLimits, LearnOutcome, LearnQuery, Learned, Learner, PostedExample, RequestName,
    StateSummary, TextFault, WriteAnswer, Writer,
};
pub use few_shot::{Shot, TestedPerson, few_shot};
pub use inquiry::{Inquiry, Policy, inquire};
pub use measure::{
    Accuracy, Curve, Curves, EvaluateQuery, GroupFigures, MAX_GROUP_BY, MeasureError, MeasureOptions,
    MeasureQuery, Measurer, Point, Shots, StepStart, Timeline, VersionChanges,
};
pub use people::{People, PeopleOptions, Person, PersonState, Rebuilt, Resolved, StatesError, Unusable};
pub use registry::{FailedModel, Model, ModelRegistry, Registered, RegistryError, ReloadReport};
pub use score::{
    Aggregate, Answer, Asked, AudienceScore, Fault, HeldRoom, Item, ItemScore, Pair, PairScore, Part,
    RewardScale, ScoreError, ScoreLimits, ScoreOutcome, ScoreQuery, Scored, Scorer, Seen, Usage, UserSeen,
    WeightedGroup, Welfare, Whose, Work,
};
pub use tournament::{MAX_RESPONSES, TournamentFailure, TournamentOutcome, TournamentQuery};
pub use users::{Believed, Profile, Users, UsersError, Weight};

/// What callers handle of the database, so that they need not know where it is kept.
pub use polyreward_storage::{
    GroupCount, GroupValues, KeyId, MeasuredModel, Mistake, ModelTally, Prediction, Span, Step, StorageError,
    StoredExample, UserRecord,
};

/// Statistics as answers hold them.
pub use polyreward_heads::{
    accuracy::{Change, Changes, Figures, Gap, ReliabilityBin},
    agreement::{Agreement, Alpha},
};
