//! Accuracy against time, with the moments at which another version of the model began.

use polyreward_service::{Step, StepStart, Timeline};
use time::{Duration, OffsetDateTime};

use super::{
    scene::{Scale, Scene, Shape, range_of_shares},
    shots::{COLUMNS, cells, class_of, share_axis},
    table::{Cell, Table},
    text::{counted, day, minute, percent, percent_interval},
};

const HEIGHT: f64 = 280.0;
/// Marks of versions that fit.
const VERSIONS: usize = 12;
/// Points above which only lines are drawn.
const MARKED: usize = 120;

/// The section; none where there is no point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub plot: Scene,
    pub table: Table,
    pub words: String,
    /// Versions by the number that marks them, with when they began.
    pub versions: Vec<(String, String, String)>,
}

/// The section.
pub(crate) fn of(timeline: &Timeline) -> Option<Line> {
    let points = &timeline.curves.overall;
    let (first, last) = (points.first()?, points.last()?);
    let words = format!(
        "{} from {} to {}; the last is {} {}.",
        counted(points.len() as u64, step_name(timeline.step).0, step_name(timeline.step).1),
        when(first.at, timeline.step),
        when(last.at, timeline.step),
        percent(last.accuracy),
        percent_interval(last.accuracy_ci)
    );
    let marked = timeline.versions.iter().rev().take(VERSIONS).rev().enumerate();
    let versions = marked.map(|(at, (model, from))| ((at + 1).to_string(), model.to_string(), minute(*from)));
    Some(Line { plot: plot(timeline, &words), table: table(timeline), versions: versions.collect(), words })
}

fn step_name(step: Step) -> (&'static str, &'static str) {
    match step {
        Step::Hour => ("hour", "hours"),
        Step::Day => ("day", "days"),
        Step::Week => ("week", "weeks"),
    }
}

fn length(step: Step) -> Duration {
    match step {
        Step::Hour => Duration::HOUR,
        Step::Day => Duration::DAY,
        Step::Week => Duration::WEEK,
    }
}

fn when(at: StepStart, step: Step) -> String {
    if step == Step::Hour { minute(at.0) } else { day(at.0) }
}

fn seconds(at: OffsetDateTime) -> f64 {
    at.unix_timestamp() as f64
}

fn plot(timeline: &Timeline, words: &str) -> Scene {
    let points = &timeline.curves.overall;
    let values = points.iter().flat_map(|point| {
        point.accuracy_ci.into_iter().flatten().chain([point.accuracy, point.population_accuracy])
    });
    let (low, high) = range_of_shares(values);
    let y = Scale::between(low, high, HEIGHT - 40.0, 34.0);
    let step = seconds(OffsetDateTime::UNIX_EPOCH + length(timeline.step));
    let (start, end) = (seconds(points[0].at.0), seconds(points[points.len() - 1].at.0));
    let x = Scale::across(start - step / 2.0, end + step / 2.0);
    let mut scene = Scene::new("timeline-plot", "Accuracy against time", HEIGHT as u32);
    scene.description =
        format!("{words} Numbered lines mark where another version of the model made its first prediction.");
    share_axis(&mut scene, y);
    let middle = f64::midpoint(start, end);
    let labels = match (points.len(), timeline.step) {
        (1, _) => vec![(start, "middle")],
        // Hours are long to write.
        (_, Step::Hour) => vec![(start, "start"), (end, "end")],
        _ => vec![(start, "start"), (middle, "middle"), (end, "end")],
    };
    for (at, anchor) in labels {
        let moment = OffsetDateTime::from_unix_timestamp(at as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        scene.text((x.at(at), HEIGHT - 20.0), anchor, "tick", when(StepStart(moment), timeline.step));
    }
    for (at, (model, from)) in timeline.versions.iter().rev().take(VERSIONS).rev().enumerate() {
        let at_x = x.at(seconds(*from));
        scene.line((at_x, 26.0), (at_x, y.at(low)), "version");
        scene.mark(Shape::Square, (at_x, 14.0), "version", format!("{model} from {}", minute(*from)));
        scene.text((at_x, 18.5), "middle", "version-number", (at + 1).to_string());
    }
    // A step without predictions breaks the lines: nothing is known of it.
    let place = |at: usize, value: f64| (x.at(seconds(points[at].at.0)), y.at(value));
    for at in 1..points.len() {
        if points[at].at.0 - points[at - 1].at.0 <= length(timeline.step) {
            let both = |of: fn(&polyreward_service::Point<StepStart>) -> f64| {
                (place(at - 1, of(&points[at - 1])), place(at, of(&points[at])))
            };
            let (from, to) = both(|point| point.population_accuracy);
            scene.line(from, to, "population");
            let (from, to) = both(|point| point.accuracy);
            scene.line(from, to, "model");
        }
    }
    for (at, point) in points.iter().enumerate() {
        if let Some([low, high]) = point.accuracy_ci {
            scene.line(place(at, low), place(at, high), "interval");
        }
        let alone = (at == 0 || points[at].at.0 - points[at - 1].at.0 > length(timeline.step))
            && (at + 1 == points.len() || points[at + 1].at.0 - points[at].at.0 > length(timeline.step));
        if points.len() <= MARKED || alone {
            let title = format!(
                "{}: {} {}",
                when(point.at, timeline.step),
                percent(point.accuracy),
                percent_interval(point.accuracy_ci)
            );
            scene.mark(Shape::Circle, place(at, point.accuracy), class_of(point.users), title);
        }
    }
    scene
}

fn table(timeline: &Timeline) -> Table {
    let columns: Vec<(&str, &'static str)> =
        [("From (UTC)", "start"), ("Unix time", "seconds")].into_iter().chain(COLUMNS).collect();
    let mut table = Table::new("Accuracy by step of time", &columns);
    for point in &timeline.curves.overall {
        let head = [Cell::head(minute(point.at.0)), Cell::new(point.at.0.unix_timestamp().to_string())];
        table.rows.push(head.into_iter().chain(cells(point)).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::view::made_up;

    #[test]
    fn a_new_version_is_marked_and_named() {
        let line = of(&made_up::timeline()).unwrap();
        assert_eq!(line.versions[1].1, "pal-a@3f9c");
        assert_eq!(line.plot.lines.iter().filter(|line| line.class == "version").count(), 2);
        assert_eq!(line.table.rows.len(), made_up::timeline().curves.overall.len());
    }

    #[test]
    fn a_step_without_predictions_breaks_the_line() {
        let timeline = made_up::timeline();
        let line = of(&timeline).unwrap();
        let drawn = line.plot.lines.iter().filter(|line| line.class == "model").count();
        let points = timeline.curves.overall.len();
        assert_eq!(drawn, points - 1 - 3, "three days without predictions");
    }

    #[test]
    fn one_point_alone_is_drawn() {
        let mut timeline = made_up::timeline();
        timeline.curves.overall.truncate(1);
        assert_eq!(of(&timeline).unwrap().plot.marks.iter().filter(|mark| mark.class == "model").count(), 1);
        timeline.curves.overall.clear();
        assert_eq!(of(&timeline), None);
    }
}
