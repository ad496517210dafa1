//! What a reader gives for each row of a file, and what it counts on the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::Arc,
};

use polyreward_domain::ComparisonRecord;

/// More names than these are not kept: a file whose every row has fields of its own must not fill the memory.
const MAX_NAMES: usize = 256;
/// A longer name is cut.
const MAX_NAME_CHARS: usize = 64;

/// One row of a file; for PRISM, one interaction, or one line that is not one of its rows.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// The file it stands in.
    pub file: Arc<Path>,
    /// From 1: the line, or in a table (CSV, Parquet) the row below the header; of several lines, the first.
    pub number: u64,
    /// The comparisons it gives, possibly none, or why it is refused.
    pub content: Result<Vec<ComparisonRecord>, Rejected>,
}

/// A row that is refused.
#[derive(PartialEq, Eq)]
pub struct Rejected {
    /// Why, without its text.
    pub reason: String,
    /// What a rejects file keeps, without a newline at its end: the line as it was read, or the table's row as a line
    /// of JSON; several lines where they are refused together. Of what is longer than 16 MiB, the beginning.
    /// It holds people's texts: no log, no error message.
    pub raw: Vec<u8>,
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// Why a comparison that a good row could have given is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// Both responses were given the same score (PRISM).
    Tie,
    /// The response that was chosen has the lower score (PRISM).
    Contradiction,
    /// The other response is the same text as the chosen one.
    EqualText,
    /// The same text was already compared in this turn.
    DuplicateText,
    /// One of the responses has no text.
    EmptyText,
    /// A turn in which nothing was preferred (Community Alignment).
    Unjudged,
    /// A person who answered the survey and had no conversation (PRISM).
    SurveyOnly,
    /// A turn of such a person.
    SurveyOnlyTurn,
}

impl Skip {
    /// In words, for a summary.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tie => "ties",
            Self::Contradiction => "choices against the person's own score",
            Self::EqualText => "pairs of equal texts",
            Self::DuplicateText => "texts compared twice in a turn",
            Self::EmptyText => "pairs with an empty text",
            Self::Unjudged => "turns without a preference",
            Self::SurveyOnly => "people who only answered the survey",
            Self::SurveyOnlyTurn => "turns of people who only answered the survey",
        }
    }
}

/// Names, bounded in number and length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    names: BTreeSet<String>,
    more: bool,
}

impl Names {
    /// The names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Whether there were more than are kept.
    pub fn is_cut(&self) -> bool {
        self.more
    }

    pub(crate) fn add(&mut self, name: &str) {
        let end = name.char_indices().nth(MAX_NAME_CHARS).map_or(name.len(), |(at, _)| at);
        let name = &name[..end];
        if self.names.contains(name) {
            return;
        }
        if self.names.len() < MAX_NAMES {
            self.names.insert(name.to_owned());
        } else {
            self.more = true;
        }
    }
}

/// What was read so far, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines or rows read, good and bad.
    pub rows: u64,
    /// Comparisons given.
    pub records: u64,
    /// Rows refused; an interaction refused as a whole counts each of its rows.
    pub rejected: u64,
    /// Comparisons, turns or people that good rows did not give, by reason.
    pub skipped: BTreeMap<Skip, u64>,
    /// Fields and columns that are not of the format, dotted where nested; they are not read.
    pub unknown_fields: Names,
}

impl Summary {
    pub(crate) fn skip(&mut self, reasons: impl IntoIterator<Item = Skip>) {
        for reason in reasons {
            *self.skipped.entry(reason).or_default() += 1;
        }
    }

    pub(crate) fn unknown(&mut self, names: impl IntoIterator<Item = impl AsRef<str>>) {
        for name in names {
            self.unknown_fields.add(name.as_ref());
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {} comparisons, {} rejected", self.rows, self.records, self.rejected)?;
        for (reason, count) in &self.skipped {
            write!(f, ", {count} {}", reason.as_str())?;
        }
        Ok(())
    }
}
