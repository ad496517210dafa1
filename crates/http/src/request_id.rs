//! One id for each request: in every log line about it and in its reply.

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument, field};
use uuid::Uuid;

/// Carries the id both ways.
pub(crate) const REQUEST_ID_HEADER: &str = "x-request-id";

const MAX_LEN: usize = 128;

/// The id of a request, for handlers.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub HeaderValue);

/// The client's own id where it is fit to be logged, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fit = |value: &&HeaderValue| {
        (1..=MAX_LEN).contains(&value.len())
            && value.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"._~:/+=-".contains(byte))
    };
    headers.get(REQUEST_ID_HEADER).filter(fit).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::now_v7().to_string()).expect("a UUID is hexadecimal digits and hyphens")
    })
}

/// The trace that the request belongs to, from a well-formed W3C `traceparent`.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let is_hex = |part: &&str, len: usize| {
        part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    parts.next().filter(|version| is_hex(version, 2) && *version != "ff")?;
    let trace = parts.next().filter(|trace| is_hex(trace, 32) && trace.bytes().any(|byte| byte != b'0'))?;
    parts.next().filter(|parent| is_hex(parent, 16))?;
    Some(trace)
}

/// Puts the request in a span with its id and repeats the id in the reply.
pub(crate) async fn identify(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let span = tracing::info_span!(
        "http.request",
        request.id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        route,
        trace.id = field::Empty,
        status = field::Empty,
    );
    if let Some(trace) = trace_id(request.headers()) {
        span.record("trace.id", trace);
    }
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).instrument(span.clone()).await;
    span.record("status", response.status().as_u16());
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "answered"));
    response.headers_mut().insert(REQUEST_ID_HEADER, id);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_bytes(value).unwrap())])
    }

    #[test]
    fn a_fit_id_is_echoed_and_any_other_replaced() {
        let echoed = |id: &[u8]| request_id(&headers(REQUEST_ID_HEADER, id)).as_bytes() == id;
        assert!(echoed(b"train-7/step:12") && echoed(&[b'x'; 128]));
        let long = [b'x'; 129];
        for bad in [&b""[..], b"a b", b"\"><script>", "\u{e4}".as_bytes(), b"a\tb", &long] {
            assert!(!echoed(bad), "{bad:?}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn only_a_well_formed_trace_is_followed() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        assert_eq!(trace_id(&headers("traceparent", parent.as_bytes())), Some(trace));
        for bad in ["", "00-x-y-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "ff", trace] {
            assert_eq!(trace_id(&headers("traceparent", bad.as_bytes())), None, "{bad}");
        }
    }
}
