//! Data files as what training reads, without ever holding a text longer than it takes to embed it.
//!
//! The files are read twice. The first time counts each person's comparisons and meets every bad line before hours of
//! embedding; the second embeds the texts of the comparisons that are kept. What stays in memory are numbers: 32 bytes a
//! comparison, a few hundred a person, about 200 a distinct text while it is read and 30 afterwards; embeddings lie in a file.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{anyhow, ensure};
use polyreward_backbone::{Backbone, EmbeddingFile};
use polyreward_domain::{Attributes, ComparisonRecord, PersonId, Split, TextForms};
use polyreward_heads::Person;
use polyreward_service::embed_stream;
use polyreward_training::{CappedPeople, TrainingData, comparisons_kept};

use crate::{dataset, progress::Progress};

/// How data become embeddings.
#[derive(Debug)]
pub struct Reading<'a> {
    /// The files.
    pub files: &'a [PathBuf],
    /// What the heads read.
    pub forms: TextForms,
    /// Comparisons of one person at most.
    pub max_comparisons_per_user: usize,
    /// Draws among more.
    pub seed: u64,
    /// The embeddings that are known, and where new ones go; else a file that is gone with the run.
    pub embeddings: Option<&'a Path>,
    /// Where that one is made.
    pub scratch: &'a Path,
}

/// The people, and which comparisons of theirs are read.
#[derive(Debug, Default)]
struct Roll {
    position: HashMap<PersonId, u32>,
    /// Comparisons of each.
    counts: Vec<u32>,
    ties: usize,
}

impl Reading<'_> {
    /// Reads and embeds.
    ///
    /// # Errors
    /// The first bad line, a text that cannot be embedded, a file of embeddings that is not usable.
    pub fn read(&self, backbone: &Backbone) -> anyhow::Result<TrainingData> {
        let roll = self.call()?;
        let mut capped =
            CappedPeople { at_most: Some(self.max_comparisons_per_user), people: 0, left_out: 0 };
        let mut kept: HashMap<u32, Vec<u32>> = HashMap::new();
        for (user_id, at) in &roll.position {
            let count = roll.counts[*at as usize] as usize;
            if let Some(places) = comparisons_kept(self.seed, user_id, count, self.max_comparisons_per_user) {
                capped.people += 1;
                capped.left_out += count - places.len();
                kept.insert(*at, places);
            }
        }
        if capped.people > 0 {
            eprintln!(
                "{} people brought more than {} comparisons: {} of theirs, drawn by the seed, are left out",
                capped.people, self.max_comparisons_per_user, capped.left_out
            );
        }
        if roll.ties > 0 {
            eprintln!("{} comparisons of a text with itself teach nothing and are left out", roll.ties);
        }
        self.embed(backbone, &roll, &kept, capped)
    }

    /// The first reading.
    fn call(&self) -> anyhow::Result<Roll> {
        let mut roll = Roll::default();
        let (mut all, mut trained) = (0, 0);
        for record in dataset::stream(self.files, true) {
            let record = record?;
            all += 1;
            if !is_trained_on(&record) {
                continue;
            }
            trained += 1;
            let at = roll.add(&record.user_id);
            if is_tie(&record) {
                roll.ties += 1;
            } else {
                let count = &mut roll.counts[at as usize];
                *count = count.checked_add(1).ok_or_else(|| anyhow!("one person has 2^32 comparisons"))?;
            }
        }
        ensure!(all > 0, "there is no comparison in {}", dataset::list(self.files));
        ensure!(trained > 0, "the data cannot be trained on: every record is of the splits context or query");
        Ok(roll)
    }

    /// The second.
    fn embed(
        &self,
        backbone: &Backbone,
        roll: &Roll,
        kept: &HashMap<u32, Vec<u32>>,
        capped: CappedPeople,
    ) -> anyhow::Result<TrainingData> {
        let info = backbone.info();
        let (file, known) = match self.embeddings {
            Some(path) => EmbeddingFile::open(path, info)?,
            None => EmbeddingFile::temporary(self.scratch, info)?,
        };
        let mut people = roll.people(kept);
        let total = people.iter().map(|person| person.comparisons.capacity()).sum();
        let position = |record: &ComparisonRecord| roll.position.get(&record.user_id).copied();
        let mut met = vec![0_u32; people.len()];
        let records = dataset::stream(self.files, false).filter(|record| {
            let Ok(record) = record else { return true };
            if !is_trained_on(record) || is_tie(record) {
                return false;
            }
            // Somebody whom the first reading did not meet is refused below.
            let Some(at) = position(record) else { return true };
            let place = met[at as usize];
            met[at as usize] += 1;
            kept.get(&at).is_none_or(|kept| kept.binary_search(&place).is_ok())
        });
        let mut progress = Progress::start("embedding", total);
        let (mut done, began) = (0, Instant::now());
        let corpus = embed_stream(backbone, (file, known), records, self.forms, |record, comparison| {
            let at = position(record).ok_or_else(|| anyhow!("the data changed while they were read"))?;
            people[at as usize].comparisons.push(comparison);
            done += 1;
            let rate = f64::from(done) / began.elapsed().as_secs_f64();
            progress.set(done as usize, total, &format!("comparisons, {rate:.0}/s"));
            anyhow::Ok(())
        })?;
        ensure!(done as usize == total, "the data changed while they were read");
        progress.finish(&format!(
            "{} texts, {} of them known, {} cut to the window",
            corpus.texts,
            corpus.texts - corpus.encoded,
            corpus.truncated
        ));
        Ok(TrainingData { items: corpus.items, people, capped })
    }
}

impl Roll {
    /// The place of a person, who may be new.
    fn add(&mut self, user_id: &PersonId) -> u32 {
        if let Some(at) = self.position.get(user_id) {
            return *at;
        }
        let at = self.counts.len() as u32;
        self.position.insert(user_id.clone(), at);
        self.counts.push(0);
        at
    }

    /// Everybody, in the order in which they came, with room for the comparisons that are kept.
    fn people(&self, kept: &HashMap<u32, Vec<u32>>) -> Vec<Person> {
        let mut ids: Vec<(&PersonId, u32)> = self.position.iter().map(|(id, at)| (id, *at)).collect();
        ids.sort_unstable_by_key(|(_, at)| *at);
        let count = |at: u32| kept.get(&at).map_or(self.counts[at as usize] as usize, Vec::len);
        ids.into_iter()
            .map(|(user_id, at)| Person {
                user_id: user_id.clone(),
                // Nothing is trained by what is known of people beside their comparisons.
                attributes: Attributes::new(),
                comparisons: Vec::with_capacity(count(at)),
            })
            .collect()
    }
}

fn is_trained_on(record: &ComparisonRecord) -> bool {
    matches!(record.split, None | Some(Split::Train))
}

fn is_tie(record: &ComparisonRecord) -> bool {
    record.comparison.chosen == record.comparison.rejected
}
