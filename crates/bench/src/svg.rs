//! Curves as small plots on one page, in an SVG that stands alone.

use std::fmt::Write as _;

use crate::{
    record::{Curve, Series},
    render::number,
    statistics::Spread,
};

const COLUMNS: usize = 2;
/// One plot with its labels.
const WIDTH: f64 = 470.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 46.0;
/// From which ratio of largest to least on an axis shows powers.
const WIDE: f64 = 20.0;

/// Colours that people who tell few apart still tell apart (Okabe and Ito, 2008), without the yellow, which white swallows.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00"];

/// A plot for each curve, medians as points and the spread of the rounds as bars.
pub fn draw(title: &str, curves: &[Curve]) -> String {
    let rows = curves.len().div_ceil(COLUMNS);
    let (width, height) = (COLUMNS as f64 * WIDTH, 40.0 + rows as f64 * HEIGHT);
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="11" role="img" aria-labelledby="title">
<title id="title">{title}</title><rect width="100%" height="100%" fill="#ffffff"/>
<text x="16" y="24" font-size="15" font-weight="bold">{title}</text>
"##,
        title = escaped(title)
    );
    for (at, curve) in curves.iter().enumerate() {
        let (x, y) = ((at % COLUMNS) as f64 * WIDTH, 40.0 + (at / COLUMNS) as f64 * HEIGHT);
        writeln!(svg, r#"<g transform="translate({x} {y})">{}</g>"#, plot(curve)).expect(TO_A_STRING);
    }
    svg.push_str("</svg>\n");
    svg
}

const TO_A_STRING: &str = "writing to a string cannot fail";

