//! What one bench found, on disk as soon as it is found.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::budgets::Budget;

/// Measurements against a budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The budget's name.
    pub budget: String,
    /// What it was measured of, where it holds for several, as heads.
    pub subject: Option<String>,
    /// One a round.
    pub values: Vec<f64>,
}

/// Measurements that nothing is promised about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Where it belongs.
    pub section: String,
    /// What was measured.
    pub what: String,
    /// What the values count; a ratio counts nothing.
    pub unit: String,
    /// One a round.
    pub values: Vec<f64>,
}

/// What something costs by how much of it there is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What it shows.
    pub title: String,
    /// What there is more and more of, in the singular.
    pub per: String,
    /// What is measured of it.
    pub what: String,
    /// What that counts.
    pub unit: String,
    /// One or several of a kind.
    pub series: Vec<Series>,
    /// Whether a fixed part and one for each is looked for; a rate or a share has none.
    pub additive: bool,
    /// What a reader has to know.
    pub note: String,
}

/// One line of a [`Curve`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it is of.
    pub name: String,
    /// How much there was, and one measurement a round.
    pub points: Vec<(f64, Vec<f64>)>,
}

/// A section that did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which.
    pub section: String,
    /// Why.
    pub why: String,
    /// Whether it was left out on purpose, as what it needs is not there.
    pub skipped: bool,
}

/// All that one bench found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Which bench.
    pub bench: String,
    /// Whether it measured little, to be tried.
    pub quick: bool,
    /// Whether it came to its end.
    pub finished: bool,
    /// How long it took.
    pub seconds: f64,
    /// Measured against budgets.
    pub judged: Vec<Judged>,
    /// Measured without.
    pub figures: Vec<Figure>,
    /// Curves.
    pub curves: Vec<Curve>,
    /// Sections without an end.
    pub failures: Vec<Failure>,
}

impl Part {
    /// Adds measurements against a budget.
    ///
    /// # Panics
    /// On a name that no budget has.
    pub fn judge(&mut self, budget: &str, subject: Option<&str>, values: Vec<f64>) {
        assert!(Budget::find(budget).is_some(), "there is no budget {budget}");
        self.judged.push(Judged { budget: budget.to_owned(), subject: subject.map(str::to_owned), values });
    }

    /// Adds measurements that nothing is promised about.
    pub fn figure(&mut self, section: &str, what: impl Into<String>, unit: &str, values: Vec<f64>) {
        let (section, unit) = (section.to_owned(), unit.to_owned());
        self.figures.push(Figure { section, what: what.into(), unit, values });
    }
}

/// Why a section was not even tried.
#[derive(Debug)]
pub struct Skipped(pub String);

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// Keeps what a bench finds.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    started: Instant,
    part: Part,
}

impl Recorder {
    /// For a bench, in a folder. What an earlier run left is gone.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn open(folder: &Path, bench: &str, quick: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let part = Part { bench: bench.to_owned(), quick, ..Part::default() };
        let recorder = Self { path: folder.join(format!("{bench}.json")), started: Instant::now(), part };
        recorder.write()?;
        Ok(recorder)
    }

    /// Measures a section. That it fails, or panics, is recorded, and the others are measured all the same.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn section(
        &mut self,
        section: &str,
        measure: impl FnOnce(&mut Part) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        eprintln!("bench {}: {section}", self.part.bench);
        let began = Instant::now();
        let before = self.part.clone();
        // Nothing but the part is seen after a panic, and it is put back.
        let result = catch_unwind(AssertUnwindSafe(|| measure(&mut self.part)));
        let failed = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((format!("{error:#}"), error.is::<Skipped>())),
            Err(panic) => Some((format!("a panic: {}", message(panic.as_ref())), false)),
        };
        let seconds = began.elapsed().as_secs_f64();
        match failed {
            None => eprintln!("bench {}: {section}: done in {seconds:.0} s", self.part.bench),
            Some((why, skipped)) => {
                eprintln!("bench {}: {section}: not measured: {why}", self.part.bench);
                self.part = before;
                self.part.failures.push(Failure { section: section.to_owned(), why, skipped });
            }
        }
        self.write()
    }

    /// Ends the bench.
    ///
    /// # Errors
    /// A section that failed.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.part.finished = true;
        self.write()?;
        let failed: Vec<&str> = self
            .part
            .failures
            .iter()
            .filter(|failure| !failure.skipped)
            .map(|failure| failure.section.as_str())
            .collect();
        if !failed.is_empty() {
            bail!("not measured: {}", failed.join(", "));
        }
        Ok(())
    }

    fn write(&self) -> anyhow::Result<()> {
        let part = Part { seconds: self.started.elapsed().as_secs_f64(), ..self.part.clone() };
        let text = serde_json::to_string_pretty(&part)?;
        fs::write(&self.path, text).with_context(|| format!("writing {}", self.path.display()))
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// What the benches left in a folder, in the order of their names.
///
/// # Errors
/// A file that is no part.
pub fn parts(folder: &Path) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    if !folder.is_dir() {
        return Ok(parts);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(&path)?;
            let part: Part =
                serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
            parts.push(part);
        }
    }
    parts.sort_by(|a, b| a.bench.cmp(&b.bench));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(folder: &Path) -> Part {
        parts(folder).unwrap().remove(0)
    }

    #[test]
    fn a_section_that_fails_takes_nothing_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(folder.path(), "some", false).unwrap();
        recorder
            .section("first", |part| {
                part.judge("idle-memory", None, vec![200.0]);
                Ok(())
            })
            .unwrap();
        recorder
            .section("second", |part| {
                part.figure("second", "half of it", "ms", vec![1.0]);
                bail!("no luck")
            })
            .unwrap();
        recorder.section("third", |_| panic!("worse luck")).unwrap();
        recorder.section("fourth", |_| Err(Skipped("no data".into()).into())).unwrap();
        // It is all there before the bench has ended.
        let part = one(folder.path());
        assert!(!part.finished && part.figures.is_empty());
        assert_eq!(part.judged[0].values, [200.0]);
        let whys: Vec<_> =
            part.failures.iter().map(|failure| (failure.why.as_str(), failure.skipped)).collect();
        assert_eq!(whys, [("no luck", false), ("a panic: worse luck", false), ("no data", true)]);
        let error = recorder.finish().unwrap_err().to_string();
        assert_eq!(error, "not measured: second, third");
        assert!(one(folder.path()).finished);
    }

    #[test]
    fn what_is_only_skipped_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(folder.path(), "some", true).unwrap();
        recorder.section("first", |_| Err(Skipped("no data".into()).into())).unwrap();
        recorder.finish().unwrap();
        assert!(one(folder.path()).quick);
    }

    #[test]
    fn a_folder_that_is_not_there_holds_nothing() {
        assert_eq!(parts(Path::new("no such folder")).unwrap(), []);
    }
}
