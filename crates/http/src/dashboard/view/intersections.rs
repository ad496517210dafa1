//! Where two attributes meet: a map of accuracy, and the combinations from the worst on.

use std::collections::BTreeMap;

use polyreward_service::{Accuracy, GroupFigures};

use super::{
    groups::FEW_PEOPLE,
    scene::{Rect, Scene, Text, pixels},
    table::{Cell, Table},
    text::{Label, count, counted, cut, exact, exact_or_empty, percent, percent_interval, value_of},
};

/// Values of one attribute that the map shows.
const SIDE: usize = 20;
/// Combinations in the table.
const ROWS: usize = 50;
const LABELS: f64 = 150.0;
const TOP: f64 = 30.0;
const WIDTH: f64 = 56.0;
const HEIGHT: f64 = 34.0;
/// Shares at which the shade changes.
const SHADES: [f64; 4] = [0.55, 0.65, 0.75, 0.85];

/// The section.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Intersections {
    pub map: Scene,
    pub table: Table,
    /// What the map leaves out.
    pub notes: Vec<String>,
}

/// The section; none where no combination is shown.
pub(crate) fn of(accuracy: &Accuracy) -> Option<Intersections> {
    let [first, second] = accuracy.group_by.as_slice() else { return None };
    if accuracy.groups.is_empty() {
        return None;
    }
    let (rows, all_rows) = values(accuracy, 0);
    let (columns, all_columns) = values(accuracy, 1);
    let mut notes = Vec::new();
    if rows.len() < all_rows || columns.len() < all_columns {
        notes.push(format!(
            "The map shows the values with the most predictions: {} of {} and {} of {}.",
            rows.len(),
            count(all_rows as u64),
            columns.len(),
            count(all_columns as u64)
        ));
    }
    if accuracy.suppressed_groups > 0 {
        notes.push(format!(
            "{} of fewer than {} counted and not shown.",
            counted(accuracy.suppressed_groups as u64, "combination", "combinations"),
            counted(accuracy.min_users as u64, "person is", "people are")
        ));
    }
    if accuracy.groups.len() > ROWS {
        notes.push(format!(
            "The table has the {ROWS} with the lowest bound of {}.",
            count(accuracy.groups.len() as u64)
        ));
    }
    let map = map(accuracy, (first, second), &rows, &columns);
    Some(Intersections { map, table: table(accuracy, first, second), notes })
}

type Value = Option<String>;

/// The values of an attribute with the most predictions, in their order; and how many there are.
fn values(accuracy: &Accuracy, at: usize) -> (Vec<Value>, usize) {
    let mut sums: BTreeMap<&Value, u64> = BTreeMap::new();
    for group in &accuracy.groups {
        *sums.entry(&group.group[at]).or_default() += group.figures.n;
    }
    let all = sums.len();
    let mut values: Vec<(&Value, u64)> = sums.into_iter().collect();
    values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    values.truncate(SIDE);
    let mut values: Vec<Value> = values.into_iter().map(|(value, _)| value.clone()).collect();
    values.sort();
    (values, all)
}

fn map(accuracy: &Accuracy, names: (&str, &str), rows: &[Value], columns: &[Value]) -> Scene {
    let height = TOP + HEIGHT * rows.len() as f64;
    let mut scene = Scene::new(
        "intersections-map",
        format!("Accuracy by {} and {}", names.0, names.1),
        height as u32 + 2,
    );
    scene.width = pixels(LABELS + WIDTH * columns.len() as f64 + 2.0);
    scene.description = format!(
        "A map of {} by {} values. Each cell is the accuracy of one combination in per cent; an empty one has too few \
         people, a dashed one fewer than {FEW_PEOPLE}. The table below has the numbers, the worst first.",
        rows.len(),
        columns.len()
    );
    let by_group: BTreeMap<&[Value], &GroupFigures> =
        accuracy.groups.iter().map(|group| (group.group.as_slice(), group)).collect();
    for (at, value) in columns.iter().enumerate() {
        let x = LABELS + WIDTH * (at as f64 + 0.5);
        scene.texts.push(label(value, 8, (x, 20.0), "middle"));
    }
    for (at, value) in rows.iter().enumerate() {
        let y = TOP + HEIGHT * at as f64;
        scene.texts.push(label(value, 16, (LABELS - 8.0, y + 21.0), "end"));
        for (column, other) in columns.iter().enumerate() {
            let x = LABELS + WIDTH * column as f64;
            let found = by_group.get([value.clone(), other.clone()].as_slice());
            draw_cell(&mut scene, (x, y), found.copied(), [value, other], accuracy.min_users);
        }
    }
    scene
}

