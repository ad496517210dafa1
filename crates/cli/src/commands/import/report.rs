//! What is told of an import: rejects one by one, then counted, and a summary at the end.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Write},
    path::Path,
};

use polyreward_datasets::Summary;
use polyreward_domain::UserId;

use super::ledger::{Counts, Reject};
use crate::progress::Progress;

/// Rejects told one by one.
const TOLD: u64 = 20;
/// Different reasons counted apart.
const MAX_REASONS: usize = 32;
/// Reasons beyond those.
const OTHER: &str = "other reasons";

/// What was seen in this run.
#[derive(Debug, Default)]
pub struct Report {
    people: HashSet<UserId>,
    reasons: BTreeMap<String, u64>,
    rejected: u64,
}

impl Report {
    /// Somebody has examples of this input.
    pub fn person(&mut self, user_id: UserId) {
        self.people.insert(user_id);
    }

    /// Tells of a reject, if it is one of the first, and counts it.
    pub fn reject(&mut self, reject: &Reject, progress: &Progress) {
        self.rejected += 1;
        if self.rejected <= TOLD {
            let (file, row) = (reject.place.file.display(), reject.place.number);
            progress.note(&format!("{file}, row {row}: {}", reject.reason));
        } else if self.rejected == TOLD + 1 {
            progress.note("more rows are rejected; they are counted at the end");
        }
        let known = self.reasons.len() < MAX_REASONS || self.reasons.contains_key(&reject.reason);
        let reason = if known { reject.reason.as_str() } else { OTHER };
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
    }

    /// The summary.
    pub fn print(&self, counts: &Counts, before: u64, read: &Summary, rejects: &Path) -> io::Result<()> {
        let mut out = io::stdout();
        let earlier = if before > 0 { format!(", {before} of them in a run before") } else { String::new() };
        writeln!(out, "rows        {}{earlier}", counts.rows)?;
        writeln!(out, "people      {}", self.people.len())?;
        writeln!(out, "stored      {}", counts.stored)?;
        writeln!(out, "duplicates  {}", counts.duplicates)?;
        let kept =
            if counts.rejected > 0 { format!(", kept in {}", rejects.display()) } else { String::new() };
        writeln!(out, "rejected    {}{kept}", counts.rejected)?;
        for (reason, count) in &self.reasons {
            writeln!(out, "            {count}: {reason}")?;
        }
        for (reason, count) in &read.skipped {
            writeln!(out, "skipped     {count} {}", reason.as_str())?;
        }
        if read.unknown_fields.iter().next().is_some() {
            let names: Vec<&str> = read.unknown_fields.iter().collect();
            let more = if read.unknown_fields.is_cut() { " and more" } else { "" };
            writeln!(out, "not read    fields {}{more}", names.join(", "))?;
        }
        out.flush()
    }
}
