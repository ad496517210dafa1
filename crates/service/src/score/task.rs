//! From embeddings to results: everything of a request that is arithmetic, off the async threads.

use std::{collections::HashMap, ops::Range, sync::Arc, thread};

use foldhash::fast::RandomState;
use ndarray::{Array2, ArrayView2, Axis, s};
use polyreward_backbone::{Embedded, InputError};
use polyreward_heads::{HeadError, StateView};

use super::{
    Aggregate, Answer, Fault, ItemScore, PairScore, Part, RewardScale, Scored, Welfare,
    audience::Tally,
    plan::Plan,
    room::{Unwanted, Wanted},
};
use crate::{
    judge::{Estimates, Judge, ranking},
    people::{PersonState, Rows},
    registry::Model,
};

/// People by what is believed of them: those who share a state, as all unknown ones do, are judged once.
#[derive(Debug)]
pub(crate) struct Panel {
    /// States that lie side by side, each one person's: the first ones.
    rows: Vec<Rows>,
    /// How many states lie before each of [`Self::rows`], and in all of them.
    before: Vec<usize>,
    /// Further distinct states; none is the population's.
    states: Vec<Option<PersonState>>,
    /// People at each state.
    counts: Vec<usize>,
    /// The state of each person asked for; of those who have a row, nobody asks.
    seats: Vec<usize>,
}

impl Panel {
    pub fn of<S: Into<PersonState>>(people: impl IntoIterator<Item = Option<S>>) -> Self {
        Self::with_rows(Vec::new(), people)
    }

    /// Nobody in particular.
    pub fn population() -> Self {
        Self::of([None::<PersonState>])
    }

    /// Everybody of a group.
    pub fn audience(rows: Vec<Rows>, others: Vec<Option<PersonState>>) -> Self {
        Self::with_rows(rows, others)
    }

    fn with_rows<S: Into<PersonState>>(rows: Vec<Rows>, people: impl IntoIterator<Item = Option<S>>) -> Self {
        let mut before = vec![0];
        before.extend(rows.iter().scan(0, |sum, rows| {
            *sum += rows.len();
            Some(*sum)
        }));
        let in_rows = before[rows.len()];
        let people = people.into_iter();
        let many = people.size_hint().0;
        let mut panel = Self {
            rows,
            before,
            states: Vec::new(),
            counts: vec![1; in_rows],
            seats: Vec::with_capacity(many),
        };
        let mut known: HashMap<Option<*const f32>, usize, RandomState> = HashMap::default();
        for state in people {
            let state: Option<PersonState> = state.map(Into::into);
            let numbers = state.as_ref().map(|state| state.view().parts().0.as_ptr());
            let seat = *known.entry(numbers).or_insert_with(|| {
                panel.states.push(state);
                panel.counts.push(0);
                panel.counts.len() - 1
            });
            panel.counts[seat] += 1;
            panel.seats.push(seat);
        }
        panel
    }

    /// How many states there are.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Some of the states, in the order of the memory that they lie in.
    pub fn views<'a>(&'a self, range: Range<usize>, population: StateView<'a>) -> Vec<StateView<'a>> {
        let in_rows = self.before[self.rows.len()];
        let first = self.before.partition_point(|before| *before <= range.start).saturating_sub(1);
        let skipped = range.start.min(in_rows) - self.before[first];
        let rows = self.rows[first..].iter().enumerate();
        let of_rows = rows.flat_map(|(at, rows)| rows.views(if at == 0 { skipped } else { 0 }));
        let others = &self.states[range.start.saturating_sub(in_rows)..];
        let others = others.iter().map(|state| state.as_ref().map_or(population, PersonState::view));
        of_rows.chain(others).take(range.len()).collect()
    }
}

/// P(a preferred to b) by a pair's own person, and by the population.
pub(crate) type Own = [f64; 2];

/// Why a task has no results.
#[derive(Debug)]
pub(crate) enum TaskError {
    Head(HeadError),
    Unwanted,
}

impl From<HeadError> for TaskError {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}

