//! What processes tell one another when somebody is erased.

use async_trait::async_trait;
use polyreward_storage::{Erasures, StorageError, SubjectHash};
use sqlx::{PgPool, postgres::PgListener};

use crate::error::failed;

/// The channel of `NOTIFY`.
pub(crate) const CHANNEL: &str = "polyreward_erased";

/// Hears of erasures on a connection of its own, which it replaces where it breaks.
pub(crate) struct Listening(PgListener);

impl Listening {
    pub async fn begin(pool: &PgPool) -> Result<Self, StorageError> {
        let mut listener = PgListener::connect_with(pool).await.map_err(failed)?;
        listener.listen(CHANNEL).await.map_err(failed)?;
        Ok(Self(listener))
    }
}

#[async_trait]
impl Erasures for Listening {
    async fn next(&mut self) -> Result<Option<SubjectHash>, StorageError> {
        let heard = self.0.try_recv().await.map_err(failed)?;
        // A payload that is no digest is nobody's we know: as good as one that was missed.
        Ok(heard.and_then(|notification| digest(notification.payload())))
    }
}

fn digest(hex: &str) -> Option<SubjectHash> {
    let byte = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    bytes.filter(|_| hex.len() == 64)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_and_nothing_else_does() {
        let hex = "0f".repeat(32);
        assert_eq!(digest(&hex), Some([15; 32]));
        for bad in ["", "0f", &"zz".repeat(32), &"0f".repeat(33)] {
            assert_eq!(digest(bad), None, "{bad}");
        }
    }
}
