//! `/users` and `/groups` without HTTP: who there is, what is known and believed of them, and their erasure.

use std::sync::Arc;

use polyreward_backbone::Backbone;
use polyreward_domain::{Attributes, Comparison, HeadFamily, MAX_VALUE_BYTES, ModelRef, TenantId, UserId};
use polyreward_heads::StateView;
use polyreward_storage::{
    AuditAction, GroupCount, ModelTally, PersonSummary, StorageError, StoredExample, UserRecord,
};

use crate::{
    clock::Clock,
    examples::{Writer, all_forms, audit, left_of_prior},
    metrics,
    people::{People, Person, PersonState, StatesError, Unusable, inputs_of, subject},
    registry::ModelRegistry,
    score::Pair,
};

/// Examples read at once while a person is erased.
const PAGE: usize = 256;

/// Why people cannot be read or written now.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The database cannot be used now, or failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The states cannot be derived now.
    #[error(transparent)]
    States(#[from] StatesError),
    /// The work ended without a result.
    #[error("the work was given up")]
    GivenUp,
}

/// One number of a state: a person's weight on something that the model shares between people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight {
    /// Posterior mean.
    pub mean: f64,
    /// Posterior standard deviation.
    pub deviation: f64,
    /// The population's.
    pub population: f64,
}

/// What one model believes of a person.
#[derive(Debug, Clone, PartialEq)]
pub struct Believed {
    /// The model.
    pub model: ModelRef,
    /// Its family, which says what the weights are on.
    pub head: HeadFamily,
    /// Examples behind the state.
    pub examples: usize,
    /// The state in numbers; empty for a head that is the same for everybody.
    pub weights: Vec<Weight>,
    /// Which part of the prior's standard deviation is left, over all weights.
    pub uncertainty: f64,
    /// The state in words.
    pub summary: String,
    /// Why there is no state, where the model cannot use the person's examples.
    pub unusable: Option<Unusable>,
    /// How often the model was right about the person's examples before it learned from them.
    pub tally: Option<ModelTally>,
}

/// Everything about one person but their texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Who, with attributes.
    pub user: UserRecord,
    /// What each current model believes.
    pub models: Vec<Believed>,
}

/// Who there is.
#[derive(Debug, Clone)]
pub struct Users {
    registry: Arc<ModelRegistry>,
    backbone: Backbone,
    people: Arc<People>,
    clock: Arc<dyn Clock>,
}

impl Users {
    /// These people, as the registry's models see them.
    pub fn new(
        registry: Arc<ModelRegistry>,
        backbone: Backbone,
        people: Arc<People>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { registry, backbone, people, clock }
    }

    /// Everything about one person but their texts.
    ///
    /// # Errors
    /// The database or the backbone cannot be asked.
    #[tracing::instrument(name = "service.profile", skip_all)]
    pub async fn profile(&self, tenant: &TenantId, user_id: &UserId) -> Result<Option<Profile>, UsersError> {
        let storage = self.people.storage();
        let Some(user) = storage.user(tenant, user_id).await? else { return Ok(None) };
        let tallies = storage.tallies(tenant, user_id).await?;
        let person = Person::from(PersonSummary {
            user_id: user.user_id.clone(),
            version: user.version,
            examples: user.examples,
        });
        let registered = self.registry.registered();
        let mut models = Vec::new();
        for model in registered.current() {
            let resolved = self.people.resolve(tenant, model, vec![person.clone()], None).await?.pop();
            let (state, unusable) = match resolved.expect("one person was asked for") {
                Ok(resolved) => (resolved.state, None),
                Err(unusable) => (None, Some(unusable)),
            };
            let (head, population) = (model.head.family(), model.head.population());
            let population = population.view();
            let state = state.as_ref().map_or(population, PersonState::view);
            let weights = if model.head.is_personal() { weights_of(state, population) } else { Vec::new() };
            let uncertainty = left_of_prior(state, population);
            models.push(Believed {
                summary: in_words(head, state.examples(), uncertainty, &weights, unusable.is_some()),
                model: model.reference.clone(),
                head,
                examples: state.examples(),
                weights,
                uncertainty,
                unusable,
                tally: tallies.iter().find(|tally| tally.model == model.reference).cloned(),
            });
        }
        Ok(Some(Profile { user, models }))
    }

