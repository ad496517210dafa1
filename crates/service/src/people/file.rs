//! People out of a data file, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt, future};
use polyreward_domain::{Attributes, ComparisonRecord, IdError, Split, UserId};

use super::directory::{Answering, Directory, Examples, Person};

/// Examples one person may have.
const MAX_EXAMPLES: usize = 4096;

/// Why records cannot be a server's people. Names a record rather than its person: the message is logged.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// A name that no user can have.
    #[error("record {record}: its person cannot be a user")]
    Name {
        /// Which record, from 1.
        record: usize,
        /// Why.
        #[source]
        source: IdError,
    },
    /// More examples than are kept of one person.
    #[error(
        "record {record}: its person has {examples} examples, more than the {MAX_EXAMPLES} that are kept"
    )]
    TooMany {
        /// The person's first record, from 1.
        record: usize,
        /// How many distinct ones there are.
        examples: usize,
    },
}

#[derive(Debug)]
struct Entry {
    person: Person,
    attributes: Attributes,
    examples: Examples,
}

/// Everybody with examples, in memory.
#[derive(Debug, Default)]
pub struct PeopleFile {
    by_id: BTreeMap<UserId, Entry>,
}

impl PeopleFile {
    /// The people of a data file; records of the split `query` are tests, not examples, and are left out. Where records of
    /// one person differ in an attribute, the last one stands.
    ///
    /// # Errors
    /// A name that no user can have, or too many examples of one person.
    pub fn of(records: Vec<ComparisonRecord>) -> Result<Self, PeopleError> {
        let mut people: BTreeMap<UserId, (usize, Attributes, Vec<_>)> = BTreeMap::new();
        for (at, record) in records.into_iter().enumerate() {
            if record.split == Some(Split::Query) {
                continue;
            }
            let named = |source| PeopleError::Name { record: at + 1, source };
            let user_id: UserId = record.user_id.as_str().parse().map_err(named)?;
            let (_, attributes, posted) =
                people.entry(user_id).or_insert_with(|| (at + 1, Attributes::new(), Vec::new()));
            attributes.extend(record.attributes);
            posted.push((record.id, record.comparison));
        }
        let mut by_id = BTreeMap::new();
        for (user_id, (record, attributes, posted)) in people {
            let examples = Examples::of(posted);
            let count = examples.comparisons().len();
            if count > MAX_EXAMPLES {
                return Err(PeopleError::TooMany { record, examples: count });
            }
            let person =
                Person { user_id: Arc::new(user_id.clone()), version: examples.version(), examples: count };
            by_id.insert(user_id, Entry { person, attributes, examples });
        }
        Ok(Self { by_id })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

impl Directory for PeopleFile {
    fn find<'a>(&'a self, user_ids: &'a [UserId]) -> Answering<'a, Vec<Person>> {
        let find = |user_id: &UserId| {
            let entry = self.by_id.get(user_id);
            entry.map_or_else(|| Person::unknown(user_id.clone()), |entry| entry.person.clone())
        };
        future::ready(Ok(user_ids.iter().map(find).collect())).boxed()
    }

    fn members<'a>(&'a self, group: &'a Attributes, limit: usize) -> Answering<'a, Vec<Person>> {
        let belongs =
            |entry: &&Entry| group.iter().all(|(key, value)| entry.attributes.get(key) == Some(value));
        let members = self.by_id.values().filter(belongs).take(limit);
        future::ready(Ok(members.map(|entry| entry.person.clone()).collect())).boxed()
    }

    fn examples<'a>(&'a self, user_id: &'a UserId) -> Answering<'a, Examples> {
        let examples = self.by_id.get(user_id).map(|entry| entry.examples.clone());
        future::ready(Ok(examples.unwrap_or_default())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use polyreward_domain::{Comparison, LabelConfidence, Prompt, Strength};

    use super::*;

    fn record(user_id: &str, country: &str, chosen: &str, split: Option<Split>) -> ComparisonRecord {
        ComparisonRecord {
            user_id: user_id.parse().unwrap(),
            attributes: Attributes::from([("country".to_owned(), country.to_owned())]),
            comparison: Comparison {
                prompt: Prompt::Text("Name a fish.".into()),
                chosen: chosen.into(),
                rejected: "No.".into(),
                strength: Strength::default(),
                label_confidence: LabelConfidence::default(),
                rationale: None,
            },
            id: None,
            created_at: None,
            split,
            tags: Vec::new(),
        }
    }

    #[tokio::test]
    async fn groups_are_of_people_who_have_every_attribute() {
        let people = PeopleFile::of(vec![
            record("ada", "UK", "A trout.", None),
            record("bob", "US", "A trout.", Some(Split::Context)),
            record("ada", "FR", "A pike.", None),
            record("cid", "FR", "A trout.", Some(Split::Query)),
        ])
        .unwrap();
        let group = async |attributes: Attributes| -> Vec<String> {
            let members = people.members(&attributes, 10).await.unwrap();
            members.iter().map(|person| person.user_id.to_string()).collect()
        };
        let of = |country: &str| Attributes::from([("country".to_owned(), country.to_owned())]);
        assert_eq!(people.len(), 2);
        assert_eq!((group(of("FR")).await, group(of("US")).await), (vec!["ada".into()], vec!["bob".into()]));
        assert!(group(of("UK")).await.is_empty());
        assert_eq!(group(Attributes::new()).await.len(), 2);
        assert_eq!(people.members(&Attributes::new(), 1).await.unwrap().len(), 1);
    }

    #[test]
    fn names_that_no_user_can_have_and_crowds_of_examples_are_refused_without_naming_anybody() {
        let unfit = PeopleFile::of(vec![record("a b", "UK", "A trout.", None)]).unwrap_err();
        assert!(matches!(unfit, PeopleError::Name { record: 1, .. }));
        let many = |n: usize| record("ada", "UK", &format!("Fish {n}."), None);
        let crowd = PeopleFile::of((0..=MAX_EXAMPLES).map(many).collect()).unwrap_err();
        assert!(matches!(crowd, PeopleError::TooMany { record: 1, .. }));
        for error in [unfit, crowd] {
            assert!(!error.to_string().contains("ada") && !error.to_string().contains("a b"), "{error}");
        }
        let same = vec![record("ada", "UK", "A trout.", None); MAX_EXAMPLES + 1];
        assert!(PeopleFile::of(same).is_ok(), "identical lines are one example");
    }
}
