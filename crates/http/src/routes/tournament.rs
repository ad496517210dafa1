//! `POST /tournament`: responses to one prompt, judged by an audience, by rules that may disagree.

use std::sync::Arc;

use axum::{Json, extract::State, http::HeaderMap};
use polyreward_domain::{ModelSelector, Overflow, check_text};
use polyreward_service::{
    MAX_RESPONSES, RewardScale, Scorer, Seen, TournamentFailure, TournamentOutcome, TournamentQuery,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::score::{
    AudienceBody, AudienceReply, Optional, OverflowBody, Places, UsageReply, audience, version_headers_of,
};
use crate::{
    auth::Authorized,
    entry::{Check, PromptText},
    extract::{JsonBody, known_word},
    limits::Deadline,
    problem::{InputFault, Problem, ProblemType},
};

/// Regularisations of an equilibrium: below, it is a maximal lottery but for the last digits; above, the uniform one.
const BETAS: std::ops::RangeInclusive<f64> = 0.01..=10.0;

/// What competes, before whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with prompt, responses and audience")]
#[schema(as = TournamentRequest, example = json!({
    "prompt": "Name a fish.",
    "responses": ["A trout.", "Fish are tasty.", "Salmo trutta."],
    "audience": {"groups": [{"group": {"country": "UK"}, "weight": 0.4}, {"group": {"country": "US"}, "weight": 0.6}]},
}))]
pub(crate) struct TournamentRequest {
    /// The model, as `name` for its newest version or `name@version`; by default the server's.
    #[schema(example = "pal-a")]
    model: Option<String>,
    prompt: PromptText,
    /// The responses; each may be empty.
    #[schema(min_items = 1, max_items = 32)]
    responses: Vec<String>,
    /// Who judges. `aggregate` has no meaning here, and is refused.
    audience: AudienceBody,
    /// How far the regularised equilibrium is held to the uniform lottery; 0.1 by default.
    #[schema(minimum = 0.01, maximum = 10, example = 0.1)]
    beta: Option<f64>,
    /// What becomes of a text longer than the backbone's window; `truncate` by default.
    #[schema(value_type = Option<OverflowBody>)]
    on_overflow: Option<String>,
}

/// Who wins, by each rule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tournament)]
pub(crate) struct TournamentReply {
    /// `name@version`.
    #[schema(example = "pal-a@3f9c")]
    model: String,
    backbone: String,
    audience: AudienceReply,
    /// `[a][b]`: the audience's mean P(response a preferred to b); 0.5 on the diagonal, `1 - p` across it.
    preference: Vec<Vec<f64>>,
    /// `[a][b]`: posterior standard deviations of `preference`.
    uncertainty: Vec<Vec<f64>>,
    /// The response that is preferred to every other one; null where the audience prefers in a circle, or is torn.
    #[schema(required)]
    condorcet_winner: Option<usize>,
    /// Mean preference over the others.
    borda: Vec<f64>,
    /// How many others it is preferred to; a tie counts one half.
    copeland: Vec<f64>,
    /// Probabilities such that no response is preferred to a draw from them.
    maximal_lottery: Vec<f64>,
    regularized: RegularizedReply,
    /// Mean utility on the `win_rate` scale.
    mean: Vec<f64>,
    /// Utility of the worst-off member, or of the worst-off of the groups.
    min: Vec<f64>,
    winners: WinnersReply,
    /// Whether all rules name the same winner.
    unanimous: bool,
    usage: UsageReply,
}

/// The equilibrium of the game regularised towards the uniform lottery, which training against such an audience leads to: the
/// one `x` proportional to `exp(preference x / beta)`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RegularizedEquilibrium)]
pub(crate) struct RegularizedReply {
    beta: f64,
    lottery: Vec<f64>,
    /// By how much the audience's best answer to the lottery beats it; 0 for a maximal one.
    exploitability: f64,
}

/// Positions of the winners; the first of several.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Winners)]
pub(crate) struct WinnersReply {
    #[schema(required)]
    condorcet: Option<usize>,
    borda: usize,
    copeland: usize,
    /// The likeliest of the lottery.
    maximal_lottery: usize,
    /// The best for the mean.
    mean: usize,
    /// The best for the worst off.
    min: usize,
}

