//! From sums to answers: everything of a question about accuracy that is arithmetic.

use std::collections::{BTreeMap, BTreeSet};

use polyreward_domain::{Tally, UserId};
use polyreward_heads::{
    accuracy::{
        Changes, Grouped, GroupedFigures, RatioSums, by_group, changes, difference_interval, share_interval,
    },
    agreement::{Agreement, Votes, agreement},
    evaluation::Bootstrap,
};
use polyreward_storage::{CrowdSums, GroupValues, PairVotes, PersonSums};

use super::{Accuracy, Asked, Curve, Curves, GroupFigures, Point, rounding::Rounded};

/// How every interval is drawn: the same question about the same predictions has the same answer.
pub(super) const BOOTSTRAP: Bootstrap = Bootstrap { draws: 2000, seed: 0 };

/// Values of groups in their order, each once, and which of them each row has.
struct Groups {
    values: Vec<GroupValues>,
    of: Vec<usize>,
}

impl Groups {
    fn of<'a>(rows: impl Iterator<Item = &'a GroupValues> + Clone) -> Self {
        let distinct: BTreeSet<&GroupValues> = rows.clone().collect();
        let numbers: BTreeMap<&GroupValues, usize> = distinct.iter().copied().zip(0..).collect();
        Self {
            of: rows.map(|values| numbers[values]).collect(),
            values: distinct.into_iter().cloned().collect(),
        }
    }
}

/// Accuracy of people of whom each has a row.
pub(super) fn accuracy(
    asked: &Asked,
    people: Vec<(GroupValues, Tally)>,
    votes: Option<Agreement>,
) -> Accuracy {
    let groups = Groups::of(people.iter().map(|(values, _)| values));
    let tallies: Vec<Tally> = people.into_iter().map(|(_, tally)| tally).collect();
    let grouped = Grouped {
        tallies: &tallies,
        group_of: &groups.of,
        groups: groups.values.len(),
        min_users: asked.min_users,
    };
    let mut answer = Accuracy {
        model: asked.model.clone(),
        group_by: asked.group_by.clone(),
        span: asked.span,
        min_users: asked.min_users,
        overall: None,
        groups: Vec::new(),
        gap: None,
        worst: None,
        suppressed_groups: 0,
        disagreement: votes
            .map(|votes| if asked.group_by.is_empty() { ungrouped(votes) } else { votes }.rounded()),
    };
    let Some(GroupedFigures { overall, groups: figures, suppressed, gap }) = by_group(grouped, BOOTSTRAP)
    else {
        return answer;
    };
    answer.overall = Some(overall.rounded());
    // Without attributes, everybody is no group beside everybody.
    if asked.group_by.is_empty() {
        return answer;
    }
    answer.suppressed_groups = suppressed;
    let mut place = vec![None; figures.len()];
    for (at, (figures, group)) in figures.into_iter().zip(groups.values).enumerate() {
        if let Some(figures) = figures {
            place[at] = Some(answer.groups.len());
            answer.groups.push(GroupFigures { group, figures: figures.rounded() });
        }
    }
    answer.gap = gap.map(|mut gap| {
        gap.best = place[gap.best].expect("the best group is shown");
        gap.worst = place[gap.worst].expect("the worst group is shown");
        gap.rounded()
    });
    answer.worst = match answer.gap {
        Some(gap) => Some(gap.worst),
        None => (!answer.groups.is_empty()).then_some(0),
    };
    answer
}

/// Rows of people without their names.
pub(super) fn rows(people: Vec<PersonSums>) -> Vec<(GroupValues, Tally)> {
    people.into_iter().map(|person| (person.group, person.tally)).collect()
}

/// Agreement of everybody: that of people of one group is the same, and there is no other group.
fn ungrouped(votes: Agreement) -> Agreement {
    Agreement { within_groups: None, between_groups: None, ..votes }
}

/// Agreement on pairs, of rows in the order of their pairs.
pub(super) fn agreement_on(votes: &[PairVotes]) -> Option<Agreement> {
    let groups = Groups::of(votes.iter().map(|votes| &votes.group));
    let (mut pair, mut before) = (0, None);
    let numbered: Vec<Votes> = votes
        .iter()
        .zip(groups.of)
        .map(|(votes, group)| {
            pair += usize::from(before.is_some_and(|before| before != votes.pair));
            before = Some(votes.pair);
            Votes { pair, group, first: votes.first, second: votes.second }
        })
        .collect();
    agreement(&numbered, BOOTSTRAP)
}

