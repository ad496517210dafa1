//! What one request, and all of them together, may take; and until when an answer is wanted.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use polyreward_service::{LearnLimits, ScoreLimits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    metrics,
    problem::{Problem, ProblemType},
};

/// Lowers the deadline, in milliseconds; more than the server's own limit counts as that, as with gRPC's.
pub(crate) const REQUEST_TIMEOUT_HEADER: &str = "x-request-timeout-ms";
/// Lowers the deadline, as gRPC writes it.
pub(crate) const GRPC_TIMEOUT_HEADER: &str = "grpc-timeout";

/// Requests that may wait for each place among those in flight.
const WAITING_A_PLACE: usize = 4;
/// Routes whose clients give up after a few seconds of refusals, and then stop a training run.
const PATIENT: [&str; 2] = ["/get_reward", "/rm"];
/// Of so many places in flight, one is never theirs: whoever waits is first at a place that becomes free, and a training
/// run of thousands would leave nobody else any.
const LEFT_TO_OTHERS: usize = 4;

/// How long a refused request may take to send what is left of its body. A connection that is closed on a
/// client which still writes is reset, and the client never reads why it was refused.
const DISCARD_TIME: Duration = Duration::from_secs(1);
/// The same under overload, which is refused within 50 ms.
const OVERLOADED_DISCARD_TIME: Duration = Duration::from_millis(30);

/// What requests may take; published by `GET /info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Texts in one request to score: two a pair, the responses of each item.
    pub max_batch: usize,
    /// People in the `user_ids` of one request.
    pub max_users: usize,
    /// Rewards of one request for several people: responses by people, more on the `win_rate` scale.
    pub max_rewards: usize,
    /// Numbers of all requests to score that are computed at once: people by responses and by the length of a state.
    pub max_pending_cells: usize,
    /// Examples that are kept of one person; more are refused.
    pub max_examples: usize,
    /// Bytes of one body.
    pub max_body_bytes: usize,
    /// Bytes of all bodies that are held at once; at least one body of the largest size fits.
    pub max_pending_body_bytes: usize,
    /// Requests answered at once; more are refused. Probes and metrics do not count.
    pub max_in_flight: usize,
    /// How long a request may take; headers can only lower it.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_batch: 1024,
            max_users: 16_384,
            max_rewards: ScoreLimits::default().max_rewards,
            max_pending_cells: ScoreLimits::default().max_pending_cells,
            max_examples: LearnLimits::default().max_examples,
            max_body_bytes: 16 << 20,
            max_pending_body_bytes: 256 << 20,
            max_in_flight: 1024,
            request_timeout: Duration::from_secs(100),
        }
    }
}

/// Places for requests and for the bytes of their bodies.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    requests: Arc<Semaphore>,
    /// Those of them that requests which wait may take.
    patient: Arc<Semaphore>,
    /// Requests that wait for a place instead of being refused.
    waiting: Arc<Semaphore>,
    body_bytes: Arc<Semaphore>,
}

impl Admission {
    pub fn new(limits: &Limits) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let left_to_others = limits.max_in_flight / LEFT_TO_OTHERS;
        Self {
            requests: semaphore(limits.max_in_flight),
            patient: semaphore(limits.max_in_flight - left_to_others),
            waiting: semaphore(limits.max_in_flight.saturating_mul(WAITING_A_PLACE)),
            body_bytes: semaphore(limits.max_pending_body_bytes.max(limits.max_body_bytes)),
        }
    }
}

/// A place among the requests in flight.
#[derive(Debug)]
struct Place {
    _request: OwnedSemaphorePermit,
    /// The share of it that is the patient routes' alone.
    _patient: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// A place among the requests in flight, if there is one now.
    fn place_now(&self, patient: bool) -> Option<Place> {
        let free = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let share = if patient { Some(free(&self.patient)?) } else { None };
        Some(Place { _request: free(&self.requests)?, _patient: share })
    }

    /// A place among the requests in flight: at once, or before the deadline where the route's clients do not bear to be
    /// refused. None of the body of a request that waits has been read.
    async fn place(&self, patient: bool, deadline: Instant) -> Option<Place> {
        if let Some(place) = self.place_now(patient) {
            return Some(place);
        }
        let _waiting = if patient { self.waiting.try_acquire().ok()? } else { return None };
        let place = async {
            let share = Arc::clone(&self.patient).acquire_owned().await.ok()?;
            let request = Arc::clone(&self.requests).acquire_owned().await.ok()?;
            Some(Place { _request: request, _patient: Some(share) })
        };
        tokio::time::timeout_at(deadline.into(), place).await.ok()?
    }
}

