//! Who is of which group.

use std::collections::HashMap;

use polyreward_domain::TenantId;
use polyreward_storage::{GroupValues, StorageError};

use crate::{columns::json, error::storage_error, measuring::Snapshot};

/// The groups of people who have any of the attributes asked for.
pub(super) struct Groups {
    of: HashMap<String, GroupValues>,
    attributes: usize,
}

impl Groups {
    /// A person's values, in the order of the attributes.
    pub fn take(&mut self, user_id: &str) -> GroupValues {
        self.of.remove(user_id).unwrap_or_else(|| vec![None; self.attributes])
    }
}

pub(super) async fn groups_of(
    snapshot: &mut Snapshot,
    tenant: &TenantId,
    group_by: &[String],
) -> Result<Groups, StorageError> {
    let mut groups = Groups { of: HashMap::new(), attributes: group_by.len() };
    if group_by.is_empty() {
        return Ok(groups);
    }
    let (tenant, keys) = (tenant.as_str(), json(group_by)?);
    let rows = sqlx::query!(
        "SELECT user_id, key, value
           FROM user_attributes
          WHERE tenant_id = ? AND key IN (SELECT value FROM json_each(?))",
        tenant,
        keys,
    );
    for row in rows.fetch_all(&mut **snapshot).await.map_err(storage_error)? {
        let values = groups.of.entry(row.user_id).or_insert_with(|| vec![None; group_by.len()]);
        for (key, value) in group_by.iter().zip(values) {
            if *key == row.key {
                *value = Some(row.value.clone());
            }
        }
    }
    Ok(groups)
}

/// The attributes that make the groups; none in place of those that are not asked for.
pub(super) fn keys_of(group_by: &[String]) -> Result<[Option<&str>; 2], StorageError> {
    match group_by {
        [] => Ok([None, None]),
        [first] => Ok([Some(first), None]),
        [first, second] => Ok([Some(first), Some(second)]),
        _ => Err(StorageError::Backend("groups are made of two attributes at most".into())),
    }
}

/// The values of the attributes asked for.
pub(super) fn values_of(group_by: &[String], first: Option<String>, second: Option<String>) -> GroupValues {
    [first, second].into_iter().take(group_by.len()).collect()
}
