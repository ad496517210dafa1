//! What a reward could know at best of people whose group it is told: a Bradley-Terry head for each group.

use std::{collections::BTreeMap, sync::Arc};

use polyreward_domain::{HeadFamily, TextForm};
use polyreward_heads::{Calibration, Head, ItemComparison, Person, evaluation::PersonPredictions};
use polyreward_service::Model;
use polyreward_training::{
    CappedPeople, Fitting, HoldOut, TrainConfig, TrainingData, TrainingError, calibrate_on_held_out, predict,
};

use super::{
    measure::{Study, yardstick},
    report::OracleReport,
};
use crate::progress::Progress;

/// Groups of fewer trained people have no head of their own: one or two are held out, the rest would be learned by heart.
const FEWEST_PEOPLE: usize = 8;

/// Trains a head on the trained people of each group and tests it on the group's unseen people; none if no group is large
/// enough, or nobody's queries are in one.
pub(super) fn measure(
    study: &Study<'_>,
    attribute: &str,
    models: &[Arc<Model>],
    config: &TrainConfig,
) -> anyhow::Result<Option<OracleReport>> {
    let train = &study.parts.train;
    let query = &study.parts.query;
    let mut config = config.clone();
    config.episodes.text_forms = Some(forms(models));
    let value = |person: &Person| person.attributes.get(attribute).cloned();
    let mut trained: BTreeMap<String, Vec<Person>> = BTreeMap::new();
    for person in &train.people {
        if let Some(group) = value(person) {
            trained.entry(group).or_default().push(person.clone());
        }
    }
    trained.retain(|group, people| {
        people.len() >= FEWEST_PEOPLE
            && query.people.iter().any(|person| value(person).as_ref() == Some(group))
    });
    let mut progress = Progress::start("oracle", trained.len());
    let mut data = TrainingData {
        items: study.corpus.items.clone(),
        people: Vec::new(),
        capped: CappedPeople::default(),
    };
    let mut everybody: Vec<PersonPredictions> = vec![Vec::new(); query.people.len()];
    let mut groups = BTreeMap::new();
    let count = trained.len();
    for (at, (group, people)) in trained.into_iter().enumerate() {
        data.people = people;
        let (head, calibration) = match fit(&data, &config, study.bootstrap.seed) {
            Ok(fitted) => fitted,
            // One group that teaches nothing should not cost the others their numbers.
            Err(TrainingError::Data(detail)) => {
                eprintln!("oracle: {group} has no head of its own: {detail}");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let rows: Vec<(usize, &ItemComparison)> = query
            .people
            .iter()
            .enumerate()
            .filter(|(_, person)| value(person).as_ref() == Some(&group))
            .flat_map(|(at, person)| person.comparisons.iter().map(move |row| (at, row)))
            .collect();
        let predictions =
            predict(&study.corpus.items, query.people.len(), head.as_ref(), calibration, &rows)?;
        for (all, of_group) in everybody.iter_mut().zip(&predictions) {
            all.extend(of_group);
        }
        groups.extend(study.measured(&predictions, None).map(|measured| (group, measured)));
        progress.set(at + 1, count, "groups");
    }
    progress.finish(&format!("{} groups of at least {FEWEST_PEOPLE} trained people", groups.len()));
    Ok(study.measured(&everybody, None).map(|overall| OracleReport {
        attribute: attribute.to_owned(),
        groups,
        overall,
        unseen_users: query.people.len(),
    }))
}

/// Bradley-Terry for one group's people, calibrated on those held out.
fn fit(
    data: &TrainingData,
    config: &TrainConfig,
    seed: u64,
) -> Result<(Box<dyn Head>, Calibration), TrainingError> {
    let hold_out = HoldOut::choose(&data.people, &data.items.names, seed)?;
    let fitting = Fitting::prepare(data, &hold_out, config, &[HeadFamily::Bt], seed, &mut |_| {})?;
    let head = fitting.fit(HeadFamily::Bt, &mut |_| {})?.head;
    let calibration = calibrate_on_held_out(data, &hold_out, head.as_ref(), seed)?;
    Ok((head, calibration))
}

/// What the Bradley-Terry model reads, or else the first model: a prompt alone tells nothing of a response.
fn forms(models: &[Arc<Model>]) -> Vec<TextForm> {
    let bt = yardstick(models, &models[0]).unwrap_or(0);
    let mut forms: Vec<TextForm> = models[bt].head.text_forms().iter().collect();
    if forms.len() > 1 {
        forms.retain(|form| *form != TextForm::Prompt);
    }
    forms
}
