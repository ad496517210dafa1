//! A drawing: what an SVG shows, in per cent across and pixels down, so that it fits any width and its text keeps its size.

/// Where the plot begins, in per cent of the width: axis labels stand left of it.
pub(crate) const LEFT: f64 = 13.0;
/// Where it ends.
pub(crate) const RIGHT: f64 = 95.0;

/// A straight line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub x1: String,
    pub y1: String,
    pub x2: String,
    pub y2: String,
    pub class: &'static str,
}

/// A filled area.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rect {
    pub x: String,
    pub y: String,
    pub width: String,
    pub height: String,
    pub class: String,
    /// What a pointer that rests on it is told.
    pub title: String,
}

/// The form of a mark: one of the signs, beside colour, of what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Diamond,
}

/// A point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    pub shape: Shape,
    pub x: String,
    pub y: String,
    pub class: &'static str,
    /// What a pointer that rests on it is told.
    pub title: String,
}

/// A line of text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Text {
    pub x: String,
    pub y: String,
    /// `start`, `middle` or `end`.
    pub anchor: &'static str,
    pub class: &'static str,
    pub shown: String,
    /// The whole, where the text is cut; else the same.
    pub title: String,
}

/// A drawing with its name and a description for those who do not see it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scene {
    /// Unlike any other on its page.
    pub id: String,
    pub title: String,
    pub description: String,
    /// `100%`, or pixels for a drawing that is scrolled.
    pub width: String,
    /// In pixels.
    pub height: u32,
    pub rects: Vec<Rect>,
    pub lines: Vec<Line>,
    pub marks: Vec<Mark>,
    pub texts: Vec<Text>,
}

impl Scene {
    /// Nothing yet, as wide as there is room.
    pub fn new(id: impl Into<String>, title: impl Into<String>, height: u32) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            description: String::new(),
            width: "100%".to_owned(),
            height,
            rects: Vec::new(),
            lines: Vec::new(),
            marks: Vec::new(),
            texts: Vec::new(),
        }
    }

    /// A line between places in per cent and pixels.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &'static str) {
        self.lines.push(Line {
            x1: percent(from.0),
            y1: pixels(from.1),
            x2: percent(to.0),
            y2: pixels(to.1),
            class,
        });
    }

    /// A mark.
    pub fn mark(&mut self, shape: Shape, at: (f64, f64), class: &'static str, title: impl Into<String>) {
        self.marks.push(Mark { shape, x: percent(at.0), y: pixels(at.1), class, title: title.into() });
    }

    /// A text that is whole.
    pub fn text(
        &mut self,
        at: (f64, f64),
        anchor: &'static str,
        class: &'static str,
        text: impl Into<String>,
    ) {
        let text = text.into();
        self.texts.push(Text {
            x: percent(at.0),
            y: pixels(at.1),
            anchor,
            class,
            title: text.clone(),
            shown: text,
        });
    }

    /// The label of a place across, within the drawing also at its edges.
    pub fn tick(&mut self, at: (f64, f64), text: impl Into<String>) {
        let anchor = match at.0 {
            x if x < 8.0 => "start",
            x if x > 88.0 => "end",
            _ => "middle",
        };
        self.text(at, anchor, "tick", text);
    }

    /// A box between places in per cent and pixels.
    pub fn rect(
        &mut self,
        from: (f64, f64),
        to: (f64, f64),
        class: impl Into<String>,
        title: impl Into<String>,
    ) {
        self.rects.push(Rect {
            x: percent(from.0),
            y: pixels(from.1),
            width: percent((to.0 - from.0).max(0.0)),
            height: pixels((to.1 - from.1).max(0.0)),
            class: class.into(),
            title: title.into(),
        });
    }

    /// Joins points that follow each other.
    pub fn path(&mut self, points: &[(f64, f64)], class: &'static str) {
        for ends in points.windows(2) {
            self.line(ends[0], ends[1], class);
        }
    }
}

/// A place across in per cent of the width.
pub(crate) fn percent(x: f64) -> String {
    format!("{}%", (x * 100.0).round() / 100.0)
}

/// A place down in pixels.
pub(crate) fn pixels(y: f64) -> String {
    format!("{}", (y * 10.0).round() / 10.0)
}

/// From values to places along one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Values from `low` to `high` across the whole plot.
    pub fn across(low: f64, high: f64) -> Self {
        Self { low, high, from: LEFT, to: RIGHT }
    }

    /// Values from `low` to `high` between places; `from` is the place of `low`.
    pub fn between(low: f64, high: f64, from: f64, to: f64) -> Self {
        Self { low, high, from, to }
    }

    /// Where a value stands; one outside stands at the edge.
    pub fn at(self, value: f64) -> f64 {
        let span = self.high - self.low;
        let part = if span > 0.0 { ((value - self.low) / span).clamp(0.0, 1.0) } else { 0.5 };
        self.from + part * (self.to - self.from)
    }

    /// The place of the least value.
    pub fn start(self) -> f64 {
        self.from
    }

    /// The place of the greatest.
    pub fn end(self) -> f64 {
        self.to
    }

    /// Round values to label, at most seven.
    pub fn ticks(self) -> Vec<f64> {
        let span = self.high - self.low;
        let step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
            .into_iter()
            .find(|step| span / step <= 6.0 + 1e-9)
            .unwrap_or(span.max(f64::MIN_POSITIVE));
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|at| at as f64 * step).collect()
    }
}

/// A range of shares that holds all of these, at least a fifth wide, with edges at whole twentieths.
pub(crate) fn range_of_shares(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .into_iter()
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0.0, 1.0);
    }
    // In twentieths, so that sums are exact.
    let (low, high) = ((low * 20.0 - 1e-9).floor().max(0.0), (high * 20.0 + 1e-9).ceil().min(20.0));
    let missing = (4.0 - (high - low)).max(0.0);
    let high = (high + (missing / 2.0).floor()).min(20.0);
    let low = (low - (4.0 - (high - low)).max(0.0)).max(0.0);
    (low / 20.0, high.max(4.0) / 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_puts_values_between_its_ends_and_never_outside() {
        let scale = Scale::between(0.5, 1.0, 10.0, 90.0);
        assert_eq!((scale.at(0.5), scale.at(0.75), scale.at(1.0)), (10.0, 50.0, 90.0));
        assert_eq!((scale.at(0.0), scale.at(7.0)), (10.0, 90.0));
        assert_eq!(Scale::between(1.0, 1.0, 0.0, 10.0).at(1.0), 5.0);
    }

    #[test]
    fn ticks_are_round_and_few() {
        for (low, high) in [(0.0, 1.0), (0.45, 0.95), (0.8, 0.9), (-3.0, 4.5), (0.0, 60.0)] {
            let ticks = Scale::across(low, high).ticks();
            assert!((2..=7).contains(&ticks.len()), "{low} {high} {ticks:?}");
            assert!(ticks.iter().all(|tick| (low - 1e-9..=high + 1e-9).contains(tick)), "{ticks:?}");
        }
    }

    #[test]
    fn a_range_of_shares_holds_them_all() {
        assert_eq!(range_of_shares([0.512, 0.87]), (0.5, 0.9));
        assert_eq!(range_of_shares([]), (0.0, 1.0));
        let (low, high) = range_of_shares([0.7]);
        assert!(low < 0.7 && high > 0.7 && high - low >= 0.2 - 1e-12, "{low} {high}");
        assert_eq!(range_of_shares([1.0, f64::NAN]), (0.8, 1.0));
        assert_eq!(range_of_shares([0.0]), (0.0, 0.2));
    }
}
