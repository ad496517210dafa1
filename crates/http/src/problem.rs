//! Errors as RFC 9457 `application/problem+json`: the one place where an error becomes HTTP. Routes of other servers answer
//! with the same problem in those servers' words, [`dialect`].

pub(crate) mod dialect;

use std::{any::Any, error::Error, fmt};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use polyreward_backbone::{BackboneError, InputError};
use polyreward_service::{MeasureError, RegistryError, ScoreError, StatesError, StorageError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::metrics;

/// Media type of every error.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// How to say who one is, RFC 9110 section 11.6.1.
const CHALLENGE: &str = "Bearer realm=\"polyreward\", Basic realm=\"polyreward\"";

/// Most faults listed in one reply; `detail` counts them all.
const MAX_LISTED: usize = 1000;
/// Longest JSON Pointer in a reply; it may hold names that the client made up.
const MAX_POINTER_CHARS: usize = 256;
/// When to try again while the server starts, stops or has no model.
const NOT_READY_RETRY_S: u64 = 5;
/// When to ask a question again that took too long.
const TOO_SLOW_RETRY_S: u64 = 10;
/// When to try again while the database cannot be used.
const DATABASE_RETRY_S: u64 = 2;

macro_rules! problem_types {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $title:literal, $status:ident;)*) => {
        /// Every kind of problem: its type URI, title and status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProblemType {
            $($(#[$doc])* $name,)*
        }

        impl ProblemType {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The `type` member, a URI reference.
            pub const fn uri(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("/problems/", $slug),)*
                }
            }

            /// The `title` member.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                }
            }

            /// The status it is sent with.
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }
        }
    };
}

