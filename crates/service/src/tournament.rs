//! `POST /tournament` without HTTP: which of some responses a group prefers, by rules that may disagree.

use std::{sync::Arc, time::Instant};

use ndarray::{Array2, ArrayView2};
use polyreward_domain::{ModelRef, ModelSelector, Overflow, Prompt, StateVersion, TenantId};
use polyreward_heads::{Tournament, TournamentError};

use crate::{
    aside::aside,
    judge::ranking,
    score::{
        Aggregate, Answer, AudienceScore, Fault, Item, Pair, Part, RewardScale, ScoreError, ScoreOutcome,
        ScoreQuery, Scored, Scorer, Seen, Usage, Whose, Work,
    },
};

/// Responses that one tournament has, at most.
pub const MAX_RESPONSES: usize = 32;

/// A request to let responses to one prompt compete.
#[derive(Debug, Clone)]
pub struct TournamentQuery {
    /// Which model; `None` is the default.
    pub model: Option<ModelSelector>,
    /// Who judges: an audience or groups.
    pub whose: Whose,
    /// What was asked.
    pub prompt: Arc<Prompt>,
    /// What competes, one to [`MAX_RESPONSES`].
    pub responses: Vec<Arc<str>>,
    /// How far the regularised equilibrium is held to the uniform lottery; above 0.
    pub beta: f64,
    /// What becomes of texts longer than the window.
    pub overflow: Overflow,
    /// When the answer is no longer wanted.
    pub deadline: Option<Instant>,
}

/// The answer to a [`TournamentQuery`].
#[derive(Debug)]
pub struct TournamentOutcome {
    /// Which model answered.
    pub model: ModelRef,
    /// On which backbone.
    pub backbone: String,
    /// Who judged.
    pub seen: Seen,
    /// What their states were derived from, together.
    pub state_version: StateVersion,
    /// `[R, R]`: the mean preference for the row's response over the column's.
    pub shares: Vec<Vec<f64>>,
    /// `[R, R]`: posterior standard deviations of the shares.
    pub deviations: Vec<Vec<f64>>,
    /// The response that beats every other one, if any.
    pub condorcet: Option<usize>,
    /// Mean share against the others.
    pub borda: Vec<f64>,
    /// Others beaten; a tie counts one half.
    pub copeland: Vec<f64>,
    /// The maximal lottery.
    pub lottery: Vec<f64>,
    /// The equilibrium regularised towards the uniform lottery.
    pub regularized: Vec<f64>,
    /// By how much the audience's best answer beats that.
    pub exploitability: f64,
    /// Mean utility on the `win_rate` scale.
    pub mean: Vec<f64>,
    /// The worst-off person's, or group's, utility.
    pub least: Vec<f64>,
    /// What it cost.
    pub usage: Usage,
    /// Rewards behind it.
    pub rewards: usize,
}

