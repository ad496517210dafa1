//! One report of all that benches found.

use std::fmt::Write as _;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    budgets::{BUDGETS, Budget, Side, Verdict},
    criterion::Piece,
    machine::{Machine, Revision},
    record::{Curve, Failure, Judged, Part, Series},
    statistics::{Line, Spread, exponent},
    svg,
};

/// From which share a point may be off before a line is called no line.
const NO_LINE: f64 = 0.35;

/// What Criterion measures, among the benches that were asked for.
const PIECES: &str = "pieces";

/// What was measured, of what, where and when; `report.json` is this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When, in UTC.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// Of what; absent where git does not know it.
    pub revision: Option<Revision>,
    /// What the benches found.
    pub parts: Vec<Part>,
    /// What Criterion found.
    pub pieces: Vec<Piece>,
    /// Benches that were asked for.
    pub expected: Vec<String>,
}

/// Why there is no number where there should be one.
struct Missing {
    what: String,
    why: String,
    skipped: bool,
}

/// Where a document has a part of the report, and where that ends.
const MARK: &str = "<!-- bench ";
const MARK_END: &str = "<!-- /bench -->";

const TO_A_STRING: &str = "writing to a string cannot fail";

impl Report {
    /// Of what the benches left.
    ///
    /// # Errors
    /// A clock that no date can be made of.
    pub fn of(
        parts: Vec<Part>,
        pieces: Vec<Piece>,
        expected: Vec<String>,
        machine: Machine,
        revision: Option<Revision>,
        now: OffsetDateTime,
    ) -> anyhow::Result<Self> {
        let date = now.format(&Rfc3339).context("the date")?;
        Ok(Self { date, machine, revision, parts, pieces, expected })
    }

    /// Whether something that could have been measured was not.
    pub fn is_whole(&self) -> bool {
        self.missing().iter().all(|missing| missing.skipped)
    }

    /// The curves as plots.
    pub fn to_svg(&self) -> String {
        let curves: Vec<Curve> = self.curves().cloned().collect();
        let commit = self.revision.as_ref().map_or("an unknown commit", |revision| revision.commit.as_str());
        svg::draw(&format!("How cost grows: {commit}, {}", self.machine.cpu), &curves)
    }

    /// Everything as text.
    pub fn to_markdown(&self) -> String {
        let mut text = String::from("# Bench\n\n");
        self.heading(&mut text);
        text.push_str(
            "\n## Budgets\n\nJudged by the median; \"narrowly\" where not every round says the same.\n\n",
        );
        self.budget_table(&mut text);
        if self.curves().next().is_some() {
            text.push_str("\n## Growth\n\nThe curves below in words; `report.svg` draws them.\n\n");
            self.growth_table(&mut text);
        }
        for curve in self.curves() {
            show_curve(curve, &mut text);
        }
        for part in &self.parts {
            show_figures(part, 2, &mut text);
        }
        if !self.pieces.is_empty() {
            text.push_str("\n## Inner pieces\n\nBy Criterion, one thread.\n\n");
            self.piece_table(&mut text);
        }
        text
    }

    /// A document with what stands between `<!-- bench NAME -->` and `<!-- /bench -->` replaced by that part of the report:
    /// `about`, `budgets`, `growth`, `pieces`, or the figures of a bench by its name.
    ///
    /// # Errors
    /// A report that may not be quoted, a name of nothing, or a mark without an end.
    pub fn fill(&self, document: &str) -> anyhow::Result<String> {
        ensure!(self.parts.iter().all(|part| !part.quick), "a quick run is not to be quoted");
        let mut filled = String::new();
        let mut rest = document;
        while let Some((before, after)) = rest.split_once(MARK) {
            let (name, after) = after.split_once(" -->").context("a mark that is not closed")?;
            let (_, after) =
                after.split_once(MARK_END).with_context(|| format!("the mark {name} has no end"))?;
            let mut text = String::new();
            match name {
                "about" => self.about(&mut text),
                "budgets" => self.budget_table(&mut text),
                "growth" => self.growth_table(&mut text),
                "pieces" => self.piece_table(&mut text),
                bench => {
                    let part = self.parts.iter().find(|part| part.bench == bench);
                    let part = part.with_context(|| format!("the report has no {bench}"))?;
                    show_figures(part, 3, &mut text);
                }
            }
            write!(filled, "{before}{MARK}{name} -->\n{}\n{MARK_END}", text.trim()).expect(TO_A_STRING);
            rest = after;
        }
        Ok(filled + rest)
    }

