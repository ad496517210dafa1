//! What a client asks a server about people.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::{Server, answers};

/// Far longer than any answer takes: a test ends, whatever happens.
const PATIENCE: Duration = Duration::from_mins(1);

/// Two responses to a prompt.
pub type Pair<'a> = (&'a str, &'a str, &'a str);

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Reply {
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {}", self.body)).to_str().unwrap()
    }
}

/// What a server said of one person and some pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    pub version: String,
    pub examples: u64,
    pub known: bool,
    pub preferences: Vec<f64>,
    /// Texts whose embeddings were known.
    pub cached: u64,
}

impl Scored {
    /// Whether two servers say the same of a person.
    pub fn is_near(&self, other: &Self) -> bool {
        (&self.version, self.examples, self.known) == (&other.version, other.examples, other.known)
            && self.preferences.iter().zip(&other.preferences).all(|(a, b)| (a - b).abs() < 1e-6)
    }
}

/// Keeps its connections; clones share them.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    pub fn of(server: &Server) -> Self {
        // For loopback, whatever proxy the environment names.
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { http, url: server.url.clone() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        answered(self.http.get(self.at(path))).await.unwrap()
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.try_delete(path).await.unwrap()
    }

    /// The error is that of a connection that broke.
    pub async fn try_delete(&self, path: &str) -> reqwest::Result<Reply> {
        answered(self.http.delete(self.at(path))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        answered(self.http.post(self.at(path)).json(body)).await.unwrap()
    }

    /// With an `Idempotency-Key`; the error is that of a connection that broke.
    pub async fn try_post(&self, path: &str, body: &Value, name: &str) -> reqwest::Result<Reply> {
        answered(self.http.post(self.at(path)).json(body).header("idempotency-key", name)).await
    }

    /// Posts one person's examples.
    pub async fn learn(&self, user_id: &str, examples: &[Value]) -> Value {
        self.post(&format!("/users/{user_id}/examples"), &json!({"examples": examples})).await.expect(201)
    }

    pub async fn ask(&self, user_id: &str, pairs: &[Pair<'_>]) -> Reply {
        let pairs: Vec<Value> = pairs
            .iter()
            .map(|(prompt, a, b)| json!({"prompt": prompt, "response_a": a, "response_b": b}))
            .collect();
        self.post("/score", &json!({"user_id": user_id, "pairs": pairs})).await
    }

    pub async fn score(&self, user_id: &str, pairs: &[Pair<'_>]) -> Scored {
        let reply = self.ask(user_id, pairs).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let results = reply.body["results"].as_array().unwrap();
        Scored {
            version: reply.header("x-user-state-version").to_owned(),
            examples: reply.body["user"]["examples"].as_u64().unwrap(),
            known: reply.body["user"]["known"].as_bool().unwrap(),
            preferences: results.iter().map(|result| result["preference"].as_f64().unwrap()).collect(),
            cached: reply.body["usage"]["embeddings_cached"].as_u64().unwrap(),
        }
    }

    /// The one line of the metrics that begins so, as a number; 0 before it is there.
    pub async fn metric(&self, line: &str) -> u64 {
        let metrics = self.http.get(self.at("/metrics")).send().await.unwrap().text().await.unwrap();
        let value = metrics.lines().find_map(|of| of.strip_prefix(line)).unwrap_or(" 0");
        value.trim().parse().unwrap_or_else(|_| panic!("{line:?} begins no line with a whole number"))
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

async fn answered(request: reqwest::RequestBuilder) -> reqwest::Result<Reply> {
    let reply = request.send().await?;
    let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
    let body = reply.bytes().await?;
    // An answer may be empty; what is not JSON says itself what it is.
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    Ok(Reply { status, headers, body })
}

/// An example in the words of the API.
pub fn example((prompt, chosen, rejected): Pair<'_>) -> Value {
    json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})
}

pub const PROMPT: &str = "A drink?";

/// A hundred pairs of few texts, and the same the other way round: a head learns nothing from a pair that it knows.
pub struct Pairs {
    tea: Vec<String>,
    coffee: Vec<String>,
}

impl Pairs {
    pub fn new() -> Self {
        Self { tea: answers("tea", 10), coffee: answers("coffee", 10) }
    }

    pub fn at(&self, number: usize) -> Pair<'_> {
        let (tea, coffee) = (&*self.tea[number % 10], &*self.coffee[number / 10 % 10]);
        if (number / 100).is_multiple_of(2) { (PROMPT, tea, coffee) } else { (PROMPT, coffee, tea) }
    }
}