fn label(value: &Value, chars: usize, at: (f64, f64), anchor: &'static str) -> Text {
    let full = value_of(value.as_ref()).to_owned();
    Text { x: pixels(at.0), y: pixels(at.1), anchor, class: "tick", shown: cut(&full, chars), title: full }
}

fn draw_cell(
    scene: &mut Scene,
    at: (f64, f64),
    found: Option<&GroupFigures>,
    names: [&Value; 2],
    min_users: usize,
) {
    let names = names.map(|value| value_of(value.as_ref())).join(" × ");
    let (class, title, text) = match found {
        None => ("cell none".to_owned(), format!("{names}: fewer than {min_users} people"), String::new()),
        Some(group) => {
            let figures = &group.figures;
            let few = if figures.users < FEW_PEOPLE { " few" } else { "" };
            let title = format!(
                "{names}: {} {}, n {}, {}",
                percent(figures.accuracy),
                percent_interval(figures.accuracy_ci),
                count(figures.n),
                counted(figures.users as u64, "person", "people")
            );
            (
                format!("cell shade{}{few}", shade(figures.accuracy)),
                title,
                format!("{:.0}", 100.0 * figures.accuracy),
            )
        }
    };
    let (x, y) = at;
    scene.rects.push(Rect {
        x: pixels(x + 1.5),
        y: pixels(y + 1.5),
        width: pixels(WIDTH - 3.0),
        height: pixels(HEIGHT - 3.0),
        class,
        title: title.clone(),
    });
    if let Some(group) = found {
        let class = match shade(group.figures.accuracy) {
            0 | 4 => "cell-text strong",
            _ => "cell-text",
        };
        let (x, y) = (pixels(x + WIDTH / 2.0), pixels(y + 21.0));
        scene.texts.push(Text { x, y, anchor: "middle", class, shown: text, title });
    }
}

/// Which of five shades, the first for the worst.
fn shade(accuracy: f64) -> usize {
    SHADES.iter().filter(|edge| accuracy >= **edge).count()
}

fn table(accuracy: &Accuracy, first: &str, second: &str) -> Table {
    let mut groups: Vec<&GroupFigures> = accuracy.groups.iter().collect();
    let lower =
        |group: &GroupFigures| group.figures.accuracy_ci.map_or(group.figures.accuracy, |[low, _]| low);
    groups.sort_by(|a, b| lower(a).total_cmp(&lower(b)).then_with(|| a.group.cmp(&b.group)));
    let columns = [
        (first, "first"),
        (second, "second"),
        ("People", "users"),
        ("n", "n"),
        ("Accuracy", "accuracy"),
        ("low", "accuracy_ci_low"),
        ("high", "accuracy_ci_high"),
        ("Gain", "gain"),
        ("Few people", "few"),
    ];
    let mut table = Table::new("Accuracy by combination, the worst first", &columns);
    for group in groups.into_iter().take(ROWS) {
        let figures = &group.figures;
        let name = |at: usize| Label::new(value_of(group.group[at].as_ref()));
        table.rows.push(vec![
            Cell::name(&name(0)),
            Cell::name(&name(1)),
            Cell::new(figures.users.to_string()),
            Cell::new(figures.n.to_string()),
            Cell::new(exact(figures.accuracy)),
            Cell::new(exact_or_empty(figures.accuracy_ci.map(|[low, _]| low))),
            Cell::new(exact_or_empty(figures.accuracy_ci.map(|[_, high]| high))),
            Cell::new(exact(figures.gain)),
            Cell::new(if figures.users < FEW_PEOPLE { "yes" } else { "no" }),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::view::made_up;

    #[test]
    fn the_map_has_a_cell_for_every_combination_and_shows_no_more_than_fits() {
        let small = of(&made_up::crossed(3, 4)).unwrap();
        assert_eq!(small.map.rects.len(), 12);
        assert!(small.map.rects.iter().any(|cell| cell.class == "cell none"));
        assert!(small.map.rects.iter().any(|cell| cell.class.ends_with(" few")));
        let large = of(&made_up::crossed(40, 30)).unwrap();
        assert_eq!(large.map.rects.len(), SIDE * SIDE);
        assert_eq!(large.table.rows.len(), ROWS);
        assert!(large.notes[0].contains("20 of 40 and 20 of 30"), "{:?}", large.notes);
    }

    #[test]
    fn the_table_begins_with_the_worst() {
        let table = of(&made_up::crossed(5, 5)).unwrap().table;
        let lows: Vec<f64> = table.rows.iter().map(|row| row[5].text.parse().unwrap()).collect();
        assert!(lows.is_sorted(), "{lows:?}");
    }

    #[test]
    fn one_attribute_has_no_intersections() {
        assert_eq!(of(&made_up::unfair()), None);
    }
}
