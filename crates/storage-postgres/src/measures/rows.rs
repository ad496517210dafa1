//! Sums as the database gives them.

use polyreward_domain::{CONFIDENCE_BINS, Tally};
use polyreward_storage::{CrowdSums, Mistake, PairVotes, PersonSums, StorageError};
use time::OffsetDateTime;

use super::groups::{Groups, values_of};
use crate::rows::{count_of, id_of};

/// A person's predictions of one class of confidence.
pub(super) struct ClassRow {
    pub user_id: String,
    pub class: i16,
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

/// Sums over people of one group, and of one class or step.
pub(super) struct CrowdRow<Class> {
    pub first: Option<String>,
    pub second: Option<String>,
    pub class: Class,
    pub users: i64,
    pub n: f64,
    pub correct: f64,
    pub log_loss: f64,
    pub population_correct: f64,
    pub baseline_n: i64,
    pub baseline_correct: f64,
    pub n_n: f64,
    pub n_correct: f64,
    pub correct_correct: f64,
    pub n_gain: f64,
    pub gain_gain: f64,
}

impl<Class> CrowdRow<Class> {
    pub fn sums(&self) -> Result<CrowdSums, StorageError> {
        Ok(CrowdSums {
            users: count_of(self.users)?,
            // A sum of whole numbers.
            n: self.n as u64,
            correct: self.correct,
            log_loss: self.log_loss,
            population_correct: self.population_correct,
            baseline_n: count_of(self.baseline_n)?,
            baseline_correct: self.baseline_correct,
            n_n: self.n_n,
            n_correct: self.n_correct,
            correct_correct: self.correct_correct,
            n_gain: self.n_gain,
            gain_gain: self.gain_gain,
        })
    }
}

/// How many people of one group took each side of a pair.
pub(super) struct VoteRow {
    pub pair: i64,
    pub first: Option<String>,
    pub second: Option<String>,
    pub for_first: i64,
    pub for_second: i64,
}

/// At most `limit` of the rows, which are one more where there are more: a pair of which some groups are missing is left out.
pub(super) fn votes_of(
    rows: Vec<VoteRow>,
    group_by: &[String],
    limit: usize,
) -> Result<Vec<PairVotes>, StorageError> {
    let cut = rows.get(limit).map(|row| row.pair);
    let whole = rows.into_iter().filter(|row| Some(row.pair) != cut);
    let votes = whole.map(|row| {
        Ok(PairVotes {
            pair: row.pair,
            group: values_of(group_by, row.first, row.second),
            first: count_of(row.for_first)?,
            second: count_of(row.for_second)?,
        })
    });
    votes.collect()
}

/// A prediction with the texts it was about.
pub(super) struct MistakeRow {
    pub user_id: String,
    pub example_id: String,
    pub shot: i64,
    pub preference: f64,
    pub population_preference: f64,
    pub created_at: OffsetDateTime,
    pub prompt: String,
    pub chosen: String,
    pub rejected: String,
}

impl TryFrom<MistakeRow> for Mistake {
    type Error = StorageError;

    fn try_from(row: MistakeRow) -> Result<Self, StorageError> {
        Ok(Self {
            user_id: id_of(&row.user_id, "a user id")?,
            example_id: id_of(&row.example_id, "an example id")?,
            shot: count_of(row.shot)?,
            preference: row.preference,
            population_preference: row.population_preference,
            created_at: row.created_at,
            // The error may not quote the text.
            prompt: serde_json::from_str(&row.prompt).map_err(|_| StorageError::Corrupt("a prompt"))?,
            chosen: row.chosen,
            rejected: row.rejected,
        })
    }
}
