//! What it is worth to choose what people are asked: accuracy after each answer where the most telling question is put next,
//! against questions in random order.

use std::collections::HashSet;

use anyhow::ensure;
use polyreward_heads::{
    HeadError,
    evaluation::{Bootstrap, Interval, correctness},
};
use polyreward_service::{Model, Policy, TestedPerson, inquire};
use serde::Serialize;

use super::measure::Study;

/// Random orders that are averaged for each person.
const DRAWS: u64 = 16;

/// One model, its questions chosen.
#[derive(Debug, Serialize)]
pub(super) struct QueriesReport {
    /// People who were asked, as many times each.
    pub users: usize,
    /// Unseen people with fewer distinct comparisons than that, who are left out.
    pub left_out: usize,
    /// Comparisons to choose from, on average. Once all have been asked about, there was no choice.
    pub choices: f64,
    /// Random orders for each person.
    pub draws: u64,
    /// By number of answers, from none on.
    pub answers: Vec<Answered>,
    /// What random order reaches with so many answers, and with how many chosen ones that is reached.
    pub saved: Vec<Saving>,
}

/// Accuracy on the queries after a number of answers.
#[derive(Debug, Serialize)]
pub(super) struct Answered {
    pub answers: usize,
    /// Where the most telling question was asked next.
    pub chosen: f64,
    pub chosen_ci: Option<Interval>,
    /// Mean over the random orders.
    pub random: f64,
    pub random_ci: Option<Interval>,
    /// Of the two.
    pub difference: f64,
    pub difference_ci: Option<Interval>,
}

/// How many answers choosing saves, read off curves that never fall: on average more answers do not hurt, but few people
/// make a curve ragged, and the more ragged one would be the first to touch any height.
#[derive(Debug, Serialize)]
pub(super) struct Saving {
    /// Answers in random order.
    pub answers: usize,
    /// The accuracy they give, on the curve that never falls.
    pub accuracy: f64,
    /// The fewest answers in random order that reach it, linear between two numbers: fewer where more of them do not help.
    pub random: f64,
    /// The fewest chosen ones; none where all of them do not reach it.
    pub chosen: Option<f64>,
    /// Those in random order less the chosen ones; negative where choosing costs answers.
    pub saved: Option<f64>,
    /// Its interval over people; a draw in which the chosen ones do not reach it counts as if the last one did.
    pub saved_ci: Option<Interval>,
}

/// Unseen people with enough to be asked about.
#[derive(Debug)]
pub(super) struct Askable {
    people: Vec<TestedPerson>,
    left_out: usize,
    /// How often each is asked.
    answers: usize,
}

impl Askable {
    /// # Errors
    /// Nobody has as many comparisons.
    pub(super) fn of(study: &Study<'_>, answers: usize) -> anyhow::Result<Self> {
        let all = study.unseen().people;
        let count = all.len();
        let distinct = |mut person: TestedPerson| {
            let mut known = HashSet::new();
            person.context.retain(|row| {
                let mut names = study.corpus.items.names_of(row);
                names.sort_unstable();
                known.insert(names)
            });
            person
        };
        let people: Vec<TestedPerson> =
            all.into_iter().map(distinct).filter(|person| person.context.len() >= answers).collect();
        ensure!(
            !people.is_empty(),
            "--queries: no unseen person has {answers} distinct comparisons of the split context to be asked about"
        );
        Ok(Self { left_out: count - people.len(), people, answers })
    }

    /// Both policies on the same people; none for a model that learns from nobody.
    pub(super) fn measure(
        &self,
        study: &Study<'_>,
        model: &Model,
        mut inquired: impl FnMut(u64, u64),
    ) -> Result<Option<QueriesReport>, HeadError> {
        if !model.head.is_personal() {
            return Ok(None);
        }
        let right = |policy| -> Result<Curves, HeadError> {
            let (head, items) = (model.head.as_ref(), &study.corpus.items);
            let inquiry = inquire(head, model.card.calibration, items, &self.people, policy, self.answers)?;
            let right = |predictions: &Vec<f64>| predictions.iter().map(|p| correctness(*p)).sum();
            Ok(inquiry.shots.iter().map(|shot| shot.predictions.iter().map(right).collect()).collect())
        };
        let chosen = right(Policy::Information)?;
        let mut random = vec![vec![0.0; self.people.len()]; self.answers + 1];
        for draw in 0..DRAWS {
            inquired(1 + draw, 1 + DRAWS);
            for (sums, drawn) in random.iter_mut().zip(right(Policy::Random { seed: draw })?) {
                for (sum, drawn) in sums.iter_mut().zip(drawn) {
                    *sum += drawn / DRAWS as f64;
                }
            }
        }
        let queries = self.people.iter().map(|person| person.query.len() as f64).collect();
        let tallies = Tallies { chosen, random, queries };
        let choices: usize = self.people.iter().map(|person| person.context.len()).sum();
        Ok(Some(QueriesReport {
            users: self.people.len(),
            left_out: self.left_out,
            choices: choices as f64 / self.people.len() as f64,
            draws: DRAWS,
            answers: tallies.answered(study.bootstrap),
            saved: tallies.saved(study.bootstrap),
        }))
    }
}

