//! Large answers are written by a thread that answers nobody else.

use crate::problem::Problem;

/// Runs `write` here, or apart where its answer is large. A panic in it is the caller's.
pub(crate) async fn write_aside<T: Send + 'static>(
    is_large: bool,
    write: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if !is_large {
        return write();
    }
    match tokio::task::spawn_blocking(write).await {
        Ok(written) => written,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Problem::draining()),
        },
    }
}
