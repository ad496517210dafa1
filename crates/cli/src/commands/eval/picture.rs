//! Accuracy of unseen people against the number of their examples, as an SVG that stands alone.

use std::fmt::Write as _;

use polyreward_heads::evaluation::Interval;

use super::report::{Report, ShotReport};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 176.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 56.0;

/// Colours that people who tell few apart still tell apart (Okabe and Ito, 2008), without the yellow, which white swallows.
const COLOURS: [&str; 7] = ["#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];

/// One line of the picture.
struct Curve {
    name: String,
    /// Accuracy and its interval at each number of examples.
    points: Vec<(f64, Option<Interval>)>,
}

/// Draws a curve for each model with the interval of each point, and the oracle as a dotted line.
pub(super) fn draw(report: &Report) -> String {
    let curves = curves(report);
    let examples: Vec<usize> = report
        .models
        .iter()
        .find(|model| !model.shots.is_empty())
        .map(|model| model.shots.iter().map(|shot| shot.examples).collect())
        .unwrap_or_default();
    let oracle = report.oracle.as_ref().map(|oracle| oracle.overall.summary.accuracy);
    let frame = Frame::around(&curves, oracle, examples.len());
    let mut svg = String::new();
    let mut put = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    put(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="13" role="img" aria-labelledby="title">"#
    ));
    let title = "Accuracy on unseen people, by number of their examples";
    put(format!(r##"<title id="title">{title}</title><rect width="100%" height="100%" fill="#ffffff"/>"##));
    put(format!(r#"<text x="{LEFT}" y="24" font-size="16" font-weight="bold">{title}</text>"#));
    put(format!(
        r##"<text x="{LEFT}" y="42" fill="#555555">Bars: 95 % intervals, bootstrap over people</text>"##
    ));
    for accuracy in frame.ticks() {
        let y = frame.y(accuracy);
        put(format!(
            r##"<line x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}" stroke="#dddddd"/><text x="{:.1}" y="{:.1}" text-anchor="end">{accuracy:.2}</text>"##,
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0
        ));
    }
    for (at, count) in examples.iter().enumerate() {
        put(format!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{count}</text>"#,
            frame.x(at),
            HEIGHT - BOTTOM + 20.0
        ));
    }
    put(format!(
        r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">examples</text>"#,
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 14.0
    ));
    let mut labels = Vec::new();
    if let Some(accuracy) = oracle {
        let y = frame.y(accuracy);
        put(format!(
            r##"<line x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}" stroke="#555555" stroke-dasharray="2 4"/>"##,
            WIDTH - RIGHT
        ));
        labels.push((y, "#555555", "oracle, told the group".to_owned()));
    }
    for (at, curve) in curves.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        put(line(curve, &frame, colour, at, curves.len()));
        if let Some((accuracy, _)) = curve.points.last() {
            labels.push((frame.y(*accuracy), colour, curve.name.clone()));
        }
    }
    for (y, colour, text) in apart(labels) {
        put(format!(
            r#"<text x="{:.1}" y="{:.1}" fill="{colour}">{}</text>"#,
            WIDTH - RIGHT + 10.0,
            y + 4.0,
            escaped(&text)
        ));
    }
    put("</svg>".to_owned());
    svg
}

/// A model's curve, or the mean of the models of one name with the span of their accuracies.
fn curves(report: &Report) -> Vec<Curve> {
    let mut curves: Vec<Curve> = report
        .by_name
        .iter()
        .map(|name| Curve {
            name: format!("{} (mean of {})", name.name, name.models),
            points: name.shots.iter().map(|shot| (shot.mean, Some([shot.lowest, shot.highest]))).collect(),
        })
        .collect();
    let alone = report
        .models
        .iter()
        .filter(|model| !model.shots.is_empty() && report.by_name.iter().all(|name| name.name != model.name));
    let point = |shot: &ShotReport| (shot.overall.summary.accuracy, shot.overall.summary.accuracy_ci);
    curves.extend(
        alone
            .map(|model| Curve { name: model.name.clone(), points: model.shots.iter().map(point).collect() }),
    );
    curves
}

fn line(curve: &Curve, frame: &Frame, colour: &str, at: usize, curves: usize) -> String {
    // Bars of different curves stand beside one another.
    let aside = (at as f64 - (curves as f64 - 1.0) / 2.0) * 3.0;
    let mut points = String::new();
    let mut bars = String::new();
    for (shot, (accuracy, interval)) in curve.points.iter().enumerate() {
        let (x, y) = (frame.x(shot) + aside, frame.y(*accuracy));
        write!(points, "{x:.1},{y:.1} ").expect("writing to a string cannot fail");
        write!(bars, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#)
            .expect("writing to a string cannot fail");
        if let Some([low, high]) = interval {
            write!(
                bars,
                r#"<line x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{:.1}" stroke="{colour}" stroke-opacity="0.5"/>"#,
                frame.y(*low),
                frame.y(*high)
            )
            .expect("writing to a string cannot fail");
        }
    }
    format!(
        r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>{bars}"#,
        points.trim_end()
    )
}

/// Labels from the top down, each a line below the one before and all beside the frame; more than it has lines stand closer.
fn apart(mut labels: Vec<(f64, &str, String)>) -> Vec<(f64, &str, String)> {
    const LINE: f64 = 16.0;
    let lowest = HEIGHT - BOTTOM;
    let line = LINE.min((lowest - TOP) / (labels.len().max(2) - 1) as f64);
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    for at in 1..labels.len() {
        labels[at].0 = labels[at].0.max(labels[at - 1].0 + line);
    }
    // What ran out at the bottom moves up, and takes with it whatever it meets.
    let mut room = lowest;
    for (y, _, _) in labels.iter_mut().rev() {
        *y = y.min(room);
        room = *y - line;
    }
    labels
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Where numbers lie on the paper.
struct Frame {
    lowest: f64,
    highest: f64,
    places: usize,
}

impl Frame {
    /// Twentieths around all that is drawn.
    fn around(curves: &[Curve], oracle: Option<f64>, places: usize) -> Self {
        let drawn = curves.iter().flat_map(|curve| &curve.points).flat_map(|(accuracy, interval)| {
            interval.map_or([*accuracy, *accuracy], |[low, high]| [low, high])
        });
        let (lowest, highest) = drawn
            .chain(oracle)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if lowest > highest {
            return Self { lowest: 0.0, highest: 1.0, places };
        }
        let lowest = (lowest * 20.0).floor() / 20.0;
        Self { lowest, highest: ((highest * 20.0).ceil() / 20.0).max(lowest + 0.05), places }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.lowest * 20.0).round() as i32;
        let last = (self.highest * 20.0).round() as i32;
        (first..=last).map(|twentieth| f64::from(twentieth) / 20.0)
    }

    fn x(&self, place: usize) -> f64 {
        let inner = WIDTH - LEFT - RIGHT - 40.0;
        LEFT + 20.0 + inner * place as f64 / (self.places.max(2) - 1) as f64
    }

    fn y(&self, accuracy: f64) -> f64 {
        let share = (accuracy - self.lowest) / (self.highest - self.lowest);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_cover_one_another() {
        let labels = apart(vec![(50.0, "", "b".into()), (49.0, "", "a".into()), (200.0, "", "c".into())]);
        let places: Vec<_> = labels.iter().map(|(y, _, text)| (*y, text.as_str())).collect();
        assert_eq!(places, [(49.0, "a"), (65.0, "b"), (200.0, "c")]);
    }

    #[test]
    fn labels_of_curves_that_end_low_stay_beside_the_frame() {
        for count in [2, 9, 40] {
            let bottom = HEIGHT - BOTTOM;
            let labels =
                apart((0..count).map(|at| (bottom - f64::from(at) * 0.5, "", at.to_string())).collect());
            let places: Vec<f64> = labels.iter().map(|(y, _, _)| *y).collect();
            assert!(places.iter().all(|y| (TOP - 1e-9..=bottom).contains(y)), "{places:?}");
            let line = 16.0_f64.min((bottom - TOP) / f64::from(count - 1));
            assert!(places.windows(2).all(|two| two[1] - two[0] >= line - 1e-9), "{places:?}");
            assert_eq!(labels[0].2, (count - 1).to_string());
        }
        assert!(apart(Vec::new()).is_empty());
    }

    #[test]
    fn everything_drawn_lies_in_the_frame() {
        let curve = Curve { name: "a".into(), points: vec![(0.62, Some([0.58, 0.66])), (0.91, None)] };
        let frame = Frame::around(&[curve], Some(0.97), 2);
        for accuracy in [0.58, 0.97] {
            assert!((TOP..=HEIGHT - BOTTOM).contains(&frame.y(accuracy)), "{accuracy}");
        }
        assert!(frame.y(0.97) < frame.y(0.58));
        assert!((0..2).all(|place| (LEFT..=WIDTH - RIGHT).contains(&frame.x(place))));
    }
}