/// The bytes that one request's body takes of [`Limits::max_pending_body_bytes`], until it is answered.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget {
    all: Arc<Semaphore>,
    taken: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl BodyBudget {
    /// Takes more bytes, or says that there are none left.
    pub fn take(&self, bytes: usize) -> bool {
        let more =
            u32::try_from(bytes).ok().and_then(|n| Arc::clone(&self.all).try_acquire_many_owned(n).ok());
        let Some(more) = more else { return false };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.as_mut() {
            Some(taken) => taken.merge(more),
            None => *taken = Some(more),
        }
        true
    }
}

/// When the answer is no longer wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(pub Instant);

impl Deadline {
    /// The server's own limit, lowered by either header.
    fn of(headers: &HeaderMap, arrived: Instant, limit: Duration) -> Result<Self, Problem> {
        let mut timeout = limit;
        if let Some(value) = one_value(headers, REQUEST_TIMEOUT_HEADER)? {
            let asked = digits(value).filter(|ms| *ms > 0).ok_or_else(|| {
                Problem::header(
                    REQUEST_TIMEOUT_HEADER,
                    "is a whole number of milliseconds, 1 or more".to_owned(),
                )
            })?;
            timeout = timeout.min(Duration::from_millis(asked));
        }
        if let Some(value) = one_value(headers, GRPC_TIMEOUT_HEADER)? {
            let asked = grpc_timeout(value).ok_or_else(|| {
                let detail = "is 1 to 8 digits, not all zero, and one of the units H, M, S, m, u, n";
                Problem::header(GRPC_TIMEOUT_HEADER, detail.to_owned())
            })?;
            timeout = timeout.min(asked);
        }
        Ok(Self(arrived + timeout))
    }
}

fn one_value<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Problem::header(name, "is given more than once".to_owned())),
        (value, None) => Ok(value),
    }
}