problem_types! {
    /// The body is not JSON.
    MalformedJson = "malformed-json", "The body is not JSON", BAD_REQUEST;
    /// A header has a value that it cannot have.
    InvalidHeader = "invalid-header", "A header is not valid", BAD_REQUEST;
    /// A query parameter has a value that it cannot have.
    InvalidParameter = "invalid-parameter", "A query parameter is not valid", BAD_REQUEST;
    /// The request has no key that is known here.
    Unauthorized = "unauthorized", "A valid API key is needed", UNAUTHORIZED;
    /// The key does not allow it.
    Forbidden = "forbidden", "The API key does not allow this", FORBIDDEN;
    /// Nobody of the key's tenant has this id.
    UnknownUser = "unknown-user", "There is no such user", NOT_FOUND;
    /// The person has no example of this id.
    UnknownExample = "unknown-example", "There is no such example", NOT_FOUND;
    /// The idempotency key was used for a request that asked for something else.
    IdempotencyConflict = "idempotency-conflict", "The idempotency key was used for another request", CONFLICT;
    /// The person would have more examples than are kept of one.
    TooManyExamples = "too-many-examples", "The person has as many examples as are kept", CONFLICT;
    /// No such route.
    NotFound = "not-found", "There is nothing at this path", NOT_FOUND;
    /// The route has other methods.
    MethodNotAllowed = "method-not-allowed", "The path has no such method", METHOD_NOT_ALLOWED;
    /// The body did not arrive before the deadline.
    BodyTimeout = "body-timeout", "The body did not arrive in time", REQUEST_TIMEOUT;
    /// The body has more bytes than are read.
    BodyTooLarge = "body-too-large", "The body is too large", PAYLOAD_TOO_LARGE;
    /// One request has more texts than are scored at once.
    TooManyTexts = "too-many-texts", "The request has too many texts", PAYLOAD_TOO_LARGE;
    /// One request names more people than are scored for at once.
    TooManyUsers = "too-many-users", "The request is for too many people", PAYLOAD_TOO_LARGE;
    /// One request for several people has more rewards than one answer holds.
    TooManyRewards = "too-many-rewards", "The answer would have too many rewards", PAYLOAD_TOO_LARGE;
    /// The body is not declared as plain JSON.
    UnsupportedMediaType = "unsupported-media-type", "The body is not sent as JSON", UNSUPPORTED_MEDIA_TYPE;
    /// Fields of the body are wrong; `errors` names each.
    InvalidInput = "invalid-input", "The input is not valid", UNPROCESSABLE_ENTITY;
    /// The body says something else than the query parameters do.
    Contradiction = "contradiction", "The body contradicts the query", UNPROCESSABLE_ENTITY;
    /// The body has fields of two formats.
    AmbiguousBody = "ambiguous-body", "The body could be of two formats", UNPROCESSABLE_ENTITY;
    /// The body has no text.
    EmptyInput = "empty-input", "There is nothing to score", UNPROCESSABLE_ENTITY;
    /// Something that another server does and this one does not.
    NotSupported = "not-supported", "This is not supported", UNPROCESSABLE_ENTITY;
    /// The body names a model that is not registered.
    UnknownModel = "unknown-model", "There is no such model", UNPROCESSABLE_ENTITY;
    /// No reward can be learned from the examples of a person the body names: those have to change first, so it is no fault
    /// of the server that trying again would mend.
    UnusableExamples = "unusable-examples", "A person's examples cannot be used", UNPROCESSABLE_ENTITY;
    /// A text is longer than the backbone's window; the type of one of the `errors`.
    TooLong = "too-long", "A text is longer than the backbone reads", UNPROCESSABLE_ENTITY;
    /// A reward would be NaN or infinite; the type of one of the `errors`.
    RewardNotFinite = "reward-not-finite", "A reward is not a finite number", UNPROCESSABLE_ENTITY;
    /// The backbone cannot read a text; the type of one of the `errors`.
    Unreadable = "unreadable-text", "A text cannot be read by the backbone", UNPROCESSABLE_ENTITY;
    /// As many requests or texts wait as are allowed to.
    Overloaded = "overloaded", "The server has too much to do", SERVICE_UNAVAILABLE;
    /// The answer did not come before the deadline.
    DeadlineExceeded = "deadline-exceeded", "There was no answer before the deadline", SERVICE_UNAVAILABLE;
    /// Nothing is registered that could answer.
    NoModel = "no-model", "No model is loaded", SERVICE_UNAVAILABLE;
    /// The backbone or the models cannot answer now.
    NotReady = "not-ready", "The server is not ready", SERVICE_UNAVAILABLE;
    /// The database is gone, slow, restarting or read-only.
    DatabaseUnavailable = "database-unavailable", "The database cannot be used now", SERVICE_UNAVAILABLE;
    /// The database took longer over a question than it may.
    QueryTooSlow = "query-too-slow", "The question takes longer than it may", SERVICE_UNAVAILABLE;
    /// The server is about to stop.
    Draining = "draining", "The server is about to stop", SERVICE_UNAVAILABLE;
    /// Our own fault, or a dependency's.
    Internal = "internal", "The server failed", INTERNAL_SERVER_ERROR;
}

/// What is wrong with one part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct InputFault {
    /// JSON Pointer (RFC 6901) to the part of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The header, where it is not the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<&'static str>,
    /// The query parameter, where it is not the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<&'static str>,
    /// What is wrong with it.
    pub detail: String,
    /// The kind of problem, a URI reference.
    #[serde(rename = "type")]
    pub type_uri: &'static str,
}

impl InputFault {
    /// That a part of the body is not valid.
    pub fn new(pointer: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::of(ProblemType::InvalidInput, pointer, detail)
    }

    /// A problem of some kind with a part of the body.
    pub fn of(kind: ProblemType, pointer: impl Into<String>, detail: impl fmt::Display) -> Self {
        let mut pointer = pointer.into();
        if let Some((end, _)) = pointer.char_indices().nth(MAX_POINTER_CHARS) {
            pointer.truncate(end);
        }
        Self {
            pointer: Some(pointer),
            header: None,
            parameter: None,
            detail: detail.to_string(),
            type_uri: kind.uri(),
        }
    }

    /// The same fault of a query parameter.
    #[must_use]
    pub(crate) fn of_parameter(mut self, name: &'static str) -> Self {
        (self.pointer, self.parameter) = (None, Some(name));
        self
    }

