//! Configuration: defaults, then `polyreward.toml`, then `POLYREWARD_*`, then flags; the later wins.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use figment::{
    Figment,
    error::Kind,
    providers::{Env, Format, Serialized, Toml},
};
use polyreward_backbone::BackboneOptions;
use polyreward_cache_redis::RedisOptions;
use polyreward_service::{LearnLimits, MeasureOptions, PeopleOptions};
use polyreward_training::TrainConfig;
use serde::{Deserialize, Serialize};

/// The file that is read when none is named, if it exists.
const DEFAULT_FILE: &str = "polyreward.toml";

/// A configuration that cannot be used; the command line answers it with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Everything that can be configured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP server.
    pub server: Server,
    /// The text encoder.
    pub backbone: Backbone,
    /// The trained models.
    pub models: Models,
    /// What is kept in memory of people.
    pub users: Users,
    /// Where people and keys are kept.
    pub database: Database,
    /// How accuracy is measured.
    pub accuracy: Accuracy,
    /// Training.
    pub train: TrainConfig,
}

impl Config {
    /// As TOML, without secrets.
    ///
    /// # Errors
    /// A value that TOML cannot hold.
    pub fn to_redacted_toml(&self) -> Result<String, toml::ser::Error> {
        let mut shown = self.clone();
        shown.database.url = SecretUrl(self.database.url.redacted());
        let shared = &mut shown.backbone.shared_cache.url;
        *shared = shared.as_ref().map(|url| SecretUrl(url.redacted()));
        toml::to_string_pretty(&shown)
    }
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address to listen on; port 0 picks a free one.
    pub bind: String,
    /// Listen beyond loopback though no key is asked for.
    pub insecure_no_auth: bool,
    /// Bytes of a request body at most.
    pub max_body_bytes: usize,
    /// (prompt, response) texts in one request at most.
    pub max_batch: usize,
    /// People in the `user_ids` of one request at most.
    pub max_users: usize,
    /// Rewards of one request for several people at most: responses by people, more on the `win_rate` scale.
    pub max_rewards: usize,
    /// Requests answered at once at most; more are refused with 503.
    pub max_in_flight: usize,
    /// Seconds after SIGTERM in which the listener stays open though `/ready` says 503, for balancers to notice.
    pub grace_seconds: u64,
    /// Seconds that requests in flight have to finish after SIGTERM, the grace included.
    pub drain_seconds: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:8080".into(),
            insecure_no_auth: false,
            max_body_bytes: 16 << 20,
            max_batch: 1024,
            max_users: 16_384,
            max_rewards: 1 << 20,
            max_in_flight: 1024,
            grace_seconds: 1,
            drain_seconds: 30,
        }
    }
}

/// The text encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backbone {
    /// The backbone folder; by default the one that `make setup` builds.
    pub path: PathBuf,
    /// ONNX Runtime's shared library; by default `ORT_DYLIB_PATH`, else the one that `make setup` fetches.
    pub library: Option<PathBuf>,
    /// Sessions, each with its own thread; 0 is one a core, at most 8.
    pub sessions: usize,
    /// Threads inside a session.
    pub intra_threads: usize,
    /// Threads that tokenize.
    pub tokenizer_threads: usize,
    /// Padded tokens in a batch at most.
    pub max_batch_tokens: usize,
    /// Texts waiting at most; more are refused with 503. At least two for each of `server.max_batch`.
    pub max_queued_texts: usize,
    /// Bytes of embeddings kept in memory at most.
    pub cache_bytes: u64,
    /// A cache of embeddings that several servers share.
    pub shared_cache: SharedCache,
}

/// Where `make setup` puts what it fetches and builds.
fn cache_folder() -> PathBuf {
    std::env::var_os("POLYREWARD_CACHE").map_or_else(|| PathBuf::from(".cache"), PathBuf::from)
}

impl Default for Backbone {
    fn default() -> Self {
        let options = BackboneOptions::default();
        Self {
            path: cache_folder().join("backbones").join("all-minilm-l6-v2-int8"),
            library: None,
            sessions: 0,
            intra_threads: options.intra_threads,
            tokenizer_threads: options.tokenizer_threads,
            max_batch_tokens: options.max_batch_tokens,
            max_queued_texts: options.max_queued_texts,
            cache_bytes: options.cache_bytes,
            shared_cache: SharedCache::default(),
        }
    }
}

