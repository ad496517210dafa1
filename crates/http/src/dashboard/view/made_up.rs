//! Figures that nobody measured, for tests of views.

use polyreward_service::{
    Accuracy, Change, Changes, Curves, Figures, Gap, GroupFigures, Mistake, Point, ReliabilityBin, Shots,
    Span, Step, StepStart, Timeline, VersionChanges,
};
use time::{Duration, OffsetDateTime, macros::datetime};

/// A model by its name and version.
pub(crate) fn model(text: &str) -> polyreward_domain::ModelRef {
    let (name, version) = text.split_once('@').unwrap();
    polyreward_domain::ModelRef { name: name.parse().unwrap(), version: version.parse().unwrap() }
}

/// About so many people.
pub(crate) fn figures(users: usize, accuracy: f64, half: f64) -> Figures {
    let n = users as u64 * 12;
    let bin = |at: u64, share: f64| ReliabilityBin {
        from: 0.5 + 0.1 * at as f64,
        to: 0.6 + 0.1 * at as f64,
        n: (n as f64 * share) as u64,
        confidence: 0.55 + 0.1 * at as f64,
        accuracy: (0.5 + 0.085 * at as f64).min(1.0),
        accuracy_ci: Some([0.46 + 0.085 * at as f64, (0.54 + 0.085 * at as f64).min(1.0)]),
    };
    Figures {
        users,
        n,
        accuracy,
        accuracy_ci: Some([accuracy - half, accuracy + half]),
        user_accuracy: accuracy - 0.004,
        user_accuracy_ci: Some([accuracy - half, accuracy + half]),
        log_loss: 0.41,
        ece: 0.021,
        ece_ci: Some([0.014, 0.035]),
        population_accuracy: accuracy - 0.1,
        gain: if accuracy < 0.6 { -0.03 } else { 0.1 },
        gain_ci: Some(if accuracy < 0.6 { [-0.05, -0.01] } else { [0.07, 0.13] }),
        bt_accuracy: Some(accuracy - 0.12),
        reliability: vec![
            ReliabilityBin { from: 0.5, to: 0.5, n: 12, confidence: 0.5, accuracy: 0.5, accuracy_ci: None },
            bin(0, 0.2),
            bin(1, 0.15),
            bin(2, 0.15),
            bin(3, 0.2),
            bin(4, 0.3),
        ],
    }
}

/// Good for the majority, a coin toss for a minority.
pub(crate) fn unfair() -> Accuracy {
    let group = |value: &str, users, accuracy, half| GroupFigures {
        group: vec![Some(value.to_owned())],
        figures: figures(users, accuracy, half),
    };
    Accuracy {
        model: model("pal-a@3f9c"),
        group_by: vec!["country".to_owned()],
        span: Span::default(),
        min_users: 5,
        overall: Some(figures(310, 0.79, 0.012)),
        groups: vec![
            group("BR", 12, 0.8, 0.07),
            group("DE", 41, 0.51, 0.04),
            group("UK", 180, 0.84, 0.01),
            group("US", 77, 0.82, 0.02),
        ],
        gap: Some(Gap { best: 2, worst: 1, value: 0.33, ci: Some([0.279, 0.381]), p_value: 0.0005 }),
        worst: Some(1),
        suppressed_groups: 2,
        disagreement: None,
    }
}

/// Groups of every combination of so many values.
pub(crate) fn crossed(rows: usize, columns: usize) -> Accuracy {
    let mut groups = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            if (row + 2 * column) % 5 != 4 {
                let accuracy = 0.5 + 0.45 * ((row * 7 + column * 3) % 11) as f64 / 11.0;
                groups.push(GroupFigures {
                    group: vec![Some(format!("country-{row}")), Some(format!("age-{column}"))],
                    figures: figures(6 + (row * 13 + column * 17) % 60, accuracy, 0.03),
                });
            }
        }
    }
    Accuracy {
        group_by: vec!["country".to_owned(), "age".to_owned()],
        worst: Some(0),
        gap: None,
        groups,
        suppressed_groups: 3,
        ..unfair()
    }
}

/// Against the version before.
pub(crate) fn changes() -> VersionChanges {
    VersionChanges {
        previous: model("pal-a@1a2b"),
        changes: Some(Changes {
            accuracy: Change { value: 0.012, ci: Some([0.004, 0.02]) },
            worst_group: Some(Change { value: -0.02, ci: Some([-0.05, 0.01]) }),
            gap: Some(Change { value: 0.03, ci: Some([0.01, 0.05]) }),
            ece: Change { value: 0.002, ci: Some([-0.004, 0.008]) },
        }),
    }
}

fn point<X>(at: X, accuracy: f64) -> Point<X> {
    Point {
        at,
        users: 310,
        n: 620,
        accuracy,
        accuracy_ci: Some([accuracy - 0.02, accuracy + 0.02]),
        log_loss: 0.5,
        population_accuracy: 0.73,
        gain: accuracy - 0.73,
        gain_ci: Some([accuracy - 0.75, accuracy - 0.71]),
        bt_accuracy: Some(0.725),
    }
}

fn curves<X>(overall: Vec<Point<X>>) -> Curves<X> {
    let Accuracy { model, span, min_users, .. } = unfair();
    Curves { model, group_by: Vec::new(), span, min_users, overall, groups: Vec::new(), suppressed_groups: 0 }
}

/// Better with every example.
pub(crate) fn shots() -> Curves<Shots> {
    let classes = [
        (0, Some(0)),
        (1, Some(1)),
        (2, Some(2)),
        (3, Some(3)),
        (4, Some(5)),
        (6, Some(7)),
        (8, Some(11)),
        (12, None),
    ];
    let points = classes.iter().enumerate().map(|(at, (from, to))| {
        point(Shots { from: *from, to: *to }, 0.73 + 0.13 * (1.0 - (-0.5 * at as f64).exp()))
    });
    curves(points.collect())
}

/// Two versions, day by day.
pub(crate) fn timeline() -> Timeline {
    let start: OffsetDateTime = datetime!(2026-10-01 0:00 UTC);
    let points = (0..40).filter(|day| day % 13 != 7).map(|day| {
        let accuracy = 0.74 + 0.04 * f64::from(day >= 22) + 0.015 * (f64::from(day) * 1.3).sin();
        point(StepStart(start + Duration::days(i64::from(day))), accuracy)
    });
    Timeline {
        step: Step::Day,
        curves: curves(points.collect()),
        versions: vec![(model("pal-a@1a2b"), start), (model("pal-a@3f9c"), start + Duration::days(22))],
    }
}

/// One that was sure, and wrong.
pub(crate) fn mistake(user_id: &str, chosen: &str) -> Mistake {
    Mistake {
        user_id: user_id.parse().unwrap(),
        example_id: "first".parse().unwrap(),
        shot: 3,
        preference: 0.031,
        population_preference: 0.4,
        created_at: datetime!(2026-10-02 13:45 UTC),
        prompt: polyreward_domain::Prompt::Text("Name a fish.".to_owned()),
        chosen: chosen.to_owned(),
        rejected: "Fish are tasty.".to_owned(),
    }
}