    /// What the backbone says of a text.
    pub fn of_text(pointer: impl Into<String>, error: &InputError) -> Self {
        let kind = match error {
            InputError::TooLong { .. } => ProblemType::TooLong,
            InputError::NotFinite => ProblemType::RewardNotFinite,
            InputError::Template(_) | InputError::Tokenizer => ProblemType::Unreadable,
            InputError::NoRoom(_) | InputError::UnknownToken { .. } => ProblemType::InvalidInput,
        };
        Self::of(kind, pointer, error)
    }
}

/// The configured limit that a request went over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExceededLimit {
    /// Its name, as in `GET /info`.
    pub name: &'static str,
    /// Its value.
    pub value: usize,
}

/// An error on its way out, RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    kind: ProblemType,
    detail: Option<String>,
    faults: Vec<InputFault>,
    limit: Option<ExceededLimit>,
    retry_after_s: Option<u64>,
}

/// A problem, RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// The kind of problem, a URI reference.
    #[serde(rename = "type")]
    #[schema(example = "/problems/invalid-input")]
    type_uri: &'static str,
    /// The kind of problem in words.
    #[schema(example = "The input is not valid")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What happened this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// One entry for each wrong part of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<InputFault>,
    /// The limit that the request went over.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<ExceededLimit>,
}

impl Problem {
    /// A problem of some kind, with nothing more to say.
    pub fn new(kind: ProblemType) -> Self {
        Self { kind, detail: None, faults: Vec::new(), limit: None, retry_after_s: None }
    }