/// How figures differ between two models, about people of whom either has predicted.
pub(super) fn changed(min_users: usize, current: &[PersonSums], previous: &[PersonSums]) -> Option<Changes> {
    type Both<'a> = (&'a GroupValues, Tally, Tally);
    let mut people: BTreeMap<&UserId, Both<'_>> = BTreeMap::new();
    for person in current {
        people.insert(&person.user_id, (&person.group, person.tally, Tally::default()));
    }
    for person in previous {
        people.entry(&person.user_id).or_insert((&person.group, Tally::default(), Tally::default())).2 =
            person.tally;
    }
    let groups = Groups::of(people.values().map(|(values, ..)| *values));
    let tallies = |of: fn(&Both<'_>) -> Tally| -> Vec<Tally> { people.values().map(of).collect() };
    let (current, previous) = (tallies(|both| both.1), tallies(|both| both.2));
    let grouped = |tallies| Grouped { tallies, group_of: &groups.of, groups: groups.values.len(), min_users };
    changes(grouped(&current), grouped(&previous), BOOTSTRAP).rounded()
}

/// Figures at places: everybody's, and those of each group where it has people enough.
pub(super) fn curves<X: Copy + Ord>(asked: &Asked, sums: Vec<(GroupValues, X, CrowdSums)>) -> Curves<X> {
    let mut overall: BTreeMap<X, CrowdSums> = BTreeMap::new();
    let mut by_group: BTreeMap<GroupValues, BTreeMap<X, CrowdSums>> = BTreeMap::new();
    for (group, at, sums) in sums {
        // Nobody is in two groups, so that sums over people add up.
        add(overall.entry(at).or_default(), &sums);
        add(by_group.entry(group).or_default().entry(at).or_default(), &sums);
    }
    if asked.group_by.is_empty() {
        by_group.clear();
    }
    let all = by_group.len();
    let shown = |sums: &CrowdSums| sums.users >= asked.min_users as u64;
    let groups: Vec<Curve<X>> = by_group
        .into_iter()
        .map(|(group, points)| {
            let points = points.into_iter().filter(|(_, sums)| shown(sums));
            Curve { group, points: points.map(|(at, sums)| point(at, &sums)).collect() }
        })
        .filter(|curve| !curve.points.is_empty())
        .collect();
    Curves {
        model: asked.model.clone(),
        group_by: asked.group_by.clone(),
        span: asked.span,
        min_users: asked.min_users,
        overall: overall.into_iter().map(|(at, sums)| point(at, &sums)).collect(),
        suppressed_groups: all - groups.len(),
        groups,
    }
}

fn add(sums: &mut CrowdSums, more: &CrowdSums) {
    sums.users += more.users;
    sums.n += more.n;
    sums.correct += more.correct;
    sums.log_loss += more.log_loss;
    sums.population_correct += more.population_correct;
    sums.baseline_n += more.baseline_n;
    sums.baseline_correct += more.baseline_correct;
    sums.n_n += more.n_n;
    sums.n_correct += more.n_correct;
    sums.correct_correct += more.correct_correct;
    sums.n_gain += more.n_gain;
    sums.gain_gain += more.gain_gain;
}

fn point<X>(at: X, sums: &CrowdSums) -> Point<X> {
    let n = sums.n as f64;
    let gain = sums.correct - sums.population_correct;
    let ratio = |x, n_x, x_x| RatioSums { users: sums.users, n, x, n_n: sums.n_n, n_x, x_x };
    Point {
        at,
        users: sums.users,
        n: sums.n,
        accuracy: (sums.correct / n).rounded(),
        accuracy_ci: share_interval(ratio(sums.correct, sums.n_correct, sums.correct_correct)).rounded(),
        log_loss: (sums.log_loss / n).rounded(),
        population_accuracy: (sums.population_correct / n).rounded(),
        gain: (gain / n).rounded(),
        gain_ci: difference_interval(ratio(gain, sums.n_gain, sums.gain_gain)).rounded(),
        bt_accuracy: (sums.baseline_n > 0)
            .then(|| (sums.baseline_correct / sums.baseline_n as f64).rounded()),
    }
}
