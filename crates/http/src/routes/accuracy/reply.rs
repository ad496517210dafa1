//! Answers about accuracy as JSON. Figures come rounded from the service.

use std::collections::BTreeMap;

use polyreward_service::{
    Accuracy, Agreement, Alpha, Curves, Figures, Point, ReliabilityBin, Shots, Step, StepStart, Timeline,
};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::routes::users::rfc3339;

/// A 95 % interval.
type Interval = [f64; 2];
/// A value of each attribute; null is of people of whom it is not known.
pub(super) type GroupReply = BTreeMap<String, Option<String>>;

/// For whom a model is right.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Accuracy)]
pub(crate) struct AccuracyReply {
    /// Whose predictions, as `name@version`.
    #[schema(example = "pal-a@3f9c")]
    pub(super) model: String,
    /// The attributes that make the groups.
    pub(super) group_by: Vec<String>,
    /// Predictions from then on; null is from the first one on. RFC 3339.
    #[schema(required)]
    from: Option<String>,
    /// Predictions before then; null is up to the last one. RFC 3339.
    #[schema(required)]
    to: Option<String>,
    /// People that a shown group has at least.
    min_n: usize,
    /// Everybody; null where there is no prediction.
    #[schema(required)]
    pub(super) overall: Option<RowReply>,
    /// The groups that are shown, by their values; people without a value come first.
    pub(super) groups: Vec<GroupRowReply>,
    /// Of the groups that are shown, the one with the lowest accuracy; null where none is.
    #[schema(required)]
    worst_group: Option<WorstReply>,
    /// How far the best group is from the worst; null below two shown groups.
    #[schema(required)]
    gap: Option<GapReply>,
    disagreement: DisagreementReply,
    /// Groups of too few people to be shown.
    suppressed_groups: usize,
}

/// How a model did on some people.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccuracyRow)]
pub(crate) struct RowReply {
    /// People with at least one prediction.
    pub(super) users: usize,
    /// Predictions, each made before its example was learned from.
    pub(super) n: u64,
    /// Share of predictions that were right; an undecided one counts half.
    pub(super) accuracy: f64,
    /// Its 95 % interval, of draws of people; null below two people.
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    pub(super) accuracy_ci: Option<Interval>,
    /// Mean over people of their own accuracy.
    pub(super) user_accuracy: f64,
    /// Its 95 % interval.
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    pub(super) user_accuracy_ci: Option<Interval>,
    /// Mean negative log preference for what was chosen, in nats.
    pub(super) log_loss: f64,
    /// Expected calibration error over both orientations of each pair: 10 equal bins, 5 below 500 predictions.
    pub(super) ece: f64,
    /// Its 95 % interval.
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    pub(super) ece_ci: Option<Interval>,
    /// Accuracy of the population's reward on the same predictions.
    pub(super) population_accuracy: f64,
    /// `accuracy` less `population_accuracy`: what it helped to know the person.
    pub(super) gain: f64,
    /// Its 95 % interval, paired by person.
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    pub(super) gain_ci: Option<Interval>,
    /// Accuracy of the Bradley-Terry baseline where its predictions of the same comparisons are known.
    #[schema(required)]
    pub(super) bt_accuracy: Option<f64>,
    /// Accuracy by confidence; classes without a prediction are left out.
    pub(super) reliability: Vec<ReliabilityReply>,
}

/// Predictions of one class of confidence.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reliability)]
pub(crate) struct ReliabilityReply {
    /// Confidence above this; exactly this where `to` is the same.
    from: f64,
    /// Confidence up to this.
    to: f64,
    /// Predictions.
    n: u64,
    /// Their mean confidence.
    confidence: f64,
    /// Their accuracy.
    accuracy: f64,
    /// Its 95 % interval.
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    accuracy_ci: Option<Interval>,
}

/// How a model did on one group.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccuracyGroup)]
pub(crate) struct GroupRowReply {
    /// A value of each attribute; null is of people of whom it is not known.
    #[schema(example = json!({"country": "UK"}))]
    pub(super) group: GroupReply,
    #[serde(flatten)]
    pub(super) row: RowReply,
}

