//! A server over HTTP, as `import` and `export` ask it.

use std::{convert::Infallible, fmt, str::FromStr, time::Duration};

use anyhow::{Context, anyhow};
use reqwest::{
    Client, Method, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use serde_json::Value;

use crate::{config::UsageError, retry::Trouble};

/// The variable of the environment that holds the key.
const KEY_VARIABLE: &str = "POLYREWARD_KEY";
/// A server's own deadline is shorter.
const TIMEOUT: Duration = Duration::from_mins(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer's reason that are shown.
const MAX_REASON_CHARS: usize = 400;

/// An API key; it is never shown.
#[derive(Clone)]
pub struct Key(String);

impl FromStr for Key {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A refusal, with its problem+json.
#[derive(Debug)]
pub struct Refused {
    /// The status.
    pub status: StatusCode,
    /// The body; null where it is not JSON.
    pub problem: Value,
}

impl Refused {
    /// What the server says of it, in a line.
    pub fn reason(&self) -> String {
        let field = |name: &str| self.problem[name].as_str();
        let reason = match (field("title"), field("detail")) {
            (Some(title), Some(detail)) => format!("{title}: {detail}"),
            (Some(one), None) | (None, Some(one)) => one.to_owned(),
            (None, None) => format!("the server answered {}", self.status),
        };
        reason.chars().take(MAX_REASON_CHARS).collect()
    }
}

/// A server.
#[derive(Debug, Clone)]
pub struct Remote {
    client: Client,
    base: String,
    key: Option<Key>,
}

impl Remote {
    /// A server by its address; the key is the one given, else the environment's.
    ///
    /// # Errors
    /// An address or a key that cannot be one.
    pub fn new(url: &str, key: Option<&Key>) -> anyhow::Result<Self> {
        let parsed: Url = url.parse().map_err(|error| UsageError(format!("--url: {error}")))?;
        if parsed.scheme() != "http" || parsed.host_str().is_none() {
            let detail = "--url: is http:// and a host; a proxy of this machine can add TLS";
            return Err(UsageError(detail.to_owned()).into());
        }
        if !parsed.username().is_empty() || parsed.query().is_some() || parsed.fragment().is_some() {
            let detail = "--url: has no user, query or fragment; a key is given by --key";
            return Err(UsageError(detail.to_owned()).into());
        }
        let key = key.cloned().or_else(|| std::env::var(KEY_VARIABLE).ok().map(Key));
        let mut headers = HeaderMap::new();
        if let Some(Key(key)) = &key {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                .map_err(|_| UsageError("--key: a key has visible ASCII characters only".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // A redirect would carry people's texts to who knows where.
        let mut client = Client::builder()
            .default_headers(headers)
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT);
        if matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            client = client.no_proxy();
        }
        let base = parsed.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client: client.build().context("the HTTP client")?, base, key })
    }

    /// What tells this server and tenant from others; holds the key, so it is only ever hashed.
    pub fn identity(&self) -> String {
        format!("{} {}", self.base, self.key.as_ref().map_or("", |Key(key)| key))
    }

    /// Asks for JSON.
    pub async fn get(&self, path: &str) -> Result<Value, Trouble<Refused>> {
        self.send(Method::GET, path, None).await
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: String) -> Result<Value, Trouble<Refused>> {
        self.send(Method::POST, path, Some(body)).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Value, Trouble<Refused>> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        // The error itself would name the path, with a person's id in it.
        let later = |error: reqwest::Error| {
            let what = if error.is_connect() { "cannot be reached" } else { "did not answer" };
            Trouble::Later { why: format!("the server at {} {what}", self.base), after: None }
        };
        let reply = request.send().await.map_err(later)?;
        let (status, after) = (reply.status(), retry_after(reply.headers()));
        let body = reply.bytes().await.map_err(later)?;
        let json: Option<Value> = serde_json::from_slice(&body).ok();
        if status.is_success() {
            let none = || Trouble::Fatal(anyhow!("what answers at {} is no polyreward server", self.base));
            return json.ok_or_else(none);
        }
        Err(self.trouble(status, after, Refused { status, problem: json.unwrap_or_default() }))
    }

    fn trouble(&self, status: StatusCode, after: Option<Duration>, refused: Refused) -> Trouble<Refused> {
        let said = || format!("the server at {} says: {}", self.base, refused.reason());
        match status {
            StatusCode::UNAUTHORIZED => Trouble::Fatal(anyhow!(
                "{}; give a key by --key or {KEY_VARIABLE}, `polyreward keys create` makes one",
                said()
            )),
            StatusCode::FORBIDDEN => Trouble::Fatal(anyhow!(
                "{}; to import takes a key of scope write, to export one of scope read",
                said()
            )),
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Trouble::Later { why: said(), after },
            StatusCode::NOT_FOUND
            | StatusCode::CONFLICT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => Trouble::Refused(refused),
            _ => Trouble::Fatal(anyhow!("{} ({status})", said())),
        }
    }
}

/// Seconds only: our servers send no dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_refused_and_a_key_is_not_shown() {
        for bad in ["people.db", "https://host", "http://ada:secret@host", "http://host/?a=b"] {
            let error = Remote::new(bad, None).unwrap_err();
            assert!(error.is::<UsageError>() && !error.to_string().contains("secret"), "{error}");
        }
        let key: Key = "pr_secret".parse().unwrap();
        let remote = Remote::new("http://127.0.0.1:8080/", Some(&key)).unwrap();
        assert_eq!(remote.base, "http://127.0.0.1:8080");
        assert!(!format!("{remote:?}").contains("pr_secret"));
        let broken: Key = "pr_\nsecret".parse().unwrap();
        let error = Remote::new("http://127.0.0.1:8080/", Some(&broken)).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