impl TournamentOutcome {
    /// The first of the best under some numbers.
    pub fn winner(numbers: &[f64]) -> usize {
        ranking(numbers)[0]
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum TournamentFailure {
    /// The responses cannot be scored for these people.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The lottery cannot be drawn up.
    #[error(transparent)]
    Lottery(#[from] TournamentError),
}

impl Scorer {
    /// Lets responses compete.
    ///
    /// # Errors
    /// Those of scoring them ([`ScoreError`]; a fault's part is the response's position), and a lottery that is not found.
    #[tracing::instrument(name = "service.tournament", skip_all)]
    pub async fn tournament(
        &self,
        tenant: &TenantId,
        query: TournamentQuery,
    ) -> Result<TournamentOutcome, TournamentFailure> {
        let TournamentQuery { model, whose, prompt, responses, beta, overflow, deadline } = query;
        let count = responses.len();
        let ask = |model, whose, work, scale| ScoreQuery {
            model,
            whose,
            work,
            scale,
            also: None,
            overflow,
            partial: false,
            deadline,
        };
        let utilities = with_aggregates(&whose, vec![Aggregate::Mean, Aggregate::Min]);
        let items = Work::Items(vec![Item { prompt: Arc::clone(&prompt), responses: responses.clone() }]);
        let of_items = self.score(tenant, ask(model, utilities, items, RewardScale::WinRate)).await?;
        // The same model judges the pairs, whatever is loaded meanwhile.
        let ModelRef { name, version } = of_items.model.clone();
        let model = Some(ModelSelector { name, version: Some(version) });
        let sides: Vec<(usize, usize)> =
            (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect();
        let pair = |(a, b): &(usize, usize)| Pair {
            prompt: Arc::clone(&prompt),
            response_a: Arc::clone(&responses[*a]),
            response_b: Arc::clone(&responses[*b]),
        };
        let of_pairs = if sides.is_empty() {
            None
        } else {
            let whose = with_aggregates(&whose, vec![Aggregate::Mean]);
            let pairs = Work::Pairs(sides.iter().map(pair).collect());
            let outcome = self.score(tenant, ask(model, whose, pairs, RewardScale::Raw)).await;
            Some(outcome.map_err(|error| of_response(error, &sides))?)
        };
        let (shares, deviations) = matrices(count, &sides, of_pairs.as_ref());
        let (tournament, lottery, regularized) = aside(move || {
            let tournament = Tournament::new(shares)?;
            let lottery = tournament.maximal_lottery()?;
            let regularized = tournament.regularized_lottery(beta)?;
            Ok::<_, TournamentError>((tournament, lottery, regularized))
        })
        .await
        .map_err(ScoreError::from)??;
        let mut answers = scores(&of_items);
        let AudienceScore { aggregates, .. } = answers.next().expect("one item was asked for");
        let of =
            |how| aggregates.iter().find(|(other, _)| *other == how).expect("it was asked for").1.clone();
        Ok(TournamentOutcome {
            model: of_items.model.clone(),
            backbone: of_items.backbone.clone(),
            seen: of_items.seen.clone(),
            state_version: of_items.state_version,
            condorcet: tournament.condorcet_winner(),
            borda: tournament.borda(),
            copeland: tournament.copeland(),
            lottery,
            exploitability: tournament.exploitability(&regularized),
            regularized,
            mean: of(Aggregate::Mean),
            least: of(Aggregate::Min),
            shares: rows(tournament.shares()),
            deviations: rows(deviations.view()),
            usage: of_items.usage,
            rewards: of_items.rewards + of_pairs.map_or(0, |outcome| outcome.rewards),
        })
    }
}

fn rows(matrix: ArrayView2<'_, f64>) -> Vec<Vec<f64>> {
    matrix.rows().into_iter().map(|row| row.to_vec()).collect()
}

/// The same people, reduced to other numbers.
fn with_aggregates(whose: &Whose, aggregates: Vec<Aggregate>) -> Whose {
    match whose.clone() {
        Whose::Audience { group, welfare, .. } => Whose::Audience { group, aggregates, welfare },
        Whose::Groups { groups, welfare, .. } => Whose::Groups { groups, aggregates, welfare },
        other => other,
    }
}

/// A fault of a pair, as that of the response that it is about.
fn of_response(error: ScoreError, sides: &[(usize, usize)]) -> ScoreError {
    let ScoreError::Faults(faults) = error else { return error };
    let place = |fault: Fault| {
        let (a, b) = sides[fault.at];
        let response = if fault.part == Part::ResponseB { b } else { a };
        Fault { at: 0, part: Part::Response(response), ..fault }
    };
    ScoreError::Faults(faults.into_iter().map(place).collect())
}

/// What the audience makes of each entry; without `partial` there is no fault among them.
fn scores(outcome: &ScoreOutcome) -> impl Iterator<Item = &AudienceScore> {
    let answers: &[Result<Answer<AudienceScore>, Fault>] = match &outcome.results {
        Scored::Audience(answers) => answers,
        Scored::Pairs(_) | Scored::Items(_) => &[],
    };
    answers.iter().flatten().flat_map(|answer| &answer.scores)
}

/// Preferences above the diagonal, their complements below, and the deviations of both.
fn matrices(
    count: usize,
    sides: &[(usize, usize)],
    outcome: Option<&ScoreOutcome>,
) -> (Array2<f64>, Array2<f64>) {
    let (mut shares, mut deviations) =
        (Array2::from_elem((count, count), 0.5), Array2::zeros((count, count)));
    for ((a, b), score) in sides.iter().zip(outcome.into_iter().flat_map(scores)) {
        let (preference, deviation) = score.preference.expect("a pair has a preference");
        (shares[[*a, *b]], shares[[*b, *a]]) = (preference, 1.0 - preference);
        (deviations[[*a, *b]], deviations[[*b, *a]]) = (deviation, deviation);
    }
    (shares, deviations)
}
