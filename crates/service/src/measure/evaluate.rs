//! `POST /evaluate` without HTTP: accuracy on comparisons that are not kept.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use polyreward_domain::{Attributes, ComparisonRecord, PersonId, Prompt, Tally, TenantId, UserId};
use polyreward_storage::{GroupValues, PairVotes, Span, Storage};

use super::{Accuracy, Asked, EvaluateQuery, MeasureError, Measurer, Undone, check_attributes, figures};
use crate::{
    aside::aside,
    people::Person,
    score::{Pair, ScoreError},
};

/// People whose attributes are read at once.
const AT_ONCE: usize = 4;

/// The people of some comparisons, each once, in the order in which they come.
struct Judges<'a> {
    ids: Vec<&'a PersonId>,
    /// What their comparisons say of each.
    attributes: Vec<Attributes>,
    /// Whose each comparison is.
    of: Vec<usize>,
}

impl<'a> Judges<'a> {
    fn of(comparisons: &'a [ComparisonRecord]) -> Self {
        let mut numbers: HashMap<&PersonId, usize> = HashMap::new();
        let mut judges =
            Self { ids: Vec::new(), attributes: Vec::new(), of: Vec::with_capacity(comparisons.len()) };
        for record in comparisons {
            let at = *numbers.entry(&record.user_id).or_insert_with(|| {
                judges.ids.push(&record.user_id);
                judges.attributes.push(Attributes::new());
                judges.ids.len() - 1
            });
            // What was said of somebody first stands.
            for (key, value) in &record.attributes {
                judges.attributes[at].entry(key.clone()).or_insert_with(|| value.clone());
            }
            judges.of.push(at);
        }
        judges
    }

    /// Those who can be users, with their number.
    fn users(&self) -> Vec<(usize, UserId)> {
        let user = |(at, id): (usize, &&PersonId)| Some((at, id.as_str().parse().ok()?));
        self.ids.iter().enumerate().filter_map(user).collect()
    }
}

impl Measurer {
    /// Accuracy by group on comparisons that are not kept. Each is predicted with what the server believes of its person now;
    /// the people's examples among them are no fair test.
    ///
    /// # Errors
    /// The comparisons cannot be scored, and those of [`Self::accuracy`].
    #[tracing::instrument(name = "service.evaluate", skip_all, fields(comparisons = query.comparisons.len()))]
    pub async fn evaluate(&self, tenant: &TenantId, query: EvaluateQuery) -> Result<Accuracy, MeasureError> {
        let registered = self.registry.registered();
        let model = Arc::clone(registered.find(query.model.as_ref())?);
        let storage = self.storage();
        let mut judges = Judges::of(&query.comparisons);
        self.check_known(&*storage, tenant, &query, &judges).await?;
        let users = judges.users();
        let ids: Vec<UserId> = users.iter().map(|(_, user_id)| user_id.clone()).collect();
        let found = self.people.find(tenant, &ids).await.map_err(ScoreError::from)?;
        self.add_stored(&storage, tenant, &query.group_by, &users, &mut judges).await?;

        let mut people: Vec<Option<Person>> = judges.ids.iter().map(|_| None).collect();
        for ((at, _), person) in users.into_iter().zip(found) {
            people[at] = Some(person);
        }
        // Whoever cannot be a user is as the population; the id is of nobody, and not looked at.
        let nobody = || Person::unknown("nobody".parse().expect("a user id"));
        let people: Vec<Person> = people.into_iter().map(|person| person.unwrap_or_else(nobody)).collect();
        let pairs: Vec<Pair> = query.comparisons.iter().map(pair_of).collect();
        let work: Vec<(Pair, usize)> = pairs.into_iter().zip(judges.of.iter().copied()).collect();
        let baseline = match registered.baseline() {
            Some(baseline) if baseline.reference != model.reference => {
                let of = self.scorer.own_preferences(
                    tenant,
                    baseline,
                    people.clone(),
                    work.clone(),
                    query.deadline,
                );
                Some(of.await?)
            }
            _ => None,
        };
        let is_baseline = registered.baseline().is_some_and(|baseline| baseline.reference == model.reference);
        let own = self.scorer.own_preferences(tenant, &model, people, work, query.deadline).await?;

        let mut tallies = vec![Tally::default(); judges.ids.len()];
        for (at, [preference, population]) in own.into_iter().enumerate() {
            let of_baseline = match &baseline {
                Some(baseline) => Some(baseline[at][0]),
                None => is_baseline.then_some(preference),
            };
            tallies[judges.of[at]].add(preference, population, of_baseline);
        }
        let groups: Vec<GroupValues> = judges
            .attributes
            .iter()
            .map(|attributes| query.group_by.iter().map(|key| attributes.get(key).cloned()).collect())
            .collect();
        let votes = votes(&query.comparisons, &judges.of, &groups);
        let asked = Asked {
            model: model.reference.clone(),
            group_by: query.group_by.clone(),
            span: Span::default(),
            min_users: self.min_users(query.min_users),
        };
        let _turn = self.turns.turn(self.turns.place()?).await;
        let figures = move || {
            let agreement = figures::agreement_on(&votes);
            figures::accuracy(&asked, groups.into_iter().zip(tallies).collect(), agreement)
        };
        Ok(aside(figures).await.map_err(Undone::from)?)
    }

