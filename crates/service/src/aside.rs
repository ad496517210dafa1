//! Work that would hold up everybody else, on a thread that answers nobody.

/// The runtime ended before the work did.
#[derive(Debug)]
pub(crate) struct Stopped;

/// Runs arithmetic that may take seconds, as for a large request: not on a thread that answers probes. A panic in it is the
/// caller's.
pub(crate) async fn aside<T: Send + 'static>(
    arithmetic: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Stopped> {
    match tokio::task::spawn_blocking(arithmetic).await {
        Ok(result) => Ok(result),
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Stopped),
        },
    }
}
