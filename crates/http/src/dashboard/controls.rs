//! What the overview is asked for: the state of every control, in the URL and nowhere else.

use std::fmt::Write as _;

use polyreward_domain::ModelSelector;
use polyreward_service::{MeasureQuery, Span, Step};
use time::{
    Date, Duration, OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description,
};

use crate::routes::checked_min_n;

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
/// Years in which predictions can have been made.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2199;
const MAX_PAGE: usize = 1_000_000;
/// Characters of a value that is shown again.
const MAX_VALUE_CHARS: usize = 512;

/// A control, by the name of its parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    Model,
    GroupBy,
    Cross,
    From,
    To,
    MinN,
    Step,
    Sort,
    Page,
}

impl Control {
    const ALL: [Self; 9] = [
        Self::Model,
        Self::GroupBy,
        Self::Cross,
        Self::From,
        Self::To,
        Self::MinN,
        Self::Step,
        Self::Sort,
        Self::Page,
    ];

    /// The parameter's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::GroupBy => "group_by",
            Self::Cross => "cross",
            Self::From => "from",
            Self::To => "to",
            Self::MinN => "min_n",
            Self::Step => "step",
            Self::Sort => "sort",
            Self::Page => "page",
        }
    }

    /// What the control is called on the page.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Model => "Model",
            Self::GroupBy => "Group by",
            Self::Cross => "Cross with",
            Self::From => "From",
            Self::To => "To",
            Self::MinN => "People at least",
            Self::Step => "Step",
            Self::Sort => "Sort",
            Self::Page => "Page",
        }
    }
}

/// What is wrong with what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// With which control; none where no control has the parameter.
    pub control: Option<Control>,
    /// What.
    pub detail: String,
}

impl Fault {
    /// With a control.
    pub fn of(control: Control, detail: impl Into<String>) -> Self {
        Self { control: Some(control), detail: detail.into() }
    }

    /// What is wrong, with the control's name before it.
    pub fn sentence(&self) -> String {
        match self.control {
            Some(control) => format!("{}: {}", control.label(), self.detail),
            None => self.detail.clone(),
        }
    }
}

/// An attribute that makes groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attribute {
    /// Nothing was asked: the page chooses.
    Unasked,
    /// None is wanted.
    None,
    /// This one.
    Named(String),
}

/// The order of the groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    /// By the lower end of the interval, the lowest first.
    #[default]
    Lower,
    /// By accuracy, the lowest first.
    Accuracy,
    /// By what it helped to know the person, the least first.
    Gain,
    /// By predictions, the most first.
    N,
    /// By name.
    Name,
}

impl Sort {
    /// Every order with its name in the URL and on the page.
    pub const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Lower, "lower", "lower bound"),
        (Self::Accuracy, "accuracy", "accuracy"),
        (Self::Gain, "gain", "gain"),
        (Self::N, "n", "predictions"),
        (Self::Name, "name", "name"),
    ];
}

/// Every step with its name in the URL; none chooses by itself.
pub(crate) const STEPS: [(Step, &str); 3] = [(Step::Hour, "hour"), (Step::Day, "day"), (Step::Week, "week")];

/// What was asked, as it was asked, and as far as it can be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Controls {
    /// Values as they were sent, by the place of their control.
    raw: [Option<String>; Control::ALL.len()],
    /// Which model; none is the default.
    pub model: Option<ModelSelector>,
    /// The attribute that makes the groups.
    pub group_by: Attribute,
    /// The second attribute, for intersections.
    pub cross: Attribute,
    /// When predictions were made: both days included.
    pub span: Span,
    /// People that a shown group has at least; none is the server's floor.
    pub min_n: Option<usize>,
    /// How long a step of the time line is; none is by itself.
    pub step: Option<Step>,
    /// The order of the groups.
    pub sort: Sort,
    /// Which page of the groups, from 1.
    pub page: usize,
}

impl Controls {
    /// Reads a query for a server that shows no group of fewer people than `floor`; what is wrong stays what it is by default,
    /// and is said.
    pub fn of(query: &str, floor: usize) -> (Self, Vec<Fault>) {
        let mut faults = Vec::new();
        let mut raw: [Option<String>; Control::ALL.len()] = Default::default();
        for (name, value) in pairs(query) {
            let known = Control::ALL.iter().find(|control| control.name() == name);
            let Some(control) = known else {
                let names = Control::ALL.map(Control::name).join(", ");
                faults.push(Fault {
                    control: None,
                    detail: format!("a parameter is unknown; there are {names}"),
                });
                continue;
            };
            if value.chars().count() > MAX_VALUE_CHARS {
                faults.push(Fault::of(*control, format!("has more than {MAX_VALUE_CHARS} characters")));
            } else if raw[*control as usize].replace(value).is_some() {
                faults.push(Fault::of(*control, "is given more than once"));
            }
        }
        let controls = Reader { raw: &raw, faults: &mut faults }.read(floor);
        (Self { raw, ..controls }, faults)
    }