    fn curves(&self) -> impl Iterator<Item = &Curve> {
        self.parts.iter().flat_map(|part| &part.curves)
    }

    fn piece_table(&self, text: &mut String) {
        text.push_str("| piece | median | 95 % interval |\n|---|---|---|\n");
        for Piece { name, median_ns, interval_ns: [low, high] } in &self.pieces {
            writeln!(text, "| {name} | {} | {} to {} |", time_of(*median_ns), time_of(*low), time_of(*high))
                .expect(TO_A_STRING);
        }
    }

    /// Every curve that has a fixed part and one for each, by its lines.
    fn growth_table(&self, text: &mut String) {
        text.push_str("| what | of | cost |\n|---|---|---|\n");
        for curve in self.curves().filter(|curve| curve.additive) {
            for series in &curve.series {
                if let Some(words) = growth(curve, series) {
                    writeln!(text, "| {} | {} | {words} |", curve.title, series.name).expect(TO_A_STRING);
                }
            }
        }
    }

    fn heading(&self, text: &mut String) {
        self.about(text);
        if self.parts.iter().any(|part| part.quick) {
            text.push_str("\n**BENCH_QUICK: too few rounds and requests to be quoted.**\n");
        }
        text.push_str(
            "\nAbsolute figures drift with the machine; ratios are of measurements that alternate within one run. Each row: the \
             least, the median and the largest of the rounds.\n",
        );
        let missing = self.missing();
        if !missing.is_empty() {
            text.push_str("\n## Not measured\n\n");
            for Missing { what, why, skipped } in missing {
                let why = why.replace('\n', " ");
                writeln!(text, "- {what}: {}{why}", if skipped { "left out: " } else { "" })
                    .expect(TO_A_STRING);
            }
        }
    }

    fn about(&self, text: &mut String) {
        let Machine { cpu, cores, flags, memory_gib, system, load } = &self.machine;
        let memory = memory_gib.map_or("memory unknown".to_owned(), |gib| format!("{gib:.1} GiB"));
        let load = load.map_or("unknown".to_owned(), |load| format!("{load:.1}"));
        let revision = match &self.revision {
            Some(Revision { commit, changed: false }) => commit.clone(),
            Some(Revision { commit, changed: true }) => format!("{commit} with changes"),
            None => "unknown".to_owned(),
        };
        writeln!(
            text,
            "- Commit: {revision}\n- Date: {}\n- Processor: {cpu}, {cores} cores ({})\n- Memory: {memory}\n- System: {system}\n\
             - Load before the last part: {load}",
            self.date,
            if flags.is_empty() { "flags unknown".to_owned() } else { flags.join(", ") }
        )
        .expect(TO_A_STRING);
        let minutes = self.parts.iter().map(|part| part.seconds).sum::<f64>() / 60.0;
        writeln!(text, "- Measuring took {minutes:.1} minutes.").expect(TO_A_STRING);
    }

    fn budget_table(&self, text: &mut String) {
        text.push_str(
            "| what | of | budget | min | median | max | verdict |\n|---|---|---|---|---|---|---|\n",
        );
        for budget in &BUDGETS {
            let side = if budget.side == Side::AtLeast { "≥" } else { "≤" };
            let limit = format!("{side} {} {}", number(budget.limit), budget.unit).trim_end().to_owned();
            let judged: Vec<(&Judged, Spread)> = self
                .parts
                .iter()
                .flat_map(|part| &part.judged)
                .filter(|judged| judged.budget == budget.id)
                .filter_map(|judged| Some((judged, Spread::of(&judged.values)?)))
                .collect();
            if judged.is_empty() {
                let why = self.why_not(budget).0.replace('\n', " ");
                writeln!(text, "| {} | | {limit} | | | | not measured: {why} |", budget.what)
                    .expect(TO_A_STRING);
            }
            for (judged, spread) in judged {
                writeln!(
                    text,
                    "| {} | {} | {limit} | {} | {} | {} | {} |",
                    budget.what,
                    judged.subject.as_deref().unwrap_or_default(),
                    number(spread.min),
                    number(spread.median),
                    number(spread.max),
                    in_words(budget.judge(&spread))
                )
                .expect(TO_A_STRING);
            }
        }
    }

