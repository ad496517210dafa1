//! Answers about accuracy as CSV (RFC 4180): the same figures as in JSON, a line a row.

use csv::{Terminator, WriterBuilder};
use serde::Serialize;

use super::reply::{
    AccuracyReply, GroupReply, PointReply, RowReply, ShotsPointReply, ShotsReply, StepPointReply,
    TimelineReply,
};
use crate::problem::Problem;

/// What a line says of a group, or of everybody.
trait Line {
    /// Names of its cells.
    const COLUMNS: &'static [&'static str];

    /// As many as there are names.
    fn cells(&self) -> Vec<String>;
}

/// Accuracy by group.
///
/// # Errors
/// None that a client could mend.
pub(super) fn accuracy(reply: &AccuracyReply) -> Result<Vec<u8>, Problem> {
    let overall = reply.overall.iter().map(|row| (None, row));
    let groups = reply.groups.iter().map(|group| (Some(&group.group), &group.row));
    table(&reply.group_by, overall.chain(groups))
}

/// Accuracy against numbers of examples.
///
/// # Errors
/// None that a client could mend.
pub(super) fn shots(reply: &ShotsReply) -> Result<Vec<u8>, Problem> {
    let overall = reply.overall.iter().map(|point| (None, point));
    let groups = reply
        .groups
        .iter()
        .flat_map(|curve| curve.points.iter().map(move |point| (Some(&curve.group), point)));
    table(&reply.group_by, overall.chain(groups))
}

/// Accuracy against time.
///
/// # Errors
/// None that a client could mend.
pub(super) fn timeline(reply: &TimelineReply) -> Result<Vec<u8>, Problem> {
    let overall = reply.overall.iter().map(|point| (None, point));
    let groups = reply
        .groups
        .iter()
        .flat_map(|curve| curve.points.iter().map(move |point| (Some(&curve.group), point)));
    table(&reply.group_by, overall.chain(groups))
}

fn table<'a, L: Line + 'a>(
    group_by: &[String],
    lines: impl Iterator<Item = (Option<&'a GroupReply>, &'a L)>,
) -> Result<Vec<u8>, Problem> {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    let columns = L::COLUMNS.iter().map(|column| (*column).to_owned());
    let mut write = |row: &str, keys: Vec<String>, cells: Vec<String>| {
        writer
            .write_record(std::iter::once(row.to_owned()).chain(keys).chain(cells))
            .map_err(|error| Problem::internal(&error))
    };
    write("row", group_by.iter().map(|key| guarded(key)).collect(), columns.collect())?;
    for (group, line) in lines {
        let value = |key: &String| group.and_then(|group| group.get(key)?.as_deref().map(guarded));
        let values = group_by.iter().map(|key| value(key).unwrap_or_default()).collect();
        write(if group.is_some() { "group" } else { "overall" }, values, line.cells())?;
    }
    writer.into_inner().map_err(|error| Problem::internal(error.error()))
}

/// A text that no spreadsheet takes for a formula.
fn guarded(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if is_formula { format!("'{text}") } else { text.to_owned() }
}

/// A number as JSON writes it.
fn number(value: impl Serialize) -> String {
    serde_json::to_string(&value).expect("a number is JSON")
}

/// A number, or nothing where there is none.
fn optional(value: Option<impl Serialize>) -> String {
    value.map(number).unwrap_or_default()
}

fn low(interval: Option<[f64; 2]>) -> String {
    optional(interval.map(|[low, _]| low))
}

fn high(interval: Option<[f64; 2]>) -> String {
    optional(interval.map(|[_, high]| high))
}

impl Line for RowReply {
    const COLUMNS: &'static [&'static str] = &[
        "users",
        "n",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "user_accuracy",
        "user_accuracy_low",
        "user_accuracy_high",
        "log_loss",
        "ece",
        "ece_low",
        "ece_high",
        "population_accuracy",
        "gain",
        "gain_low",
        "gain_high",
        "bt_accuracy",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            number(self.users),
            number(self.n),
            number(self.accuracy),
            low(self.accuracy_ci),
            high(self.accuracy_ci),
            number(self.user_accuracy),
            low(self.user_accuracy_ci),
            high(self.user_accuracy_ci),
            number(self.log_loss),
            number(self.ece),
            low(self.ece_ci),
            high(self.ece_ci),
            number(self.population_accuracy),
            number(self.gain),
            low(self.gain_ci),
            high(self.gain_ci),
            optional(self.bt_accuracy),
        ]
    }
}

/// What every point says, wherever it stands.
fn point_cells(point: &PointReply) -> [String; 10] {
    [
        number(point.users),
        number(point.n),
        number(point.accuracy),
        low(point.accuracy_ci),
        high(point.accuracy_ci),
        number(point.log_loss),
        number(point.population_accuracy),
        number(point.gain),
        low(point.gain_ci),
        high(point.gain_ci),
    ]
}

impl Line for ShotsPointReply {
    const COLUMNS: &'static [&'static str] = &[
        "shots_from",
        "shots_to",
        "users",
        "n",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "log_loss",
        "population_accuracy",
        "gain",
        "gain_low",
        "gain_high",
        "bt_accuracy",
    ];

    fn cells(&self) -> Vec<String> {
        let place = [number(self.shots.from), optional(self.shots.to)];
        let of_baseline = optional(self.point.bt_accuracy);
        place.into_iter().chain(point_cells(&self.point)).chain([of_baseline]).collect()
    }
}

impl Line for StepPointReply {
    const COLUMNS: &'static [&'static str] = &[
        "start",
        "users",
        "n",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "log_loss",
        "population_accuracy",
        "gain",
        "gain_low",
        "gain_high",
        "bt_accuracy",
    ];

    fn cells(&self) -> Vec<String> {
        let of_baseline = optional(self.point.bt_accuracy);
        [self.start.clone()].into_iter().chain(point_cells(&self.point)).chain([of_baseline]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_a_spreadsheet_would_compute_is_guarded_and_any_other_is_as_it_is() {
        for formula in ["=cmd()", "+1", "-1", "@sum", "\tx", "\rx"] {
            assert_eq!(guarded(formula), format!("'{formula}"));
        }
        for text in ["UK", "", "a=b", " =1", "\u{202e}KU", "'quoted'"] {
            assert_eq!(guarded(text), text);
        }
    }
}
