//! Problems in the words of other servers, for the routes that those servers' clients know.

use std::fmt::Write;

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{InputFault, Problem, ProblemType};

/// Whose words an error is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Our own, RFC 9457.
    Problem,
    /// `{"error": {"message", "type", "param", "code"}}`: OpenAI, vLLM, SGLang, Cohere, Jina, infinity, NIM.
    OpenAi,
    /// `{"error", "error_type"}`: text-embeddings-inference.
    Tei,
}

/// An error as OpenAI's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError {
    error: OpenAiErrorBody,
}

#[derive(Debug, Serialize, ToSchema)]
struct OpenAiErrorBody {
    /// What is wrong, each part of the body by its JSON Pointer.
    message: String,
    /// The kind of error.
    #[serde(rename = "type")]
    #[schema(example = "BadRequestError")]
    kind: &'static str,
    /// The first part of the request that is wrong.
    param: Option<String>,
    /// The HTTP status.
    #[schema(example = 400)]
    code: u16,
}

/// An error as the clients of text-embeddings-inference read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TeiError {
    /// What is wrong, each part of the body by its JSON Pointer.
    error: String,
    /// `Unhealthy`, `Backend`, `Overloaded`, `Validation`, `Tokenizer` or `Empty`.
    #[schema(example = "Validation")]
    error_type: &'static str,
}

impl Dialect {
    /// Of a route, where its body does not say otherwise.
    pub fn of_route(template: &str) -> Self {
        match template {
            "/classify"
            | "/v1/classify"
            | "/pooling"
            | "/rerank"
            | "/v1/rerank"
            | "/v2/rerank"
            | "/v1/embeddings"
            | "/v1/chat/completions" => Self::OpenAi,
            "/predict" | "/embed" => Self::Tei,
            _ => Self::Problem,
        }
    }

    /// A problem of a route whose body has shown whose it is.
    pub fn respond(self, problem: Problem) -> Response {
        let mut response = problem.into_response();
        response.extensions_mut().insert(self);
        response
    }

    fn status(self, problem: &Problem) -> StatusCode {
        let status = problem.kind.status();
        match (self, problem.kind) {
            // Other servers say so of a request that they do not understand; one that is understood and has a text
            // which cannot be scored stays a 422.
            (Self::OpenAi, ProblemType::InvalidInput) if !problem.faults.iter().any(is_of_text) => {
                StatusCode::BAD_REQUEST
            }
            (Self::OpenAi | Self::Tei, ProblemType::EmptyInput) => StatusCode::BAD_REQUEST,
            (Self::OpenAi, ProblemType::UnknownModel) => StatusCode::NOT_FOUND,
            _ => status,
        }
    }

    fn body(self, problem: &Problem, status: StatusCode) -> Vec<u8> {
        let message = message_of(problem);
        let json = match self {
            Self::Problem | Self::OpenAi => serde_json::to_vec(&OpenAiError {
                error: OpenAiErrorBody {
                    message,
                    kind: open_ai_type(status),
                    param: problem.faults.first().and_then(place_of),
                    code: status.as_u16(),
                },
            }),
            Self::Tei => serde_json::to_vec(&TeiError { error: message, error_type: tei_type(problem) }),
        };
        json.expect("an error is strings and numbers")
    }
}

