//! Where examples go: a server over HTTP, or a database.

use std::time::Duration;

use anyhow::{Context, anyhow};
use polyreward_domain::{Attributes, UserId};
use reqwest::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    batch::{Entry, ExampleBody, Post, PostLimits},
    database::Direct,
    ledger::{Outcome, Reject},
};
use crate::{
    remote::{Refused, Remote},
    retry::{Retry, Trouble},
};

/// Where examples go.
pub enum Target {
    /// To a server.
    Server(Remote),
    /// Into a database.
    Database(Box<Direct>),
}

/// What became of a post that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Examples that are stored now and were not before.
    pub accepted: u64,
    /// Examples that were there already.
    pub duplicates: u64,
}

/// Why a post was not taken; nothing of it is stored.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Some examples, by their positions, each with what is wrong.
    Examples(Vec<(usize, String)>),
    /// The person would have too many examples.
    Full(String),
    /// The post is too large.
    TooLarge(String),
    /// Whatever its examples.
    Whole(String),
}

/// How often and how long something is tried.
#[derive(Debug, Clone)]
pub struct Patience {
    /// How long after the first failure.
    pub limit: Duration,
    /// Whether the work is told to stop.
    pub stop: watch::Receiver<bool>,
}

impl Patience {
    fn retry(&self) -> Retry {
        Retry::new(self.limit, self.stop.clone())
    }
}

#[derive(Serialize)]
struct Body<'a> {
    attributes: &'a Attributes,
    examples: Vec<ExampleBody<'a>>,
}

impl Target {
    /// What a post may hold.
    ///
    /// # Errors
    /// The server does not answer, or not as one of ours.
    pub async fn limits(&self, patience: &Patience) -> anyhow::Result<PostLimits> {
        let remote = match self {
            Self::Database(direct) => return Ok(direct.limits()),
            Self::Server(remote) => remote,
        };
        let mut retry = patience.retry();
        let info = loop {
            match remote.get("/info").await {
                Ok(info) => break info,
                Err(Trouble::Later { why, after }) => retry.wait(&why, after).await?,
                Err(Trouble::Refused(refused)) => return Err(anyhow!("GET /info: {}", refused.reason())),
                Err(Trouble::Fatal(error)) => return Err(error),
            }
        };
        let limit = |name: &str| {
            let limit = info["limits"][name].as_u64().and_then(|limit| usize::try_from(limit).ok());
            limit.with_context(|| format!("GET /info of the server does not say {name}"))
        };
        // Each example is two texts.
        let examples = (limit("max_batch")? / 2).min(limit("max_examples")?).max(1);
        Ok(PostLimits { examples, bytes: limit("max_body_bytes")? })
    }

    /// Why nobody of a name can be written to here.
    pub fn refuses(&self, user_id: &UserId) -> Option<&'static str> {
        let is_step = matches!(user_id.as_str(), "." | "..");
        (is_step && matches!(self, Self::Server(_)))
            .then_some("user_id: . and .. are no names in a path of HTTP")
    }

    /// Sends examples of one person: all are stored, or none.
    async fn send(
        &self,
        user_id: &UserId,
        attributes: &Attributes,
        entries: &[Entry],
    ) -> Result<Stored, Trouble<Refusal>> {
        let remote = match self {
            Self::Database(direct) => return direct.learn(user_id, attributes, entries).await,
            Self::Server(remote) => remote,
        };
        let examples = entries.iter().map(|entry| ExampleBody::from(&entry.example)).collect();
        let body = serde_json::to_string(&Body { attributes, examples })
            .map_err(|error| Trouble::Fatal(error.into()))?;
        match remote.post(&format!("/users/{user_id}/examples"), body).await {
            Ok(reply) => stored(&reply)
                .ok_or_else(|| Trouble::Fatal(anyhow!("the server's answer does not say what it stored"))),
            Err(Trouble::Refused(refused)) => Err(refusal(&refused)),
            Err(Trouble::Later { why, after }) => Err(Trouble::Later { why, after }),
            Err(Trouble::Fatal(error)) => Err(Trouble::Fatal(error)),
        }
    }
}

fn stored(reply: &Value) -> Option<Stored> {
    Some(Stored { accepted: reply["accepted"].as_u64()?, duplicates: reply["duplicates"].as_u64()? })
}

/// What a server's refusal means for the examples.
fn refusal(refused: &Refused) -> Trouble<Refusal> {
    let reason = refused.reason();
    Trouble::Refused(match refused.status {
        StatusCode::UNPROCESSABLE_ENTITY => {
            let errors = refused.problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
            let faults: Option<Vec<_>> = errors.iter().map(fault).collect();
            match faults {
                Some(faults) if !faults.is_empty() => Refusal::Examples(faults),
                _ => Refusal::Whole(reason),
            }
        }
        StatusCode::CONFLICT => Refusal::Full(reason),
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge(reason),
        _ => return Trouble::Fatal(anyhow!("the server says: {reason} ({})", refused.status)),
    })
}