    /// Sections and whole benches without an end, and budgets without a number.
    fn missing(&self) -> Vec<Missing> {
        let mut missing = Vec::new();
        for bench in &self.expected {
            if bench == PIECES {
                if self.pieces.is_empty() {
                    let why = "Criterion left nothing".to_owned();
                    missing.push(Missing { what: "inner pieces".to_owned(), why, skipped: false });
                }
                continue;
            }
            match self.parts.iter().find(|part| part.bench == *bench) {
                None => missing.push(Missing {
                    what: bench.clone(),
                    why: "the bench did not begin".to_owned(),
                    skipped: false,
                }),
                Some(part) => {
                    for Failure { section, why, skipped } in &part.failures {
                        missing.push(Missing {
                            what: format!("{bench}, {section}"),
                            why: why.clone(),
                            skipped: *skipped,
                        });
                    }
                    if !part.finished {
                        missing.push(Missing {
                            what: bench.clone(),
                            why: "the bench ended before its end".to_owned(),
                            skipped: false,
                        });
                    }
                }
            }
        }
        for budget in &BUDGETS {
            let measured = self
                .parts
                .iter()
                .flat_map(|part| &part.judged)
                .any(|judged| judged.budget == budget.id && Spread::of(&judged.values).is_some());
            if !measured {
                let (why, skipped) = self.why_not(budget);
                missing.push(Missing { what: budget.what.to_owned(), why, skipped });
            }
        }
        missing
    }

    /// Why a budget has no number, and whether that was on purpose.
    fn why_not(&self, budget: &Budget) -> (String, bool) {
        let (bench, section) = budget.measured_by;
        let Some(part) = self.parts.iter().find(|part| part.bench == bench) else {
            return (format!("the bench {bench} did not begin"), false);
        };
        match part.failures.iter().find(|failure| failure.section == section) {
            Some(failure) => (failure.why.clone(), failure.skipped),
            None => (format!("the bench {bench} ended before \"{section}\" was measured"), false),
        }
    }
}

/// The figures of a bench, a table a section.
fn show_figures(part: &Part, level: usize, text: &mut String) {
    let mut section = "";
    for figure in &part.figures {
        let Some(Spread { min, median, max }) = Spread::of(&figure.values) else { continue };
        if section != figure.section {
            section = &figure.section;
            let heading = "#".repeat(level);
            writeln!(
                text,
                "\n{heading} {}: {section}\n\n| what | unit | min | median | max |\n|---|---|---|---|---|",
                part.bench
            )
            .expect(TO_A_STRING);
        }
        let unit = if figure.unit.is_empty() { "ratio" } else { &figure.unit };
        writeln!(
            text,
            "| {} | {unit} | {} | {} | {} |",
            figure.what,
            number(min),
            number(median),
            number(max)
        )
        .expect(TO_A_STRING);
    }
}

fn show_curve(curve: &Curve, text: &mut String) {
    let unit = if curve.unit.is_empty() { String::new() } else { format!(", {}", curve.unit) };
    writeln!(text, "\n## {}\n", curve.title).expect(TO_A_STRING);
    if !curve.note.is_empty() {
        writeln!(text, "{}\n", curve.note).expect(TO_A_STRING);
    }
    let mut xs: Vec<f64> =
        curve.series.iter().flat_map(|series| series.points.iter().map(|(x, _)| *x)).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let names: Vec<&str> = curve
        .series
        .iter()
        .map(|series| if series.name.is_empty() { curve.what.as_str() } else { series.name.as_str() })
        .collect();
    writeln!(text, "{}{unit}, median (min to max):\n", curve.what).expect(TO_A_STRING);
    writeln!(text, "| {}s | {} |\n|---|{}", curve.per, names.join(" | "), "---|".repeat(names.len()))
        .expect(TO_A_STRING);
    for x in xs {
        let cells: Vec<String> = curve
            .series
            .iter()
            .map(|series| {
                let values = series.points.iter().find(|(at, _)| *at == x).map(|(_, values)| values);
                match values.and_then(|values| Spread::of(values)) {
                    Some(Spread { min, median, max }) => {
                        format!("{} ({} to {})", number(median), number(min), number(max))
                    }
                    None => String::new(),
                }
            })
            .collect();
        writeln!(text, "| {} | {} |", number(x), cells.join(" | ")).expect(TO_A_STRING);
    }
    if curve.additive {
        text.push('\n');
        for series in &curve.series {
            if let Some(words) = growth(curve, series) {
                let name = if series.name.is_empty() { String::new() } else { format!("{}: ", series.name) };
                writeln!(text, "- {name}{words}").expect(TO_A_STRING);
            }
        }
    }
}