/// The group with the lowest accuracy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorstGroup)]
pub(crate) struct WorstReply {
    group: GroupReply,
    accuracy: f64,
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    accuracy_ci: Option<Interval>,
}

/// How far the best group is from the worst.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Gap)]
pub(crate) struct GapReply {
    /// The difference of their accuracies.
    value: f64,
    /// Its 95 % interval, of the same draws as theirs.
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    ci: Option<Interval>,
    /// How often a gap as large comes of shuffling people among groups. Where it is not small, the groups are not shown to
    /// differ, which is not to say that they are equal.
    p_value: f64,
    best: GroupOnlyReply,
    worst: GroupOnlyReply,
}

/// A group by its values.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GroupOnly)]
pub(crate) struct GroupOnlyReply {
    group: GroupReply,
}

/// Whether people who judged the same pair agree: Krippendorff's alpha, 1 where all do and 0 where they do as often as chance
/// has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Disagreement)]
pub(crate) struct DisagreementReply {
    /// Of everybody; null where it is not estimable.
    #[schema(required)]
    alpha: Option<f64>,
    /// Its 95 % interval, of draws of pairs.
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    alpha_ci: Option<Interval>,
    /// Of people of the same group; null where none of them judged the same pair. Far above `alpha`, groups disagree with
    /// each other.
    #[schema(required)]
    within_groups: Option<f64>,
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    within_groups_ci: Option<Interval>,
    /// Of people of different groups; null where none of them judged the same pair.
    #[schema(required)]
    between_groups: Option<f64>,
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    between_groups_ci: Option<Interval>,
    /// Pairs that at least two people judged.
    pairs: usize,
    /// Judgements of those.
    judgements: u64,
    /// Why `alpha` is null.
    #[schema(required)]
    detail: Option<&'static str>,
}

impl From<&Accuracy> for AccuracyReply {
    fn from(answer: &Accuracy) -> Self {
        let group = |at: usize| named(&answer.group_by, &answer.groups[at].group);
        let groups = answer.groups.iter().map(|of| GroupRowReply {
            group: named(&answer.group_by, &of.group),
            row: RowReply::from(&of.figures),
        });
        Self {
            model: answer.model.to_string(),
            group_by: answer.group_by.clone(),
            from: answer.span.from.map(rfc3339),
            to: answer.span.to.map(rfc3339),
            min_n: answer.min_users,
            overall: answer.overall.as_ref().map(RowReply::from),
            groups: groups.collect(),
            worst_group: answer.worst.map(|at| WorstReply {
                group: group(at),
                accuracy: answer.groups[at].figures.accuracy,
                accuracy_ci: answer.groups[at].figures.accuracy_ci,
            }),
            gap: answer.gap.map(|gap| GapReply {
                value: gap.value,
                ci: gap.ci,
                p_value: gap.p_value,
                best: GroupOnlyReply { group: group(gap.best) },
                worst: GroupOnlyReply { group: group(gap.worst) },
            }),
            disagreement: DisagreementReply::of(answer.disagreement.as_ref()),
            suppressed_groups: answer.suppressed_groups,
        }
    }
}

impl From<&Figures> for RowReply {
    fn from(figures: &Figures) -> Self {
        Self {
            users: figures.users,
            n: figures.n,
            accuracy: figures.accuracy,
            accuracy_ci: figures.accuracy_ci,
            user_accuracy: figures.user_accuracy,
            user_accuracy_ci: figures.user_accuracy_ci,
            log_loss: figures.log_loss,
            ece: figures.ece,
            ece_ci: figures.ece_ci,
            population_accuracy: figures.population_accuracy,
            gain: figures.gain,
            gain_ci: figures.gain_ci,
            bt_accuracy: figures.bt_accuracy,
            reliability: figures.reliability.iter().map(ReliabilityReply::from).collect(),
        }
    }
}

