//! Consecutive comparisons of one person, gathered to be posted together.

use std::{path::Path, sync::Arc};

use polyreward_domain::{Attributes, Comparison, ComparisonRecord, ExampleId, UserId, check_attributes};
use polyreward_service::PostedExample;
use serde::Serialize;

/// Bytes of a post beside its attributes and examples.
const FRAME_BYTES: usize = 64;

/// Where a comparison stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The row's number in it, from 1.
    pub number: u64,
    /// How many rows of all the input come before it.
    pub index: u64,
}

/// A comparison to post, with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where it stands.
    pub place: Place,
    /// What is posted.
    pub example: PostedExample,
}

/// Comparisons of one person in the order of the input, all with the same attributes.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// Whose they are.
    pub user_id: UserId,
    /// What is known of the person.
    pub attributes: Attributes,
    /// The comparisons.
    pub entries: Vec<Entry>,
    /// Rows of the input that are dealt with once this post and all before it are.
    pub rows: u64,
}

/// What one post may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostLimits {
    /// Examples.
    pub examples: usize,
    /// Bytes of its JSON.
    pub bytes: usize,
}

/// An example as `POST /users/{id}/examples` takes it.
#[derive(Serialize)]
pub struct ExampleBody<'a> {
    #[serde(flatten)]
    comparison: &'a Comparison,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a ExampleId>,
}

impl<'a> From<&'a PostedExample> for ExampleBody<'a> {
    fn from(example: &'a PostedExample) -> Self {
        Self { comparison: &example.comparison, id: example.id.as_ref() }
    }
}

/// A record as what can be posted.
///
/// # Errors
/// Why it cannot be.
pub fn postable(record: &ComparisonRecord) -> Result<(UserId, PostedExample), String> {
    let user_id: UserId = record.user_id.as_str().parse().map_err(|error| format!("user_id: {error}"))?;
    let id = record.id.as_deref().map(str::parse::<ExampleId>).transpose();
    let id = id.map_err(|error| format!("id: {error}"))?;
    // The key may be personal, too.
    check_attributes(&record.attributes).map_err(|(_, error)| format!("attributes: {error}"))?;
    record.comparison.check().map_err(|(field, error)| format!("{field} {error}"))?;
    Ok((user_id, PostedExample { id, comparison: record.comparison.clone() }))
}

/// The post that is being gathered.
#[derive(Debug)]
pub struct Group {
    limits: PostLimits,
    open: Option<Post>,
    bytes: usize,
}

impl Group {
    /// Nothing yet.
    pub fn new(limits: PostLimits) -> Self {
        Self { limits, open: None, bytes: 0 }
    }

    /// Adds a comparison; gives the post before it where it does not belong to that.
    ///
    /// # Errors
    /// One that no post has room for.
    pub fn add(
        &mut self,
        user_id: UserId,
        attributes: &Attributes,
        entry: Entry,
    ) -> Result<Option<Post>, String> {
        let bytes = json_bytes(&ExampleBody::from(&entry.example)) + 1;
        let frame = FRAME_BYTES + json_bytes(attributes);
        if frame + bytes > self.limits.bytes {
            return Err(format!("has more than the {} bytes of a post", self.limits.bytes));
        }
        let fits = self.open.as_ref().is_some_and(|open| {
            open.user_id == user_id
                && open.attributes == *attributes
                && open.entries.len() < self.limits.examples
                && self.bytes + bytes <= self.limits.bytes
        });
        let before = if fits { None } else { self.close() };
        if self.open.is_none() {
            self.bytes = frame;
        }
        self.bytes += bytes;
        let open = self.open.get_or_insert_with(|| Post {
            user_id,
            attributes: attributes.clone(),
            entries: Vec::new(),
            rows: 0,
        });
        // Not this row: others of its comparisons may not fit.
        open.rows = entry.place.index;
        open.entries.push(entry);
        Ok(before)
    }

    /// Says that so many rows of the input are read to their ends.
    pub fn read(&mut self, rows: u64) {
        if let Some(open) = &mut self.open {
            open.rows = rows;
        }
    }