    /// Sets all of a person's attributes, and makes the person where there is none; whether it did.
    ///
    /// # Errors
    /// The database cannot be used.
    #[tracing::instrument(name = "service.put_user", skip_all)]
    pub async fn put(
        &self,
        writer: &Writer,
        user_id: &UserId,
        attributes: Attributes,
    ) -> Result<bool, UsersError> {
        let (this, writer, user_id) = (self.clone(), writer.clone(), user_id.clone());
        let put = async move {
            let mut transaction = this.people.storage().begin(&writer.tenant).await?;
            let now = this.clock.now();
            let (user, created) = transaction.hold_or_create_user(&user_id, now).await?;
            transaction.put_attributes(&user_id, &attributes).await?;
            let UserRecord { version, examples, next_position, .. } = user;
            transaction.save_user(&user_id, version, examples, next_position, now).await?;
            transaction.audit(&audit(&writer, AuditAction::UserPut, &user_id, 1, now)).await?;
            transaction.commit().await?;
            Ok::<bool, StorageError>(created)
        };
        Ok(tokio::spawn(put).await.map_err(|_stopped| UsersError::GivenUp)??)
    }

    /// Erases a person and everything that is theirs, in the database and in this process; false where there is nobody.
    ///
    /// # Errors
    /// The database cannot be used.
    #[tracing::instrument(name = "service.erase_user", skip_all)]
    pub async fn erase(&self, writer: &Writer, user_id: &UserId) -> Result<bool, UsersError> {
        let (this, writer, user_id) = (self.clone(), writer.clone(), user_id.clone());
        let erase = async move {
            let storage = this.people.storage();
            let (mut transaction, inputs) = loop {
                // Read before the row is held: a transaction must not wait for a second connection.
                let Some(before) = storage.user(&writer.tenant, &user_id).await? else { return Ok(false) };
                let inputs = this.texts_of(&writer.tenant, &user_id).await?;
                let mut transaction = storage.begin(&writer.tenant).await?;
                let Some(held) = transaction.hold_user(&user_id).await? else { return Ok(false) };
                if held.next_position == before.next_position {
                    break (transaction, inputs);
                }
                // An example came in between. What was begun ends here, before anything else is begun.
            };
            transaction.erase_user(&user_id).await?;
            transaction.announce_erasure(&subject(&writer.tenant, &user_id)).await?;
            let now = this.clock.now();
            transaction.audit(&audit(&writer, AuditAction::UserErased, &user_id, 1, now)).await?;
            transaction.commit().await?;
            this.people.forget(&writer.tenant, &user_id);
            this.backbone.forget(&inputs);
            ::metrics::counter!(metrics::ERASURES_TOTAL).increment(1);
            Ok::<bool, StorageError>(true)
        };
        Ok(tokio::spawn(erase).await.map_err(|_stopped| UsersError::GivenUp)??)
    }

    /// What the backbone may have read of a person's examples.
    async fn texts_of(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
    ) -> Result<Vec<polyreward_backbone::EmbedInput>, StorageError> {
        let (mut inputs, mut after) = (Vec::new(), None);
        loop {
            let page = self.people.storage().examples(tenant, user_id, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(inputs) };
            after = Some(last.position);
            inputs.extend(page.iter().flat_map(|example| inputs_of(example, all_forms())));
        }
    }

    /// The first `limit` of the people after one, in the order of their ids.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn list(
        &self,
        tenant: &TenantId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<UserRecord>, UsersError> {
        Ok(self.people.storage().users(tenant, after, limit).await?)
    }

    /// The first `limit` of the groups after one, in the order of their attribute and its value.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn groups(
        &self,
        tenant: &TenantId,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<GroupCount>, UsersError> {
        Ok(self.people.storage().groups(tenant, after, limit).await?)
    }

