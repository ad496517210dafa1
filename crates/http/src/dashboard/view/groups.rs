//! For which groups a reward is right: the forest plot, who gains, and whether people agree.

use std::cmp::Ordering;

use polyreward_service::{Accuracy, Agreement, Alpha, Figures, GroupFigures};

use super::{
    headline::groups_differ,
    scene::{Scale, Scene, Shape, Text, percent as across, pixels, range_of_shares},
    table::{Cell, Table},
    text::{
        Label, count, counted, exact, exact_or_empty, group_label, named_group, percent, percent_interval,
        points, points_interval, signed,
    },
};
use crate::dashboard::controls::Sort;

/// Groups on one page.
pub(crate) const ROWS: usize = 50;
/// A group of fewer people is drawn hollow: its interval is wide and its place may be chance.
pub(crate) const FEW_PEOPLE: usize = 20;
/// Groups named in a list of who gains or loses.
const NAMED: usize = 8;

const TOP: f64 = 40.0;
const ROW: f64 = 50.0;

/// The section.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Groups {
    /// What the groups are made of; empty where they are not.
    pub attribute: Label,
    /// Whether the groups are shown to differ, in a sentence.
    pub verdict: String,
    /// The plot of this page; none where there is no group to show.
    pub plot: Option<Scene>,
    pub table: Table,
    pub suppressed: String,
    pub gains: Gains,
    pub agreement: Vec<(String, String)>,
    /// Pages of groups, from 1; with the one that is shown.
    pub pages: usize,
    pub page: usize,
    /// Which of how many groups are shown.
    pub shown: String,
}

/// Who gains of being known, and who loses.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Gains {
    pub gain: Vec<Gain>,
    pub lose: Vec<Gain>,
    /// Those beyond the ones named, and those of whom neither is shown.
    pub others: Vec<String>,
}

/// One group's gain.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gain {
    pub name: Label,
    pub value: String,
}

/// The section, with one page of groups.
pub(crate) fn of(accuracy: &Accuracy, sort: Sort, page: usize) -> Groups {
    let mut order: Vec<&GroupFigures> = accuracy.groups.iter().collect();
    order.sort_by(|a, b| by(sort, a, b));
    let pages = order.len().div_ceil(ROWS).max(1);
    let from = (page - 1) * ROWS;
    let rows: Vec<&GroupFigures> = order.iter().skip(from).take(ROWS).copied().collect();
    let shown = match (order.len(), rows.len()) {
        (_, 0) => String::new(),
        (all, here) if all == here => String::new(),
        (all, here) => format!("Groups {} to {} of {}.", from + 1, from + here, count(all as u64)),
    };
    Groups {
        attribute: Label::new(accuracy.group_by.join(" × ")),
        verdict: verdict(accuracy),
        plot: (!rows.is_empty()).then(|| plot(accuracy, &rows)),
        table: table(accuracy, &rows),
        suppressed: suppressed(accuracy),
        gains: gains(accuracy),
        agreement: agreement(accuracy.disagreement.as_ref()),
        pages,
        page,
        shown,
    }
}

fn by(sort: Sort, a: &GroupFigures, b: &GroupFigures) -> Ordering {
    let lower =
        |group: &GroupFigures| group.figures.accuracy_ci.map_or(group.figures.accuracy, |[low, _]| low);
    let first = match sort {
        Sort::Lower => lower(a).total_cmp(&lower(b)),
        Sort::Accuracy => a.figures.accuracy.total_cmp(&b.figures.accuracy),
        Sort::Gain => a.figures.gain.total_cmp(&b.figures.gain),
        Sort::N => b.figures.n.cmp(&a.figures.n),
        Sort::Name => Ordering::Equal,
    };
    first.then_with(|| a.group.cmp(&b.group))
}

fn verdict(accuracy: &Accuracy) -> String {
    match accuracy.gap {
        None if accuracy.groups.len() == 1 => {
            "One group is shown; there is none to hold it against.".to_owned()
        }
        None => String::new(),
        Some(_) if groups_differ(accuracy) => {
            "The groups differ by more than chance makes. A group is called below or \
             above where its whole interval is; the others are not shown to differ."
                .to_owned()
        }
        Some(gap) => format!(
            "The groups are not shown to differ from each other: shuffling people among them makes a gap as large in \
             {} of cases. That is no proof that they are alike; more people would tell.",
            percent(gap.p_value)
        ),
    }
}