    /// The same problem with what happened this time; never the text of a prompt or response.
    #[must_use]
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// The same problem with the time after which to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds.max(1));
        self
    }

    /// The same problem with the limit that was exceeded.
    #[must_use]
    pub(crate) fn limit(mut self, name: &'static str, value: usize) -> Self {
        self.limit = Some(ExceededLimit { name, value });
        self
    }

    /// What kind of problem it is.
    pub fn kind(&self) -> ProblemType {
        self.kind
    }

    /// The parts of the request that are wrong.
    pub fn faults(&self) -> &[InputFault] {
        &self.faults
    }

    /// Parts of the body that are not valid.
    pub(crate) fn invalid(mut faults: Vec<InputFault>) -> Self {
        let detail = match faults.len() {
            1 => "one part of the input is not valid".to_owned(),
            n if n > MAX_LISTED => format!("{n} parts of the input are not valid; {MAX_LISTED} are listed"),
            n => format!("{n} parts of the input are not valid"),
        };
        faults.truncate(MAX_LISTED);
        Self { faults, ..Self::new(ProblemType::InvalidInput).detail(detail) }
    }

    /// A problem of some kind with parts of the request.
    pub(crate) fn of_faults(kind: ProblemType, mut faults: Vec<InputFault>) -> Self {
        faults.truncate(MAX_LISTED);
        Self { faults, ..Self::new(kind) }
    }

    /// A problem of some kind with one part of the body.
    pub(crate) fn of_part(kind: ProblemType, pointer: &str, detail: impl fmt::Display) -> Self {
        Self::of_faults(kind, vec![InputFault::of(kind, pointer, detail)])
    }

    /// A model that the body names and nobody knows.
    pub(crate) fn unknown_model(detail: impl fmt::Display) -> Self {
        let fault = InputFault::of(ProblemType::UnknownModel, "/model", detail);
        Self { faults: vec![fault], ..Self::new(ProblemType::UnknownModel) }
    }

    /// The same where a query parameter names it.
    pub(crate) fn unknown_model_parameter(detail: impl fmt::Display) -> Self {
        let fault = InputFault {
            parameter: Some("model"),
            pointer: None,
            ..InputFault::of(ProblemType::UnknownModel, String::new(), detail)
        };
        Self { faults: vec![fault], ..Self::new(ProblemType::UnknownModel) }
    }

    /// People whom the body names and whose examples cannot be used.
    pub(crate) fn unusable_examples(mut faults: Vec<InputFault>) -> Self {
        let detail = format!("the examples of {} of the people asked for cannot be used", faults.len());
        faults.truncate(MAX_LISTED);
        Self { faults, ..Self::new(ProblemType::UnusableExamples).detail(detail) }
    }

    /// A header that is not valid.
    pub(crate) fn header(name: &'static str, detail: String) -> Self {
        let kind = ProblemType::InvalidHeader;
        let fault =
            InputFault { header: Some(name), pointer: None, ..InputFault::of(kind, String::new(), &detail) };
        Self { faults: vec![fault], ..Self::new(kind).detail(format!("{name} {detail}")) }
    }

    /// Query parameters that are not valid.
    pub(crate) fn parameters(faults: Vec<(&'static str, String)>) -> Self {
        let kind = ProblemType::InvalidParameter;
        let fault = |(name, detail)| InputFault {
            parameter: Some(name),
            pointer: None,
            ..InputFault::of(kind, String::new(), detail)
        };
        Self { faults: faults.into_iter().map(fault).collect(), ..Self::new(kind) }
    }

    /// Our own fault: logged here, with its causes, and told to nobody.
    pub(crate) fn internal(error: &dyn Error) -> Self {
        let causes = with_causes(error);
        tracing::error!(error = %causes, "request failed: {causes}");
        Self::new(ProblemType::Internal)
    }

    /// That the server has too much to do.
    pub(crate) fn overloaded(detail: impl fmt::Display) -> Self {
        Self::new(ProblemType::Overloaded).detail(detail).retry_after(1)
    }

    /// That there was no answer in time.
    pub(crate) fn deadline_exceeded(detail: impl fmt::Display) -> Self {
        Self::new(ProblemType::DeadlineExceeded).detail(detail).retry_after(1)
    }

    /// That the server is about to stop.
    pub(crate) fn draining() -> Self {
        Self::new(ProblemType::Draining).retry_after(NOT_READY_RETRY_S)
    }

    /// That the server cannot answer now.
    pub(crate) fn not_ready() -> Self {
        Self::new(ProblemType::NotReady).retry_after(NOT_READY_RETRY_S)
    }

    /// A response of this problem's status whose body is `body`, given this problem's members.
    pub(crate) fn respond_with<T: Serialize>(self, body: impl FnOnce(ProblemBody) -> T) -> Response {
        let (status, retry_after_s) = (self.kind.status(), self.retry_after_s);
        let told = Told { kind: self.kind, detail: self.told(), retry_after_s };
        metrics::problem(self.kind);
        let problem = self.clone();
        let members = ProblemBody {
            type_uri: self.kind.uri(),
            title: self.kind.title(),
            status: status.as_u16(),
            detail: self.detail,
            errors: self.faults,
            limit: self.limit,
        };
        let json = serde_json::to_vec(&body(members)).expect("a problem is strings and numbers");
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], json).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        if let Some(seconds) = retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(told);
        response.extensions_mut().insert(problem);
        response
    }

    /// What happened this time, in one line.
    fn told(&self) -> Option<String> {
        let fault = || {
            self.faults.first().map(|fault| match fault.parameter.or(fault.header) {
                Some(name) => format!("{name} {}", fault.detail),
                None => fault.detail.clone(),
            })
        };
        self.detail.clone().or_else(fault)
    }
}

/// What a page says of a problem: left with its response for whoever shows pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Which kind of problem.
    pub kind: ProblemType,
    /// What happened this time.
    pub detail: Option<String>,
    /// After how long to try again.
    pub retry_after_s: Option<u64>,
}

/// An error and its causes in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut causes = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push_str(": ");
        causes.push_str(&cause.to_string());
        next = cause.source();
    }
    causes
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.respond_with(|members| members)
    }
}

