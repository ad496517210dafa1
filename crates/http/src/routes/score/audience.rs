//! The `audience` of a body: one group's members, or several groups by weight.

use std::collections::BTreeSet;

use polyreward_domain::Attributes;
use polyreward_service::{Aggregate, RewardScale, WeightedGroup, Welfare, Whose};
use serde::Deserialize;
use utoipa::ToSchema;

use super::request::Optional;
use crate::{entry::attribute_faults, extract::known_word, problem::InputFault};

/// Groups that one audience has, at most.
const MAX_GROUPS: usize = 64;
/// Temperatures of a softened minimum: colder ones are the minimum, hotter ones the mean, to the last digit.
const TEMPERATURES: std::ops::RangeInclusive<f64> = 0.01..=10.0;

/// A group or groups, and the numbers that stand for their members' rewards.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with group or groups, and aggregate")]
#[schema(as = Audience, example = json!({"group": {"country": "UK"}, "aggregate": ["mean", "min", "p20", "share"]}))]
pub(crate) struct AudienceBody {
    /// Attributes that every member has; none is everybody. Every member counts once.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    group: Option<Attributes>,
    /// Groups, each of which is one voice, the mean of its members, and counts by its weight. Cannot stand beside `group`.
    #[schema(min_items = 1, max_items = 64, example = json!(null))]
    groups: Option<Vec<WeightedGroupBody>>,
    /// Which numbers; `mean` by default. `min` and `p20` compare people with one another: ask for them on the
    /// `win_rate` scale, where everybody's rewards have the same range; `softmin`, `nash` and `maxmin` are answered on it alone.
    #[schema(value_type = Option<Vec<AggregateBody>>, min_items = 1)]
    aggregate: Option<Vec<String>>,
    /// Of `softmin`, 0.1 by default.
    #[schema(minimum = 0.01, maximum = 10, example = json!(null))]
    temperature: Option<f64>,
    /// Of `nash`: the win rate that everybody has without an agreement; 0 by default.
    #[schema(minimum = 0, exclusive_maximum = 1, example = json!(null))]
    disagreement: Option<f64>,
}

/// A group that counts by a weight, however many its members are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with group and weight")]
#[schema(as = WeightedGroup)]
pub(crate) struct WeightedGroupBody {
    /// Attributes that every member has.
    #[schema(value_type = BTreeMap<String, String>)]
    group: Attributes,
    /// How much it counts against the others; 1 by default.
    #[schema(minimum = 0)]
    weight: Option<f64>,
}

/// How the rewards of an audience become one.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Aggregate)]
pub(crate) enum AggregateBody {
    /// The mean; of groups, by weight.
    Mean,
    /// The worst-off member's; of groups, the worst-off group's mean.
    Min,
    /// The 20th percentile, linear between two members; of groups, by weight: the mean utility over the stretch of the weight,
    /// from the worst off on, that begins at `0.2 (1 - 1 / n)` and is `1 / n` long, where `n = (sum w)^2 / sum w^2`.
    P20,
    /// The share of members who prefer the response to all others of its prompt; of a pair, as each one's preference says.
    Share,
    /// The minimum, softened by `temperature`: `-t ln sum w exp(-u / t)`.
    Softmin,
    /// Nash's welfare: the geometric mean of what everybody has above `disagreement`; 0 where anybody has nothing.
    Nash,
    /// Of `groups` alone, as MaxMin-RLHF maximises it: the mean of the one group whose mean over all responses of the
    /// request is least, which `audience.worst_off` of the answer names. `min` picks a group for each response by itself.
    #[serde(rename = "maxmin")]
    MaxMin,
}

impl From<AggregateBody> for Aggregate {
    fn from(aggregate: AggregateBody) -> Self {
        match aggregate {
            AggregateBody::Mean => Self::Mean,
            AggregateBody::Min => Self::Min,
            AggregateBody::P20 => Self::P20,
            AggregateBody::Share => Self::Share,
            AggregateBody::Softmin => Self::Softmin,
            AggregateBody::Nash => Self::Nash,
            AggregateBody::MaxMin => Self::MaxMin,
        }
    }
}

impl AudienceBody {
    /// Whether it says which numbers it wants.
    pub fn names_aggregates(&self) -> bool {
        self.aggregate.is_some()
    }
}

/// Whom an audience means; what is wrong with it becomes faults.
pub(crate) fn audience(body: AudienceBody, scale: RewardScale, faults: &mut Vec<InputFault>) -> Whose {
    let AudienceBody { group, groups, aggregate, temperature, disagreement } = body;
    let aggregates = aggregates(aggregate, scale, faults);
    let default = Welfare::default();
    let welfare = Welfare {
        temperature: temperature.unwrap_or(default.temperature),
        disagreement: disagreement.unwrap_or(default.disagreement),
    };
    if !TEMPERATURES.contains(&welfare.temperature) {
        faults.push(InputFault::new("/audience/temperature", "is a number from 0.01 to 10"));
    }
    if !(0.0..1.0).contains(&welfare.disagreement) {
        faults.push(InputFault::new("/audience/disagreement", "is a number from 0 to below 1"));
    }
    match (group, groups) {
        (Some(group), None) => {
            faults.extend(attribute_faults("/audience/group", &group));
            if let Some(at) = aggregates.iter().position(|how| *how == Aggregate::MaxMin) {
                let detail =
                    "is of several groups, which groups names; of one, min is the worst-off member's";
                faults.push(InputFault::new(format!("/audience/aggregate/{at}"), detail));
            }
            Whose::Audience { group, aggregates, welfare }
        }
        (None, Some(bodies)) => Whose::Groups { groups: weighted(bodies, faults), aggregates, welfare },
        (Some(_), Some(_)) => {
            faults.push(InputFault::new("/audience/groups", "cannot stand beside group"));
            Whose::Population
        }
        (None, None) => {
            faults.push(InputFault::new("/audience/group", "is missing; so is groups"));
            Whose::Population
        }
    }
}