/// Where a group stands against everybody, in words.
fn place(accuracy: &Accuracy, figures: &Figures) -> &'static str {
    let line = accuracy.overall.as_ref().map(|overall| overall.accuracy);
    match (line, figures.accuracy_ci) {
        (Some(line), Some([_, high])) if groups_differ(accuracy) && high < line => "below overall",
        (Some(line), Some([low, _])) if groups_differ(accuracy) && low > line => "above overall",
        _ => "not shown to differ",
    }
}

fn plot(accuracy: &Accuracy, rows: &[&GroupFigures]) -> Scene {
    let overall = accuracy.overall.as_ref();
    let values = rows
        .iter()
        .flat_map(|row| row.figures.accuracy_ci.into_iter().flatten().chain([row.figures.accuracy]));
    let (low, high) = range_of_shares(values.chain(overall.map(|figures| figures.accuracy)));
    // Labels stand above their row, so that the plot has the whole width.
    let scale = Scale::between(low, high, 3.0, 97.0);
    let bottom = TOP + ROW * rows.len() as f64;
    let attribute = accuracy.group_by.join(" × ");
    let mut scene = Scene::new("forest", format!("Accuracy by {attribute}"), (bottom + 6.0) as u32);
    scene.description = describe(accuracy, rows);
    for tick in scale.ticks() {
        let x = scale.at(tick);
        scene.line((x, TOP - 8.0), (x, bottom), "grid");
        scene.tick((x, 12.0), format!("{:.0} %", 100.0 * tick));
    }
    if let Some(overall) = overall {
        let x = scale.at(overall.accuracy);
        scene.line((x, TOP - 8.0), (x, bottom), "overall");
        let anchor = if x > 70.0 { "end" } else { "start" };
        scene.text((x, 28.0), anchor, "note", format!("overall {}", percent(overall.accuracy)));
    }
    for (at, row) in rows.iter().enumerate() {
        draw_row(&mut scene, scale, TOP + ROW * at as f64, accuracy, row);
    }
    scene
}

fn draw_row(scene: &mut Scene, scale: Scale, top: f64, accuracy: &Accuracy, row: &GroupFigures) {
    let figures = &row.figures;
    let label = group_label(&row.group);
    let place = place(accuracy, figures);
    let class = match (figures.users < FEW_PEOPLE, place) {
        (true, _) => "hollow",
        (false, "below overall") => "bad",
        (false, "above overall") => "good",
        (false, _) => "plain",
    };
    scene.line((0.0, top), (100.0, top), "row");
    scene.texts.push(Text {
        x: across(0.0),
        y: pixels(top + 16.0),
        anchor: "start",
        class: "name",
        title: named_group(&accuracy.group_by, &row.group).full,
        shown: label.short,
    });
    let numbers = format!(
        "{} {} n {} · {}",
        percent(figures.accuracy),
        percent_interval(figures.accuracy_ci),
        count(figures.n),
        counted(figures.users as u64, "person", "people")
    );
    scene.text((100.0, top + 16.0), "end", "numbers", numbers);
    // Room for a second line: where it is narrow, the numbers stand below the name.
    let y = top + 39.0;
    if let Some([low, high]) = figures.accuracy_ci {
        scene.line((scale.at(low), y), (scale.at(high), y), "interval");
        for end in [low, high] {
            scene.line((scale.at(end), y - 4.0), (scale.at(end), y + 4.0), "interval");
        }
    }
    let title = format!(
        "{}: {} {}, {place}{}",
        label.full,
        percent(figures.accuracy),
        percent_interval(figures.accuracy_ci),
        if figures.users < FEW_PEOPLE { ", few people" } else { "" }
    );
    let shape = match place {
        "below overall" => Shape::Diamond,
        "above overall" => Shape::Square,
        _ => Shape::Circle,
    };
    scene.mark(shape, (scale.at(figures.accuracy), y), class, title);
}