impl Backbone {
    /// What the backbone crate wants to know.
    pub fn options(&self) -> BackboneOptions {
        let defaults = BackboneOptions::default();
        let cached = cache_folder().join("onnxruntime").join(if cfg!(target_os = "macos") {
            "libonnxruntime.dylib"
        } else {
            "libonnxruntime.so"
        });
        let found = || (std::env::var_os("ORT_DYLIB_PATH").is_none() && cached.exists()).then_some(cached);
        BackboneOptions {
            sessions: if self.sessions == 0 { defaults.sessions } else { self.sessions },
            intra_threads: self.intra_threads,
            tokenizer_threads: self.tokenizer_threads,
            max_batch_tokens: self.max_batch_tokens,
            max_queued_texts: self.max_queued_texts,
            cache_bytes: self.cache_bytes,
            library: self.library.clone().or_else(found),
        }
    }
}

/// A cache of embeddings in Redis or Valkey that several servers share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharedCache {
    /// `redis://user:password@host:port/number`, `rediss://` for TLS, `redis+unix:///path`; there is none unless it is set. Who
    /// can read there can work out texts from embeddings, and who can write there sets rewards: guard it as the database.
    pub url: Option<SecretUrl>,
    /// A file of certificates in PEM to trust with `rediss://`; by default those that the system trusts.
    pub ca_certificate: Option<PathBuf>,
    /// Milliseconds that a request loses at most by asking it; one that does not answer in time is left alone for a while.
    pub timeout_ms: u64,
    /// Seconds that an embedding is kept there; also the longest that one of an erased person can stay, where the cache could
    /// not be reached then.
    pub keep_seconds: u64,
    /// Bytes that wait to be written there at most; more are dropped.
    pub max_waiting_bytes: usize,
}

impl Default for SharedCache {
    fn default() -> Self {
        let RedisOptions { read_timeout, keep, max_waiting_bytes, .. } = RedisOptions::of("");
        Self {
            url: None,
            ca_certificate: None,
            timeout_ms: u64::try_from(read_timeout.as_millis()).unwrap_or(u64::MAX),
            keep_seconds: keep.as_secs(),
            max_waiting_bytes,
        }
    }
}

impl SharedCache {
    /// How the server is used, if there is one.
    pub fn options(&self) -> anyhow::Result<Option<RedisOptions>> {
        let Some(url) = &self.url else { return Ok(None) };
        let ca_certificate = match &self.ca_certificate {
            Some(path) => Some(std::fs::read(path).with_context(|| {
                format!("backbone.shared_cache.ca_certificate: cannot read {}", path.display())
            })?),
            None => None,
        };
        Ok(Some(RedisOptions {
            ca_certificate,
            read_timeout: Duration::from_millis(self.timeout_ms),
            keep: Duration::from_secs(self.keep_seconds),
            max_waiting_bytes: self.max_waiting_bytes,
            ..RedisOptions::of(url.expose())
        }))
    }
}

/// The trained models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Models {
    /// The folder of model folders.
    pub path: PathBuf,
}

impl Default for Models {
    fn default() -> Self {
        Self { path: "models".into() }
    }
}

/// What is kept in memory of the people whose rewards are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Users {
    /// Bytes of their states kept in memory at most; others are read again when they are asked for.
    pub state_cache_bytes: u64,
    /// Examples kept of one person at most; more are refused.
    pub max_examples: usize,
}

impl Default for Users {
    fn default() -> Self {
        let PeopleOptions { state_bytes } = PeopleOptions::default();
        Self { state_cache_bytes: state_bytes, max_examples: LearnLimits::default().max_examples }
    }
}

impl Users {
    /// What the service wants to know.
    pub fn options(&self) -> PeopleOptions {
        PeopleOptions { state_bytes: self.state_cache_bytes }
    }
}

/// Where people and keys are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite:` and the path of a file, for one process; `postgres://user:password@host/name` for any number of them.
    pub url: SecretUrl,
    /// Connections to PostgreSQL at most.
    pub max_connections: u32,
    /// Milliseconds that a request waits for a connection.
    pub acquire_timeout_ms: u64,
    /// Milliseconds that one statement in PostgreSQL may take.
    pub statement_timeout_ms: u64,
    /// Days that lines of the audit log are kept.
    pub audit_days: u32,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: SecretUrl("sqlite:polyreward.db".into()),
            max_connections: 16,
            acquire_timeout_ms: 5000,
            statement_timeout_ms: 15_000,
            audit_days: 400,
        }
    }
}

