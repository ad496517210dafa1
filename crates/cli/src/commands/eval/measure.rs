//! From data and models to a report.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use anyhow::bail;
use polyreward_domain::{ComparisonRecord, HeadFamily, Split};
use polyreward_heads::{
    ItemComparison, Person,
    evaluation::{Bootstrap, PersonPredictions, Summary, accuracy_difference, summarize},
};
use polyreward_service::{Corpus, Model, Shot, TestedPerson, few_shot};
use polyreward_training::{HoldOut, predict};

use super::report::{Measured, ModelReport, ShotReport, WorstGroup};
use crate::dataset::Dataset;

/// The word of `--group-by` that means a record's tags.
const TAGS: &str = "tags";

/// All that models are measured on.
pub(super) struct Study<'a> {
    pub dataset: &'a Dataset,
    pub corpus: &'a Corpus,
    pub grouping: &'a Grouping,
    pub bootstrap: Bootstrap,
    pub parts: Parts,
}

/// The splits.
pub(super) struct Parts {
    pub train: Part,
    pub context: Part,
    pub query: Part,
}

impl Parts {
    pub(super) fn of(dataset: &Dataset, corpus: &Corpus) -> Self {
        let split = |wanted: Split| {
            Part::of(dataset, corpus, move |record| record.split.unwrap_or(Split::Train) == wanted)
        };
        Self { train: split(Split::Train), context: split(Split::Context), query: split(Split::Query) }
    }
}

/// The people of a part of the data and, for each of their comparisons, the record it came from.
pub(super) struct Part {
    pub people: Vec<Person>,
    pub records: Vec<Vec<usize>>,
}

impl Part {
    fn of(dataset: &Dataset, corpus: &Corpus, wanted: impl Fn(&ComparisonRecord) -> bool) -> Self {
        let mut position: HashMap<&str, usize> = HashMap::new();
        let mut part = Self { people: Vec::new(), records: Vec::new() };
        for (at, (record, comparison)) in dataset.records.iter().zip(&corpus.comparisons).enumerate() {
            if !wanted(record) || comparison.chosen == comparison.rejected {
                continue;
            }
            let person = *position.entry(record.user_id.as_str()).or_insert_with(|| {
                part.people.push(Person {
                    user_id: record.user_id.clone(),
                    attributes: record.attributes.clone(),
                    comparisons: Vec::new(),
                });
                part.records.push(Vec::new());
                part.people.len() - 1
            });
            part.people[person].comparisons.push(*comparison);
            part.records[person].push(at);
        }
        part
    }

    fn all_rows(&self) -> Vec<(usize, &ItemComparison)> {
        let rows = self.people.iter().enumerate();
        rows.flat_map(|(at, person)| person.comparisons.iter().map(move |row| (at, row))).collect()
    }
}

/// Groups of each record: values of an attribute, or the record's tags.
pub(super) struct Grouping {
    key: Option<String>,
    of_record: Vec<Vec<String>>,
}

impl Grouping {
    /// # Errors
    /// A key that no record has.
    pub(super) fn of(records: &[ComparisonRecord], key: Option<&str>) -> anyhow::Result<Self> {
        let Some(key) = key else {
            return Ok(Self { key: None, of_record: vec![Vec::new(); records.len()] });
        };
        let groups = |record: &ComparisonRecord| -> Vec<String> {
            if key == TAGS {
                record.tags.clone()
            } else {
                record.attributes.get(key).cloned().into_iter().collect()
            }
        };
        let of_record: Vec<_> = records.iter().map(groups).collect();
        if of_record.iter().all(Vec::is_empty) {
            let known: BTreeSet<_> =
                records.iter().flat_map(|record| record.attributes.keys()).map(String::as_str).collect();
            bail!(
                "--group-by: nobody has the attribute {key}; known: {}, {TAGS}",
                Vec::from_iter(known).join(", ")
            );
        }
        Ok(Self { key: Some(key.to_owned()), of_record })
    }

