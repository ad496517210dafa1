//! What handlers share: cheap clones, each taken by its own type.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::extract::FromRef;
use metrics_exporter_prometheus::PrometheusHandle;
use polyreward_backbone::Backbone;
use polyreward_service::{ModelRegistry, People, ScoreLimits, Scorer};
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

/// Everything the routes need; clones share it.
#[derive(Debug, Clone)]
pub struct AppState {
    scorer: Scorer,
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
    /// The parts of a server: its models on their backbone, its people, its limits, and where its metrics are read.
    pub fn new(
        registry: Arc<ModelRegistry>,
        backbone: Backbone,
        people: Arc<People>,
        limits: Limits,
        metrics: PrometheusHandle,
    ) -> Self {
        let of_scores =
            ScoreLimits { max_rewards: limits.max_rewards, max_pending_cells: limits.max_pending_cells };
        Self {
            scorer: Scorer::new(Arc::clone(&registry), backbone.clone(), people, of_scores),
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
    scorer: Scorer,
    registry: Arc<ModelRegistry>,
    backbone: Backbone,
    limits: Arc<Limits>,
    admission: Admission,
    readiness: Readiness,
    metrics: PrometheusHandle,
    registry_writes: RegistryWrites,
}