impl From<Unwanted> for TaskError {
    fn from(_: Unwanted) -> Self {
        Self::Unwanted
    }
}

/// Everything after the embeddings.
pub(crate) struct Task {
    pub model: Arc<Model>,
    pub plan: Plan,
    pub embedded: Vec<Result<Embedded, InputError>>,
    pub faults: Vec<Option<Fault>>,
    pub scale: RewardScale,
    /// On which scale everything is wanted once more.
    pub also: Option<RewardScale>,
    pub panel: Panel,
    /// What an audience is reduced to.
    pub aggregates: Option<(Vec<Aggregate>, Welfare)>,
    pub wanted: Wanted,
}

/// What an answer to a pair would tell of a person.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prospect {
    /// In nats.
    pub gain: f64,
    /// P(a preferred to b), calibrated.
    pub preference: f64,
    /// Its posterior standard deviation.
    pub uncertainty: f64,
}

/// Shares of people that are judged side by side: what an audience of thousands waits for, one person's request never needs.
const MOST_THREADS: usize = 4;

/// Blocks of people that a thread judges before it is waited for.
const MOST_BLOCKS: usize = 16;

/// Rewards and, of pairs, preferences of some people.
type Judged = (Estimates, Option<Estimates>);

/// A result for each share, in order; a single share needs no thread of its own.
fn in_parallel<T: Send>(shares: &[Range<usize>], judge: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let Some((first, rest)) = shares.split_first() else { return Vec::new() };
    thread::scope(|scope| {
        let judge = &judge;
        let others: Vec<_> = rest.iter().cloned().map(|share| scope.spawn(move || judge(share))).collect();
        let mut results = vec![judge(first.clone())];
        for other in others {
            match other.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}

/// Ranges of at most `at_once` that make up a range.
fn parts(range: Range<usize>, at_once: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(at_once).map(move |first| first..end.min(first + at_once))
}

impl Task {
    /// The results, and those on the other scale.
    pub fn run(mut self) -> Result<(Scored, Option<Scored>), TaskError> {
        self.wanted.check()?;
        let features = self.features()?;
        let results = self.on_its_scale(features.view())?;
        let Some(also) = self.also.take() else { return Ok((results, None)) };
        self.scale = also;
        let also = self.on_its_scale(features.view())?;
        Ok((results, Some(also)))
    }

    fn on_its_scale(&self, features: ArrayView2<'_, f32>) -> Result<Scored, TaskError> {
        match &self.aggregates {
            Some((aggregates, welfare)) => self.together(features, aggregates, *welfare),
            None => self.each(features),
        }
    }

    /// Rewards, and preferences of pairs, of a block of people after another; rewards of pairs have no deviations.
    fn blocks(
        &self,
        features: ArrayView2<'_, f32>,
        deviations: bool,
        mut take: impl FnMut(usize, &Estimates, Option<&Estimates>),
    ) -> Result<(), TaskError> {
        let judge = Judge { model: &self.model, scale: self.scale };
        let population = self.model.head.population().view();
        let at_once = judge.block(features.nrows());
        let go_on = || self.wanted.check().map_err(TaskError::from);
        let judged = |block: Range<usize>| -> Result<Judged, TaskError> {
            go_on()?;
            let users = self.panel.views(block, population);
            if self.pairs() == 0 {
                return Ok((judge.rewards(&users, features, deviations, &go_on)?, None));
            }
            let [rewards, preferences] = judge.pairs(&users, features, &go_on)?;
            Ok((rewards, Some(preferences)))
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let blocks = judge.blocks_held(features.nrows()).min(MOST_BLOCKS);
        for wave in parts(0..self.panel.len(), at_once * threads * blocks) {
            let first = wave.start;
            let share = wave.len().div_ceil(threads).next_multiple_of(at_once);
            let shares: Vec<Range<usize>> = parts(wave, share).collect();
            let judged = |share| parts(share, at_once).map(judged).collect::<Result<Vec<_>, _>>();
            let mut at = first;
            for blocks in in_parallel(&shares, judged) {
                for (rewards, preferences) in blocks? {
                    take(at, &rewards, preferences.as_ref());
                    at += rewards.value.nrows();
                }
            }
        }
        Ok(())
    }

    fn pairs(&self) -> usize {
        if self.plan.pairs { self.plan.groups.len() } else { 0 }
    }

    fn together(
        &self,
        features: ArrayView2<'_, f32>,
        aggregates: &[Aggregate],
        welfare: Welfare,
    ) -> Result<Scored, TaskError> {
        let groups = &self.plan.groups;
        let mut tally = Tally::new(aggregates, welfare, &self.panel.counts, features.nrows(), self.pairs());
        self.blocks(features, false, |first, rewards, preferences| {
            tally.add(first, rewards, preferences, groups);
        })?;
        let pair = |at| self.plan.pairs.then_some(at);
        Ok(Scored::Audience(self.answers(
            |at, group| tally.not_finite(group, pair(at)),
            |at, group| vec![tally.score(group, pair(at))],
        )))
    }

    fn each(&self, features: ArrayView2<'_, f32>) -> Result<Scored, TaskError> {
        let states = self.panel.len();
        let mut rewards = Estimates::zeros(states, features.nrows());
        let mut preferences = Estimates::zeros(states, self.pairs());
        // An answer to a pair has a deviation of the preference alone.
        self.blocks(features, true, |first, block, of_pairs| {
            rewards.put(first, block);
            if let Some(block) = of_pairs {
                preferences.put(first, block);
            }
        })?;
        let bad_reward =
            |(first, len): (usize, usize)| (0..len).find(|position| !rewards.is_finite(first + position));
        if self.pairs() > 0 {
            let score = |seat: usize, at: usize, first: usize| PairScore {
                reward_a: rewards.value[[seat, first]],
                reward_b: rewards.value[[seat, first + 1]],
                preference: preferences.value[[seat, at]],
                uncertainty: preferences.deviation[[seat, at]],
            };
            return Ok(Scored::Pairs(self.answers(
                |at, group| bad_reward(group).or((!preferences.is_finite(at)).then_some(0)),
                |at, (first, _)| self.panel.seats.iter().map(|seat| score(*seat, at, first)).collect(),
            )));
        }
        let score = |seat: usize, (first, len): (usize, usize)| {
            let of = |estimates: &Array2<f64>| estimates.slice(s![seat, first..first + len]).to_vec();
            let values = of(&rewards.value);
            let ranking = ranking(&values);
            ItemScore { rewards: values, uncertainties: of(&rewards.deviation), ranking }
        };
        Ok(Scored::Items(self.answers(
            |_, group| bad_reward(group),
            |_, group| self.panel.seats.iter().map(|seat| score(*seat, group)).collect(),
        )))
    }

    /// What the only person's answer to each pair would tell of them, and what it is believed to be.
    pub fn prospects(mut self) -> Result<Vec<Result<Answer<Prospect>, Fault>>, TaskError> {
        self.wanted.check()?;
        if self.pairs() == 0 {
            return Ok(Vec::new());
        }
        let features = self.features()?;
        let (a, b) = (features.slice(s![0..;2, ..]), features.slice(s![1..;2, ..]));
        let head = self.model.head.as_ref();
        let user = self.panel.views(0..1, head.population().view())[0];
        let gains = head.information(user, a, b, self.model.card.calibration)?;
        self.wanted.check()?;
        let preferences = Judge { model: &self.model, scale: self.scale }.preferences(&[user], a, b)?;
        let finite = |at: usize| gains[at].is_finite() && preferences.is_finite(at);
        Ok(self.answers(
            |at, _| (!finite(at)).then_some(0),
            |at, _| {
                vec![Prospect {
                    gain: gains[at],
                    preference: preferences.value[[0, at]],
                    uncertainty: preferences.deviation[[0, at]],
                }]
            },
        ))
    }

    /// P(a preferred to b) of each pair by the person who sits at its place, and by the population.
    pub fn own(mut self) -> Result<Vec<Result<Answer<Own>, Fault>>, TaskError> {
        self.wanted.check()?;
        if self.pairs() == 0 {
            return Ok(Vec::new());
        }
        let features = self.features()?;
        let (a, b) = (features.slice(s![0..;2, ..]), features.slice(s![1..;2, ..]));
        let population = self.model.head.population().view();
        let judge = Judge { model: &self.model, scale: self.scale };
        let mut own = vec![[f64::NAN; 2]; self.pairs()];
        for (seat, state) in self.panel.states.iter().enumerate() {
            self.wanted.check()?;
            let theirs: Vec<usize> = (0..own.len()).filter(|at| self.panel.seats[*at] == seat).collect();
            let state = state.as_ref().map_or(population, PersonState::view);
            let (a, b) = (a.select(Axis(0), &theirs), b.select(Axis(0), &theirs));
            let preferences = judge.preferences(&[state, population], a.view(), b.view())?;
            for (row, at) in theirs.into_iter().enumerate() {
                if preferences.is_finite(row) {
                    own[at] = [preferences.value[[0, row]], preferences.value[[1, row]]];
                }
            }
        }
        Ok(self.answers(
            |at, _| own[at].iter().any(|preference| preference.is_nan()).then_some(0),
            |at, _| vec![own[at]],
        ))
    }

    /// Features of every response, `[rows, F]`. A text whose features are not finite becomes its group's fault, and zeros,
    /// so that it spoils no other.
    fn features(&mut self) -> Result<Array2<f32>, HeadError> {
        match self.plan.features(&self.model, &self.embedded, &[]) {
            Err(HeadError::NotFinite(_)) => {}
            features => return features,
        }
        let alone = |row: usize| self.plan.features_of(&self.model, &self.embedded, row..row + 1, &[]);
        let mut bad = Vec::new();
        for row in 0..self.plan.rows.len() {
            match alone(row) {
                Ok(_) => {}
                Err(HeadError::NotFinite(_)) => bad.push(row),
                Err(error) => return Err(error),
            }
        }
        for (at, (first, len)) in self.plan.groups.iter().enumerate() {
            let spoilt = bad.iter().find(|row| (*first..first + len).contains(row));
            if let (Some(row), None) = (spoilt, &self.faults[at]) {
                self.faults[at] = Some(not_finite(at, self.plan.part(row - first)));
            }
        }
        self.plan.features(&self.model, &self.embedded, &bad)
    }

    /// An answer for every group without a fault, of which `bad` finds no position that is not finite.
    fn answers<T>(
        &self,
        bad: impl Fn(usize, (usize, usize)) -> Option<usize>,
        scores: impl Fn(usize, (usize, usize)) -> Vec<T>,
    ) -> Vec<Result<Answer<T>, Fault>> {
        let answer = |(at, (fault, group)): (usize, (&Option<Fault>, &(usize, usize)))| {
            if let Some(fault) = fault {
                return Err(fault.clone());
            }
            if let Some(bad) = bad(at, *group) {
                return Err(not_finite(at, self.plan.part(bad)));
            }
            Ok(Answer {
                scores: scores(at, *group),
                truncated: self.plan.truncated(*group, &self.embedded),
                tokens: self.plan.tokens(*group, &self.embedded),
            })
        };
        self.faults.iter().zip(&self.plan.groups).enumerate().map(answer).collect()
    }
}

/// A number that would not be finite must not leave the server.
fn not_finite(at: usize, part: Part) -> Fault {
    Fault { at, part, error: InputError::NotFinite }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use polyreward_heads::UserState;

    use super::*;

    #[test]
    fn people_who_share_a_state_are_judged_once() {
        let state = |mean: f32| Arc::new(UserState::new(array![mean], array![[1.0]], 1).unwrap());
        let (ada, bob) = (state(1.0), state(2.0));
        let people = [None, Some(Arc::clone(&ada)), None, Some(bob), Some(ada), None];
        let panel = Panel::of(people);
        assert_eq!(
            (panel.states.len(), panel.counts, panel.seats),
            (3, vec![3, 2, 1], vec![0, 1, 0, 2, 1, 0])
        );
    }
}
