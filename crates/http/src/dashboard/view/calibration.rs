//! Whether a model is as often right as it says: reliability, and how sure it was when right and when wrong.

use polyreward_service::{Figures, ReliabilityBin};

use super::{
    scene::{Scale, Scene, Shape},
    shots::share_axis,
    table::{Cell, Table},
    text::{count, counted, exact, exact_or_empty, percent, percent_interval, three, three_interval},
};

const HEIGHT: f64 = 260.0;

/// The section.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Calibration {
    pub reliability: Scene,
    pub reliability_table: Table,
    pub histogram: Scene,
    pub histogram_table: Table,
    pub words: String,
}

/// Predictions by the preference for what was chosen.
#[derive(Debug, Clone, PartialEq)]
struct Bar {
    from: f64,
    to: f64,
    n: f64,
    class: &'static str,
}

/// The section; none without a prediction.
pub(crate) fn of(figures: &Figures) -> Option<Calibration> {
    let bins: Vec<&ReliabilityBin> = figures.reliability.iter().filter(|bin| bin.n > 0).collect();
    if bins.is_empty() {
        return None;
    }
    let over: f64 = bins.iter().map(|bin| (bin.confidence - bin.accuracy) * bin.n as f64).sum();
    let over = over / figures.n.max(1) as f64;
    let direction = if over > 0.0 { "surer than it is right" } else { "right more often than it is sure" };
    let words = format!(
        "On average the model is {direction}, by {} of confidence. Expected calibration error {} {}.",
        percent(over.abs()),
        three(figures.ece),
        three_interval(figures.ece_ci)
    );
    let bars = bars(&bins);
    Some(Calibration {
        reliability: reliability(&bins, &words),
        reliability_table: reliability_table(&bins),
        histogram: histogram(&bars),
        histogram_table: histogram_table(&bars),
        words,
    })
}

fn reliability(bins: &[&ReliabilityBin], words: &str) -> Scene {
    let low = bins
        .iter()
        .filter_map(|bin| bin.accuracy_ci.map(|[low, _]| low).or(Some(bin.accuracy)))
        .fold(0.5, f64::min);
    let y = Scale::between((low * 10.0).floor() / 10.0, 1.0, HEIGHT - 40.0, 14.0);
    let x = Scale::across(0.5, 1.0);
    let mut scene = Scene::new("reliability-plot", "Accuracy by confidence", HEIGHT as u32);
    scene.description = format!("{words} The straight line is where confidence and accuracy are the same.");
    share_axis(&mut scene, y);
    for tick in x.ticks() {
        scene.tick((x.at(tick), HEIGHT - 22.0), format!("{:.0} %", 100.0 * tick));
    }
    scene.text((x.end(), HEIGHT - 5.0), "end", "note", "confidence");
    scene.line((x.at(0.5), y.at(0.5)), (x.at(1.0), y.at(1.0)), "overall");
    let points: Vec<(f64, f64)> = bins.iter().map(|bin| (x.at(bin.confidence), y.at(bin.accuracy))).collect();
    scene.path(&points, "model");
    for (bin, at) in bins.iter().zip(points) {
        if let Some([low, high]) = bin.accuracy_ci {
            scene.line((at.0, y.at(low)), (at.0, y.at(high)), "interval");
        }
        let title = format!(
            "sure by {}: right about {} {}, n {}",
            percent(bin.confidence),
            percent(bin.accuracy),
            percent_interval(bin.accuracy_ci),
            count(bin.n)
        );
        scene.mark(Shape::Circle, at, "model", title);
    }
    scene
}

fn class_of(bin: &ReliabilityBin) -> String {
    if bin.from == bin.to {
        percent(bin.from)
    } else {
        format!("{} to {}", percent(bin.from), percent(bin.to))
    }
}

fn reliability_table(bins: &[&ReliabilityBin]) -> Table {
    let columns = [
        ("Confidence", "class"),
        ("n", "n"),
        ("Mean confidence", "confidence"),
        ("Accuracy", "accuracy"),
        ("low", "accuracy_ci_low"),
        ("high", "accuracy_ci_high"),
    ];
    let mut table = Table::new("Accuracy by confidence", &columns);
    for bin in bins {
        table.rows.push(vec![
            Cell::head(class_of(bin)),
            Cell::new(bin.n.to_string()),
            Cell::new(exact(bin.confidence)),
            Cell::new(exact(bin.accuracy)),
            Cell::new(exact_or_empty(bin.accuracy_ci.map(|[low, _]| low))),
            Cell::new(exact_or_empty(bin.accuracy_ci.map(|[_, high]| high))),
        ]);
    }
    table
}

