//! What became of the rows, settled in the order of the input however the posts end.

use std::collections::VecDeque;

use polyreward_domain::{Attributes, ComparisonRecord, PersonId, Prompt, Split, UserId};
use serde::{Deserialize, Serialize};

use super::batch::{Entry, Place};

/// A row, or a comparison of it, that was not imported.
#[derive(Debug)]
pub struct Reject {
    /// Where it stands.
    pub place: Place,
    /// Why, without its text.
    pub reason: String,
    /// What the rejects file keeps of it.
    pub raw: Vec<u8>,
}

/// What became of some rows.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Examples that are stored now and were not before.
    pub stored: u64,
    /// Examples that were there already.
    pub duplicates: u64,
    /// What was not imported.
    pub rejects: Vec<Reject>,
}

/// The same as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows dealt with.
    pub rows: u64,
    /// Examples stored.
    pub stored: u64,
    /// Examples that were there already.
    pub duplicates: u64,
    /// Rows and comparisons rejected.
    pub rejected: u64,
}

/// Names an open entry of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// Outcomes that wait for those before them.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: VecDeque<(u64, Option<Outcome>)>,
    first: u64,
}

impl Ledger {
    /// Opens an entry: `rows` of the input are dealt with once it and all before it are closed.
    pub fn open(&mut self, rows: u64) -> Ticket {
        self.entries.push_back((rows, None));
        Ticket(self.first + self.entries.len() as u64 - 1)
    }

    /// Closes an entry.
    pub fn close(&mut self, ticket: Ticket, outcome: Outcome) {
        let at = usize::try_from(ticket.0 - self.first).expect("fewer entries than addresses");
        self.entries[at].1 = Some(outcome);
    }

    /// The next outcome before which everything is settled, with the rows dealt with.
    pub fn settle(&mut self) -> Option<(u64, Outcome)> {
        self.entries.front()?.1.as_ref()?;
        let (rows, outcome) = self.entries.pop_front()?;
        self.first += 1;
        Some((rows, outcome?))
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// A record as a line of our own format, which can be imported again once it is mended.
#[derive(Serialize)]
struct Line<'a> {
    user_id: &'a str,
    attributes: &'a Attributes,
    prompt: &'a Prompt,
    chosen: &'a str,
    rejected: &'a str,
    strength: f64,
    label_confidence: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rationale: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<Split>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<&'a str>,
}

impl Reject {
    /// Of a record, before it was posted.
    pub fn of_record(place: Place, reason: String, record: &ComparisonRecord) -> Self {
        let raw = Line {
            user_id: record.user_id.as_str(),
            attributes: &record.attributes,
            prompt: &record.comparison.prompt,
            chosen: &record.comparison.chosen,
            rejected: &record.comparison.rejected,
            strength: record.comparison.strength.get(),
            label_confidence: record.comparison.label_confidence.get(),
            rationale: record.comparison.rationale.as_deref(),
            split: record.split,
            tags: &record.tags,
            id: record.id.as_deref(),
            created_at: record.created_at.as_deref(),
        };
        let raw = serde_json::to_vec(&raw).expect("texts and finite numbers are JSON");
        Self { place, reason, raw }
    }

    /// Of a comparison that was posted and refused.
    pub fn of_entry(user_id: &UserId, attributes: &Attributes, entry: Entry, reason: String) -> Self {
        let user_id: PersonId = user_id.as_str().parse().expect("a user's id can be a person's name");
        let record = ComparisonRecord {
            user_id,
            attributes: attributes.clone(),
            comparison: entry.example.comparison,
            split: None,
            tags: Vec::new(),
            id: entry.example.id.map(String::from),
            created_at: None,
        };
        Self::of_record(entry.place, reason, &record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_settled_in_the_order_of_the_input() {
        let stored = |stored| Outcome { stored, ..Outcome::default() };
        let mut ledger = Ledger::default();
        let tickets = [2, 3, 7].map(|rows| ledger.open(rows));
        ledger.close(tickets[2], stored(4));
        ledger.close(tickets[1], stored(1));
        assert!(ledger.settle().is_none(), "the first rows are still under way");
        ledger.close(tickets[0], stored(2));
        let settled: Vec<_> =
            std::iter::from_fn(|| ledger.settle()).map(|(rows, o)| (rows, o.stored)).collect();
        assert_eq!(settled, [(2, 2), (3, 1), (7, 4)]);
        let next = ledger.open(9);
        ledger.close(next, stored(2));
        assert_eq!(ledger.settle().map(|(rows, _)| rows), Some(9));
    }
}
