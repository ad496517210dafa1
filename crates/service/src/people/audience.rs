//! Everybody of a group, as one model sees them: rows to be read in their order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use polyreward_domain::{StateVersion, TenantId};
use polyreward_storage::{Crowd, ModelKey, Watermark};

use super::{
    People, Person, PersonState, Resolved, StatesError, Unusable,
    derivation::{Kept, StateKey},
    evidence::{self, version_together},
    matrix::{MatrixKey, Place, Roster, Rows},
};
use crate::registry::Model;

/// Models whose rosters of a group are remembered.
const MOST_ROSTERS: usize = 16;

/// The members of a group, and what tells whether they are still the same.
#[derive(Debug)]
pub(crate) struct Members {
    crowd: Crowd,
    people: Vec<Person>,
    /// Up to where nothing was written that changes them.
    watermark: Mutex<Option<Watermark>>,
    /// Of all of them together.
    version: OnceLock<StateVersion>,
    /// Where their states lie, by model; the latest last.
    seatings: Mutex<Vec<(ModelKey, Arc<Seating>)>>,
}

/// Where the states of a group's members lie, when all of them were found.
#[derive(Debug)]
struct Seating {
    roster: Roster,
    /// Members of whom nothing is known.
    unknown: usize,
    unusable: Vec<Unusable>,
    version: StateVersion,
}

/// Everybody of a group, as one model sees them.
#[derive(Debug)]
pub(crate) struct Audience {
    /// States that lie side by side, each another person's.
    pub rows: Vec<Rows>,
    /// Further states; none is the population's.
    pub others: Vec<Option<PersonState>>,
    /// Why members are left out.
    pub unusable: Vec<Unusable>,
    /// What the states were derived from, together.
    pub version: StateVersion,
}

impl Audience {
    /// Whose rewards are asked for.
    pub fn users(&self) -> usize {
        self.rows.iter().map(Rows::len).sum::<usize>() + self.others.len()
    }
}

/// What was found of each member.
enum Found {
    Unknown,
    At(Place),
    Unusable(Unusable),
    /// As it was derived for this very request.
    Derived(Person, Option<PersonState>),
}

impl Members {
    pub fn new(crowd: Crowd, people: Vec<Person>) -> Self {
        Self {
            crowd,
            people,
            watermark: Mutex::default(),
            version: OnceLock::new(),
            seatings: Mutex::default(),
        }
    }

    pub fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// Whether nothing at all was written since they were last found to be the same.
    pub fn is_at(&self, watermark: &Watermark) -> bool {
        self.watermark.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(watermark)
    }

    /// Takes note that they are the same, as was asked after the watermark.
    pub fn come_to(&self, watermark: Watermark) {
        *self.watermark.lock().unwrap_or_else(PoisonError::into_inner) = Some(watermark);
    }

    fn seatings(&self) -> MutexGuard<'_, Vec<(ModelKey, Arc<Seating>)>> {
        self.seatings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seating(&self, model: &ModelKey) -> Option<Arc<Seating>> {
        self.seatings().iter().find(|(of, _)| of == model).map(|(_, seating)| Arc::clone(seating))
    }

    fn remember(&self, model: ModelKey, seating: Seating) {
        let mut seatings = self.seatings();
        seatings.retain(|(of, _)| *of != model);
        if seatings.len() == MOST_ROSTERS {
            seatings.remove(0);
        }
        seatings.push((model, Arc::new(seating)));
    }
}

impl People {
    /// What a model believes of the members of a group: what is known at once, the rest derived a few people at a time.
    ///
    /// # Errors
    /// As of [`People::resolve`]; examples that cannot be used are no error.
    pub(crate) async fn audience(
        &self,
        tenant: &TenantId,
        model: &Arc<Model>,
        members: &Members,
        deadline: Option<Instant>,
    ) -> Result<Audience, StatesError> {
        if !model.head.is_personal() {
            let version = *members
                .version
                .get_or_init(|| version_together(members.people.iter().map(|person| person.version)));
            let others = vec![None; members.people.len()];
            return Ok(Audience { rows: Vec::new(), others, unusable: Vec::new(), version });
        }
        let key = MatrixKey { model: evidence::model_key(model), tenant: Arc::new(tenant.clone()) };
        if let Some(seating) = members.seating(&key.model) {
            let kept = self.derivation.states.read();
            if let Some(rows) = kept.rows(&key, &seating.roster) {
                let Seating { unknown, unusable, version, .. } = &*seating;
                let others = vec![None; *unknown];
                return Ok(Audience { rows, others, unusable: unusable.clone(), version: *version });
            }
        }
        let mut derived = HashMap::new();
        // More than twice only where room is so short that what was found before is gone again.
        loop {
            let missing = match self.seat(&key, members, &derived) {
                Ok(audience) => return Ok(audience),
                Err(missing) => missing,
            };
            derived.extend(self.derive(model, missing, deadline).await?);
        }
    }

    /// Finds all members at one moment, or says who is missing. `derived` are states that need not be there.
    fn seat(
        &self,
        key: &MatrixKey,
        members: &Members,
        derived: &HashMap<usize, Kept>,
    ) -> Result<Audience, Vec<(usize, StateKey)>> {
        let kept = self.derivation.states.read();
        let unusable = self.derivation.unusable.read();
        let matrix = kept.matrix(key);
        let (mut found, mut missing) = (Vec::with_capacity(members.people.len()), Vec::new());
        for (at, person) in members.people.iter().enumerate() {
            if !person.is_known() {
                found.push(Found::Unknown);
                continue;
            }
            if let Some(place) = matrix.and_then(|matrix| matrix.find(&person.user_id, person.version)) {
                found.push(Found::At(place));
                continue;
            }
            let one = match derived.get(&at) {
                Some(Ok(Resolved { person, state })) => Found::Derived(person.clone(), state.clone()),
                Some(Err(why)) => Found::Unusable(why.clone()),
                None => {
                    let key = StateKey::of(key, person);
                    let Some(why) = unusable.get(&key) else {
                        missing.push((at, key));
                        continue;
                    };
                    Found::Unusable(why.clone())
                }
            };
            found.push(one);
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        let places =
            found.iter().filter_map(|one| if let Found::At(place) = one { Some(*place) } else { None });
        let roster = matrix.map_or_else(Roster::default, |matrix| matrix.roster(places));
        let rows = kept.rows(key, &roster).expect("nothing was changed since it was made");
        drop((kept, unusable));
        let version =
            version_together(found.iter().zip(&members.people).filter_map(|(one, person)| match one {
                Found::Unusable(_) => None,
                Found::Derived(person, _) => Some(person.version),
                Found::Unknown | Found::At(_) => Some(person.version),
            }));
        let (mut others, mut unusable, mut unknown) = (Vec::new(), Vec::new(), 0);
        for one in found {
            match one {
                Found::Unknown => unknown += 1,
                Found::At(_) => {}
                Found::Unusable(why) => unusable.push(why),
                Found::Derived(_, state) => others.push(state),
            }
        }
        if others.is_empty() {
            members.remember(key.model, Seating { roster, unknown, unusable: unusable.clone(), version });
        }
        others.resize(others.len() + unknown, None);
        Ok(Audience { rows, others, unusable, version })
    }
}
