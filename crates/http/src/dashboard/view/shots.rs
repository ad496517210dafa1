//! Accuracy against the number of a person's examples, beside the two rewards that know nobody.

use polyreward_service::{Curves, Point, Shots};

use super::{
    groups::FEW_PEOPLE,
    scene::{LEFT, RIGHT, Scale, Scene, Shape, range_of_shares},
    table::{Cell, Table},
    text::{counted, exact, exact_or_empty, percent, percent_interval, points, points_interval},
};

const HEIGHT: f64 = 260.0;

/// The section; none where there is no point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    pub plot: Scene,
    pub table: Table,
    /// What the curve says, in a sentence.
    pub words: String,
    /// Whether the baseline's line is there.
    pub has_baseline: bool,
}

/// The section.
pub(crate) fn of(curves: &Curves<Shots>) -> Option<Curve> {
    let points = &curves.overall;
    let many: Vec<&Point<Shots>> = points.iter().filter(|point| point.users >= FEW_PEOPLE as u64).collect();
    // A sentence about few people would be read as one about everybody.
    let (first, last) = (many.first().copied().or(points.first())?, many.last().copied().or(points.last())?);
    let words = format!(
        "With {} the model is right in {} {}; with {} {} {}, {} {} against the population's reward on the same \
         predictions.",
        class(first.at),
        percent(first.accuracy),
        percent_interval(first.accuracy_ci),
        class(last.at),
        percent(last.accuracy),
        percent_interval(last.accuracy_ci),
        points_of(last),
        points_interval(last.gain_ci),
    );
    let has_baseline = points.iter().any(|point| point.bt_accuracy.is_some());
    Some(Curve { plot: plot(points, &words), table: table(points), words, has_baseline })
}

fn points_of(point: &Point<Shots>) -> String {
    points(point.gain)
}

/// A class of numbers of examples in words.
fn class(shots: Shots) -> String {
    match (shots.from, shots.to) {
        (from, Some(to)) if from == to => counted(from, "example", "examples"),
        (from, Some(to)) => format!("{from} to {to} examples"),
        (from, None) => format!("{from} or more examples"),
    }
}

fn short(shots: Shots) -> String {
    match (shots.from, shots.to) {
        (from, Some(to)) if from == to => from.to_string(),
        (from, Some(to)) => format!("{from}–{to}"),
        (from, None) => format!("{from}+"),
    }
}

fn plot(points: &[Point<Shots>], words: &str) -> Scene {
    let values = points.iter().flat_map(|point| {
        let ends = point.accuracy_ci.into_iter().flatten();
        ends.chain([point.accuracy, point.population_accuracy]).chain(point.bt_accuracy)
    });
    let (low, high) = range_of_shares(values);
    let y = Scale::between(low, high, HEIGHT - 40.0, 14.0);
    let across = Scale::across(-0.35, points.len() as f64 - 0.65);
    let x = |at: usize| across.at(at as f64);
    let mut scene = Scene::new("shots-plot", "Accuracy by number of examples", HEIGHT as u32);
    words.clone_into(&mut scene.description);
    share_axis(&mut scene, y);
    for (at, point) in points.iter().enumerate() {
        scene.text((x(at), HEIGHT - 22.0), "middle", "tick", short(point.at));
    }
    scene.text((across.end(), HEIGHT - 5.0), "end", "note", "examples before the prediction");
    let line = |of: &dyn Fn(&Point<Shots>) -> Option<f64>| -> Vec<(f64, f64)> {
        points.iter().enumerate().filter_map(|(at, point)| Some((x(at), y.at(of(point)?)))).collect()
    };
    let population = line(&|point| Some(point.population_accuracy));
    let baseline = line(&|point| point.bt_accuracy);
    let model = line(&|point| Some(point.accuracy));
    scene.path(&population, "population");
    scene.path(&baseline, "baseline");
    scene.path(&model, "model");
    for (at, point) in points.iter().enumerate() {
        if let Some([low, high]) = point.accuracy_ci {
            scene.line((x(at), y.at(low)), (x(at), y.at(high)), "interval");
        }
        let (of, name) = (class(point.at), |what: &str, value| format!("{what}: {}", percent(value)));
        scene.mark(
            Shape::Square,
            (x(at), y.at(point.population_accuracy)),
            "population",
            name(&format!("{of}, population"), point.population_accuracy),
        );
        if let Some(baseline) = point.bt_accuracy {
            scene.mark(
                Shape::Diamond,
                (x(at), y.at(baseline)),
                "baseline",
                name(&format!("{of}, Bradley-Terry"), baseline),
            );
        }
        scene.mark(
            Shape::Circle,
            (x(at), y.at(point.accuracy)),
            class_of(point.users),
            name(&format!("{of}, model"), point.accuracy),
        );
    }
    scene
}