fn describe(accuracy: &Accuracy, rows: &[&GroupFigures]) -> String {
    let ends = rows.iter().map(|row| row.figures.accuracy);
    let (low, high) = ends.fold((1.0_f64, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let overall = accuracy
        .overall
        .as_ref()
        .map_or_else(String::new, |overall| format!(" Overall {}.", percent(overall.accuracy)));
    format!(
        "{} with accuracies from {} to {} and 95 % intervals over people.{overall} Hollow marks have fewer than \
         {FEW_PEOPLE} people. The table below has every number.",
        counted(rows.len() as u64, "group", "groups"),
        percent(low),
        percent(high)
    )
}

/// Columns of figures, with the names that they have in JSON.
pub(crate) const COLUMNS: [(&str, &str); 19] = [
    ("People", "users"),
    ("n", "n"),
    ("Accuracy", "accuracy"),
    ("low", "accuracy_ci_low"),
    ("high", "accuracy_ci_high"),
    ("Mean over people", "user_accuracy"),
    ("low", "user_accuracy_ci_low"),
    ("high", "user_accuracy_ci_high"),
    ("Log loss", "log_loss"),
    ("ECE", "ece"),
    ("low", "ece_ci_low"),
    ("high", "ece_ci_high"),
    ("Population", "population_accuracy"),
    ("Gain", "gain"),
    ("low", "gain_ci_low"),
    ("high", "gain_ci_high"),
    ("Bradley-Terry", "bt_accuracy"),
    ("Against overall", "place"),
    ("Few people", "few"),
];

/// The cells of [`COLUMNS`].
fn cells(accuracy: &Accuracy, figures: &Figures) -> Vec<Cell> {
    let end = |interval: Option<[f64; 2]>, at: usize| exact_or_empty(interval.map(|ends| ends[at]));
    let texts = [
        figures.users.to_string(),
        figures.n.to_string(),
        exact(figures.accuracy),
        end(figures.accuracy_ci, 0),
        end(figures.accuracy_ci, 1),
        exact(figures.user_accuracy),
        end(figures.user_accuracy_ci, 0),
        end(figures.user_accuracy_ci, 1),
        exact(figures.log_loss),
        exact(figures.ece),
        end(figures.ece_ci, 0),
        end(figures.ece_ci, 1),
        exact(figures.population_accuracy),
        exact(figures.gain),
        end(figures.gain_ci, 0),
        end(figures.gain_ci, 1),
        exact_or_empty(figures.bt_accuracy),
        place(accuracy, figures).to_owned(),
        if figures.users < FEW_PEOPLE { "yes" } else { "no" }.to_owned(),
    ];
    texts.into_iter().map(Cell::new).collect()
}

fn table(accuracy: &Accuracy, rows: &[&GroupFigures]) -> Table {
    let columns: Vec<(&str, &'static str)> = [("Group", "group")].into_iter().chain(COLUMNS).collect();
    let mut table = Table::new("Accuracy by group", &columns);
    if let Some(overall) = &accuracy.overall {
        let mut cells = cells(accuracy, overall);
        let place = cells.len() - 2;
        cells[place] = Cell::new("");
        table.rows.push([Cell::head("overall")].into_iter().chain(cells).collect());
    }
    for row in rows {
        let name = Cell::name(&group_label(&row.group));
        table.rows.push([name].into_iter().chain(cells(accuracy, &row.figures)).collect());
    }
    table
}

fn suppressed(accuracy: &Accuracy) -> String {
    match accuracy.suppressed_groups {
        0 => String::new(),
        n => format!(
            "{} of fewer than {} counted in the overall figures and not shown.",
            counted(n as u64, "group", "groups"),
            counted(accuracy.min_users as u64, "person is", "people are")
        ),
    }
}

fn gains(accuracy: &Accuracy) -> Gains {
    let shown = |wanted: fn([f64; 2]) -> bool| {
        let mut rows: Vec<&GroupFigures> =
            accuracy.groups.iter().filter(|group| group.figures.gain_ci.is_some_and(wanted)).collect();
        rows.sort_by(|a, b| b.figures.gain.abs().total_cmp(&a.figures.gain.abs()));
        rows
    };
    let (gain, lose) = (shown(|[low, _]| low > 0.0), shown(|[_, high]| high < 0.0));
    let named = |rows: &[&GroupFigures]| {
        let say = |row: &&GroupFigures| Gain {
            name: group_label(&row.group),
            value: format!("{} {}", points(row.figures.gain), points_interval(row.figures.gain_ci)),
        };
        rows.iter().take(NAMED).map(say).collect::<Vec<_>>()
    };
    let mut others = Vec::new();
    for (rows, verb) in [(&gain, "gain"), (&lose, "lose")] {
        if rows.len() > NAMED {
            others.push(format!(
                "{} more {verb}; the table has them.",
                counted((rows.len() - NAMED) as u64, "group", "groups")
            ));
        }
    }
    let neither = accuracy.groups.len() - gain.len() - lose.len();
    if neither > 0 {
        others.push(format!("Of {} it is not shown.", counted(neither as u64, "group", "groups")));
    }
    Gains { gain: named(&gain), lose: named(&lose), others }
}

/// Whether people who judged the same pair agree: what, and how much.
fn agreement(found: Option<&Agreement>) -> Vec<(String, String)> {
    let Some(found) = found else {
        return vec![(
            "Overall".to_owned(),
            "not estimable: nobody judged the same pair of responses as somebody else".to_owned(),
        )];
    };
    let say = |alpha: Option<Alpha>, why: &str| match alpha {
        None => format!("not estimable: {why}"),
        Some(Alpha { value, ci }) => {
            let interval = ci.map_or_else(
                || "no interval".to_owned(),
                |[low, high]| format!("[{}, {}]", signed(low, 2, false), signed(high, 2, false)),
            );
            format!("{} {interval}", signed(value, 2, false))
        }
    };
    vec![
        ("Overall".to_owned(), say(found.overall, "every answer is alike")),
        (
            "Within groups".to_owned(),
            say(found.within_groups, "no two people of one group judged the same pair"),
        ),
        (
            "Between groups".to_owned(),
            say(found.between_groups, "no two people of different groups judged the same pair"),
        ),
        (
            "Counted from".to_owned(),
            format!(
                "{} of {}",
                counted(found.judgements, "answer", "answers"),
                counted(found.pairs as u64, "pair", "pairs")
            ),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::view::made_up;

    #[test]
    fn the_group_with_the_lowest_bound_comes_first_and_few_people_are_hollow() {
        let groups = of(&made_up::unfair(), Sort::Lower, 1);
        let names: Vec<&str> = groups.table.rows.iter().map(|row| row[0].text.as_str()).collect();
        assert_eq!(names, ["overall", "DE", "BR", "US", "UK"]);
        let plot = groups.plot.unwrap();
        let marks: Vec<_> = plot.marks.iter().map(|mark| (mark.class, mark.shape)).collect();
        assert_eq!(marks[0], ("bad", Shape::Diamond));
        assert_eq!(marks[1], ("hollow", Shape::Circle));
        assert!(plot.lines.iter().any(|line| line.class == "overall"));
        assert!(groups.suppressed.starts_with("2 groups of fewer than 5 people"));
    }

    #[test]
    fn every_group_is_on_one_page_and_no_page_has_more_than_fits() {
        let accuracy = made_up::crossed(20, 20);
        let all = accuracy.groups.len();
        let pages = of(&accuracy, Sort::Lower, 1).pages;
        assert_eq!(pages, all.div_ceil(ROWS));
        let rows: usize = (1..=pages).map(|page| of(&accuracy, Sort::Lower, page).table.rows.len() - 1).sum();
        assert_eq!(rows, all);
        assert!(of(&accuracy, Sort::Lower, pages + 1).plot.is_none());
    }

    #[test]
    fn groups_that_are_not_shown_to_differ_have_no_place() {
        let mut accuracy = made_up::unfair();
        accuracy.gap.as_mut().unwrap().p_value = 0.4;
        let groups = of(&accuracy, Sort::Lower, 1);
        assert!(groups.verdict.contains("not shown to differ"));
        assert!(groups.plot.unwrap().marks.iter().all(|mark| mark.shape == Shape::Circle));
    }

    #[test]
    fn who_gains_and_who_loses_is_told_by_intervals_alone() {
        let mut accuracy = made_up::unfair();
        accuracy.groups[0].figures.gain_ci = Some([-0.01, 0.3]);
        let gains = of(&accuracy, Sort::Lower, 1).gains;
        assert_eq!(gains.lose.iter().map(|gain| gain.name.full.as_str()).collect::<Vec<_>>(), ["DE"]);
        assert_eq!(gains.gain.len(), 2);
        assert_eq!(gains.others, ["Of 1 group it is not shown."]);
    }

    #[test]
    fn agreement_that_cannot_be_estimated_says_why() {
        assert!(agreement(None)[0].1.starts_with("not estimable: nobody"));
        let found = Agreement {
            pairs: 3,
            judgements: 8,
            overall: Some(Alpha { value: -0.125, ci: Some([-0.3, 0.1]) }),
            within_groups: None,
            between_groups: None,
        };
        let said = agreement(Some(&found));
        assert!(said[0].1.contains("[\u{2212}0.30, 0.10]"), "{}", said[0].1);
        assert!(said[1].1.starts_with("not estimable: no two people of one group"));
        assert_eq!(said[3].1, "8 answers of 3 pairs");
    }
}