    /// What a control was asked for, word for word.
    pub fn asked(&self, control: Control) -> &str {
        self.raw[control as usize].as_deref().unwrap_or_default()
    }

    /// The same with another value of one control.
    pub fn with(&self, control: Control, value: &str) -> Self {
        let mut changed = self.clone();
        changed.raw[control as usize] = (!value.is_empty() || keeps_empty(control)).then(|| value.to_owned());
        changed
    }

    /// The query of the URL that asks for this; without the parameters that were not given.
    pub fn query(&self) -> String {
        query_of(Control::ALL.iter().filter_map(|control| {
            let value = self.raw[*control as usize].as_deref()?;
            (!value.is_empty() || keeps_empty(*control)).then_some((control.name(), value))
        }))
    }
}

/// Whether a control's empty value and none are two things.
fn keeps_empty(control: Control) -> bool {
    matches!(control, Control::GroupBy | Control::Cross)
}

/// The query of `/accuracy` with the same parameters.
pub(crate) fn accuracy_query(query: &MeasureQuery, format: Option<&str>) -> String {
    let moment =
        |at: OffsetDateTime| at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    let pairs = [
        ("model", query.model.as_ref().map(ToString::to_string)),
        ("group_by", (!query.group_by.is_empty()).then(|| query.group_by.join(","))),
        ("from", query.span.from.map(moment)),
        ("to", query.span.to.map(moment)),
        ("min_n", query.min_users.map(|n| n.to_string())),
        ("format", format.map(str::to_owned)),
    ];
    query_of(pairs.iter().filter_map(|(name, value)| value.as_deref().map(|value| (*name, value))))
}

/// Understands values one by one.
struct Reader<'a> {
    raw: &'a [Option<String>; Control::ALL.len()],
    faults: &'a mut Vec<Fault>,
}

impl Reader<'_> {
    fn read(mut self, floor: usize) -> Controls {
        let model = self.value(Control::Model, |text| text.parse().map_err(|error| format!("{error}")));
        let from = self.value(Control::From, date);
        let to = self.value(Control::To, date);
        if let (Some(from), Some(to)) = (from, to)
            && to < from
        {
            self.faults.push(Fault::of(Control::To, "is before From"));
        }
        let span = Span {
            from: from.map(|day| day.midnight().assume_utc()),
            // The day that is named is included.
            to: to.map(|day| day.midnight().assume_utc() + Duration::DAY),
        };
        let min_n = self.value(Control::MinN, |text| checked_min_n(text.parse().ok(), floor));
        let page = self.value(Control::Page, |text| whole(text, MAX_PAGE)).unwrap_or(1);
        let step = self.value(Control::Step, |text| {
            let known = STEPS.iter().find(|(_, name)| *name == text);
            known.map(|(step, _)| *step).ok_or_else(|| "is one of hour, day, week".to_owned())
        });
        let sort = self.value(Control::Sort, |text| {
            let known = Sort::ALL.iter().find(|(_, name, _)| *name == text);
            known.map(|(sort, ..)| *sort).ok_or_else(|| "is one of lower, accuracy, gain, n, name".to_owned())
        });
        let (group_by, cross) = (self.attribute(Control::GroupBy), self.attribute(Control::Cross));
        if let (Attribute::Named(first), Attribute::Named(second)) = (&group_by, &cross)
            && first == second
        {
            self.faults.push(Fault::of(Control::Cross, "is the same attribute as Group by"));
        }
        if group_by == Attribute::None && matches!(cross, Attribute::Named(_)) {
            self.faults.push(Fault::of(Control::Cross, "needs an attribute to group by"));
        }
        Controls {
            raw: Default::default(),
            model,
            group_by,
            cross,
            span,
            min_n,
            step,
            sort: sort.unwrap_or_default(),
            page,
        }
    }

    /// A value that is there and can be read; an empty one, as a form sends it, is not there.
    fn value<T>(&mut self, control: Control, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.raw[control as usize].as_deref().map(str::trim).filter(|text| !text.is_empty())?;
        read(text).map_err(|detail| self.faults.push(Fault::of(control, detail))).ok()
    }

    fn attribute(&self, control: Control) -> Attribute {
        match self.raw[control as usize].as_deref() {
            None => Attribute::Unasked,
            Some("") => Attribute::None,
            Some(name) => Attribute::Named(name.to_owned()),
        }
    }
}

