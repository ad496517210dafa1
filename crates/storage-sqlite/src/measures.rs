//! Predictions added up.

use async_trait::async_trait;
use polyreward_domain::{Attributes, TenantId};
use polyreward_storage::{
    MeasuredModel, Measures, Mistake, Moment, PairVotes, PersonSums, Predictions, ShotSums, Span, Step,
    StepSums, StorageError,
};

use crate::SqliteStorage;

#[async_trait]
impl Measures for SqliteStorage {
    async fn moment(&self, _tenant: &TenantId) -> Result<Moment, StorageError> {
        todo!()
    }

    async fn person_sums(
        &self,
        _tenant: &TenantId,
        _predictions: &Predictions,
        _group_by: &[String],
    ) -> Result<Vec<PersonSums>, StorageError> {
        todo!()
    }

    async fn shot_sums(
        &self,
        _tenant: &TenantId,
        _predictions: &Predictions,
        _group_by: &[String],
    ) -> Result<Vec<ShotSums>, StorageError> {
        todo!()
    }

    async fn step_sums(
        &self,
        _tenant: &TenantId,
        _predictions: &Predictions,
        _group_by: &[String],
        _step: Step,
        _limit: usize,
    ) -> Result<Vec<StepSums>, StorageError> {
        todo!()
    }

    async fn pair_votes(
        &self,
        _tenant: &TenantId,
        _span: Span,
        _group_by: &[String],
        _limit: usize,
    ) -> Result<Vec<PairVotes>, StorageError> {
        todo!()
    }

    async fn mistakes(
        &self,
        _tenant: &TenantId,
        _predictions: &Predictions,
        _group: &Attributes,
        _limit: usize,
    ) -> Result<Vec<Mistake>, StorageError> {
        todo!()
    }

    async fn measured_models(&self, _tenant: &TenantId) -> Result<Vec<MeasuredModel>, StorageError> {
        todo!()
    }

    async fn attribute_keys(
        &self,
        _tenant: &TenantId,
        _from: &str,
        _limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        todo!()
    }
}
