//! Numbers and names as a page says them.

use polyreward_service::GroupValues;
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

/// What stands in place of a value that is not there.
pub(crate) const NOTHING: &str = "–";
/// A value of an attribute that is not known of somebody.
const NOT_KNOWN: &str = "not known";
/// Characters of a label; the whole stands in its title and in the table.
const LABEL_CHARS: usize = 24;

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const MINUTE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]");

/// A share in percent, to one decimal.
pub(crate) fn percent(share: f64) -> String {
    format!("{} %", signed(100.0 * share, 1, false))
}

/// A share in percent, or that there is none.
pub(crate) fn percent_or_nothing(share: Option<f64>) -> String {
    share.map_or_else(|| NOTHING.to_owned(), percent)
}

/// An interval of shares in percent, in brackets; says so where there is none.
pub(crate) fn percent_interval(interval: Option<[f64; 2]>) -> String {
    interval.map_or_else(
        || "no interval".to_owned(),
        |[low, high]| format!("[{}, {}]", signed(100.0 * low, 1, false), signed(100.0 * high, 1, false)),
    )
}

/// A difference of shares in percentage points, with its sign.
pub(crate) fn points(difference: f64) -> String {
    format!("{} points", signed(100.0 * difference, 1, true))
}

/// An interval of differences in percentage points.
pub(crate) fn points_interval(interval: Option<[f64; 2]>) -> String {
    interval.map_or_else(
        || "no interval".to_owned(),
        |[low, high]| format!("[{}, {}]", signed(100.0 * low, 1, true), signed(100.0 * high, 1, true)),
    )
}

/// A small number to three decimals.
pub(crate) fn three(value: f64) -> String {
    signed(value, 3, false)
}

/// An interval of small numbers.
pub(crate) fn three_interval(interval: Option<[f64; 2]>) -> String {
    interval
        .map_or_else(|| "no interval".to_owned(), |[low, high]| format!("[{}, {}]", three(low), three(high)))
}

/// A number to so many decimals, with a true minus sign and never a negative zero.
pub(crate) fn signed(value: f64, decimals: usize, plus: bool) -> String {
    let digits = format!("{:.decimals$}", value.abs());
    let is_zero = digits.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    match () {
        () if is_zero => digits,
        () if value < 0.0 => format!("\u{2212}{digits}"),
        () if plus => format!("+{digits}"),
        () => digits,
    }
}

/// A number as answers in JSON and CSV have it: six decimals at most.
pub(crate) fn exact(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
}

/// The same, empty where there is none.
pub(crate) fn exact_or_empty(value: Option<f64>) -> String {
    value.map(exact).unwrap_or_default()
}

/// A count with its thousands apart.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + 6);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 person`, `2 people`.
pub(crate) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A day of UTC.
pub(crate) fn day(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC).format(DAY).unwrap_or_default()
}

/// A minute of UTC.
pub(crate) fn minute(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC).format(MINUTE).unwrap_or_default()
}

/// A name that somebody else chose, cut to what fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// What fits.
    pub short: String,
    /// The whole.
    pub full: String,
}

impl Label {
    /// Cuts between characters, never within one.
    pub fn new(full: impl Into<String>) -> Self {
        let full = full.into();
        Self { short: cut(&full, LABEL_CHARS), full }
    }
}

/// A text cut to so many characters, with a sign that it was.
pub(crate) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some(_) => text.chars().take(chars - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// One value of an attribute.
pub(crate) fn value_of(value: Option<&String>) -> &str {
    value.map_or(NOT_KNOWN, String::as_str)
}

/// A group by its values: `DE`, `DE × 25-34`.
pub(crate) fn group_label(group: &GroupValues) -> Label {
    let parts: Vec<&str> = group.iter().map(|value| value_of(value.as_ref())).collect();
    let full = parts.join(" × ");
    // Each part is cut, so that a long first one does not hide the second.
    let each = LABEL_CHARS / parts.len().max(1);
    Label { short: parts.iter().map(|part| cut(part, each)).collect::<Vec<_>>().join(" × "), full }
}

/// A group with the attributes' names: `country=DE`.
pub(crate) fn named_group(group_by: &[String], group: &GroupValues) -> Label {
    let parts = group_by.iter().zip(group).map(|(key, value)| match value {
        Some(value) => format!("{key}={value}"),
        None => format!("{key} {NOT_KNOWN}"),
    });
    let parts: Vec<String> = parts.collect();
    let shorts: Vec<String> = parts.iter().map(|part| cut(part, 40)).collect();
    Label { short: shorts.join(", "), full: parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_people_read_them() {
        assert_eq!(percent(0.84), "84.0 %");
        assert_eq!(percent_interval(Some([0.812, 0.8701])), "[81.2, 87.0]");
        assert_eq!(points(-0.0312), "\u{2212}3.1 points");
        assert_eq!(points(0.0), "0.0 points");
        assert_eq!(points_interval(Some([-0.0001, 0.02])), "[0.0, +2.0]");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(999), "999");
        assert_eq!(counted(1, "person", "people"), "1 person");
        assert_eq!(exact(0.1 + 0.2), "0.3");
        assert_eq!(exact(-1e-9), "0");
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_kept_whole_beside() {
        let label = Label::new("ü".repeat(300));
        assert_eq!(label.short.chars().count(), LABEL_CHARS);
        assert!(label.short.ends_with('…'));
        assert_eq!(label.full.chars().count(), 300);
        assert_eq!(Label::new("DE").short, "DE");
        let both = group_label(&vec![Some("x".repeat(50)), None]);
        assert!(both.short.ends_with("not known"), "{}", both.short);
    }

    #[test]
    fn a_group_is_named_by_its_attributes() {
        let group = vec![Some("DE".to_owned()), None];
        assert_eq!(
            named_group(&["country".to_owned(), "age".to_owned()], &group).full,
            "country=DE, age not known"
        );
    }
}