/// Lets responses to one prompt compete before an audience.
///
/// People who each have one reward can, together, prefer in a circle, and the response with the best mean need not be the one
/// that most prefer: the rules stand side by side.
#[utoipa::path(post, path = "/tournament", tag = "scoring", operation_id = "tournament", request_body = TournamentRequest, params(
    ("x-request-timeout-ms" = Option<u64>, Header, description = "Lowers the deadline of 100 s; more counts as 100 s", minimum = 1),
), responses((status = 200, description = "Who wins, by each rule", body = TournamentReply)))]
#[tracing::instrument(name = "http.tournament", skip_all, fields(responses = body.responses.len()))]
pub(crate) async fn tournament(
    caller: Authorized,
    State(scorer): State<Scorer>,
    deadline: Deadline,
    JsonBody(body): JsonBody<TournamentRequest>,
) -> Result<(HeaderMap, Json<TournamentReply>), Problem> {
    let query = body.into_query(deadline)?;
    let beta = query.beta;
    let outcome = scorer.tournament(&caller.0.tenant, query).await.map_err(|error| match error {
        TournamentFailure::Score(error) => Places::of_responses().problem(error),
        TournamentFailure::Lottery(error) => Problem::internal(&error),
    })?;
    let headers = version_headers_of(&outcome.model, outcome.state_version);
    Ok((headers, Json(TournamentReply::new(outcome, beta))))
}

impl TournamentRequest {
    fn into_query(self, deadline: Deadline) -> Result<TournamentQuery, Problem> {
        let count = self.responses.len();
        if count > MAX_RESPONSES {
            let detail = format!("{count} responses, more than the {MAX_RESPONSES} of one tournament");
            return Err(Problem::new(ProblemType::TooManyTexts)
                .detail(detail)
                .limit("max_responses", MAX_RESPONSES));
        }
        let mut faults = Vec::new();
        let mut optional = Optional(&mut faults);
        let model = optional.check("/model", self.model, str::parse::<ModelSelector>);
        let overflow = optional.check("/on_overflow", self.on_overflow, known_word::<OverflowBody>);
        if self.audience.names_aggregates() {
            faults
                .push(InputFault::new("/audience/aggregate", "has no meaning here: every rule is answered"));
        }
        let whose = audience(self.audience, RewardScale::WinRate, &mut faults);
        let beta = self.beta.unwrap_or(0.1);
        if !BETAS.contains(&beta) {
            faults.push(InputFault::new("/beta", "is a number from 0.01 to 10"));
        }
        let mut check = Check::whole();
        let prompt = check.prompt(self.prompt);
        faults.append(&mut check.faults);
        if count == 0 {
            faults.push(InputFault::new("/responses", "has at least one response"));
        }
        for (at, response) in self.responses.iter().enumerate() {
            if let Err(error) = check_text(response) {
                faults.push(InputFault::new(format!("/responses/{at}"), error));
            }
        }
        if !faults.is_empty() {
            return Err(Problem::invalid(faults));
        }
        Ok(TournamentQuery {
            model,
            whose,
            prompt,
            responses: self.responses.into_iter().map(Arc::from).collect(),
            beta,
            overflow: overflow.map_or(Overflow::default(), Into::into),
            deadline: Some(deadline.0),
        })
    }
}

impl TournamentReply {
    fn new(outcome: TournamentOutcome, beta: f64) -> Self {
        let winner = TournamentOutcome::winner;
        let winners = WinnersReply {
            condorcet: outcome.condorcet,
            borda: winner(&outcome.borda),
            copeland: winner(&outcome.copeland),
            maximal_lottery: winner(&outcome.lottery),
            mean: winner(&outcome.mean),
            min: winner(&outcome.least),
        };
        let all = [winners.copeland, winners.maximal_lottery, winners.mean, winners.min];
        let unanimous = all.iter().all(|one| *one == winners.borda)
            && winners.condorcet.is_none_or(|one| one == winners.borda);
        let seen = match outcome.seen {
            Seen::Audience { users, left_out, groups, worst_off } => {
                AudienceReply::new(users, left_out, groups, worst_off)
            }
            Seen::Population | Seen::User(_) | Seen::Users(_) => AudienceReply::new(0, 0, Vec::new(), None),
        };
        Self {
            model: outcome.model.to_string(),
            backbone: outcome.backbone,
            audience: seen,
            preference: outcome.shares,
            uncertainty: outcome.deviations,
            condorcet_winner: outcome.condorcet,
            borda: outcome.borda,
            copeland: outcome.copeland,
            maximal_lottery: outcome.lottery,
            regularized: RegularizedReply {
                beta,
                lottery: outcome.regularized,
                exploitability: outcome.exploitability,
            },
            mean: outcome.mean,
            min: outcome.least,
            winners,
            unanimous,
            usage: outcome.usage.into(),
        }
    }
}