fn date(text: &str) -> Result<Date, String> {
    let date = Date::parse(text, DATE).map_err(|_| "is a day, as 2026-01-31".to_owned())?;
    if YEARS.contains(&date.year()) {
        Ok(date)
    } else {
        Err(format!("is a day of the years {} to {}", YEARS.start(), YEARS.end()))
    }
}

fn whole(text: &str, max: usize) -> Result<usize, String> {
    let n = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<usize>().ok()).flatten();
    n.filter(|n| (1..=max).contains(n)).ok_or_else(|| format!("is a whole number from 1 to {max}"))
}

/// Names and values of a query; what is no UTF-8 is replaced, so that it can be shown and refused.
fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    let hex = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%').then(|| hex(bytes.get(at + 1)).zip(hex(bytes.get(at + 2)))).flatten();
        match (byte, escaped) {
            (_, Some((high, low))) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'+', None) => {
                decoded.push(b' ');
                at += 1;
            }
            (byte, None) => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A query out of names and values.
pub(crate) fn query_of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs.into_iter().map(|(name, value)| format!("{name}={}", encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// A value as it stands in a query or a path.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const FLOOR: usize = 5;

    fn faults(query: &str) -> Vec<String> {
        Controls::of(query, FLOOR).1.iter().map(Fault::sentence).collect()
    }

    #[test]
    fn a_query_is_read_and_written_back() {
        let query = "model=pal-a%403f9c&group_by=country&cross=age&from=2026-01-01&to=2026-01-31&min_n=20&step=day&sort=gain&page=2";
        let (controls, faults) = Controls::of(query, FLOOR);
        assert_eq!(faults, []);
        assert_eq!(controls.query(), query);
        assert_eq!(controls.span.from, Some(datetime!(2026-01-01 0:00 UTC)));
        assert_eq!(controls.span.to, Some(datetime!(2026-02-01 0:00 UTC)));
        assert_eq!((controls.min_n, controls.page, controls.sort), (Some(20), 2, Sort::Gain));
        assert_eq!(
            controls.with(Control::Page, "").with(Control::Cross, "").query().matches("cross=&").count(),
            1
        );
    }

    #[test]
    fn a_form_without_an_answer_is_no_fault() {
        let (controls, faults) = Controls::of("model=&group_by=&cross=&from=&to=&min_n=&step=&sort=", FLOOR);
        assert_eq!(faults, []);
        assert_eq!(controls.group_by, Attribute::None);
        assert_eq!(Controls::of("", FLOOR).0.group_by, Attribute::Unasked);
        assert_eq!(controls.query(), "group_by=&cross=");
    }

    #[test]
    fn what_cannot_be_is_said_by_the_name_of_its_control() {
        for (query, control) in [
            ("model=A%20B", "Model: "),
            ("from=yesterday", "From: "),
            ("from=0001-01-01", "From: "),
            ("to=9999-12-31", "To: "),
            ("from=2026-02-01&to=2026-01-01", "To: is before From"),
            ("min_n=-1", "People at least: "),
            ("min_n=4", "People at least: "),
            ("min_n=99999999999999999999", "People at least: "),
            ("page=0", "Page: "),
            ("step=year", "Step: "),
            ("sort=x%27%3B--", "Sort: "),
            ("group_by=a&cross=a", "Cross with: "),
            ("group_by=&cross=a", "Cross with: "),
            ("page=1&page=2", "Page: is given more than once"),
            ("colour=red", "a parameter is unknown"),
        ] {
            let faults = faults(query);
            assert!(faults.len() == 1 && faults[0].starts_with(control), "{query} {faults:?}");
        }
        assert!(faults(&format!("group_by={}", "x".repeat(10_000)))[0].starts_with("Group by: "));
    }

    #[test]
    fn any_text_survives_a_query() {
        for text in ["a&b=c", "\u{202e}ab", "100 %+1", "<img onerror=alert(1)>", "%zz%"] {
            let query = query_of([("group_by", text)]);
            assert_eq!(Controls::of(&query, FLOOR).0.group_by, Attribute::Named(text.to_owned()));
        }
    }
}
