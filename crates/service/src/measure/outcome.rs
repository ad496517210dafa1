//! What is answered to whoever asks for whom a reward is wrong.

use polyreward_domain::ModelRef;
use polyreward_heads::{
    accuracy::{Changes, Figures, Gap},
    agreement::Agreement,
    evaluation::Interval,
};
use polyreward_storage::{GroupValues, Span, Step};
use time::OffsetDateTime;

/// Accuracy by group.
#[derive(Debug, Clone, PartialEq)]
pub struct Accuracy {
    /// Whose predictions.
    pub model: ModelRef,
    /// The attributes that make the groups.
    pub group_by: Vec<String>,
    /// When they were made.
    pub span: Span,
    /// People that a shown group has at least.
    pub min_users: usize,
    /// Everybody; none where there is no prediction.
    pub overall: Option<Figures>,
    /// The groups that are shown, by their values; people without a value come first.
    pub groups: Vec<GroupFigures>,
    /// Positions in `groups`; none below two groups.
    pub gap: Option<Gap>,
    /// The position in `groups` of the one with the lowest accuracy; none where no group is shown.
    pub worst: Option<usize>,
    /// Groups with too few people to be shown.
    pub suppressed_groups: usize,
    /// Whether people who judged the same pair agree; none where nobody did.
    pub disagreement: Option<Agreement>,
}

/// Accuracy of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupFigures {
    /// A value of each attribute; none is of people of whom it is not known.
    pub group: GroupValues,
    /// How the model did.
    pub figures: Figures,
}

/// Figures against something, for each group.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves<X> {
    /// Whose predictions.
    pub model: ModelRef,
    /// The attributes that make the groups.
    pub group_by: Vec<String>,
    /// When the predictions were made.
    pub span: Span,
    /// People that a shown point has at least.
    pub min_users: usize,
    /// Everybody's.
    pub overall: Vec<Point<X>>,
    /// By group, in the order of their values; points of too few people are left out.
    pub groups: Vec<Curve<X>>,
    /// Groups of which no point could be shown.
    pub suppressed_groups: usize,
}

/// One group's figures against something.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve<X> {
    /// A value of each attribute; none is of people of whom it is not known.
    pub group: GroupValues,
    /// In the order of what they are against.
    pub points: Vec<Point<X>>,
}

/// Figures at one place.
#[derive(Debug, Clone, PartialEq)]
pub struct Point<X> {
    /// Where.
    pub at: X,
    /// People.
    pub users: u64,
    /// Predictions.
    pub n: u64,
    /// Share of them right.
    pub accuracy: f64,
    /// Its 95 % interval over people.
    pub accuracy_ci: Option<Interval>,
    /// Mean negative log preference for what was chosen, in nats.
    pub log_loss: f64,
    /// The population's reward on the same predictions.
    pub population_accuracy: f64,
    /// The difference.
    pub gain: f64,
    /// Its 95 % interval over people.
    pub gain_ci: Option<Interval>,
    /// The Bradley-Terry baseline's accuracy, where its predictions are known.
    pub bt_accuracy: Option<f64>,
}

/// Numbers of examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shots {
    /// The least.
    pub from: u64,
    /// The most; none where there is no most.
    pub to: Option<u64>,
}

/// A step of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepStart(pub OffsetDateTime);

/// Accuracy against time.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// How long a step is.
    pub step: Step,
    /// The figures.
    pub curves: Curves<StepStart>,
    /// When each version of the model made its first prediction, in their order.
    pub versions: Vec<(ModelRef, OffsetDateTime)>,
}

/// How the headline figures differ from the version before.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionChanges {
    /// The version before.
    pub previous: ModelRef,
    /// The differences; none where either has no prediction.
    pub changes: Option<Changes>,
}