/// How the mark of so many people is drawn.
pub(crate) fn class_of(users: u64) -> &'static str {
    if users < FEW_PEOPLE as u64 { "hollow" } else { "model" }
}

/// Lines across at round shares, with their labels.
pub(crate) fn share_axis(scene: &mut Scene, y: Scale) {
    for tick in y.ticks() {
        scene.line((LEFT, y.at(tick)), (RIGHT, y.at(tick)), "grid");
        scene.text((LEFT - 1.5, y.at(tick) + 4.0), "end", "tick", format!("{:.0} %", 100.0 * tick));
    }
}

/// Columns of a point, with the names that they have in JSON.
pub(crate) const COLUMNS: [(&str, &str); 11] = [
    ("People", "users"),
    ("n", "n"),
    ("Accuracy", "accuracy"),
    ("low", "accuracy_ci_low"),
    ("high", "accuracy_ci_high"),
    ("Log loss", "log_loss"),
    ("Population", "population_accuracy"),
    ("Gain", "gain"),
    ("low", "gain_ci_low"),
    ("high", "gain_ci_high"),
    ("Bradley-Terry", "bt_accuracy"),
];

/// The cells of [`COLUMNS`].
pub(crate) fn cells<X>(point: &Point<X>) -> Vec<Cell> {
    let end = |interval: Option<[f64; 2]>, at: usize| exact_or_empty(interval.map(|ends| ends[at]));
    let texts = [
        point.users.to_string(),
        point.n.to_string(),
        exact(point.accuracy),
        end(point.accuracy_ci, 0),
        end(point.accuracy_ci, 1),
        exact(point.log_loss),
        exact(point.population_accuracy),
        exact(point.gain),
        end(point.gain_ci, 0),
        end(point.gain_ci, 1),
        exact_or_empty(point.bt_accuracy),
    ];
    texts.into_iter().map(Cell::new).collect()
}

fn table(points: &[Point<Shots>]) -> Table {
    let columns: Vec<(&str, &'static str)> = [("Examples", "shots")].into_iter().chain(COLUMNS).collect();
    let mut table = Table::new("Accuracy by number of examples", &columns);
    for point in points {
        table.rows.push([Cell::head(short(point.at))].into_iter().chain(cells(point)).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::view::made_up;

    #[test]
    fn every_point_of_three_lines_is_drawn_and_in_the_table() {
        let curves = made_up::shots();
        let curve = of(&curves).unwrap();
        let n = curves.overall.len();
        assert_eq!(curve.plot.marks.len(), 3 * n);
        assert_eq!(curve.table.rows.len(), n);
        assert_eq!(curve.table.rows[7][0].text, "12+");
        for class in ["model", "population", "baseline"] {
            assert_eq!(curve.plot.lines.iter().filter(|line| line.class == class).count(), n - 1);
        }
        assert!(curve.words.starts_with("With 0 examples the model is right in 73.0 %"), "{}", curve.words);
    }

    #[test]
    fn a_baseline_that_is_not_known_has_no_line() {
        let mut curves = made_up::shots();
        curves.overall.iter_mut().for_each(|point| point.bt_accuracy = None);
        let curve = of(&curves).unwrap();
        assert!(!curve.has_baseline && curve.plot.marks.iter().all(|mark| mark.class != "baseline"));
        curves.overall.clear();
        assert_eq!(of(&curves), None);
    }
}