/// A wrong prediction that was sure by c gave 1 - c to what was chosen; a right one c.
fn bars(bins: &[&ReliabilityBin]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for bin in bins {
        let n = bin.n as f64;
        if bin.from == bin.to {
            bars.push(Bar { from: bin.from, to: bin.to, n, class: "undecided" });
            continue;
        }
        let right = (n * bin.accuracy).round();
        bars.push(Bar { from: bin.from, to: bin.to, n: right, class: "right" });
        bars.push(Bar { from: 1.0 - bin.to, to: 1.0 - bin.from, n: n - right, class: "wrong" });
    }
    bars.sort_by(|a, b| (a.from + a.to).total_cmp(&(b.from + b.to)));
    bars
}

fn histogram(bars: &[Bar]) -> Scene {
    let most = bars.iter().map(|bar| bar.n).fold(1.0, f64::max);
    let all: f64 = bars.iter().map(|bar| bar.n).sum();
    let y = Scale::between(0.0, most, HEIGHT - 40.0, 26.0);
    let x = Scale::across(0.0, 1.0);
    let mut scene =
        Scene::new("margin-histogram", "Predictions by the preference for what was chosen", HEIGHT as u32);
    let sure_and_wrong: f64 = bars.iter().filter(|bar| bar.to <= 0.1 + 1e-9).map(|bar| bar.n).sum();
    scene.description = format!(
        "Left of 50 % the model was wrong, right of it right. {} of {} were wrong and sure by more than 90 %.",
        counted(sure_and_wrong as u64, "prediction", "predictions"),
        count(all as u64)
    );
    scene.line((x.start(), y.at(0.0)), (x.end(), y.at(0.0)), "axis");
    for tick in x.ticks() {
        scene.tick((x.at(tick), HEIGHT - 22.0), format!("{:.0} %", 100.0 * tick));
    }
    scene.text((x.end(), HEIGHT - 5.0), "end", "note", "preference for what was chosen");
    scene.text((x.at(0.25), 14.0), "middle", "note", "wrong");
    scene.text((x.at(0.75), 14.0), "middle", "note", "right");
    for bar in bars {
        let title = format!("{}: {}", range(bar), counted(bar.n as u64, "prediction", "predictions"));
        let (from, to) = if bar.from == bar.to {
            (x.at(bar.from) - 0.6, x.at(bar.to) + 0.6)
        } else {
            (x.at(bar.from) + 0.7, x.at(bar.to) - 0.7)
        };
        scene.rect((from, y.at(bar.n)), (to, y.at(0.0)), bar.class, title);
    }
    // The middle is where the model changes sides.
    scene.line((x.at(0.5), 4.0), (x.at(0.5), y.at(0.0)), "overall");
    scene
}

fn range(bar: &Bar) -> String {
    if bar.from == bar.to {
        percent(bar.from)
    } else {
        format!("{} to {}", percent(bar.from), percent(bar.to))
    }
}

fn histogram_table(bars: &[Bar]) -> Table {
    let columns = [("Preference for what was chosen", "class"), ("The model was", "side"), ("n", "n")];
    let mut table = Table::new("Predictions by the preference for what was chosen", &columns);
    for bar in bars {
        let n = format!("{:.0}", bar.n);
        table.rows.push(vec![Cell::head(range(bar)), Cell::new(bar.class), Cell::new(n)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::view::made_up;

    #[test]
    fn the_histogram_counts_every_prediction_once_and_wrong_ones_left_of_the_middle() {
        let figures = made_up::figures(300, 0.8, 0.01);
        let bins: Vec<&ReliabilityBin> = figures.reliability.iter().collect();
        let bars = bars(&bins);
        let all: u64 = bins.iter().map(|bin| bin.n).sum();
        assert_eq!(bars.iter().map(|bar| bar.n).sum::<f64>(), all as f64);
        assert_eq!(bars.len(), 11);
        for bar in &bars {
            match bar.class {
                "wrong" => assert!(bar.to <= 0.5 + 1e-9),
                "right" => assert!(bar.from >= 0.5 - 1e-9),
                _ => assert_eq!((bar.from, bar.to), (0.5, 0.5)),
            }
        }
    }

    #[test]
    fn the_curve_has_a_point_for_every_class_that_is_not_empty() {
        let mut figures = made_up::figures(300, 0.8, 0.01);
        figures.reliability[2].n = 0;
        let calibration = of(&figures).unwrap();
        assert_eq!(calibration.reliability.marks.len(), 5);
        assert_eq!(calibration.reliability_table.rows.len(), 5);
        figures.reliability.clear();
        assert_eq!(of(&figures), None);
    }
}