impl From<&ReliabilityBin> for ReliabilityReply {
    fn from(bin: &ReliabilityBin) -> Self {
        let ReliabilityBin { from, to, n, confidence, accuracy, accuracy_ci } = *bin;
        Self { from, to, n, confidence, accuracy, accuracy_ci }
    }
}

impl DisagreementReply {
    fn of(agreement: Option<&Agreement>) -> Self {
        let of = |alpha: fn(&Agreement) -> Option<Alpha>| {
            let alpha = agreement.and_then(alpha);
            (alpha.map(|alpha| alpha.value), alpha.and_then(|alpha| alpha.ci))
        };
        let (alpha, alpha_ci) = of(|agreement| agreement.overall);
        let (within_groups, within_groups_ci) = of(|agreement| agreement.within_groups);
        let (between_groups, between_groups_ci) = of(|agreement| agreement.between_groups);
        let detail = match (agreement, alpha) {
            (_, Some(_)) => None,
            (None, None) => Some("not estimable: nobody judged the same pair as another person"),
            (Some(_), None) => Some("not estimable: everybody took the same side of every pair"),
        };
        Self {
            alpha,
            alpha_ci,
            within_groups,
            within_groups_ci,
            between_groups,
            between_groups_ci,
            pairs: agreement.map_or(0, |agreement| agreement.pairs),
            judgements: agreement.map_or(0, |agreement| agreement.judgements),
            detail,
        }
    }
}

/// Values by the attributes they are of.
fn named(group_by: &[String], values: &[Option<String>]) -> GroupReply {
    group_by.iter().cloned().zip(values.iter().cloned()).collect()
}

/// Accuracy against numbers of examples.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccuracyByShots)]
pub(crate) struct ShotsReply {
    /// Whose predictions, as `name@version`.
    pub(super) model: String,
    pub(super) group_by: Vec<String>,
    #[schema(required)]
    from: Option<String>,
    #[schema(required)]
    to: Option<String>,
    /// People that a shown point of a group has at least.
    min_n: usize,
    /// Everybody's.
    pub(super) overall: Vec<ShotsPointReply>,
    /// By group; points of too few people are left out.
    pub(super) groups: Vec<ShotsCurveReply>,
    /// Groups of which no point could be shown.
    suppressed_groups: usize,
}

/// One group's accuracy against numbers of examples.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ShotsCurve)]
pub(crate) struct ShotsCurveReply {
    pub(super) group: GroupReply,
    pub(super) points: Vec<ShotsPointReply>,
}

/// Accuracy at some numbers of examples.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ShotsPoint)]
pub(crate) struct ShotsPointReply {
    /// How many examples people had when the predictions were made.
    pub(super) shots: ShotsRangeReply,
    #[serde(flatten)]
    pub(super) point: PointReply,
}

/// Numbers of examples.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = ShotsRange)]
pub(crate) struct ShotsRangeReply {
    /// The least.
    pub(super) from: u64,
    /// The most; null where there is no most.
    #[schema(required)]
    pub(super) to: Option<u64>,
}

/// How a model did at one place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccuracyPoint)]
pub(crate) struct PointReply {
    /// People.
    pub(super) users: u64,
    /// Predictions.
    pub(super) n: u64,
    pub(super) accuracy: f64,
    /// Its 95 % interval over people; null below two.
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    pub(super) accuracy_ci: Option<Interval>,
    /// Mean negative log preference for what was chosen, in nats.
    pub(super) log_loss: f64,
    pub(super) population_accuracy: f64,
    pub(super) gain: f64,
    #[schema(required, value_type = Option<Vec<f64>>, min_items = 2, max_items = 2)]
    pub(super) gain_ci: Option<Interval>,
    #[schema(required)]
    pub(super) bt_accuracy: Option<f64>,
}

impl<X> From<&Point<X>> for PointReply {
    fn from(point: &Point<X>) -> Self {
        Self {
            users: point.users,
            n: point.n,
            accuracy: point.accuracy,
            accuracy_ci: point.accuracy_ci,
            log_loss: point.log_loss,
            population_accuracy: point.population_accuracy,
            gain: point.gain,
            gain_ci: point.gain_ci,
            bt_accuracy: point.bt_accuracy,
        }
    }
}