impl From<&BackboneError> for Problem {
    fn from(error: &BackboneError) -> Self {
        match error {
            BackboneError::Overloaded { retry_after } => {
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                Self::overloaded(error).retry_after(seconds)
            }
            BackboneError::TooManyTexts { max, .. } => {
                Self::new(ProblemType::TooManyTexts).detail(error).limit("max_queued_texts", *max)
            }
            BackboneError::DeadlineExceeded => Self::deadline_exceeded(error),
            BackboneError::Stopped => Self::not_ready().detail(error),
            _ => Self::internal(error),
        }
    }
}

impl From<&StatesError> for Problem {
    fn from(error: &StatesError) -> Self {
        match error {
            StatesError::Backbone(error) => (&**error).into(),
            StatesError::DeadlineExceeded => Self::deadline_exceeded(error),
            StatesError::Storage(error) => (&**error).into(),
            StatesError::Head(_) | StatesError::GivenUp => Self::internal(error),
        }
    }
}

impl From<&StorageError> for Problem {
    fn from(error: &StorageError) -> Self {
        if error.may_pass() {
            let causes = with_causes(error);
            tracing::error!(error = %causes, "request refused: {causes}");
            return Self::new(ProblemType::DatabaseUnavailable)
                .detail("nothing is half written; the same request again does no harm")
                .retry_after(DATABASE_RETRY_S);
        }
        Self::internal(error)
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match &error {
            RegistryError::UnknownModel(_) => Self::unknown_model(&error),
            RegistryError::NoModel => Self::new(ProblemType::NoModel).retry_after(NOT_READY_RETRY_S),
            _ => Self::internal(&error),
        }
    }
}

/// Of a question in query parameters.
impl From<MeasureError> for Problem {
    fn from(error: MeasureError) -> Self {
        match error {
            MeasureError::Registry(error @ RegistryError::UnknownModel(_)) => {
                Self::unknown_model_parameter(&error)
            }
            MeasureError::Registry(error) => error.into(),
            MeasureError::UnknownAttribute { .. } => Self::parameters(vec![("group_by", error.to_string())]),
            MeasureError::TooManyPoints(_) => Self::parameters(vec![("step", error.to_string())]),
            MeasureError::Overloaded => Self::overloaded(&error),
            MeasureError::Storage(error) if matches!(*error, StorageError::TooSlow(_)) => {
                let causes = with_causes(&error);
                tracing::warn!(error = %causes, "a question took too long: {causes}");
                let detail = "the database took longer than it may; ask for a shorter time (from, to) or for \
                              fewer groups, or again when it has less to do";
                Self::new(ProblemType::QueryTooSlow).detail(detail).retry_after(TOO_SLOW_RETRY_S)
            }
            MeasureError::Storage(error) => (&*error).into(),
            MeasureError::Score(ScoreError::DeadlineExceeded) => Self::deadline_exceeded(&error),
            MeasureError::Score(_) | MeasureError::GivenUp => Self::internal(&error),
        }
    }
}

/// Turns a handler's panic into a problem. The payload may quote a text, so it is not logged here.
pub(crate) fn panicked(_payload: Box<dyn Any + Send + 'static>) -> Response<Body> {
    tracing::error!("a handler panicked");
    Problem::new(ProblemType::Internal).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_problem_has_a_type_of_its_own_and_an_error_status() {
        let uris: HashSet<_> = ProblemType::ALL.iter().map(|kind| kind.uri()).collect();
        assert_eq!(uris.len(), ProblemType::ALL.len());
        for kind in ProblemType::ALL {
            assert!(kind.status().is_client_error() || kind.status().is_server_error(), "{kind:?}");
        }
    }

    #[test]
    fn a_pointer_made_of_a_huge_name_is_cut() {
        let fault = InputFault::new(format!("/{}", "ä".repeat(10_000)), "is unknown");
        assert_eq!(fault.pointer.unwrap().chars().count(), MAX_POINTER_CHARS);
    }

    #[test]
    fn a_wait_of_part_of_a_second_is_rounded_up() {
        let retry_after = std::time::Duration::from_millis(1200);
        let problem = Problem::from(&BackboneError::Overloaded { retry_after });
        assert_eq!(problem.into_response().headers()["retry-after"], "2");
    }
}
