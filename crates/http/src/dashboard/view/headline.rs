//! The four numbers: accuracy, worst group, gap, calibration error.

use polyreward_service::{Accuracy, Change, VersionChanges};

use super::text::{
    Label, count, counted, exact, named_group, percent, percent_interval, points, points_interval, signed,
    three, three_interval,
};

/// Where a gap is not shown to be more than chance makes.
pub(crate) const ALPHA: f64 = 0.05;

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Number {
    /// What names it in the page.
    pub id: &'static str,
    pub title: &'static str,
    pub value: String,
    /// The value in full, for a pointer that rests on it.
    pub exact: String,
    pub interval: String,
    /// What it says, in a sentence.
    pub words: String,
    /// Against the version before.
    pub change: String,
    /// Whether it asks for attention.
    pub alarm: bool,
}

/// The four numbers; none without a prediction.
pub(crate) fn of(accuracy: &Accuracy, changes: Option<&VersionChanges>) -> Vec<Number> {
    let Some(overall) = &accuracy.overall else { return Vec::new() };
    let before = Before(changes);
    vec![
        Number {
            id: "headline-accuracy",
            title: "Accuracy",
            value: percent(overall.accuracy),
            exact: exact(overall.accuracy),
            interval: percent_interval(overall.accuracy_ci),
            words: format!(
                "{} about {}. Without knowing the person: {}.",
                counted(overall.n, "prediction", "predictions"),
                counted(overall.users as u64, "person", "people"),
                percent(overall.population_accuracy)
            ),
            change: before.say(|changes| Some(changes.accuracy), points, points_interval),
            alarm: false,
        },
        worst(accuracy, &before),
        gap(accuracy, &before),
        Number {
            id: "headline-ece",
            title: "Calibration error",
            value: three(overall.ece),
            exact: exact(overall.ece),
            interval: three_interval(overall.ece_ci),
            words:
                "Expected calibration error: how far confidence is from how often it is right; 0 is perfect."
                    .to_owned(),
            change: before.say(
                |changes| Some(changes.ece),
                |value| signed(value, 3, true),
                |ci| {
                    ci.map_or_else(
                        || "no interval".to_owned(),
                        |[a, b]| format!("[{}, {}]", signed(a, 3, true), signed(b, 3, true)),
                    )
                },
            ),
            alarm: false,
        },
    ]
}

/// Whether groups are shown to differ by more than chance makes.
pub(crate) fn groups_differ(accuracy: &Accuracy) -> bool {
    accuracy.gap.is_some_and(|gap| gap.p_value < ALPHA)
}

fn worst(accuracy: &Accuracy, before: &Before<'_>) -> Number {
    let number = Number {
        id: "headline-worst",
        title: "Worst group",
        value: "–".to_owned(),
        exact: String::new(),
        interval: String::new(),
        words: String::new(),
        change: before.say(|changes| changes.worst_group, points, points_interval),
        alarm: groups_differ(accuracy),
    };
    let Some(worst) = accuracy.worst.and_then(|at| accuracy.groups.get(at)) else {
        let words = if accuracy.group_by.is_empty() {
            "Choose an attribute to group by.".to_owned()
        } else {
            format!(
                "No group has the {} that a shown group has at least.",
                counted(accuracy.min_users as u64, "person", "people")
            )
        };
        return Number { words, ..number };
    };
    let name = named_group(&accuracy.group_by, &worst.group);
    let behind = match (accuracy.groups.len(), accuracy.gap) {
        (2.., Some(gap)) if groups_differ(accuracy) => {
            let best = &accuracy.groups[gap.best];
            format!(
                ", {} points below the best ({})",
                signed(100.0 * gap.value, 1, false),
                named_group(&accuracy.group_by, &best.group).short
            )
        }
        (2.., _) => ", which is not shown to differ from the others".to_owned(),
        _ => ", the only group that is shown".to_owned(),
    };
    let words = format!(
        "Worst for {}: {} {}{behind}.",
        name.short,
        percent(worst.figures.accuracy),
        percent_interval(worst.figures.accuracy_ci)
    );
    Number {
        value: percent(worst.figures.accuracy),
        exact: format!("{} {}", name.full, exact(worst.figures.accuracy)),
        interval: percent_interval(worst.figures.accuracy_ci),
        words,
        ..number
    }
}