fn aggregates(
    words: Option<Vec<String>>,
    scale: RewardScale,
    faults: &mut Vec<InputFault>,
) -> Vec<Aggregate> {
    let words = words.unwrap_or_else(|| vec!["mean".to_owned()]);
    let none = words.is_empty();
    let mut known = Vec::with_capacity(words.len());
    for (at, word) in words.into_iter().enumerate() {
        let pointer = format!("/audience/aggregate/{at}");
        let Some(body) = Optional(faults).check(&pointer, Some(word), known_word::<AggregateBody>) else {
            continue;
        };
        let compares = matches!(body, AggregateBody::Softmin | AggregateBody::Nash | AggregateBody::MaxMin);
        if compares && scale != RewardScale::WinRate {
            let detail = "needs reward_scale win_rate, where everybody's rewards have the same range";
            faults.push(InputFault::new(pointer, detail));
        }
        known.push(Aggregate::from(body));
    }
    let distinct: BTreeSet<_> = known.iter().collect();
    if none || distinct.len() < known.len() {
        faults.push(InputFault::new("/audience/aggregate", "names at least one, and none twice"));
    }
    known
}

fn weighted(bodies: Vec<WeightedGroupBody>, faults: &mut Vec<InputFault>) -> Vec<WeightedGroup> {
    if !(1..=MAX_GROUPS).contains(&bodies.len()) {
        faults.push(InputFault::new("/audience/groups", format!("has 1 to {MAX_GROUPS} entries")));
        return Vec::new();
    }
    let mut total = 0.0;
    let mut groups = Vec::with_capacity(bodies.len());
    for (at, WeightedGroupBody { group, weight }) in bodies.into_iter().enumerate() {
        let place = format!("/audience/groups/{at}");
        let weight = weight.unwrap_or(1.0);
        if !(weight.is_finite() && weight >= 0.0) {
            faults.push(InputFault::new(format!("{place}/weight"), "is a finite number, not below 0"));
        }
        faults.extend(attribute_faults(&format!("{place}/group"), &group));
        total += weight;
        groups.push(WeightedGroup { group, weight });
    }
    if !(total.is_finite() && total > 0.0) {
        let detail = "has weights that add up to a finite number above 0";
        faults.push(InputFault::new("/audience/groups", detail));
    }
    groups
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pointers(body: Value, scale: RewardScale) -> Vec<String> {
        let mut faults = Vec::new();
        audience(serde_json::from_value(body).unwrap(), scale, &mut faults);
        faults.into_iter().filter_map(|fault| fault.pointer).collect()
    }

    #[test]
    fn groups_have_weights_and_rules_a_scale() {
        let group = |weight: f64| json!({"group": {"country": "UK"}, "weight": weight});
        let of = |groups: Value| pointers(json!({"groups": groups}), RewardScale::Raw);
        assert!(of(json!([group(0.25), {"group": {}}])).is_empty());
        assert_eq!(of(json!([])), ["/audience/groups"]);
        assert_eq!(of(json!([group(0.0), group(0.0)])), ["/audience/groups"]);
        assert_eq!(of(json!([group(1.0), group(-1.0)])), ["/audience/groups/1/weight", "/audience/groups"]);
        assert_eq!(of(json!([group(1e308), group(1e308)])), ["/audience/groups"]);
        assert_eq!(of(json!([{"group": {"country": ""}}])), ["/audience/groups/0/group/country"]);
        assert_eq!(of(Value::Array(vec![group(1.0); 65])), ["/audience/groups"]);
        let both = json!({"group": {}, "groups": [group(1.0)]});
        assert_eq!(pointers(both, RewardScale::Raw), ["/audience/groups"]);
        let rules = json!({"group": {}, "aggregate": ["mean", "nash", "softmin"]});
        assert_eq!(
            pointers(rules.clone(), RewardScale::Standard),
            ["/audience/aggregate/1", "/audience/aggregate/2"]
        );
        assert!(pointers(rules, RewardScale::WinRate).is_empty());
        let worst_off = |of: &str, whom: Value| json!({of: whom, "aggregate": ["mean", "maxmin"]});
        let groups = worst_off("groups", json!([group(1.0)]));
        assert!(pointers(groups.clone(), RewardScale::WinRate).is_empty());
        assert_eq!(pointers(groups, RewardScale::Raw), ["/audience/aggregate/1"]);
        assert_eq!(pointers(worst_off("group", json!({})), RewardScale::WinRate), ["/audience/aggregate/1"]);
        let bad = json!({"group": {}, "temperature": 0.0, "disagreement": 1.0});
        assert_eq!(pointers(bad, RewardScale::WinRate), ["/audience/temperature", "/audience/disagreement"]);
    }
}