/// Right answers by number of answers and person.
type Curves = Vec<Vec<f64>>;

/// What two policies got right of the same people's queries.
struct Tallies {
    chosen: Curves,
    random: Curves,
    /// Queries of each person.
    queries: Vec<f64>,
}

impl Tallies {
    /// Accuracy where each person counts so often.
    fn accuracy(&self, right: &[f64], counts: &[u32]) -> f64 {
        let (mut sum, mut total) = (0.0, 0.0);
        for ((count, right), queries) in counts.iter().zip(right).zip(&self.queries) {
            sum += f64::from(*count) * right;
            total += f64::from(*count) * queries;
        }
        sum / total
    }

    fn answered(&self, bootstrap: Bootstrap) -> Vec<Answered> {
        let people = self.queries.len();
        let once = vec![1; people];
        let both = |chosen: &Vec<f64>, random: &Vec<f64>, counts: &[u32]| {
            (self.accuracy(chosen, counts), self.accuracy(random, counts))
        };
        self.chosen
            .iter()
            .zip(&self.random)
            .enumerate()
            .map(|(answers, (chosen, random))| {
                let interval = |of: fn((f64, f64)) -> f64| {
                    bootstrap.interval(people, |counts| Some(of(both(chosen, random, counts))))
                };
                let (chosen, random) = both(chosen, random, &once);
                Answered {
                    answers,
                    chosen,
                    chosen_ci: interval(|(chosen, _)| chosen),
                    random,
                    random_ci: interval(|(_, random)| random),
                    difference: chosen - random,
                    difference_ci: interval(|(chosen, random)| chosen - random),
                }
            })
            .collect()
    }

    /// Against half of the answers in random order, and all of them.
    fn saved(&self, bootstrap: Bootstrap) -> Vec<Saving> {
        let last = self.chosen.len() - 1;
        let mut numbers = vec![last / 2, last];
        numbers.retain(|answers| *answers > 0);
        numbers.dedup();
        let reached = |answers: usize, counts: &[u32]| -> (f64, f64, Option<f64>) {
            let curve = |of: &Curves| rising(of.iter().map(|right| self.accuracy(right, counts)));
            let (random, chosen) = (curve(&self.random), curve(&self.chosen));
            let target = random[answers];
            let random = first_at(&random, target).expect("it reaches what it reached");
            (target, random, first_at(&chosen, target))
        };
        let once = vec![1; self.queries.len()];
        numbers
            .into_iter()
            .map(|answers| {
                let (accuracy, random, chosen) = reached(answers, &once);
                Saving {
                    answers,
                    accuracy,
                    random,
                    chosen,
                    saved: chosen.map(|chosen| random - chosen),
                    saved_ci: bootstrap.interval(self.queries.len(), |counts| {
                        let (_, random, chosen) = reached(answers, counts);
                        Some(random - chosen.unwrap_or(last as f64))
                    }),
                }
            })
            .collect()
    }
}

/// The curve nearest by least squares that never falls (isotonic regression, by pooling adjacent violators).
fn rising(curve: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut levels: Vec<(f64, usize)> = Vec::new();
    for y in curve {
        let mut level = (y, 1);
        while let Some((before, len)) = levels.pop_if(|(before, _)| *before >= level.0) {
            let all = len + level.1;
            level = ((before * len as f64 + level.0 * level.1 as f64) / all as f64, all);
        }
        levels.push(level);
    }
    levels.into_iter().flat_map(|(y, len)| std::iter::repeat_n(y, len)).collect()
}