    /// The attribute of people that groups them, if one does.
    pub(super) fn attribute(&self) -> Option<&str> {
        self.key.as_deref().filter(|key| *key != TAGS)
    }

    /// Predictions by group, each with an entry for every person so that people stay aligned between models.
    fn split(
        &self,
        records: &[Vec<usize>],
        people: &[PersonPredictions],
    ) -> BTreeMap<String, Vec<PersonPredictions>> {
        let mut by_group: BTreeMap<String, Vec<PersonPredictions>> = BTreeMap::new();
        for (person, (records, predictions)) in records.iter().zip(people).enumerate() {
            for (record, prediction) in records.iter().zip(predictions) {
                for group in &self.of_record[*record] {
                    let rows =
                        by_group.entry(group.clone()).or_insert_with(|| vec![Vec::new(); people.len()]);
                    rows[person].push(*prediction);
                }
            }
        }
        by_group
    }
}

/// People to be tested and the records of their queries.
pub(super) struct Exam {
    pub people: Vec<TestedPerson>,
    records: Vec<Vec<usize>>,
}

impl Study<'_> {
    /// Every model on the same people.
    pub(super) fn models(&self, models: &[Arc<Model>], shots: &[usize]) -> anyhow::Result<Vec<ModelReport>> {
        let unseen = self.unseen();
        let mut unseen_shots = Vec::new();
        let mut seen_shots = Vec::new();
        for model in models {
            unseen_shots.push(few_shot(model, &self.corpus.items, &unseen.people, shots)?);
            let seen = self.seen(model)?;
            let measured = match &seen {
                Some(seen) => few_shot(model, &self.corpus.items, &seen.people, shots)?,
                None => Vec::new(),
            };
            seen_shots.push((seen, measured));
        }
        let mut reports = Vec::new();
        for (at, model) in models.iter().enumerate() {
            let yardstick = yardstick(models, model);
            let bt = yardstick.map(|bt| unseen_shots[bt].as_slice());
            // Seen people are the same for models of the same seed.
            let seen_bt = yardstick
                .filter(|bt| models[*bt].card.seed == model.card.seed)
                .map(|bt| seen_shots[bt].1.as_slice());
            reports.push(ModelReport {
                model: model.reference.to_string(),
                name: model.reference.name.to_string(),
                head: model.card.head,
                seed: model.card.seed,
                splits: self.splits(model)?,
                shots: self.report(&unseen_shots[at], bt, &unseen.records),
                seen_shots: match &seen_shots[at] {
                    (Some(seen), shots) => self.report(shots, seen_bt, &seen.records),
                    (None, _) => Vec::new(),
                },
                queries: None,
            });
        }
        Ok(reports)
    }

    /// People with queries, and whatever context there is of them.
    pub(super) fn unseen(&self) -> Exam {
        let Parts { context, query, .. } = &self.parts;
        let contexts: HashMap<&str, &Person> =
            context.people.iter().map(|person| (person.user_id.as_str(), person)).collect();
        let people = query.people.iter().map(|person| TestedPerson {
            context: contexts
                .get(person.user_id.as_str())
                .map(|context| context.comparisons.clone())
                .unwrap_or_default(),
            query: person.comparisons.clone(),
        });
        Exam { people: people.collect(), records: query.records.clone() }
    }

    /// People the model was trained on: asked what was kept out of training, shown what was not and shares no text with it.
    fn seen(&self, model: &Model) -> anyhow::Result<Option<Exam>> {
        if model.card.training_data.sha256 != self.dataset.sha256 {
            return Ok(None);
        }
        let train = &self.parts.train;
        let hold_out = HoldOut::choose(&train.people, &self.corpus.items.names, model.card.seed)?;
        let mut exam = Exam { people: Vec::new(), records: Vec::new() };
        for (person, kept_out) in hold_out.training.iter().zip(&hold_out.held_out) {
            let (rows, records) = (&train.people[*person].comparisons, &train.records[*person]);
            let query: Vec<ItemComparison> = kept_out.iter().map(|at| rows[*at]).collect();
            let asked: Vec<usize> = query.iter().flat_map(|row| [row.chosen, row.rejected]).collect();
            let fresh = |row: &ItemComparison| !asked.contains(&row.chosen) && !asked.contains(&row.rejected);
            let context = rows.iter().enumerate().filter(|(at, row)| !kept_out.contains(at) && fresh(row));
            exam.people.push(TestedPerson { context: context.map(|(_, row)| *row).collect(), query });
            exam.records.push(kept_out.iter().map(|at| records[*at]).collect());
        }
        Ok(Some(exam))
    }

    fn report(&self, shots: &[Shot], bt: Option<&[Shot]>, records: &[Vec<usize>]) -> Vec<ShotReport> {
        let shot_report = |(at, shot): (usize, &Shot)| {
            let bt = bt.and_then(|shots| shots.get(at)).map(|shot| shot.predictions.as_slice());
            let bt_groups = bt.map(|bt| self.grouping.split(records, bt)).unwrap_or_default();
            let groups: BTreeMap<String, Measured> = self
                .grouping
                .split(records, &shot.predictions)
                .into_iter()
                .filter_map(|(group, rows)| {
                    let bt = bt_groups.get(&group).map(Vec::as_slice);
                    Some((group, self.measured(&rows, bt)?))
                })
                .collect();
            Some(ShotReport {
                examples: shot.examples,
                overall: self.measured(&shot.predictions, bt)?,
                worst_group: WorstGroup::of(&groups),
                groups,
            })
        };
        shots.iter().enumerate().filter_map(shot_report).collect()
    }

    /// Predictions in numbers, beside Bradley-Terry's of the same comparisons; none without predictions.
    pub(super) fn measured(
        &self,
        predictions: &[PersonPredictions],
        bt: Option<&[PersonPredictions]>,
    ) -> Option<Measured> {
        let gain = bt.and_then(|bt| accuracy_difference(predictions, bt, self.bootstrap));
        Some(Measured {
            summary: summarize(predictions, self.bootstrap)?,
            gain_over_bt: gain.map(|(gain, _)| gain),
            gain_over_bt_ci: gain.and_then(|(_, interval)| interval),
        })
    }

    /// Population accuracy on each part of the data; trained people apart by what was kept out of training, where the data
    /// are the model's own.
    fn splits(&self, model: &Model) -> anyhow::Result<BTreeMap<&'static str, Summary>> {
        let Parts { train, context, query } = &self.parts;
        let mut summaries = BTreeMap::new();
        let mut add = |name, part: &Part, rows: Vec<(usize, &ItemComparison)>| -> anyhow::Result<()> {
            let (head, calibration) = (model.head.as_ref(), model.card.calibration);
            let predictions = predict(&self.corpus.items, part.people.len(), head, calibration, &rows)?;
            if let Some(summary) = summarize(&predictions, self.bootstrap) {
                summaries.insert(name, summary);
            }
            Ok(())
        };
        if model.card.training_data.sha256 == self.dataset.sha256 {
            let hold_out = HoldOut::choose(&train.people, &self.corpus.items.names, model.card.seed)?;
            add("train, fitted", train, hold_out.training_rows(&train.people))?;
            add("train, kept out", train, hold_out.held_out_rows(&train.people))?;
        } else {
            add("train, other data than fitted", train, train.all_rows())?;
        }
        add("context", context, context.all_rows())?;
        add("query", query, query.all_rows())?;
        Ok(summaries)
    }
}

/// The Bradley-Terry model that a model is held against: the one of its seed, or any.
pub(super) fn yardstick(models: &[Arc<Model>], model: &Model) -> Option<usize> {
    let bts = || models.iter().enumerate().filter(|(_, other)| other.card.head == HeadFamily::Bt);
    let same = bts().find(|(_, bt)| bt.card.seed == model.card.seed);
    same.or_else(|| bts().next()).map(|(at, _)| at)
}