    /// Ends the post.
    pub fn close(&mut self) -> Option<Post> {
        self.open.take()
    }

    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }
}

fn json_bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX / 4, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PostLimits = PostLimits { examples: 3, bytes: 1 << 20 };

    fn record(user_id: &str, country: &str, chosen: &str) -> ComparisonRecord {
        ComparisonRecord {
            user_id: user_id.parse().unwrap(),
            attributes: Attributes::from([("country".into(), country.into())]),
            comparison: Comparison {
                prompt: polyreward_domain::Prompt::Text("p".into()),
                chosen: chosen.into(),
                rejected: "b".into(),
                strength: polyreward_domain::Strength::default(),
                label_confidence: polyreward_domain::LabelConfidence::default(),
                rationale: None,
            },
            split: None,
            tags: Vec::new(),
            id: None,
            created_at: None,
        }
    }

    /// Person, indices of the rows and rows dealt with, of each post of a file of such records.
    fn posts(limits: PostLimits, records: &[ComparisonRecord]) -> Vec<(String, Vec<u64>, u64)> {
        let mut group = Group::new(limits);
        let mut posts = Vec::new();
        for (index, record) in (0..).zip(records) {
            let (user_id, example) = postable(record).unwrap();
            let place = Place { file: Path::new("f").into(), number: index + 1, index };
            posts.extend(group.add(user_id, &record.attributes, Entry { place, example }).unwrap());
            group.read(index + 1);
        }
        posts.extend(group.close());
        let indices = |post: &Post| post.entries.iter().map(|entry| entry.place.index).collect();
        posts.iter().map(|post| (post.user_id.to_string(), indices(post), post.rows)).collect()
    }

    #[test]
    fn consecutive_comparisons_of_a_person_are_posted_together_and_never_reordered() {
        let people = ["ada", "ada", "ben", "ada", "ada", "ada", "ada"];
        let records: Vec<_> = people.iter().map(|person| record(person, "UK", "a")).collect();
        let expected = [
            ("ada".to_owned(), vec![0, 1], 2),
            ("ben".to_owned(), vec![2], 3),
            ("ada".to_owned(), vec![3, 4, 5], 6),
            ("ada".to_owned(), vec![6], 7),
        ];
        assert_eq!(posts(LIMITS, &records), expected);
    }

    #[test]
    fn other_attributes_and_too_many_bytes_begin_another_post() {
        let records = [record("ada", "UK", "a"), record("ada", "DE", "a"), record("ada", "DE", "a")];
        let indices = |posts: Vec<(String, Vec<u64>, u64)>| -> Vec<_> {
            posts.into_iter().map(|(_, indices, _)| indices).collect()
        };
        assert_eq!(indices(posts(LIMITS, &records)), [vec![0], vec![1, 2]]);
        let small = PostLimits { bytes: 200, ..LIMITS };
        assert_eq!(indices(posts(small, &records)), [vec![0], vec![1], vec![2]]);
        let mut group = Group::new(small);
        let (user_id, example) = postable(&record("ada", "UK", &"a".repeat(256))).unwrap();
        let place = Place { file: Path::new("f").into(), number: 1, index: 0 };
        let refused = group.add(user_id, &Attributes::new(), Entry { place, example }).unwrap_err();
        assert!(refused.contains("200 bytes") && group.is_empty(), "{refused}");
    }

    #[test]
    fn what_cannot_be_posted_is_refused_without_its_text() {
        let good = record("ada", "UK", "a");
        let bad = [
            (ComparisonRecord { user_id: "town/ada".parse().unwrap(), ..good.clone() }, "user_id: "),
            (ComparisonRecord { id: Some("a secret".into()), ..good.clone() }, "id: "),
            (record("ada", "a\nsecret", "a"), "attributes: "),
            (record("ada", "UK", "b"), "rejected is the same text"),
        ];
        for (record, begins) in bad {
            let reason = postable(&record).unwrap_err();
            assert!(reason.starts_with(begins) && !reason.contains("secret"), "{reason}");
        }
    }
}
