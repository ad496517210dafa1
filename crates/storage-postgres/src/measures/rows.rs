//! Sums as the database gives them.

use polyreward_domain::{CONFIDENCE_BINS, Tally};
use polyreward_storage::{PersonSums, StorageError};

use super::groups::Groups;
use crate::rows::{count_of, id_of};

/// A person's predictions of one class of confidence.
pub(super) struct ClassRow {
    pub user_id: String,
    pub class: i32,
    pub n: i64,
    pub correct: f64,
    pub confidence: f64,
    pub log_loss: f64,
    pub population_correct: f64,
    pub baseline_n: i64,
    pub baseline_correct: f64,
}

/// People from rows in which those of one person follow one another.
pub(super) fn people_of(rows: Vec<ClassRow>, mut groups: Groups) -> Result<Vec<PersonSums>, StorageError> {
    let mut people: Vec<PersonSums> = Vec::new();
    for row in rows {
        if people.last().is_none_or(|last| last.user_id.as_str() != row.user_id) {
            let group = groups.take(&row.user_id);
            people.push(PersonSums {
                user_id: id_of(&row.user_id, "a user id")?,
                group,
                tally: Tally::default(),
            });
        }
        let person = people.last_mut().expect("one is there or was pushed");
        add(&mut person.tally, &row)?;
    }
    Ok(people)
}

fn add(tally: &mut Tally, row: &ClassRow) -> Result<(), StorageError> {
    let class = usize::try_from(row.class).ok().filter(|class| *class < CONFIDENCE_BINS);
    let bin = &mut tally.bins[class.ok_or(StorageError::Corrupt("a class of confidence"))?];
    bin.n += count_of(row.n)?;
    bin.correct += row.correct;
    bin.confidence += row.confidence;
    tally.log_loss += row.log_loss;
    tally.population_correct += row.population_correct;
    tally.baseline_n += count_of(row.baseline_n)?;
    tally.baseline_correct += row.baseline_correct;
    Ok(())
}