impl From<&Point<Shots>> for ShotsPointReply {
    fn from(point: &Point<Shots>) -> Self {
        let Shots { from, to } = point.at;
        Self { shots: ShotsRangeReply { from, to }, point: point.into() }
    }
}

impl From<&Curves<Shots>> for ShotsReply {
    fn from(curves: &Curves<Shots>) -> Self {
        let groups = curves.groups.iter().map(|curve| ShotsCurveReply {
            group: named(&curves.group_by, &curve.group),
            points: curve.points.iter().map(ShotsPointReply::from).collect(),
        });
        Self {
            model: curves.model.to_string(),
            group_by: curves.group_by.clone(),
            from: curves.span.from.map(rfc3339),
            to: curves.span.to.map(rfc3339),
            min_n: curves.min_users,
            overall: curves.overall.iter().map(ShotsPointReply::from).collect(),
            groups: groups.collect(),
            suppressed_groups: curves.suppressed_groups,
        }
    }
}

/// Accuracy against time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccuracyTimeline)]
pub(crate) struct TimelineReply {
    /// Whose predictions, as `name@version`.
    pub(super) model: String,
    pub(super) group_by: Vec<String>,
    #[schema(required)]
    from: Option<String>,
    #[schema(required)]
    to: Option<String>,
    /// People that a shown point of a group has at least.
    min_n: usize,
    /// How long a step is.
    step: StepReply,
    /// When each version of the model made its first prediction, in their order.
    versions: Vec<VersionReply>,
    /// Everybody's.
    pub(super) overall: Vec<StepPointReply>,
    /// By group; points of too few people are left out.
    pub(super) groups: Vec<StepCurveReply>,
    /// Groups of which no point could be shown.
    suppressed_groups: usize,
}

/// How long a step of a time line is, in UTC; a week begins on Monday.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Step)]
pub(crate) enum StepReply {
    Hour,
    Day,
    Week,
}

/// A version of a model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MeasuredVersion)]
pub(crate) struct VersionReply {
    /// As `name@version`.
    model: String,
    /// When it made its first prediction that is still there, RFC 3339.
    first: String,
}

/// One group's accuracy against time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TimelineCurve)]
pub(crate) struct StepCurveReply {
    pub(super) group: GroupReply,
    pub(super) points: Vec<StepPointReply>,
}

/// Accuracy in one step of time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TimelinePoint)]
pub(crate) struct StepPointReply {
    /// When the step begins, RFC 3339.
    pub(super) start: String,
    #[serde(flatten)]
    pub(super) point: PointReply,
}

impl From<&Point<StepStart>> for StepPointReply {
    fn from(point: &Point<StepStart>) -> Self {
        Self { start: rfc3339(point.at.0), point: point.into() }
    }
}

impl From<&Timeline> for TimelineReply {
    fn from(timeline: &Timeline) -> Self {
        let curves = &timeline.curves;
        let groups = curves.groups.iter().map(|curve| StepCurveReply {
            group: named(&curves.group_by, &curve.group),
            points: curve.points.iter().map(StepPointReply::from).collect(),
        });
        let version = |(model, first): &(_, OffsetDateTime)| {
            let model: &polyreward_domain::ModelRef = model;
            VersionReply { model: model.to_string(), first: rfc3339(*first) }
        };
        Self {
            model: curves.model.to_string(),
            group_by: curves.group_by.clone(),
            from: curves.span.from.map(rfc3339),
            to: curves.span.to.map(rfc3339),
            min_n: curves.min_users,
            step: match timeline.step {
                Step::Hour => StepReply::Hour,
                Step::Day => StepReply::Day,
                Step::Week => StepReply::Week,
            },
            versions: timeline.versions.iter().map(version).collect(),
            overall: curves.overall.iter().map(StepPointReply::from).collect(),
            groups: groups.collect(),
            suppressed_groups: curves.suppressed_groups,
        }
    }
}