impl Database {
    /// How long a request waits for a connection.
    pub fn acquire_timeout(&self) -> Duration {
        Duration::from_millis(self.acquire_timeout_ms)
    }
}

/// How accuracy is measured, over HTTP and on the dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Accuracy {
    /// People that a group has at least to be shown; a question can only ask for more.
    pub min_users: usize,
    /// Answers computed at once at most; others wait for their turn.
    pub max_concurrent: usize,
    /// Questions that wait at most; more are refused with 503.
    pub max_waiting: usize,
    /// Milliseconds that the database may take for one part of an answer.
    pub timeout_ms: u64,
}

impl Default for Accuracy {
    fn default() -> Self {
        let MeasureOptions { min_users, max_concurrent, max_waiting } = MeasureOptions::default();
        Self { min_users, max_concurrent, max_waiting, timeout_ms: 10_000 }
    }
}

impl Accuracy {
    /// What the service wants to know.
    pub fn options(&self) -> MeasureOptions {
        MeasureOptions {
            min_users: self.min_users,
            max_concurrent: self.max_concurrent,
            max_waiting: self.max_waiting,
        }
    }

    /// Connections to the database: one for each answer that is computed, and one for whoever asks what moment it is.
    pub fn connections(&self) -> u32 {
        u32::try_from(self.max_concurrent).unwrap_or(u32::MAX).max(1).saturating_add(1)
    }

    /// How long the database may take for one part of an answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// A URL with a password in it; only [`SecretUrl::expose`] tells.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The URL with its password.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The URL as it may be shown.
    fn redacted(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else { return self.0.clone() };
        // A password may hold an @, a host may not.
        let rest = match rest.rsplit_once('@') {
            Some((user, host)) => format!("{}:***@{host}", user.split(':').next().unwrap_or_default()),
            None => rest.to_owned(),
        };
        // PostgreSQL takes a password as a parameter, too.
        let (base, parameters) = rest.split_once('?').map_or((rest.as_str(), None), |(b, p)| (b, Some(p)));
        match parameters {
            Some(_) => format!("{scheme}://{base}?***"),
            None => format!("{scheme}://{base}"),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

/// Flags that stand above file and environment; `None` is a flag that was not given.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Overrides {
    /// `server.*`
    #[serde(skip_serializing_if = "is_default")]
    pub server: ServerOverrides,
    /// `backbone.*`
    #[serde(skip_serializing_if = "is_default")]
    pub backbone: PathOverride,
    /// `models.*`
    #[serde(skip_serializing_if = "is_default")]
    pub models: PathOverride,
    /// `database.*`
    #[serde(skip_serializing_if = "is_default")]
    pub database: DatabaseOverride,
}

impl Overrides {
    /// The same with `--database-url`.
    #[must_use]
    pub fn with_database(mut self, url: Option<String>) -> Self {
        self.database.url = url.map(SecretUrl);
        self
    }
}

/// `database.*` on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DatabaseOverride {
    /// `--database-url`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<SecretUrl>,
}

/// `server.*` on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServerOverrides {
    /// `--bind`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<String>,
    /// `--insecure-no-auth`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_no_auth: Option<bool>,
}

/// A folder on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PathOverride {
    /// `--backbone`, `--models`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads the configuration.
///
/// # Errors
/// [`UsageError`]: a file that was named and is not there, an unknown key (with the nearest known one), a value of
/// the wrong type; each with the source it came from.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<Config> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    match file {
        Some(file) if !file.is_file() => {
            return Err(UsageError(format!("there is no configuration file {}", file.display())).into());
        }
        Some(file) => figment = figment.merge(Toml::file_exact(file)),
        None if Path::new(DEFAULT_FILE).is_file() => figment = figment.merge(Toml::file_exact(DEFAULT_FILE)),
        None => (),
    }
    check_environment()?;
    let environment = Env::prefixed("POLYREWARD_").filter(|key| key.as_str().contains("__")).split("__");
    let config = figment
        .merge(environment)
        .merge(Serialized::defaults(overrides))
        .extract::<Config>()
        .map_err(|error| UsageError(describe(error)))?;
    check(&config)?;
    Ok(config)
}

