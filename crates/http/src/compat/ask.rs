//! From texts to the service's [`ScoreQuery`], and from its outcome to a reward a text.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, request::Parts},
};
use polyreward_backbone::Backbone;
use polyreward_domain::{ModelSelector, Overflow, Prompt, check_text};
use polyreward_service::{
    Answer, AudienceScore, Caller, Clock, Fault, Item, ItemScore, Part, RewardScale, ScoreError,
    ScoreOutcome, ScoreQuery, Scored, Scorer, Whose, Work,
};

use super::{parameters::Parameters, template::Template, text::Whole};
use crate::{
    auth::Authorized,
    limits::{Deadline, Limits},
    metrics,
    problem::{InputFault, Problem, ProblemType},
    request_id::RequestId,
    routes::score::{problem_of, single, version_headers},
};

/// One request to a compatibility route: who asks, until when, and what its query string says.
pub(crate) struct Asking {
    caller: Caller,
    scorer: Scorer,
    limits: Arc<Limits>,
    deadline: Deadline,
    id: String,
    /// Seconds since 1970.
    pub created: i64,
    pub started: Instant,
    /// Tokens of the backbone's window.
    pub window: usize,
    pub path: String,
    query: Option<String>,
}

impl<S> FromRequestParts<S> for Asking
where
    S: Send + Sync,
    Scorer: FromRef<S>,
    Arc<Limits>: FromRef<S>,
    Arc<dyn Clock>: FromRef<S>,
    Backbone: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Authorized(caller) = Authorized::from_request_parts(parts, state).await?;
        let id = parts.extensions.get::<RequestId>().and_then(|id| id.0.to_str().ok());
        let id = id.unwrap_or_default().to_owned();
        Ok(Self {
            caller,
            scorer: Scorer::from_ref(state),
            limits: Arc::from_ref(state),
            deadline: Deadline::from_request_parts(parts, state).await?,
            id,
            created: Arc::<dyn Clock>::from_ref(state).now().unix_timestamp(),
            started: Instant::now(),
            window: Backbone::from_ref(state).info().max_tokens,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
        })
    }
}

/// Texts on their way to be scored, each with its place in the request.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    items: Vec<Item>,
    pointers: Vec<String>,
    faults: Vec<InputFault>,
    /// Characters of all texts.
    pub characters: usize,
}

impl Entries {
    /// A prompt that one or more responses answer, checked.
    pub fn prompt(&mut self, pointer: &str, prompt: Prompt) -> Arc<Prompt> {
        if let Err(error) = prompt.check() {
            let kind = match &prompt {
                Prompt::Tokens(_) => ProblemType::InvalidInput,
                Prompt::Text(_) | Prompt::Raw(_) | Prompt::Chat(_) => ProblemType::Unreadable,
            };
            self.faults.push(InputFault::of(kind, pointer, error));
        }
        self.characters += match &prompt {
            Prompt::Text(text) | Prompt::Raw(text) => text.chars().count(),
            Prompt::Chat(messages) => messages.iter().map(|message| message.content.chars().count()).sum(),
            Prompt::Tokens(_) => 0,
        };
        Arc::new(prompt)
    }

    /// A response.
    pub fn push(&mut self, pointer: String, prompt: &Arc<Prompt>, response: String) {
        if let Err(error) = check_text(&response) {
            self.faults.push(InputFault::of(ProblemType::Unreadable, pointer.clone(), error));
        }
        self.characters += response.chars().count();
        self.items.push(Item { prompt: Arc::clone(prompt), responses: vec![response.into()] });
        self.pointers.push(pointer);
    }

    /// A prompt and its response together, as text or as ids.
    pub fn push_input(&mut self, pointer: String, whole: Whole, template: Template) {
        match whole {
            Whole::Text(text) => self.push_whole(pointer, text, template),
            Whole::Ids(ids) => {
                // Ids are what a template has come to: there is nothing left to take apart.
                if template != Template::Raw {
                    metrics::whole_text("template");
                }
                let prompt = self.prompt(&pointer, Prompt::Tokens(ids));
                self.push(pointer, &prompt, String::new());
            }
        }
    }

    /// A text that holds a prompt and its response.
    pub fn push_whole(&mut self, pointer: String, text: String, template: Template) {
        let (prompt, response) = template.take_apart(&text).unwrap_or_else(|| {
            if template != Template::Raw {
                metrics::whole_text("template");
            }
            (Prompt::Raw(String::new()), text)
        });
        let prompt = self.prompt(&pointer, prompt);
        self.push(pointer, &prompt, response);
    }
}

/// What is asked of the service.
pub(crate) struct Ask {
    pub model: Option<ModelSelector>,
    pub whose: Whose,
    pub scale: RewardScale,
    /// Another scale on which rewards are wanted, too.
    pub also: Option<RewardScale>,
    pub overflow: Overflow,
    pub entries: Entries,
}

/// The reward of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reward {
    /// On the scale asked for.
    pub value: f32,
    /// On the other one.
    pub also: Option<f32>,
    /// Posterior standard deviation of a person's reward; of a group, that of the rewards of its members.
    pub deviation: f32,
    /// Tokens that were read.
    pub tokens: usize,
}

