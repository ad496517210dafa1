//! A server of the tiny encoder and of small Bradley-Terry models in a folder of its own.

use std::{
    io::Write,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
};
use ndarray::{Array1, Array2};
use polyreward_backbone::{Backbone, BackboneOptions};
use polyreward_domain::{
    Comparison, ComparisonRecord, LabelConfidence, Prompt, Scope, Strength, TenantId, TextForm, TextForms,
};
use polyreward_heads::{
    BackboneCard, BradleyTerry, BtParameters, FormInput, Head, Layer, Lore, LoreParameters, Person,
    TextInput, Trunk,
};
use polyreward_http::{AppState, Limits, Parts, PrometheusHandle, install_metrics, router};
use polyreward_service::{
    Access, AccessOptions, Clock, LearnLimits, LearnQuery, Learner, MeasureOptions, ModelRegistry, NewKey,
    People, PeopleOptions, PostedExample, Writer, embed_corpus,
};
use polyreward_storage::Storage;
use polyreward_storage_sqlite::{SqliteOptions, SqliteStorage};
use polyreward_training::{CappedPeople, HoldOut, Provenance, Trained, TrainingData, write_model};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use tower::ServiceExt;

/// Shared by the tests of a process: opening sessions is what costs time.
pub fn backbone() -> Backbone {
    static BACKBONE: OnceLock<Backbone> = OnceLock::new();
    BACKBONE
        .get_or_init(|| open_backbone(&BackboneOptions { sessions: 1, ..BackboneOptions::default() }))
        .clone()
}

pub fn open_backbone(options: &BackboneOptions) -> Backbone {
    assert!(
        std::env::var_os("ORT_DYLIB_PATH").is_some(),
        "ORT_DYLIB_PATH names no libonnxruntime; `make setup` fetches it and `make test` sets the variable"
    );
    open_tiny("tiny-encoder", options)
}

fn open_tiny(name: &str, options: &BackboneOptions) -> Backbone {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backbone/tests/fixtures").join(name);
    Backbone::open(&folder, options).expect("the tiny backbone opens")
}

/// With a chat template, which refuses roles that it does not know.
pub fn chat_backbone() -> Backbone {
    static BACKBONE: OnceLock<Backbone> = OnceLock::new();
    BACKBONE
        .get_or_init(|| {
            open_tiny("tiny-decoder", &BackboneOptions { sessions: 1, ..BackboneOptions::default() })
        })
        .clone()
}

fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| install_metrics().expect("no other recorder is installed")).clone()
}

/// Everything that the process logs, at every level.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// One for the whole process: a subscriber of one thread would miss what another's has switched off.
    fn install() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let install = || {
            let log = Self::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::set_global_default(subscriber).expect("no other subscriber is installed");
            log
        };
        LOG.get_or_init(install).clone()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic while writing")).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic while writing").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// When everything happens.
#[derive(Debug, Clone, Copy)]
pub struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000)
    }
}

pub struct Server {
    pub log: Log,
    pub router: Router,
    pub state: AppState,
    pub backbone: Backbone,
    pub people: Arc<People>,
    pub access: Access,
    pub storage: Arc<dyn Storage>,
    pub models: Arc<TempDir>,
    /// Where the database is, so that another server can open it.
    pub database: Arc<TempDir>,
}

impl Server {
    /// With one model, `bt`.
    pub async fn new() -> Self {
        Self::with_limits(Limits::default()).await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        Self::empty(backbone(), limits.clone()).await.with_bt(limits)
    }

    pub async fn on(backbone: Backbone) -> Self {
        Self::empty(backbone, Limits::default()).await.with_bt(Limits::default())
    }

    /// With `bt`, a head that learns people, `lore`, and those people.
    pub async fn with_people(records: Vec<ComparisonRecord>) -> Self {
        Self::with_people_on(records, backbone(), Limits::default()).await
    }

    pub async fn with_people_on(records: Vec<ComparisonRecord>, backbone: Backbone, limits: Limits) -> Self {
        let database = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let storage: Arc<dyn Storage> = Arc::new(open_database(&database).await);
        store(&storage, &backbone, records).await;
        Self::over(database, storage, backbone, limits)
    }

    /// With `bt`, `lore`, and whoever is in the database.
    pub fn over(
        database: Arc<TempDir>,
        storage: Arc<dyn Storage>,
        backbone: Backbone,
        limits: Limits,
    ) -> Self {
        let models = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let server = Self::of(database, models, storage, backbone, limits.clone());
        server.add_lore("lore", 6.0);
        server.with_bt(limits)
    }

    /// Another server on the same database and models, as after a restart or beside this one.
    pub async fn another(&self, backbone: Backbone) -> Self {
        let storage = Arc::new(open_database(&self.database).await);
        let (database, models) = (Arc::clone(&self.database), Arc::clone(&self.models));
        Self::of(database, models, storage, backbone, Limits::default())
    }