/// Where a curve, linear between its points, first reaches a height.
fn first_at(curve: &[f64], height: f64) -> Option<f64> {
    let at = curve.iter().position(|y| *y >= height)?;
    if at == 0 {
        return Some(0.0);
    }
    let (below, above) = (curve[at - 1], curve[at]);
    Some((at - 1) as f64 + (height - below) / (above - below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn a_curve_that_never_falls_is_the_mean_wherever_it_would() {
        let curve = rising([0.5, 0.7, 0.6, 0.65, 0.9, 0.8].into_iter());
        for (actual, expected) in curve.iter().zip([0.5, 0.65, 0.65, 0.65, 0.85, 0.85]) {
            assert!(close(*actual, expected), "{curve:?}");
        }
        assert_eq!(rising([3.0, 2.0, 1.0].into_iter()), [2.0; 3]);
        assert_eq!(rising([1.0, 2.0, 3.0].into_iter()), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn a_peak_by_luck_saves_nothing() {
        // After one chosen answer as right as after four others, but never again.
        let curve = |each: [f64; 5]| -> Curves { each.map(|right| vec![right; 2]).to_vec() };
        let tallies = Tallies {
            random: curve([5.0, 5.5, 6.0, 6.5, 7.0]),
            chosen: curve([5.0, 7.0, 5.0, 6.0, 6.0]),
            queries: vec![10.0; 2],
        };
        assert_eq!(tallies.saved(Bootstrap::default())[1].saved, None);
    }

    #[test]
    fn a_curve_reaches_a_height_between_two_points_or_never() {
        let curve = [0.5, 0.6, 0.58, 0.8];
        assert_eq!(first_at(&curve, 0.4), Some(0.0));
        assert!(close(first_at(&curve, 0.55).unwrap(), 0.5));
        assert_eq!(first_at(&curve, 0.6), Some(1.0));
        assert!(close(first_at(&curve, 0.69).unwrap(), 2.5));
        assert_eq!(first_at(&curve, 0.9), None);
    }

    #[test]
    fn answers_are_saved_where_choosing_reaches_sooner_what_random_order_reaches() {
        // Two people of ten queries each, alike: chosen questions are worth two of random order.
        let curve = |each: [f64; 5]| -> Curves { each.map(|right| vec![right; 2]).to_vec() };
        let tallies = Tallies {
            random: curve([5.0, 5.5, 6.0, 6.5, 7.0]),
            chosen: curve([5.0, 6.0, 7.0, 8.0, 8.0]),
            queries: vec![10.0; 2],
        };
        let saved = tallies.saved(Bootstrap::default());
        let numbers =
            |saved: &Saving| (saved.answers, saved.random, saved.chosen, saved.saved, saved.saved_ci);
        assert_eq!(numbers(&saved[0]), (2, 2.0, Some(1.0), Some(1.0), Some([1.0, 1.0])));
        assert_eq!(numbers(&saved[1]), (4, 4.0, Some(2.0), Some(2.0), Some([2.0, 2.0])));
        let answered = tallies.answered(Bootstrap::default());
        assert!(close(answered[1].difference, 0.05) && close(answered[1].chosen, 0.6));

        // The other way round, choosing costs answers, and then does not get there at all.
        let tallies = Tallies { chosen: tallies.random, random: tallies.chosen, queries: tallies.queries };
        let saved = tallies.saved(Bootstrap::default());
        assert_eq!(numbers(&saved[0]), (2, 2.0, Some(4.0), Some(-2.0), Some([-2.0, -2.0])));
        assert_eq!(numbers(&saved[1]), (4, 3.0, None, None, Some([-1.0, -1.0])));
    }

    #[test]
    fn a_model_that_no_answer_helps_saves_none() {
        let flat: Curves = vec![vec![6.0, 3.0]; 5];
        let tallies = Tallies { chosen: flat.clone(), random: flat, queries: vec![10.0; 2] };
        for saved in tallies.saved(Bootstrap::default()) {
            assert_eq!((saved.random, saved.saved, saved.saved_ci), (0.0, Some(0.0), Some([0.0, 0.0])));
        }
    }

    #[test]
    fn people_weigh_by_their_queries() {
        let right = vec![vec![1.0, 30.0]];
        let tallies = Tallies { chosen: right.clone(), random: right, queries: vec![2.0, 40.0] };
        let answered = &tallies.answered(Bootstrap::default())[0];
        assert!(close(answered.chosen, 31.0 / 42.0));
        assert_eq!((answered.difference, answered.difference_ci), (0.0, Some([0.0, 0.0])));
    }
}