/// Puts a problem into the words of its route.
pub(crate) async fn translate(request: Request, next: Next) -> Response {
    let of_route = request.extensions().get::<MatchedPath>().map(|path| Dialect::of_route(path.as_str()));
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Problem>();
    let of_body = response.extensions_mut().remove::<Dialect>();
    match (problem, of_body.or(of_route)) {
        (Some(problem), Some(dialect)) if dialect != Dialect::Problem => {
            let status = dialect.status(&problem);
            *response.body_mut() = Body::from(dialect.body(&problem, status));
            *response.status_mut() = status;
            response.headers_mut().remove(header::CONTENT_LENGTH);
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        _ => response,
    }
}

/// Whether it is about a text that cannot be scored, rather than about what is asked.
fn is_of_text(fault: &InputFault) -> bool {
    let of_texts = [ProblemType::TooLong, ProblemType::RewardNotFinite, ProblemType::Unreadable];
    of_texts.iter().any(|kind| kind.uri() == fault.type_uri)
}

/// Where a fault is.
fn place_of(fault: &InputFault) -> Option<String> {
    let named = fault.header.or(fault.parameter).map(str::to_owned);
    named.or_else(|| fault.pointer.clone()).filter(|place| !place.is_empty())
}

/// Everything that a problem says, in one line.
fn message_of(problem: &Problem) -> String {
    let mut message = problem.kind.title().to_owned();
    if let Some(detail) = &problem.detail {
        write!(message, ": {detail}").expect("a string takes everything");
    }
    for fault in &problem.faults {
        let place = place_of(fault);
        let space = if place.is_some() { " " } else { "" };
        write!(message, "; {}{space}{}", place.unwrap_or_default(), fault.detail)
            .expect("a string takes everything");
    }
    if let Some(limit) = &problem.limit {
        write!(message, "; {} is {}", limit.name, limit.value).expect("a string takes everything");
    }
    message
}

fn open_ai_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "AuthenticationError",
        403 => "PermissionDeniedError",
        404 => "NotFoundError",
        408 => "RequestTimeoutError",
        413 => "RequestTooLargeError",
        422 => "UnprocessableEntityError",
        429 => "RateLimitError",
        503 => "ServiceUnavailableError",
        500.. => "InternalServerError",
        _ => "BadRequestError",
    }
}

fn tei_type(problem: &Problem) -> &'static str {
    match problem.kind {
        ProblemType::Overloaded | ProblemType::DeadlineExceeded => "Overloaded",
        ProblemType::NoModel
        | ProblemType::NotReady
        | ProblemType::DatabaseUnavailable
        | ProblemType::Draining => "Unhealthy",
        ProblemType::Internal => "Backend",
        ProblemType::EmptyInput => "Empty",
        ProblemType::InvalidInput
            if problem
                .faults
                .first()
                .is_some_and(|fault| fault.type_uri == ProblemType::Unreadable.uri()) =>
        {
            "Tokenizer"
        }
        _ => "Validation",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn json(dialect: Dialect, problem: &Problem) -> (u16, Value) {
        let status = dialect.status(problem);
        (status.as_u16(), serde_json::from_slice(&dialect.body(problem, status)).unwrap())
    }

    #[test]
    fn every_problem_has_words_in_every_dialect_and_stays_the_clients_or_ours() {
        for kind in ProblemType::ALL {
            let problem = Problem::new(*kind).detail("why").limit("max_batch", 7);
            for dialect in [Dialect::OpenAi, Dialect::Tei] {
                let (status, json) = json(dialect, &problem);
                assert_eq!(status / 100, kind.status().as_u16() / 100, "{kind:?}");
                let text = json.to_string();
                assert!(text.contains("why") && text.contains("max_batch is 7"), "{text}");
            }
        }
    }

    #[test]
    fn a_text_that_cannot_be_scored_is_told_from_a_request_that_is_not_understood() {
        let long = InputFault::of(ProblemType::TooLong, "/input/1", "has 300 tokens");
        let (status, of_text) = json(Dialect::OpenAi, &Problem::invalid(vec![long]));
        assert_eq!((status, &of_text["error"]["param"]), (422, &"/input/1".into()));
        let wrong = InputFault::new("/input", "is a number; expected a string");
        let (status, of_request) = json(Dialect::OpenAi, &Problem::invalid(vec![wrong.clone()]));
        assert_eq!((status, &of_request["error"]["code"]), (400, &400.into()));
        assert_eq!(of_request["error"]["type"], "BadRequestError");
        let (status, tei) = json(Dialect::Tei, &Problem::invalid(vec![wrong]));
        assert_eq!((status, &tei["error_type"]), (422, &"Validation".into()));
    }
}