/// The rewards of a request.
pub(crate) struct Rewards {
    /// `name@version`.
    pub model: String,
    /// `x-model-version` and `x-user-state-version`.
    pub headers: HeaderMap,
    /// One an entry, in their order.
    pub each: Vec<Reward>,
}

impl Rewards {
    /// Tokens that were read.
    pub fn tokens(&self) -> usize {
        self.each.iter().map(|reward| reward.tokens).sum()
    }

    pub fn values(&self) -> Vec<f32> {
        self.each.iter().map(|reward| reward.value).collect()
    }

    /// On the other scale.
    pub fn others(&self) -> Vec<f32> {
        self.each.iter().map(|reward| reward.also.expect("both scales were asked for")).collect()
    }
}

impl Asking {
    /// The query string's parameters, of which the route has some of its own.
    pub fn parameters(&self, more: &[&'static str]) -> Result<Parameters, Problem> {
        Parameters::of(self.query.as_deref(), more)
    }

    /// An id as OpenAI's clients know it; the request's with what it is an answer to.
    pub fn id(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.id)
    }

    /// Refuses more texts than one request may have.
    pub fn check_batch(&self, texts: usize) -> Result<(), Problem> {
        let max = self.limits.max_batch;
        if texts <= max {
            return Ok(());
        }
        let detail = format!("{texts} texts, more than the {max} of one request");
        Err(Problem::new(ProblemType::TooManyTexts).detail(detail).limit("max_batch", max))
    }

    /// Rewards in the order of the entries, of which there is at least one.
    pub async fn score(&self, ask: Ask) -> Result<Rewards, Problem> {
        let Entries { items, pointers, faults, .. } = ask.entries;
        if items.is_empty() {
            return Err(Problem::new(ProblemType::EmptyInput));
        }
        self.check_batch(items.len())?;
        if !faults.is_empty() {
            return Err(Problem::invalid(faults));
        }
        let query = ScoreQuery {
            model: ask.model,
            whose: ask.whose,
            work: Work::Items(items),
            scale: ask.scale,
            also: ask.also,
            overflow: ask.overflow,
            partial: false,
            deadline: Some(self.deadline.0),
        };
        let place = |fault: &Fault| InputFault::of_text(pointers[fault.at].clone(), &fault.error);
        let outcome = self.scorer.score(&self.caller.tenant, query).await;
        let outcome = outcome.map_err(|error| problem(error, &place))?;
        rewards(outcome, &place)
    }
}

/// The service's error; people and groups are named by the query string.
fn problem(error: ScoreError, place: &impl Fn(&Fault) -> InputFault) -> Problem {
    match &error {
        ScoreError::EmptyAudience(_) => {
            let fault = InputFault::new("", "nobody has these attributes").of_parameter("group");
            Problem::invalid(vec![fault])
        }
        _ => problem_of(error, place),
    }
}

fn rewards(outcome: ScoreOutcome, place: &impl Fn(&Fault) -> InputFault) -> Result<Rewards, Problem> {
    let headers = version_headers(&outcome);
    let (each, mut faults) = numbers(outcome.results);
    let also = outcome.also.map(|also| {
        let (also, of_other) = numbers(also);
        faults.extend(of_other);
        also
    });
    if !faults.is_empty() {
        return Err(Problem::invalid(faults.iter().map(place).collect()));
    }
    let reward = |(at, one): (usize, Reward)| Reward {
        also: also.as_ref().and_then(|also| also.get(at)).map(|other| other.value),
        ..one
    };
    let each = each.into_iter().enumerate().map(reward).collect();
    Ok(Rewards { model: outcome.model.to_string(), headers, each })
}

/// A reward for each entry, and what is wrong with the others.
fn numbers(scored: Scored) -> (Vec<Reward>, Vec<Fault>) {
    let of_item = |Answer { scores, tokens, .. }: Answer<ItemScore>| {
        (scores[0].rewards[0], scores[0].uncertainties[0], tokens)
    };
    let of_audience = |Answer { scores, tokens, .. }: Answer<AudienceScore>| {
        (scores[0].aggregates[0].1[0], scores[0].spreads[0], tokens)
    };
    let answers: Vec<Result<(f64, f64, usize), Fault>> = match scored {
        Scored::Items(answers) => answers.into_iter().map(|answer| answer.map(of_item)).collect(),
        Scored::Audience(answers) => answers.into_iter().map(|answer| answer.map(of_audience)).collect(),
        Scored::Pairs(_) => unreachable!("items were asked for"),
    };
    let (mut each, mut faults) = (Vec::with_capacity(answers.len()), Vec::new());
    for (at, answer) in answers.into_iter().enumerate() {
        let reward = answer.and_then(|(value, deviation, tokens)| {
            Ok(Reward {
                value: single(value, at, Part::Response(0))?,
                also: None,
                deviation: single(deviation, at, Part::Response(0))?,
                tokens,
            })
        });
        match reward {
            Ok(reward) => each.push(reward),
            Err(fault) => faults.push(fault),
        }
    }
    (each, faults)
}
