//! What the answers of OpenAI's, vLLM's and their kin have in common.

use axum::{
    Json,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use polyreward_domain::Overflow;
use polyreward_service::RewardScale;
use serde::Serialize;
use utoipa::ToSchema;

use super::ask::Rewards;
use crate::problem::{InputFault, Problem, ProblemType};

/// What a request cost.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = OpenAiUsage)]
#[expect(clippy::struct_field_names, reason = "OpenAI's names")]
pub(crate) struct TokenUsage {
    /// Tokens that were read.
    prompt_tokens: usize,
    total_tokens: usize,
    /// None is ever written.
    completion_tokens: usize,
}

impl TokenUsage {
    pub fn of(rewards: &Rewards) -> Self {
        let tokens = rewards.tokens();
        Self { prompt_tokens: tokens, total_tokens: tokens, completion_tokens: 0 }
    }
}

/// A vector of one number: the reward.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Vector {
    Floats([f32; 1]),
    /// Little-endian single precision, as Base64.
    Base64(String),
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Float,
    Base64,
}

impl Encoding {
    /// `float` by default; OpenAI's own client asks for `base64`.
    pub fn of(format: Option<&str>) -> Result<Self, Problem> {
        match format {
            None | Some("float") => Ok(Self::Float),
            Some("base64") => Ok(Self::Base64),
            Some(_) => Err(wrong("/encoding_format", "is float or base64")),
        }
    }

    pub fn write(self, reward: f32) -> Vector {
        match self {
            Self::Float => Vector::Floats([reward]),
            Self::Base64 => Vector::Base64(BASE64_STANDARD.encode(reward.to_le_bytes())),
        }
    }
}

/// Refuses to make a reward into so many numbers.
pub(super) fn check_dimensions(dimensions: Option<u64>) -> Result<(), Problem> {
    match dimensions {
        None | Some(1) => Ok(()),
        Some(_) => Err(not_supported("/dimensions", "a reward is one number")),
    }
}

/// The scale that flags ask for which mean one thing, raw or not; they say `win_rate` by default.
pub(super) fn scale_of(raw: &[(&str, Option<bool>)]) -> Result<RewardScale, Problem> {
    let mut given = raw.iter().filter_map(|(pointer, raw)| raw.map(|raw| (*pointer, raw)));
    let Some((first, raw)) = given.next() else { return Ok(RewardScale::WinRate) };
    if let Some((other, _)) = given.find(|(_, other)| *other != raw) {
        return Err(wrong(other, &format!("contradicts {first}")));
    }
    Ok(if raw { RewardScale::Raw } else { RewardScale::WinRate })
}

/// What a number of tokens to cut to asks for; −1 is the window, and so is what is larger than it.
pub(super) fn cut_to(pointer: &str, tokens: Option<i64>, window: usize) -> Result<Option<Overflow>, Problem> {
    match tokens {
        None => Ok(None),
        Some(-1) => Ok(Some(Overflow::Truncate)),
        Some(tokens @ 1..) => Ok(Some(match usize::try_from(tokens) {
            Ok(tokens) if tokens < window => Overflow::TruncateTo(tokens),
            _ => Overflow::Truncate,
        })),
        Some(_) => Err(wrong(pointer, "is a number of tokens, or -1 for the window")),
    }
}

/// The same, of a part of a text alone, which is never cut by itself.
pub(super) fn cut_to_window(
    pointer: &str,
    tokens: Option<i64>,
    window: usize,
) -> Result<Option<Overflow>, Problem> {
    match cut_to(pointer, tokens, window)? {
        Some(Overflow::TruncateTo(_)) => {
            let detail = format!("a part of a text is cut to the window of {window} tokens or not at all");
            Err(not_supported(pointer, &detail))
        }
        cut => Ok(cut),
    }
}

/// That a field has a value that it cannot have.
pub(super) fn wrong(pointer: &str, detail: &str) -> Problem {
    Problem::invalid(vec![InputFault::new(pointer, detail)])
}

/// That a field asks for what this server does not do.
pub(super) fn not_supported(pointer: &str, detail: &str) -> Problem {
    Problem::of_part(ProblemType::NotSupported, pointer, detail)
}

/// An answer with the versions that decided it.
pub(super) fn answer(headers: HeaderMap, body: impl Serialize) -> Response {
    (headers, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_agree_say_the_scale_and_others_are_refused() {
        let scale = |one, other| scale_of(&[("/a", one), ("/b", other)]);
        assert_eq!(scale(None, None).unwrap(), RewardScale::WinRate);
        assert_eq!(scale(None, Some(true)).unwrap(), RewardScale::Raw);
        assert_eq!(scale(Some(false), Some(false)).unwrap(), RewardScale::WinRate);
        assert!(scale(Some(true), Some(false)).is_err());
    }

    #[test]
    fn texts_are_cut_to_a_number_of_tokens_and_parts_of_them_to_the_window_alone() {
        let cut = |tokens| cut_to("/t", tokens, 64).map_err(|problem| problem.kind());
        assert_eq!(cut(None), Ok(None));
        for whole in [-1, 64, 8192] {
            assert_eq!(cut(Some(whole)), Ok(Some(Overflow::Truncate)), "{whole}");
        }
        assert_eq!(cut(Some(63)), Ok(Some(Overflow::TruncateTo(63))));
        let part = |tokens| cut_to_window("/t", Some(tokens), 64).map_err(|problem| problem.kind());
        assert_eq!((part(-1), part(63)), (Ok(Some(Overflow::Truncate)), Err(ProblemType::NotSupported)));
        for bad in [0, -2, i64::MIN] {
            assert_eq!(cut(Some(bad)), Err(ProblemType::InvalidInput), "{bad}");
        }
    }

    #[test]
    fn a_vector_in_base64_is_the_same_number() {
        let Vector::Base64(text) = Encoding::of(Some("base64")).unwrap().write(1.25) else { panic!() };
        assert_eq!(BASE64_STANDARD.decode(text).unwrap(), 1.25_f32.to_le_bytes());
        assert!(Encoding::of(Some("bytes")).is_err());
    }
}