    /// The first `limit` attributes that people have, by name, each with how many values it has, counted up to one more than
    /// `most`.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn attributes(
        &self,
        tenant: &TenantId,
        limit: usize,
        most: usize,
    ) -> Result<Vec<(String, usize)>, UsersError> {
        // No value that can be stored comes after this one, so that a question skips what is left of an attribute.
        let last_value = char::MAX.to_string().repeat(MAX_VALUE_BYTES / char::MAX.len_utf8());
        let mut attributes: Vec<(String, usize)> = Vec::new();
        while attributes.len() < limit {
            let after = attributes.last().map(|(name, _)| (name.as_str(), last_value.as_str()));
            let found = self.people.storage().groups(tenant, after, most + 1).await?;
            let Some(first) = found.first() else { break };
            let values = found.iter().filter(|group| group.key == first.key).count();
            attributes.push((first.key.clone(), values));
        }
        Ok(attributes)
    }

    /// Pairs that other people judged lately and this person did not, the latest first; the order of the two responses tells
    /// nothing of what anybody chose.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn unjudged_pairs(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        limit: usize,
    ) -> Result<Vec<Pair>, UsersError> {
        let registered = self.registry.registered();
        // Every current model predicts every example: any of them names the latest.
        let Some(model) = registered.default_model().map(|model| &model.reference) else {
            return Ok(Vec::new());
        };
        let examples = self.people.storage().unjudged_examples(tenant, user_id, model, limit).await?;
        let mut pairs: Vec<Pair> = Vec::with_capacity(examples.len());
        for Comparison { prompt, chosen, rejected, .. } in
            examples.into_iter().map(|example| example.comparison)
        {
            let (first, second) = if chosen <= rejected { (chosen, rejected) } else { (rejected, chosen) };
            let pair = Pair { prompt: prompt.into(), response_a: first.into(), response_b: second.into() };
            if pair.response_a != pair.response_b && !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        Ok(pairs)
    }

    /// The first `limit` of a person's examples after a position; none where there is no such person.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn examples(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Option<Vec<StoredExample>>, UsersError> {
        let storage = self.people.storage();
        let examples = storage.examples(tenant, user_id, after, limit).await?;
        if examples.is_empty() && storage.user(tenant, user_id).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(examples))
    }
}

fn weights_of(state: StateView<'_>, population: StateView<'_>) -> Vec<Weight> {
    let (mean, population) = (state.mean(), population.mean());
    mean.iter()
        .zip(population)
        .zip(state.variances())
        .map(|((mean, population), variance)| Weight {
            mean: f64::from(*mean),
            deviation: f64::from(variance).sqrt(),
            population: f64::from(*population),
        })
        .collect()
}

/// What a weight of a family is on, in its paper's word.
fn direction(family: HeadFamily) -> &'static str {
    match family {
        HeadFamily::Bt => "nothing",
        HeadFamily::Lore => "basis reward",
        HeadFamily::PalA | HeadFamily::PalB => "prototype",
        HeadFamily::Vpl => "latent dimension",
        HeadFamily::Micro => "head",
    }
}

/// A state in a sentence.
fn in_words(
    family: HeadFamily,
    examples: usize,
    uncertainty: f64,
    weights: &[Weight],
    is_unusable: bool,
) -> String {
    if family == HeadFamily::Bt {
        return "The same reward for everybody.".to_owned();
    }
    if is_unusable {
        return "The examples cannot be used; the population's reward.".to_owned();
    }
    if examples == 0 {
        return "No examples yet; the population's reward.".to_owned();
    }
    let away = |weight: &Weight| (weight.mean - weight.population).abs();
    let furthest = weights.iter().enumerate().max_by(|(_, a), (_, b)| away(a).total_cmp(&away(b)));
    let furthest = furthest.map_or_else(String::new, |(at, weight)| {
        format!(
            " Furthest from the population on {} {}: {:.2} against {:.2}.",
            direction(family),
            at + 1,
            weight.mean,
            weight.population
        )
    });
    let noun = if examples == 1 { "example" } else { "examples" };
    format!("{examples} {noun}; {:.0} % of the prior's uncertainty is left.{furthest}", 100.0 * uncertainty)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};
    use polyreward_heads::UserState;

    use super::*;

    #[test]
    fn a_state_is_told_in_numbers_and_words() {
        let population = UserState::new(array![0.0, 0.5], Array2::eye(2), 0).unwrap();
        let state = UserState::new(array![0.1, -0.7], Array2::eye(2) * 0.25, 3).unwrap();
        let weights = weights_of(state.view(), population.view());
        assert_eq!(weights[1].deviation, 0.5);
        let left = left_of_prior(state.view(), population.view());
        let text = in_words(HeadFamily::Lore, 3, left, &weights, false);
        assert_eq!(
            text,
            "3 examples; 50 % of the prior's uncertainty is left. Furthest from the population on basis reward 2: \
             -0.70 against 0.50."
        );
        assert!(in_words(HeadFamily::Vpl, 0, 1.0, &weights, false).contains("No examples"));
    }
}