/// Which example an entry of `errors` is about, and what is wrong with it.
fn fault(error: &Value) -> Option<(usize, String)> {
    let below = error["pointer"].as_str()?.strip_prefix("/examples/")?;
    let (at, field) = below.split_once('/').unwrap_or((below, "the comparison"));
    Some((at.parse().ok()?, format!("{field} {}", error["detail"].as_str().unwrap_or("is refused"))))
}

/// Sends a post until every example of it is stored or rejected.
///
/// # Errors
/// What does not pass in time; what was stored until then stays stored.
pub async fn deliver(target: &Target, post: Post, patience: &Patience) -> anyhow::Result<Outcome> {
    let Post { user_id, attributes, entries: mut left, .. } = post;
    let mut outcome = Outcome::default();
    let reject = |entries: Vec<Entry>, reason: &str| -> Vec<Reject> {
        let one = |entry| Reject::of_entry(&user_id, &attributes, entry, reason.to_owned());
        entries.into_iter().map(one).collect()
    };
    // So many of those left were too many for the person, or for one post.
    let (mut too_many, mut too_large) = (usize::MAX, usize::MAX);
    let mut retry = patience.retry();
    while !left.is_empty() {
        let most = |known: usize| if known == usize::MAX { known } else { known / 2 };
        let take = left.len().min(most(too_many)).min(most(too_large)).max(1);
        match target.send(&user_id, &attributes, &left[..take]).await {
            Ok(stored) => {
                outcome.stored += stored.accepted;
                outcome.duplicates += stored.duplicates;
                left.drain(..take);
                if too_many != usize::MAX {
                    too_many -= take;
                }
                retry = patience.retry();
            }
            Err(Trouble::Refused(Refusal::Full(_))) if take > 1 => too_many = take,
            Err(Trouble::Refused(Refusal::TooLarge(_))) if take > 1 => too_large = take,
            Err(Trouble::Refused(Refusal::TooLarge(reason))) => {
                outcome.rejects.extend(reject(left.drain(..1).collect(), &reason));
            }
            Err(Trouble::Refused(Refusal::Examples(faults))) => {
                outcome.rejects.extend(take_out(&mut left, faults, |entry, reason| {
                    Reject::of_entry(&user_id, &attributes, entry, reason)
                })?);
                too_many = usize::MAX;
            }
            // The first of those left is one too many.
            Err(Trouble::Refused(Refusal::Full(reason) | Refusal::Whole(reason))) => {
                outcome.rejects.extend(reject(std::mem::take(&mut left), &reason));
            }
            Err(Trouble::Later { why, after }) => retry.wait(&why, after).await?,
            Err(Trouble::Fatal(error)) => return Err(error),
        }
    }
    outcome.rejects.sort_by_key(|reject| reject.place.index);
    Ok(outcome)
}

/// Takes the examples at fault out of those that are left.
fn take_out(
    left: &mut Vec<Entry>,
    mut faults: Vec<(usize, String)>,
    mut reject: impl FnMut(Entry, String) -> Reject,
) -> anyhow::Result<Vec<Reject>> {
    // Stable, so that of several faults of an example the first is told.
    faults.sort_by_key(|(at, _)| *at);
    faults.dedup_by_key(|(at, _)| *at);
    let mut rejects = Vec::with_capacity(faults.len());
    for (at, reason) in faults.into_iter().rev() {
        anyhow::ensure!(at < left.len(), "the server names an example that was not posted");
        rejects.push(reject(left.remove(at), reason));
    }
    rejects.reverse();
    Ok(rejects)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: u16, problem: Value) -> Refusal {
        match refusal(&Refused { status: StatusCode::from_u16(status).unwrap(), problem }) {
            Trouble::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pointers_of_a_refusal_are_mapped_back_to_the_examples() {
        let errors = json!([
            {"pointer": "/examples/0/chosen", "detail": "is too long"},
            {"pointer": "/examples/12/prompt/0/role", "detail": "is empty"},
        ]);
        let expected = [(0, "chosen is too long".to_owned()), (12, "prompt/0/role is empty".to_owned())];
        assert_eq!(of(422, json!({"errors": errors})), Refusal::Examples(expected.into()));
        let whole = json!({"title": "no", "errors": [{"pointer": "/attributes/country", "detail": "bad"}]});
        assert_eq!(of(422, whole), Refusal::Whole("no".into()));
        assert_eq!(of(409, json!({"title": "full"})), Refusal::Full("full".into()));
        assert_eq!(of(413, json!({"title": "large"})), Refusal::TooLarge("large".into()));
    }
}
