//! What handlers share: cheap clones, each taken by its own type.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::extract::FromRef;
use metrics_exporter_prometheus::PrometheusHandle;
use polyreward_backbone::Backbone;
use polyreward_service::{
    Access, Asker, Clock, LearnLimits, Learner, MeasureOptions, Measurer, ModelRegistry, People, ScoreLimits,
    Scorer, Users,
};
use tokio::sync::Mutex;

use crate::limits::{Admission, Limits};

/// Whether the server is on its way out: it still answers, but asks for no more work.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Turns `/ready` to 503 and closes each connection after its next answer.
    pub fn drain(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What a server is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its models.
    pub registry: Arc<ModelRegistry>,
    /// Their backbone.
    pub backbone: Backbone,
    /// Whose rewards they give.
    pub people: Arc<People>,
    /// Who may ask.
    pub access: Access,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What a request may take.
    pub limits: Limits,
    /// How accuracy is measured.
    pub measuring: MeasureOptions,
    /// Where its metrics are read.
    pub metrics: PrometheusHandle,
}

/// Everything the routes need; clones share it.
#[derive(Debug, Clone)]
pub struct AppState {
    scorer: Scorer,
    learner: Learner,
    asker: Asker,
    users: Users,
    measurer: Measurer,
    people: Arc<People>,
    access: Access,
    clock: Arc<dyn Clock>,
    registry: Arc<ModelRegistry>,
    backbone: Backbone,
    limits: Arc<Limits>,
    admission: Admission,
    readiness: Readiness,
    metrics: PrometheusHandle,
    registry_writes: RegistryWrites,
}

/// Held while the registry is rescanned, so that waiting requests hold no thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct RegistryWrites(pub Arc<Mutex<()>>);

impl AppState {
    /// A server out of its parts.
    pub fn new(parts: Parts) -> Self {
        let Parts { registry, backbone, people, access, clock, limits, measuring, metrics } = parts;
        let of_scores =
            ScoreLimits { max_rewards: limits.max_rewards, max_pending_cells: limits.max_pending_cells };
        let of_examples = LearnLimits { max_examples: limits.max_examples };
        let with = || (Arc::clone(&registry), backbone.clone(), Arc::clone(&people));
        let scorer = {
            let (registry, backbone, people) = with();
            Scorer::new(registry, backbone, people, of_scores)
        };
        let learner = {
            let (registry, backbone, people) = with();
            Learner::new(registry, backbone, people, Arc::clone(&clock), of_examples)
        };
        let asker = {
            let (registry, backbone, people) = with();
            Asker::new(registry, backbone, people)
        };
        let users = {
            let (registry, backbone, people) = with();
            Users::new(registry, backbone, people, Arc::clone(&clock))
        };
        let measurer = Measurer::new(Arc::clone(&registry), Arc::clone(&people), scorer.clone(), measuring);
        Self {
            scorer,
            learner,
            asker,
            users,
            measurer,
            people,
            access,
            clock,
            registry,
            backbone,
            admission: Admission::new(&limits),
            limits: Arc::new(limits),
            readiness: Readiness::default(),
            metrics,
            registry_writes: RegistryWrites::default(),
        }
    }

    /// Whether the server is on its way out.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }
}

macro_rules! parts {
    ($($field:ident: $part:ty),* $(,)?) => {
        $(impl FromRef<AppState> for $part {
            fn from_ref(state: &AppState) -> Self {
                state.$field.clone()
            }
        })*
    };
}

parts! {
    measurer: Measurer,
    scorer: Scorer,
    learner: Learner,
    asker: Asker,
    users: Users,
    people: Arc<People>,
    access: Access,
    clock: Arc<dyn Clock>,
    registry: Arc<ModelRegistry>,
    backbone: Backbone,
    limits: Arc<Limits>,
    admission: Admission,
    readiness: Readiness,
    metrics: PrometheusHandle,
    registry_writes: RegistryWrites,
}