fn gap(accuracy: &Accuracy, before: &Before<'_>) -> Number {
    let change = before.say(|changes| changes.gap, points, points_interval);
    let (id, title) = ("headline-gap", "Gap");
    let Some(gap) = accuracy.gap else {
        return Number {
            id,
            title,
            value: "–".to_owned(),
            exact: String::new(),
            interval: String::new(),
            words: "A gap needs two groups that are shown.".to_owned(),
            change,
            alarm: false,
        };
    };
    let name = |at: usize| {
        accuracy
            .groups
            .get(at)
            .map_or_else(|| Label::new(""), |group| named_group(&accuracy.group_by, &group.group))
    };
    let differ = groups_differ(accuracy);
    let words = if differ {
        format!(
            "Between {} and {}. Shuffling people among groups makes a gap as large in {} of cases: more than chance.",
            name(gap.best).short,
            name(gap.worst).short,
            percent(gap.p_value)
        )
    } else {
        format!(
            "The {} groups are not shown to differ: shuffling people among them makes a gap as large in {} of cases.",
            count(accuracy.groups.len() as u64),
            percent(gap.p_value)
        )
    };
    Number {
        id,
        title,
        value: format!("{} points", signed(100.0 * gap.value, 1, false)),
        exact: exact(gap.value),
        interval: percent_interval(gap.ci),
        words,
        change,
        alarm: differ,
    }
}

/// The version before.
struct Before<'a>(Option<&'a VersionChanges>);

impl Before<'_> {
    /// A change in words: never "better" where the interval holds zero.
    fn say(
        &self,
        pick: impl Fn(&polyreward_service::Changes) -> Option<Change>,
        value: impl Fn(f64) -> String,
        interval: impl Fn(Option<[f64; 2]>) -> String,
    ) -> String {
        let Some(versions) = self.0 else { return "first version".to_owned() };
        let previous = &versions.previous;
        let Some(change) = versions.changes.as_ref().and_then(pick) else {
            return format!("not comparable with {previous}");
        };
        let shown = match change.ci {
            Some([low, high]) if low <= 0.0 && high >= 0.0 => "not shown to have changed from",
            _ => "from",
        };
        format!("{} {} {shown} {previous}", value(change.value), interval(change.ci))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::view::made_up;

    #[test]
    fn an_unfair_model_is_named_on_the_first_screen() {
        let numbers = of(&made_up::unfair(), None);
        assert_eq!(
            numbers[1].words,
            "Worst for country=DE: 51.0 % [47.0, 55.0], 33.0 points below the best (country=UK)."
        );
        assert!(numbers[1].alarm && numbers[2].alarm);
        assert_eq!(numbers[2].value, "33.0 points");
        assert!(numbers.iter().all(|number| number.change == "first version"));
    }

    #[test]
    fn groups_that_chance_could_have_made_are_not_shown_to_differ_and_never_equal() {
        let mut accuracy = made_up::unfair();
        accuracy.gap.as_mut().unwrap().p_value = 0.34;
        let numbers = of(&accuracy, None);
        assert!(numbers[1].words.contains("not shown to differ") && !numbers[1].alarm);
        assert!(numbers[2].words.contains("not shown to differ") && numbers[2].words.contains("34.0 %"));
        assert!(numbers.iter().all(|number| !number.words.contains("equal")));
    }

    #[test]
    fn a_change_that_may_be_none_is_not_called_one() {
        let changes = made_up::changes();
        let numbers = of(&made_up::unfair(), Some(&changes));
        assert_eq!(numbers[0].change, "+1.2 points [+0.4, +2.0] from pal-a@1a2b");
        assert!(numbers[3].change.contains("not shown to have changed from"), "{}", numbers[3].change);
    }

    #[test]
    fn one_group_has_no_gap() {
        let mut accuracy = made_up::unfair();
        accuracy.groups.truncate(1);
        (accuracy.gap, accuracy.worst) = (None, Some(0));
        let numbers = of(&accuracy, None);
        assert!(numbers[1].words.contains("the only group"));
        assert_eq!(numbers[2].value, "–");
    }
}