    /// Without a model.
    pub async fn empty(backbone: Backbone, limits: Limits) -> Self {
        let database = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let models = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let storage = Arc::new(open_database(&database).await);
        Self::of(database, models, storage, backbone, limits)
    }

    fn of(
        database: Arc<TempDir>,
        models: Arc<TempDir>,
        storage: Arc<dyn Storage>,
        backbone: Backbone,
        limits: Limits,
    ) -> Self {
        let log = Log::install();
        let registry = ModelRegistry::open(models.path(), backbone.info().clone()).expect("models load");
        let people = Arc::new(People::new(Arc::clone(&storage), backbone.clone(), PeopleOptions::default()));
        // Nothing is remembered of a key, so that a change counts at once.
        let access = Access::new(Arc::clone(&storage), AccessOptions { remember: Duration::ZERO });
        let state = AppState::new(Parts {
            registry: Arc::new(registry),
            backbone: backbone.clone(),
            people: Arc::clone(&people),
            access: access.clone(),
            clock: Arc::new(StandingClock),
            measuring: MeasureOptions::default(),
            limits,
            metrics: metrics(),
        });
        Self {
            log,
            router: router(state.clone()),
            state,
            backbone,
            people,
            access,
            storage,
            models,
            database,
        }
    }

    fn with_bt(self, limits: Limits) -> Self {
        self.add_model("bt", 1.0);
        let Self { database, models, storage, backbone, .. } = self;
        Self::of(database, models, storage, backbone, limits)
    }

    /// Makes a key of a tenant.
    pub async fn key(&self, tenant: &str, scopes: &[Scope]) -> NewKey {
        let (tenant, scopes) = (tenant.parse().expect("a tenant"), scopes.iter().copied().collect());
        self.access
            .create(tenant, "test".to_owned(), scopes, &StandingClock)
            .await
            .expect("the key is stored")
    }

    /// Writes a model folder; `scale` makes the weights of one name differ from another's.
    pub fn add_model(&self, name: &str, scale: f32) {
        let dim = self.backbone.info().dim;
        let head = BradleyTerry::new(BtParameters {
            trunk: trunk(dim, scale),
            weights_covariance: Some(Array2::from_diag(&Array1::from_elem(dim, 0.01))),
        });
        self.write_model(name, Box::new(head.expect("the sizes agree")));
    }

    /// Writes a model whose basis is a wave a direction, so high.
    pub fn add_lore(&self, name: &str, height: f32) {
        let dim = self.backbone.info().dim;
        let wave = |(k, at): (usize, usize)| height * ((at + 1) as f32 * (k + 1) as f32 * 0.7).cos();
        let basis = Array2::from_shape_fn((3, dim), wave);
        let head = Lore::new(LoreParameters { trunk: trunk(dim, 1.0), basis, label_noise: 0.02 });
        self.write_model(name, Box::new(head.expect("the sizes agree")));
    }

    fn write_model(&self, name: &str, head: Box<dyn Head>) {
        let backbone = &self.backbone;
        let dim = backbone.info().dim;
        let data = training_data(backbone);
        let hold_out = HoldOut::choose(&data.people, &data.items.names, 0).expect("there are people enough");
        let info = backbone.info();
        let provenance = Provenance {
            name: name.parse().expect("a model name"),
            backbone: BackboneCard { name: info.name.clone(), hash: info.hash.clone(), dim },
            data_sha256: "0".repeat(64),
            seed: 0,
            polyreward_version: "0.0.0".to_owned(),
        };
        let trained = Trained { head, report: json!({}) };
        write_model(self.models.path(), &trained, &data, &hold_out, &provenance)
            .expect("the model is written");
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.expect("the router answers");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("the body is there");
        Reply { status: parts.status, headers: parts.headers, body: body.to_vec() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(request(Method::GET, path, Body::empty())).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(json_request(Method::POST, path, body.to_string())).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(json_request(Method::PUT, path, body.to_string())).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(request(Method::DELETE, path, Body::empty())).await
    }

    pub async fn score(&self, body: &Value) -> Reply {
        self.post("/score", body).await
    }
}

pub async fn open_database(folder: &TempDir) -> SqliteStorage {
    let file = folder.path().join("people.db");
    SqliteStorage::open(file, &SqliteOptions::default()).await.expect("the database opens")
}

/// Stores people as they come from before there was a model: without embeddings and states, which are derived when
/// somebody asks.
pub async fn store(storage: &Arc<dyn Storage>, backbone: &Backbone, records: Vec<ComparisonRecord>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let registry =
        ModelRegistry::open(folder.path(), backbone.info().clone()).expect("an empty folder opens");
    let people = People::new(Arc::clone(storage), backbone.clone(), PeopleOptions::default());
    let (registry, people) = (Arc::new(registry), Arc::new(people));
    let learner =
        Learner::new(registry, backbone.clone(), people, Arc::new(StandingClock), LearnLimits::default());
    let mut queries: Vec<LearnQuery> = Vec::new();
    for record in records {
        let id = record.id.map(|id| id.parse().expect("the id of an example"));
        let example = PostedExample { id, comparison: record.comparison };
        let user_id = record.user_id.as_str().parse().expect("the id of a user");
        if let Some(query) = queries.iter_mut().find(|query| query.user_id == user_id) {
            query.examples.push(example);
            continue;
        }
        queries.push(LearnQuery {
            user_id,
            attributes: record.attributes,
            examples: vec![example],
            name: None,
            deadline: None,
        });
    }
    for query in queries {
        let writer = Writer { tenant: TenantId::default(), key_id: None };
        learner.learn(writer, query, Arc::new(|_| Ok(String::new()))).await.expect("the examples are stored");
    }
}

/// A linear reward, the same for everybody.
fn trunk(dim: usize, scale: f32) -> Trunk {
    let form = FormInput { form: TextForm::PromptResponse, mean: Array1::zeros(dim), scale: 1.0 };
    Trunk {
        input: TextInput { forms: vec![form] },
        hidden: None,
        population: Layer {
            weight: Array2::from_shape_fn((1, dim), |(_, at)| scale * (at as f32 * 1.7).sin()),
            bias: Array1::zeros(1),
        },
    }
}

pub fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body).expect("a request")
}