fn digits(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (amount, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&amount.len()) || !amount.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = amount.parse().ok().filter(|amount| *amount > 0)?;
    Some(match unit {
        "H" => Duration::from_secs(3600 * amount),
        "M" => Duration::from_secs(60 * amount),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Gives a request its place and its deadline, or refuses it at once.
pub(crate) async fn admit(
    State((admission, limits)): State<(Admission, Arc<Limits>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let arrived = Instant::now();
    let deadline = Deadline::of(request.headers(), arrived, limits.request_timeout);
    let until = deadline.as_ref().map_or(arrived, |deadline| deadline.0);
    let route = request.extensions().get::<MatchedPath>();
    let patient = route.is_some_and(|route| PATIENT.contains(&route.as_str()));
    let Some(_place) = admission.place(patient, until).await else {
        metrics::refused();
        discard(request.into_body(), limits.max_body_bytes, OVERLOADED_DISCARD_TIME).await;
        let detail = "as many requests as are answered at once are in flight";
        return Problem::new(ProblemType::Overloaded).detail(detail).retry_after(1).into_response();
    };
    let _counted = metrics::count_in_flight();
    let deadline = match deadline {
        Ok(deadline) => deadline,
        Err(problem) => {
            discard(request.into_body(), limits.max_body_bytes, DISCARD_TIME).await;
            return problem.into_response();
        }
    };
    let budget = BodyBudget { all: admission.body_bytes, taken: Arc::default() };
    request.extensions_mut().insert(deadline);
    request.extensions_mut().insert(budget.clone());
    let response = next.run(request).await;
    drop(budget);
    response
}

/// Reads a body a request was refused for, to nowhere, within bounds.
async fn discard(body: Body, max_bytes: usize, time: Duration) {
    let mut stream = body.into_data_stream();
    let mut left = max_bytes.saturating_mul(4);
    let drain = async {
        while let Some(Ok(chunk)) = stream.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // Whether it ended in time makes no difference to the refusal.
    let _ended = tokio::time::timeout(time, drain).await;
}

/// Reads the rest of a body that is refused for what was seen of it.
pub(crate) async fn discard_refused(body: Body, limits: &Limits) {
    discard(body, limits.max_body_bytes, DISCARD_TIME).await;
}

/// Reads a whole body.
///
/// # Errors
/// It is too large, comes too slowly, breaks off, or finds no room beside the others.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
    budget: Option<&BodyBudget>,
    deadline: Instant,
) -> Result<Vec<u8>, Problem> {
    let max = limits.max_body_bytes;
    let too_large = || {
        let detail = format!("the body has more than the {max} bytes allowed");
        Problem::new(ProblemType::BodyTooLarge).detail(detail).limit("max_body_bytes", max)
    };
    let declared = headers.get(axum::http::header::CONTENT_LENGTH).and_then(digits).unwrap_or(0);
    if declared > max as u64 {
        discard(body, max, DISCARD_TIME).await;
        return Err(too_large());
    }
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    loop {
        let chunk = match tokio::time::timeout_at(deadline.into(), stream.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(_))) => {
                return Err(Problem::new(ProblemType::MalformedJson).detail("the body broke off"));
            }
            Err(_) => return Err(Problem::new(ProblemType::BodyTimeout)),
        };
        if bytes.len() + chunk.len() > max {
            drop(bytes);
            discard(Body::from_stream(stream), max, DISCARD_TIME).await;
            return Err(too_large());
        }
        if budget.is_some_and(|budget| !budget.take(chunk.len())) {
            metrics::refused();
            drop(bytes);
            discard(Body::from_stream(stream), max, OVERLOADED_DISCARD_TIME).await;
            let detail = "the bodies of other requests take all the room there is";
            return Err(Problem::new(ProblemType::Overloaded).detail(detail).retry_after(1));
        }
        bytes.extend_from_slice(&chunk);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    fn deadline_ms(pairs: &[(&'static str, &str)]) -> Result<u128, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        let now = Instant::now();
        Deadline::of(&headers, now, Duration::from_secs(100)).map(|deadline| (deadline.0 - now).as_millis())
    }

    #[test]
    fn headers_lower_the_deadline_and_never_raise_it() {
        let (ours, grpc) = (REQUEST_TIMEOUT_HEADER, GRPC_TIMEOUT_HEADER);
        assert_eq!(deadline_ms(&[]).unwrap(), 100_000);
        assert_eq!(deadline_ms(&[(ours, "250")]).unwrap(), 250);
        assert_eq!(deadline_ms(&[(ours, "100001")]).unwrap(), 100_000);
        assert_eq!(deadline_ms(&[(ours, "18446744073709551615")]).unwrap(), 100_000);
        assert_eq!(deadline_ms(&[(grpc, "2S")]).unwrap(), 2000);
        assert_eq!(deadline_ms(&[(grpc, "99999999H")]).unwrap(), 100_000);
        assert_eq!(deadline_ms(&[(ours, "3000"), (grpc, "1500m")]).unwrap(), 1500);
    }

    #[test]
    fn a_bad_timeout_is_refused() {
        for bad in ["0", "-1", "1.5", "", "99999999999999999999", "+5", "ten"] {
            assert!(deadline_ms(&[(REQUEST_TIMEOUT_HEADER, bad)]).is_err(), "{bad:?}");
        }
        for bad in ["S", "0S", "5", "5s", "123456789S", "", "-1S"] {
            assert!(deadline_ms(&[(GRPC_TIMEOUT_HEADER, bad)]).is_err(), "{bad:?}");
        }
        assert!(deadline_ms(&[(REQUEST_TIMEOUT_HEADER, "5"), (REQUEST_TIMEOUT_HEADER, "6")]).is_err());
    }

    #[tokio::test]
    async fn who_waits_for_a_place_leaves_some_to_those_who_do_not() {
        let admission = Admission::new(&Limits { max_in_flight: 4, ..Limits::default() });
        let hour = Instant::now() + Duration::from_hours(1);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(admission.place(true, hour).await.unwrap());
        }
        let (first, second) = (admission.place(true, hour), admission.place(true, hour));
        let (mut first, mut second) = (pin!(first), pin!(second));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        // Two wait, and the last place is still there for others, one at a time.
        for _ in 0..2 {
            let other = admission.place(false, hour).await.unwrap();
            assert!(admission.place(false, hour).await.is_none());
            assert!(first.as_mut().now_or_never().is_none());
            drop(other);
        }
        // In the order in which they came.
        held.pop();
        assert!(second.as_mut().now_or_never().is_none());
        let first = first.await.unwrap();
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn no_more_wait_for_a_place_than_are_counted() {
        let admission = Admission::new(&Limits { max_in_flight: 1, ..Limits::default() });
        let hour = Instant::now() + Duration::from_hours(1);
        let held = admission.place(true, hour).await.unwrap();
        let mut waiting: Vec<_> =
            (0..WAITING_A_PLACE).map(|_| Box::pin(admission.place(true, hour))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(admission.place(true, hour).await.is_none());
        // One that leaves makes room for another.
        drop(waiting.pop());
        assert!(Box::pin(admission.place(true, hour)).as_mut().now_or_never().is_none());
        drop(held);
        assert!(waiting.swap_remove(0).await.is_some());
    }

    #[test]
    fn bodies_give_their_room_back() {
        let limits = Limits { max_body_bytes: 4, max_pending_body_bytes: 10, ..Limits::default() };
        let admission = Admission::new(&limits);
        let budget = || BodyBudget { all: Arc::clone(&admission.body_bytes), taken: Arc::default() };
        let (first, second) = (budget(), budget());
        assert!(first.take(4) && first.take(3) && !second.take(4) && second.take(3));
        drop(first);
        assert!(second.take(7) && !second.take(1));
    }
}