fn plot(curve: &Curve) -> String {
    let spreads: Vec<(&Series, Vec<(f64, Spread)>)> = curve
        .series
        .iter()
        .map(|series| {
            let points = series.points.iter();
            (series, points.filter_map(|(x, values)| Some((*x, Spread::of(values)?))).collect())
        })
        .collect();
    let mut svg = String::new();
    let mut put = |text: String| svg.push_str(&text);
    put(format!(r#"<text x="{LEFT}" y="16" font-weight="bold">{}</text>"#, escaped(&curve.title)));
    let xs = || spreads.iter().flat_map(|(_, points)| points.iter().map(|(x, _)| *x));
    let ys = || spreads.iter().flat_map(|(_, points)| points.iter().flat_map(|(_, y)| [y.min, y.max]));
    if xs().next().is_none() {
        put(format!(r##"<text x="{LEFT}" y="{TOP}" fill="#555555">not measured</text>"##));
        return svg;
    }
    let across = Axis::around(xs(), LEFT, WIDTH - RIGHT);
    let up = Axis::around(ys(), HEIGHT - BOTTOM, TOP);
    for value in up.ticks() {
        let y = up.place(value);
        put(format!(
            r##"<line x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}" stroke="#dddddd"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"##,
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            number(value)
        ));
    }
    for value in across.ticks() {
        let x = across.place(value);
        put(format!(
            r##"<line x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{:.1}" stroke="#eeeeee"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"##,
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0,
            number(value)
        ));
    }
    let unit =
        if curve.unit.is_empty() { curve.what.clone() } else { format!("{}, {}", curve.what, curve.unit) };
    put(format!(
        r##"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}s</text><text x="{LEFT}" y="{:.1}" fill="#555555">{}</text>"##,
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 12.0,
        escaped(&curve.per),
        TOP - 20.0,
        escaped(&unit)
    ));
    let mut legend = LEFT;
    for (at, (series, points)) in spreads.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let mut line = String::new();
        for (x, y) in points {
            let x = across.place(*x);
            write!(line, "{x:.1},{:.1} ", up.place(y.median)).expect(TO_A_STRING);
            put(format!(
                r#"<line x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{:.1}" stroke="{colour}" stroke-opacity="0.4"/><circle cx="{x:.1}" cy="{:.1}" r="2.5" fill="{colour}"/>"#,
                up.place(y.min),
                up.place(y.max),
                up.place(y.median)
            ));
        }
        put(format!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="1.5"/>"#,
            line.trim_end()
        ));
        if !series.name.is_empty() {
            put(format!(
                r#"<text x="{legend:.1}" y="{:.1}" fill="{colour}">{}</text>"#,
                TOP - 6.0,
                escaped(&series.name)
            ));
            legend += 16.0 + 6.0 * series.name.chars().count() as f64;
        }
    }
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Where values lie between two edges: in proportion, or by their powers of ten where they span a wide range.
struct Axis {
    powers: bool,
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let powers = least > 0.0 && most / least >= WIDE;
        let (least, most) = if powers { (least, most) } else { (least.min(0.0), most) };
        Self { powers, least, most: if most > least { most } else { least + 1.0 }, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = if self.powers {
            (value / self.least).ln() / (self.most / self.least).ln()
        } else {
            (value - self.least) / (self.most - self.least)
        };
        self.from + share * (self.to - self.from)
    }

    /// Round numbers in the range: powers of ten, with 2 and 5 between them where there are few.
    fn ticks(&self) -> Vec<f64> {
        let inside = |value: &f64| *value >= self.least * (1.0 - 1e-9) && *value <= self.most * (1.0 + 1e-9);
        if self.powers {
            let decades = self.least.log10().floor() as i32..=self.most.log10().ceil() as i32;
            let of = |steps: &[f64]| -> Vec<f64> {
                let all =
                    decades.clone().flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
                all.filter(inside).collect()
            };
            let few = of(&[1.0]);
            return if few.len() >= 3 { few } else { of(&[1.0, 2.0, 5.0]) };
        }
        let rough = (self.most - self.least) / 4.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= rough);
        let step = step.expect("ten times its power of ten is no less than a number");
        // The edges may be off by a bit of the last place.
        let (first, last) =
            ((self.least / step - 1e-9).ceil() as i64, (self.most / step + 1e-9).floor() as i64);
        (first..=last).map(|at| at as f64 * step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(values: &[f64]) -> Axis {
        Axis::around(values.iter().copied(), 0.0, 100.0)
    }

    #[test]
    fn a_wide_range_is_shown_by_its_powers() {
        let wide = axis(&[1.0, 100.0, 1e4]);
        assert_eq!((wide.place(1.0), wide.place(100.0).round(), wide.place(1e4)), (0.0, 50.0, 100.0));
        assert_eq!(wide.ticks(), [1.0, 10.0, 100.0, 1e3, 1e4]);
        assert_eq!(axis(&[3.0, 90.0]).ticks(), [5.0, 10.0, 20.0, 50.0]);
    }

    #[test]
    fn a_narrow_range_begins_at_nothing() {
        let narrow = axis(&[4.0, 8.0]);
        assert_eq!((narrow.place(0.0), narrow.place(8.0)), (0.0, 100.0));
        assert_eq!(narrow.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(axis(&[0.0, 0.0]).ticks().first(), Some(&0.0));
    }

    #[test]
    fn every_point_lies_in_its_plot_and_names_are_escaped() {
        let points = [(0.0, vec![1.0, 2.0, 3.0]), (512.0, vec![400.0]), (7.0, vec![])];
        let series = Series { name: "a<b".into(), points: points.to_vec() };
        let curve = Curve {
            title: "what & why".into(),
            per: "example".into(),
            what: "latency".into(),
            unit: "ms".into(),
            series: vec![series],
            additive: true,
            note: String::new(),
        };
        let svg = plot(&curve);
        assert!(svg.contains("what &amp; why") && svg.contains("a&lt;b"), "{svg}");
        let circles: Vec<&str> = svg.split("<circle ").skip(1).collect();
        assert_eq!(circles.len(), 2, "a point without a value is not drawn");
        let place = |text: &str, name: &str| -> f64 {
            let (_, rest) = text.split_once(&format!("{name}=\"")).unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        for circle in circles {
            assert!((LEFT..=WIDTH - RIGHT).contains(&place(circle, "cx")), "{circle}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&place(circle, "cy")), "{circle}");
        }
        assert!(draw("t", &[curve.clone(), curve]).ends_with("</svg>\n"));
    }
}