    /// That somebody has each of the attributes that make groups, in a comparison or here.
    async fn check_known(
        &self,
        storage: &dyn Storage,
        tenant: &TenantId,
        query: &EvaluateQuery,
        judges: &Judges<'_>,
    ) -> Result<(), Undone> {
        for (at, key) in query.group_by.iter().enumerate() {
            if judges.attributes.iter().any(|attributes| attributes.contains_key(key)) {
                continue;
            }
            check_attributes(storage, tenant, std::slice::from_ref(key)).await.map_err(
                |undone| match undone {
                    Undone::UnknownAttribute { known, .. } => Undone::UnknownAttribute { at, known },
                    other => other,
                },
            )?;
        }
        Ok(())
    }

    /// Adds what is known here of those of whom their comparisons do not say everything that makes groups.
    async fn add_stored(
        &self,
        storage: &Arc<dyn Storage>,
        tenant: &TenantId,
        group_by: &[String],
        users: &[(usize, UserId)],
        judges: &mut Judges<'_>,
    ) -> Result<(), MeasureError> {
        let lacks = |at: usize| group_by.iter().any(|key| !judges.attributes[at].contains_key(key));
        let lacking: Vec<(usize, UserId)> = users.iter().filter(|(at, _)| lacks(*at)).cloned().collect();
        let records: Vec<(usize, Option<Attributes>)> = stream::iter(lacking)
            .map(|(at, user_id)| async move {
                let user = storage.user(tenant, &user_id).await?;
                Ok::<_, MeasureError>((at, user.map(|user| user.attributes)))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for (at, stored) in records {
            for (key, value) in stored.into_iter().flatten() {
                judges.attributes[at].entry(key).or_insert(value);
            }
        }
        Ok(())
    }
}

fn pair_of(record: &ComparisonRecord) -> Pair {
    Pair {
        prompt: Arc::new(record.comparison.prompt.clone()),
        response_a: record.comparison.chosen.as_str().into(),
        response_b: record.comparison.rejected.as_str().into(),
    }
}

/// How many people of each group took each side of each pair that at least two of them judged, as of stored comparisons.
fn votes(comparisons: &[ComparisonRecord], judge_of: &[usize], groups: &[GroupValues]) -> Vec<PairVotes> {
    type Sides<'a> = (&'a Prompt, &'a str, &'a str);
    let mut sides: HashMap<Sides<'_>, BTreeMap<usize, i64>> = HashMap::new();
    let mut order: Vec<Sides<'_>> = Vec::new();
    for (record, judge) in comparisons.iter().zip(judge_of) {
        let (prompt, chosen, rejected) = (
            &record.comparison.prompt,
            record.comparison.chosen.as_str(),
            record.comparison.rejected.as_str(),
        );
        let (pair, side) = if chosen < rejected {
            ((prompt, chosen, rejected), 1)
        } else {
            ((prompt, rejected, chosen), -1)
        };
        let of_pair = sides.entry(pair).or_insert_with(|| {
            order.push(pair);
            BTreeMap::new()
        });
        *of_pair.entry(*judge).or_default() += side;
    }
    let mut votes = Vec::new();
    for (number, pair) in (0..).zip(&order) {
        let decided = sides[pair].iter().filter(|(_, side)| **side != 0);
        let mut by_group: BTreeMap<&GroupValues, [u64; 2]> = BTreeMap::new();
        for (judge, side) in decided {
            by_group.entry(&groups[*judge]).or_default()[usize::from(*side < 0)] += 1;
        }
        if by_group.values().flatten().sum::<u64>() >= 2 {
            votes.extend(by_group.into_iter().map(|(group, [first, second])| PairVotes {
                pair: number,
                group: group.clone(),
                first,
                second,
            }));
        }
    }
    votes
}