/// How a series grows, in words. Without any of it something else may happen, as nothing is learned from no example: that point
/// is not looked at.
fn growth(curve: &Curve, series: &Series) -> Option<String> {
    let medians: Vec<(f64, f64)> = series
        .points
        .iter()
        .filter(|(x, _)| *x > 0.0)
        .filter_map(|(x, values)| Some((*x, Spread::of(values)?.median)))
        .collect();
    let line = Line::through(&medians)?;
    let Line { fixed, per_unit, furthest } = line;
    if furthest > NO_LINE && medians.len() > 2 {
        let power = exponent(&medians)
            .map_or(String::new(), |power| format!("; about as {}s to the power of {power:.2}", curve.per));
        return Some(format!("no straight line (a point is {:.0} % off it){power}.", 100.0 * furthest));
    }
    let unit = &curve.unit;
    Some(format!(
        "{} {unit} fixed and {} {unit} per {} (the furthest point is {:.0} % off).",
        number(fixed),
        number(per_unit),
        curve.per,
        100.0 * furthest
    ))
}

fn in_words(verdict: Verdict) -> String {
    let share = 100.0 * verdict.margin.abs();
    let narrowly = if verdict.in_every_round { "" } else { ", narrowly" };
    if verdict.met {
        format!("met by {share:.0} %{narrowly}")
    } else {
        format!("**not met** by {share:.0} %{narrowly}")
    }
}