/// Variables of the environment that are no settings.
const OTHER_VARIABLES: [&str; 7] = [
    "POLYREWARD_CACHE",
    "POLYREWARD_KEY",
    "POLYREWARD_LOG",
    // Of the Python package, on the machine of a trainer.
    "POLYREWARD_API_KEY",
    "POLYREWARD_LABELS",
    "POLYREWARD_MODEL",
    "POLYREWARD_URL",
];

/// A misspelt variable must not be passed over in silence.
fn check_environment() -> Result<(), UsageError> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with("POLYREWARD_")) {
        if !name.contains("__") && !OTHER_VARIABLES.contains(&name.as_str()) {
            return Err(UsageError(format!(
                "configuration: {name} is not a variable of ours; a setting is POLYREWARD_SECTION__KEY, \
                 as POLYREWARD_SERVER__BIND"
            )));
        }
    }
    Ok(())
}

/// Forms of one text that a head reads at most.
const MAX_FORMS_OF_A_HEAD: usize = 2;

fn check(config: &Config) -> Result<(), UsageError> {
    let shared_cache = &config.backbone.shared_cache;
    let positive = [
        ("server.max_body_bytes", config.server.max_body_bytes),
        ("server.max_batch", config.server.max_batch),
        ("server.max_users", config.server.max_users),
        ("server.max_rewards", config.server.max_rewards),
        ("server.max_in_flight", config.server.max_in_flight),
        ("users.max_examples", config.users.max_examples),
        ("accuracy.min_users", config.accuracy.min_users),
        ("accuracy.max_concurrent", config.accuracy.max_concurrent),
        ("accuracy.timeout_ms", usize::try_from(config.accuracy.timeout_ms).unwrap_or(usize::MAX)),
        ("database.max_connections", config.database.max_connections as usize),
        ("backbone.intra_threads", config.backbone.intra_threads),
        ("backbone.tokenizer_threads", config.backbone.tokenizer_threads),
        ("backbone.max_batch_tokens", config.backbone.max_batch_tokens),
        ("backbone.max_queued_texts", config.backbone.max_queued_texts),
        ("backbone.shared_cache.timeout_ms", usize::try_from(shared_cache.timeout_ms).unwrap_or(usize::MAX)),
        (
            "backbone.shared_cache.keep_seconds",
            usize::try_from(shared_cache.keep_seconds).unwrap_or(usize::MAX),
        ),
    ];
    if let Some((key, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
        return Err(UsageError(format!("configuration: {key} is at least 1")));
    }
    let Server { grace_seconds, drain_seconds, max_batch, .. } = config.server;
    if grace_seconds > drain_seconds {
        return Err(UsageError(format!(
            "configuration: server.grace_seconds, {grace_seconds}, is a part of server.drain_seconds, {drain_seconds}"
        )));
    }
    let needed = max_batch.saturating_mul(MAX_FORMS_OF_A_HEAD);
    if config.backbone.max_queued_texts < needed {
        return Err(UsageError(format!(
            "configuration: backbone.max_queued_texts is at least {needed}, so that a request of \
             server.max_batch texts, {max_batch}, can be taken at all: a head may read each in \
             {MAX_FORMS_OF_A_HEAD} forms"
        )));
    }
    config.train.check().map_err(|error| UsageError(format!("configuration: train.{error}")))
}

/// Each of figment's errors with its key, its source and, for an unknown key, the nearest known one.
fn describe(errors: figment::Error) -> String {
    let line = |error: figment::Error| {
        let mut path = error.path.clone();
        let detail = match &error.kind {
            Kind::UnknownField(field, known) => {
                if path.last() != Some(field) {
                    path.push(field.clone());
                }
                let near = known
                    .iter()
                    .max_by(|a, b| strsim::jaro_winkler(field, a).total_cmp(&strsim::jaro_winkler(field, b)));
                match near {
                    Some(near) => format!("is not a key; did you mean {near}?"),
                    None => "is not a key".to_owned(),
                }
            }
            kind => kind.to_string(),
        };
        let source = error.metadata.as_ref().map_or_else(String::new, |metadata| {
            let place = metadata.source.as_ref().map(|source| format!(" {source}")).unwrap_or_default();
            format!(" (in {}{place})", metadata.name)
        });
        format!("configuration: {}: {detail}{source}", path.join("."))
    };
    errors.into_iter().map(line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load_text(text: &str, overrides: &Overrides) -> anyhow::Result<Config> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        load(Some(file.path()), overrides)
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let text = "[server]\nbind = \"127.0.0.1:1\"\nmax_batch = 7\n";
        let config = load_text(text, &Overrides::default()).unwrap();
        assert_eq!((config.server.bind.as_str(), config.server.max_batch), ("127.0.0.1:1", 7));
        assert_eq!(config.server.max_in_flight, Server::default().max_in_flight);
        let server = ServerOverrides { bind: Some("127.0.0.1:2".into()), ..ServerOverrides::default() };
        let config = load_text(text, &Overrides { server, ..Overrides::default() }).unwrap();
        assert_eq!((config.server.bind.as_str(), config.server.max_batch), ("127.0.0.1:2", 7));
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let error = load_text("[server]\nmax_bacth = 7\n", &Overrides::default()).unwrap_err();
        assert!(error.is::<UsageError>());
        let text = error.to_string();
        assert!(text.contains("server.max_bacth") && text.contains("did you mean max_batch?"), "{text}");
        let text = load_text("[sever]\n", &Overrides::default()).unwrap_err().to_string();
        assert!(text.contains("did you mean server?"), "{text}");
    }

    #[test]
    fn a_value_of_the_wrong_type_or_range_is_refused_by_name() {
        let text =
            load_text("[server]\nmax_batch = \"many\"\n", &Overrides::default()).unwrap_err().to_string();
        assert!(text.contains("server.max_batch"), "{text}");
        let text = load_text("[server]\nmax_batch = 0\n", &Overrides::default()).unwrap_err().to_string();
        assert!(text.contains("server.max_batch is at least 1"), "{text}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused_by_name() {
        let refused = |text| load_text(text, &Overrides::default()).unwrap_err().to_string();
        let text = refused("[server]\ngrace_seconds = 31\n");
        assert!(text.contains("server.grace_seconds, 31") && text.contains("drain_seconds, 30"), "{text}");
        assert!(load_text("[server]\ngrace_seconds = 30\n", &Overrides::default()).is_ok());
        let text = refused("[backbone]\nmax_queued_texts = 2047\n");
        assert!(text.contains("backbone.max_queued_texts is at least 2048"), "{text}");
        let small = "[server]\nmax_batch = 4\n[backbone]\nmax_queued_texts = 8\n";
        assert!(load_text(small, &Overrides::default()).is_ok());
    }

    #[test]
    fn a_value_of_training_out_of_range_is_refused_by_name() {
        let refused = |text| load_text(text, &Overrides::default()).unwrap_err().to_string();
        let text = refused("[train.lore]\nrank = 0\n");
        assert!(text.contains("train.lore.rank: is between 1 and 256"), "{text}");
        let text = refused("[train.pal_c]\n");
        assert!(text.contains("did you mean pal_"), "{text}");
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = |url: &str| SecretUrl(url.into()).redacted();
        assert_eq!(shown("postgres://ada:s@cret@host:5432/db"), "postgres://ada:***@host:5432/db");
        assert_eq!(shown("postgres://host/db?password=secret"), "postgres://host/db?***");
        assert_eq!(shown("sqlite:people.db"), "sqlite:people.db");
        let text = "[database]\nurl = \"postgres://ada:secret@host/db\"\n\
                    [backbone.shared_cache]\nurl = \"rediss://:secret@host:6380/1\"\n";
        let config = load_text(text, &Overrides::default()).unwrap();
        assert_eq!(config.database.url.expose(), "postgres://ada:secret@host/db");
        let options = config.backbone.shared_cache.options().unwrap().unwrap();
        assert_eq!(options.url, "rediss://:secret@host:6380/1");
        let shown = config.to_redacted_toml().unwrap();
        assert!(!shown.contains("secret") && !format!("{config:?}").contains("secret"));
        assert!(shown.contains("rediss://:***@host:6380/1"), "{shown}");
    }

    #[test]
    fn a_named_file_must_exist() {
        assert!(load(Some(Path::new("no-such.toml")), &Overrides::default()).unwrap_err().is::<UsageError>());
    }
}
