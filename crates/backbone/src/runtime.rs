//! ONNX Runtime's shared library, loaded once per process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::error::BackboneError;

/// Names the library where the options do not.
pub(crate) const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// The process has one environment; it lives until the process ends.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The process's ONNX Runtime; the first call that succeeds loads the library, later ones ignore `library`.
///
/// # Errors
/// [`BackboneError::Library`] when no library is named, or the one named is missing or too old.
pub fn environment(library: Option<&Path>) -> Result<Environment, BackboneError> {
    let mut current = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*current {
        return Ok(environment.clone());
    }
    let environment = load(&library_path(library)?)?;
    Ok(current.insert(environment).clone())
}

/// What ONNX Runtime says of its build, version included.
///
/// # Errors
/// [`BackboneError::Library`] when the library is missing or too old.
pub fn library_version(library: Option<&Path>) -> Result<&'static str, BackboneError> {
    environment(library)?;
    Ok(ort::info())
}

fn library_path(library: Option<&Path>) -> Result<PathBuf, BackboneError> {
    let path = match (library, std::env::var_os(LIBRARY_VARIABLE)) {
        (Some(path), _) => path.to_path_buf(),
        (None, Some(path)) if !path.is_empty() => PathBuf::from(path),
        (None, _) => return Err(BackboneError::Library { detail: "no library is named".into() }),
    };
    // A bare name would be searched for beside the binary and along the loader's path.
    path.canonicalize()
        .map_err(|error| BackboneError::Library { detail: format!("{}: {error}", path.display()) })
}

fn load(path: &Path) -> Result<Environment, BackboneError> {
    let unusable = |detail: String| BackboneError::Library { detail };
    let builder = ort::init_from(path).map_err(|error| unusable(error.to_string()))?;
    let environment = builder
        .with_name("polyreward")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}

/// ONNX Runtime speaks of nodes, shapes and devices, never of the texts.
fn log(level: LogLevel, category: &str, _id: &str, _location: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::error!(category, "ONNX Runtime: {message}"),
        LogLevel::Warning => tracing::warn!(category, "ONNX Runtime: {message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::debug!(category, "ONNX Runtime: {message}"),
    }
}
