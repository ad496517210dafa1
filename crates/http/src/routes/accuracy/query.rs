//! What is asked about accuracy, as query parameters.

use std::{collections::BTreeSet, fmt};

use polyreward_domain::{Attributes, ModelSelector, check_attributes};
use polyreward_service::{MAX_GROUP_BY, MeasureQuery, Span, Step};
use time::{
    Date, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description,
};

use crate::{extract::query_parameters, problem::Problem};

/// The largest floor that can be asked for.
const MAX_MIN_N: usize = 1_000_000_000;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Csv,
}

/// Reads parameters and collects what is wrong with each.
#[derive(Default)]
struct Faults(Vec<(&'static str, String)>);

impl Faults {
    fn check<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        text: Option<String>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        read(&text?).map_err(|error| self.0.push((name, error.to_string()))).ok()
    }
}

/// Parameters of `GET /accuracy` and `GET /accuracy/shots`.
///
/// # Errors
/// Every parameter that is not valid.
pub(super) fn plain(query: Option<&str>, floor: usize) -> Result<(MeasureQuery, Format), Problem> {
    let [model, group_by, from, to, min_n, format] =
        query_parameters(query, ["model", "group_by", "from", "to", "min_n", "format"])?;
    let mut faults = Faults::default();
    let read = read([model, group_by, from, to, min_n, format], floor, &mut faults);
    if faults.0.is_empty() { Ok(read) } else { Err(Problem::parameters(faults.0)) }
}

/// Parameters of `GET /accuracy/timeline`.
///
/// # Errors
/// Every parameter that is not valid.
pub(super) fn by_time(
    query: Option<&str>,
    floor: usize,
) -> Result<(MeasureQuery, Option<Step>, Format), Problem> {
    let [model, group_by, from, to, min_n, format, step] =
        query_parameters(query, ["model", "group_by", "from", "to", "min_n", "format", "step"])?;
    let mut faults = Faults::default();
    let (query, format) = read([model, group_by, from, to, min_n, format], floor, &mut faults);
    let step = faults.check("step", step, |step| match step {
        "hour" => Ok(Step::Hour),
        "day" => Ok(Step::Day),
        "week" => Ok(Step::Week),
        _ => Err("is hour, day or week"),
    });
    if faults.0.is_empty() { Ok((query, step, format)) } else { Err(Problem::parameters(faults.0)) }
}

fn read(
    [model, group_by, from, to, min_n, format]: [Option<String>; 6],
    floor: usize,
    faults: &mut Faults,
) -> (MeasureQuery, Format) {
    let model = faults.check("model", model, str::parse::<ModelSelector>);
    let group_by = faults.check("group_by", group_by, |text| {
        let keys: Vec<String> = text.split(',').map(str::to_owned).collect();
        match key_faults(&keys).into_iter().next() {
            Some((_, fault)) => Err(fault),
            None => Ok(keys),
        }
    });
    let span = Span { from: faults.check("from", from, moment), to: faults.check("to", to, moment) };
    if let (Some(from), Some(to)) = (span.from, span.to)
        && to <= from
    {
        faults.0.push(("to", "is later than from; predictions from then on and before it count".to_owned()));
    }
    let min_users = faults.check("min_n", min_n, |text| checked_min_n(text.parse().ok(), floor));
    let format = faults.check("format", format, |format| match format {
        "json" => Ok(Format::Json),
        "csv" => Ok(Format::Csv),
        _ => Err("is json or csv"),
    });
    let query = MeasureQuery { model, group_by: group_by.unwrap_or_default(), span, min_users };
    (query, format.unwrap_or(Format::Json))
}

/// How many people a group has at least, no fewer than the server's floor.
///
/// # Errors
/// What it can be.
pub(crate) fn checked_min_n(asked: Option<usize>, floor: usize) -> Result<usize, String> {
    asked
        .filter(|asked| (floor..=MAX_MIN_N).contains(asked))
        .ok_or_else(|| format!("is a whole number from {floor}, the floor of this server, to {MAX_MIN_N}"))
}

/// What is wrong with attributes that are to make groups: of one by its place, or of all.
pub(crate) fn key_faults(keys: &[String]) -> Vec<(Option<usize>, String)> {
    if keys.len() > MAX_GROUP_BY {
        return vec![(None, format!("names at most {MAX_GROUP_BY} attributes"))];
    }
    let mut known = BTreeSet::new();
    let fault = |(at, key): (usize, &String)| {
        let attributes = Attributes::from([(key.clone(), "x".to_owned())]);
        let fault = match check_attributes(&attributes) {
            Err((_, error)) => Some(error.to_string()),
            Ok(()) if !known.insert(key.clone()) => Some("names an attribute twice".to_owned()),
            Ok(()) => None,
        };
        fault.map(|fault| (Some(at), fault))
    };
    keys.iter().enumerate().filter_map(fault).collect()
}

/// A moment, or the midnight with which a day begins in UTC.
///
/// # Errors
/// How to write one.
pub(crate) fn moment(text: &str) -> Result<OffsetDateTime, &'static str> {
    let day = (text.len() == 10).then(|| Date::parse(text, format_description!("[year]-[month]-[day]")).ok());
    let moment = match day.flatten() {
        Some(day) => Some(day.midnight().assume_utc()),
        None => OffsetDateTime::parse(text, &Rfc3339).ok(),
    };
    moment
        .and_then(|moment| moment.checked_to_offset(UtcOffset::UTC))
        .filter(|moment| (1..=9999).contains(&moment.year()))
        .ok_or(
            "is a moment as 2026-01-31T12:00:00Z (a + before an offset is written %2B), or a day as \
             2026-01-31, which begins at midnight UTC",
        )
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn faulty(query: &str) -> Vec<&'static str> {
        let problem = by_time(Some(query), 5).expect_err(query);
        problem.faults().iter().map(|fault| fault.parameter.expect("a parameter")).collect()
    }

    #[test]
    fn what_is_asked_is_read_as_written() {
        let (query, step, format) = by_time(
            Some("model=pal-a@3f9c&group_by=country,age&from=2026-01-31&to=2026-02-01T01:00:00%2B02:00&min_n=7&format=csv&step=week"),
            5,
        )
        .unwrap();
        assert_eq!(query.model.unwrap().to_string(), "pal-a@3f9c");
        assert_eq!(query.group_by, ["country", "age"]);
        assert_eq!(query.span.from, Some(datetime!(2026-01-31 0:00 UTC)));
        assert_eq!(query.span.to, Some(datetime!(2026-01-31 23:00 UTC)));
        assert_eq!((query.min_users, step, format), (Some(7), Some(Step::Week), Format::Csv));
        let (query, format) = plain(None, 5).unwrap();
        assert_eq!((query.model, query.min_users, format), (None, None, Format::Json));
    }

    #[test]
    fn a_parameter_that_is_not_valid_is_named() {
        assert_eq!(faulty("min_n=4"), ["min_n"]);
        assert_eq!(faulty("min_n=99999999999999999999999"), ["min_n"]);
        assert_eq!(faulty("min_n=1000000001&step=year"), ["min_n", "step"]);
        assert_eq!(faulty("from=2026-02-01&to=2026-01-01"), ["to"]);
        assert_eq!(faulty("from=2026-02-01&to=2026-02-01"), ["to"]);
        for group_by in ["", "a,", "a,a", "a,b,c", "%00", &"k".repeat(65), ",".repeat(9999).as_str()] {
            assert_eq!(faulty(&format!("group_by={group_by}")), ["group_by"], "{group_by}");
        }
        assert_eq!(faulty("model=A&format=xml"), ["model", "format"]);
    }

    #[test]
    fn a_moment_that_is_none_or_absurd_is_refused() {
        let absurd = [
            "0000-01-01",
            "0000-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-23:59",
            "2026-02-30",
            "2026-1-1",
            "+202601-01",
            "yesterday",
            "",
            "2026-01-31T12:00:00",
            "1e9",
        ];
        for text in absurd {
            assert!(moment(text).is_err(), "{text}");
        }
        assert_eq!(moment("9999-12-31").unwrap(), datetime!(9999-12-31 0:00 UTC));
    }
}