/// Three digits that count.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value}");
    }
    let digits = value.abs().log10().floor() as i32;
    if !(-6..15).contains(&digits) {
        return format!("{value:.2e}");
    }
    let decimals = usize::try_from(2 - digits).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn time_of(ns: f64) -> String {
    let (scale, unit) = match ns {
        ns if ns >= 1e9 => (1e9, "s"),
        ns if ns >= 1e6 => (1e6, "ms"),
        ns if ns >= 1e3 => (1e3, "µs"),
        _ => (1.0, "ns"),
    };
    format!("{} {unit}", number(ns / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(parts: Vec<Part>, expected: &[&str]) -> Report {
        let expected = expected.iter().map(|bench| (*bench).to_owned()).collect();
        let now = OffsetDateTime::UNIX_EPOCH;
        let revision = Some(Revision { commit: "abc".into(), changed: true });
        Report::of(parts, Vec::new(), expected, Machine::default(), revision, now).unwrap()
    }

    fn row<'a>(text: &'a str, beginning: &str) -> &'a str {
        text.lines().find(|line| line.starts_with(beginning)).unwrap_or_else(|| panic!("{beginning}: {text}"))
    }

    #[test]
    fn every_budget_has_a_row_whatever_was_measured() {
        let mut people = Part { bench: "people".into(), finished: true, ..Part::default() };
        people.judge("idle-memory", None, vec![175.0]);
        people.judge("adapting", Some("lore"), vec![0.1, 2.0, 3.0]);
        people.failures.push(Failure {
            section: "training".into(),
            why: "BENCH_PERSONA names no file".into(),
            skipped: true,
        });
        let report = report(vec![people], &["people", "score"]);
        let text = report.to_markdown();
        let memory = row(&text, "| memory of an idle server");
        assert!(memory.contains("≤ 350 MiB | 175 | 175 | 175 | met by 50 % |"), "{memory}");
        let adapting = row(&text, "| a user with 8 new examples, embeddings known | lore");
        assert!(adapting.ends_with("| **not met** by 100 %, narrowly |"), "{adapting}");
        let training = row(&text, "| training all six heads");
        assert!(training.contains("not measured: BENCH_PERSONA names no file"), "{training}");
        let unseen = row(&text, "| /score on texts never seen");
        assert!(unseen.contains("not measured: the bench score did not begin"), "{unseen}");
        let many = row(&text, "| 10 000 users");
        assert!(many.contains("ended before \"ten thousand people\" was measured"), "{many}");
        assert!(text.contains("abc with changes") && !report.is_whole());
    }

    #[test]
    fn a_report_is_whole_though_something_was_left_out_on_purpose() {
        let all = |but: &str| {
            let mut part = Part { bench: "all".into(), finished: true, ..Part::default() };
            for budget in BUDGETS.iter().filter(|budget| budget.id != but) {
                part.judge(budget.id, None, vec![budget.limit]);
            }
            part
        };
        assert!(report(vec![all("")], &["all"]).is_whole());
        assert!(!report(vec![all("training")], &["all"]).is_whole());
        let failure = |skipped| Failure { section: "training".into(), why: "no file".into(), skipped };
        for (skipped, whole) in [(true, true), (false, false)] {
            let mut people = Part { bench: "people".into(), finished: true, ..Part::default() };
            people.failures.push(failure(skipped));
            assert_eq!(report(vec![all("training"), people], &["all", "people"]).is_whole(), whole);
        }
        let unfinished = Part { finished: false, ..all("") };
        assert!(!report(vec![unfinished], &["all"]).is_whole());
    }

    #[test]
    fn growth_is_said_in_words() {
        let curve = |points: Vec<(f64, f64)>| Curve {
            title: "t".into(),
            per: "user".into(),
            what: "latency".into(),
            unit: "ms".into(),
            series: vec![Series {
                name: "pal-a".into(),
                points: points.into_iter().map(|(x, y)| (x, vec![y])).collect(),
            }],
            additive: true,
            note: String::new(),
        };
        let line = curve([1.0, 10.0, 1000.0].map(|x| (x, 2.0 + 0.01 * x)).to_vec());
        let words = growth(&line, &line.series[0]).unwrap();
        assert_eq!(words, "2 ms fixed and 0.01 ms per user (the furthest point is 0 % off).");
        let square = curve([1.0, 10.0, 100.0].map(|x| (x, x * x)).to_vec());
        let words = growth(&square, &square.series[0]).unwrap();
        assert!(words.contains("no straight line") && words.contains("power of 2.00"), "{words}");
        let mut text = String::new();
        show_curve(&line, &mut text);
        assert!(text.contains("| users | pal-a |") && text.contains("| 1000 | 12 (12 to 12) |"), "{text}");
    }

    #[test]
    fn a_document_is_filled_between_its_marks() {
        let mut part = Part { bench: "overload".into(), finished: true, ..Part::default() };
        part.figure("s", "refusal, p50", "ms", vec![0.5]);
        part.judge("idle-memory", None, vec![175.0]);
        let mut report = report(vec![part], &["overload"]);
        let document = "a\n<!-- bench budgets -->\nold\n<!-- /bench -->\nb\n<!-- bench overload -->\n<!-- /bench -->\nc\n";
        let filled = report.fill(document).unwrap();
        assert!(
            filled.starts_with("a\n<!-- bench budgets -->\n| what |")
                && filled.ends_with("<!-- /bench -->\nc\n")
        );
        assert!(filled.contains("| 175 |") && filled.contains("| refusal, p50 | ms | 0.5 |"), "{filled}");
        assert!(!filled.contains("old"));
        assert_eq!(report.fill(&filled).unwrap(), filled, "filled again it is the same");
        for wrong in ["<!-- bench budgets -->", "<!-- bench nothing --><!-- /bench -->", "<!-- bench budgets"]
        {
            assert!(report.fill(wrong).is_err(), "{wrong}");
        }
        report.parts[0].quick = true;
        assert!(report.fill(document).is_err(), "a quick run is not to be quoted");
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.912_345, "0.912"),
            (12.345, "12.3"),
            (1234.5, "1234"),
            (100_000.0, "100000"),
            (0.000_123_4, "0.000123"),
            (-0.5, "-0.5"),
            (1.2e-9, "1.20e-9"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(time_of(1234.0), "1.23 µs");
    }

    #[test]
    fn a_report_is_read_back_as_it_was_written() {
        let mut part = Part { bench: "score".into(), ..Part::default() };
        part.figure("s", "w", "ms", vec![0.1, 1e-7]);
        let report = report(vec![part], &["score"]);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