pub fn json_request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = request(method, path, body.into());
    request.headers_mut().insert("content-type", "application/json".parse().expect("a header value"));
    request
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// The JSON of a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        self.json()
    }

    /// The problem of an error, whose form every error has.
    #[track_caller]
    pub fn problem(&self, status: u16, kind: &str) -> Value {
        let problem = self.json();
        assert_eq!(self.status.as_u16(), status, "{problem}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert!(!self.header("x-request-id").is_empty());
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string());
        if status == 503 {
            assert!(self.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{problem}");
        }
        problem
    }

    /// What an error says, in whichever words it is.
    #[track_caller]
    pub fn refusal(&self, status: u16, kind: &str) -> String {
        let json = self.json();
        if self.header("content-type") == "application/problem+json" {
            self.problem(status, kind);
            return json["detail"].as_str().unwrap_or_default().to_owned();
        }
        assert_eq!(
            (self.status.as_u16(), self.header("content-type")),
            (status, "application/json"),
            "{json}"
        );
        assert!(!self.header("x-request-id").is_empty());
        if status == 503 {
            assert!(self.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{json}");
        }
        let message = if json["error"].is_object() {
            assert_eq!(json["error"]["code"], status, "{json}");
            assert!(json["error"]["type"].is_string(), "{json}");
            &json["error"]["message"]
        } else {
            assert!(json["error_type"].is_string(), "{json}");
            &json["error"]
        };
        message.as_str().expect("a message").to_owned()
    }

    /// The pointers of a problem with the input.
    #[track_caller]
    pub fn pointers(&self, status: u16, kind: &str) -> Vec<String> {
        let problem = self.problem(status, kind);
        let errors = problem["errors"].as_array().expect("errors").iter();
        errors.map(|error| error["pointer"].as_str().expect("a pointer").to_owned()).collect()
    }
}

/// Eight people, four comparisons each.
fn training_data(backbone: &Backbone) -> TrainingData {
    let fish =
        ["A trout.", "Fish are tasty.", "I do not know.", "The pike, a fish of lakes and slow rivers."];
    let mut records = Vec::new();
    for person in 0..8 {
        for at in 0..4 {
            let comparison = Comparison {
                prompt: Prompt::Text("Name a fish.".to_owned()),
                chosen: fish[(person + at) % 4].to_owned(),
                rejected: fish[(person + at + 1 + person % 3) % 4].to_owned(),
                strength: Strength::default(),
                label_confidence: LabelConfidence::default(),
                rationale: None,
            };
            records.push(ComparisonRecord {
                user_id: format!("person-{person}").parse().expect("a user id"),
                attributes: [].into(),
                comparison,
                split: None,
                tags: Vec::new(),
                id: None,
                created_at: None,
            });
        }
    }
    // The embedding of a whole corpus blocks, which the thread of a runtime may not.
    let forms = TextForms::only(TextForm::PromptResponse);
    let corpus = std::thread::scope(|scope| {
        scope.spawn(|| embed_corpus(backbone, &records, forms, &mut |_, _| {})).join()
    });
    let corpus = corpus.expect("no panic").expect("the texts are embedded");
    let people = records.chunks(4).zip(corpus.comparisons.chunks(4)).map(|(records, comparisons)| Person {
        user_id: records[0].user_id.clone(),
        attributes: [].into(),
        comparisons: comparisons.to_vec(),
    });
    TrainingData { people: people.collect(), items: corpus.items, capped: CappedPeople::default() }
}
