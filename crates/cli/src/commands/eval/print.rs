//! A report as tables on the terminal.

use std::collections::BTreeMap;

use polyreward_heads::evaluation::{Interval, Summary};

use super::{
    queries::Answered,
    report::{Measured, ModelReport, Report, ShotReport},
};
use crate::table;

/// How a table reads one cell off what was measured.
type Cell = fn(&ShotReport) -> String;

/// What a row of the questions' table is called, and how it reads one cell.
type Way = (&'static str, fn(&Answered) -> String);

/// Prints every table there is something to say in.
pub(super) fn everything(report: &Report) {
    splits(report);
    let unseen = "Unseen people, by number of their examples";
    curves(report, &format!("{unseen}: accuracy on their queries"), |model| &model.shots, accuracy);
    curves(report, &format!("{unseen}: log loss / calibration error"), |model| &model.shots, calibration);
    let seen = "Seen people, by number of their comparisons shown: accuracy on those kept out of training";
    curves(report, seen, |model| &model.seen_shots, accuracy);
    names(report);
    queries(report);
    if let Some(key) = &report.group_by {
        groups(report, key);
        curves(report, "Worst group of at least five people", |model| &model.shots, worst);
    }
}

fn with_interval(value: f64, interval: Option<Interval>) -> String {
    match interval {
        Some([low, high]) => format!("{value:.3} ({low:.3}-{high:.3})"),
        None => format!("{value:.3}"),
    }
}

fn accuracy_of(summary: &Summary) -> String {
    with_interval(summary.accuracy, summary.accuracy_ci)
}

fn accuracy(shot: &ShotReport) -> String {
    accuracy_of(&shot.overall.summary)
}

fn calibration(shot: &ShotReport) -> String {
    format!("{:.3} / {:.3}", shot.overall.summary.log_loss, shot.overall.summary.ece)
}

fn worst(shot: &ShotReport) -> String {
    let Some(worst) = &shot.worst_group else { return String::new() };
    format!("{} {}", worst.group, with_interval(worst.accuracy, worst.accuracy_ci))
}

fn splits(report: &Report) {
    println!("Accuracy with no examples, 95 % intervals over people ({} draws)\n", report.bootstrap_draws);
    let header = ["model", "split", "people", "n", "accuracy", "mean over people", "log loss", "ece"];
    let rows = report.models.iter().flat_map(|model| {
        model.splits.iter().map(|(split, summary)| {
            vec![
                model.model.clone(),
                (*split).to_owned(),
                summary.users.to_string(),
                summary.n.to_string(),
                accuracy_of(summary),
                format!("{:.3}", summary.user_accuracy),
                format!("{:.3}", summary.log_loss),
                format!("{:.3}", summary.ece),
            ]
        })
    });
    println!("{}", table::render(&header.map(str::to_owned), &rows.collect::<Vec<_>>()));
}

/// A row for each model that has shots, a column for each number of examples.
fn curves(report: &Report, title: &str, shots: fn(&ModelReport) -> &Vec<ShotReport>, cell: Cell) {
    let models = || report.models.iter().filter(|model| !shots(model).is_empty());
    let Some(first) = models().next() else { return };
    println!("{title}\n");
    let header: Vec<String> = std::iter::once("model".to_owned())
        .chain(shots(first).iter().map(|shot| column(shot.examples)))
        .collect();
    let rows = models()
        .map(|model| std::iter::once(model.model.clone()).chain(shots(model).iter().map(cell)).collect());
    println!("{}", table::render(&header, &rows.collect::<Vec<_>>()));
}

fn column(examples: usize) -> String {
    format!("{examples} examples")
}

fn names(report: &Report) {
    let Some(first) = report.by_name.first() else { return };
    println!(
        "Unseen people, over the models of a name: mean accuracy (lowest-highest), mean calibration error\n"
    );
    let header: Vec<String> = ["name", "models"]
        .into_iter()
        .map(str::to_owned)
        .chain(first.shots.iter().map(|shot| column(shot.examples)))
        .collect();
    let rows = report.by_name.iter().map(|name| {
        let cells = name
            .shots
            .iter()
            .map(|shot| format!("{:.3} ({:.3}-{:.3}) {:.3}", shot.mean, shot.lowest, shot.highest, shot.ece));
        [name.name.clone(), name.models.to_string()].into_iter().chain(cells).collect()
    });
    println!("{}", table::render(&header, &rows.collect::<Vec<_>>()));
}

/// How models do as people are asked, and how many answers are saved by asking what tells most.
fn queries(report: &Report) {
    let asked = || report.models.iter().filter_map(|model| Some((model, model.queries.as_ref()?)));
    let Some((_, first)) = asked().next() else { return };
    let last = first.answers.len() - 1;
    println!(
        "{} unseen people are asked about {last} of their {:.1} comparisons ({} have fewer): accuracy on their queries \
         where the most\ntelling pair is asked next, in random order (mean of {} a person), and the difference\n",
        first.users, first.choices, first.left_out, first.draws
    );
    let shown: Vec<usize> =
        std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|n| *n < last).chain([last]).collect();
    let columns = shown.iter().map(|n| format!("{n} answers"));
    let header: Vec<String> = ["model", "asked"].into_iter().map(str::to_owned).chain(columns).collect();
    let ways: [Way; 3] = [
        ("most telling", |at| with_interval(at.chosen, at.chosen_ci)),
        ("random", |at| with_interval(at.random, at.random_ci)),
        ("difference", |at| signed(at.difference, at.difference_ci)),
    ];
    let rows = asked().flat_map(|(model, queries)| {
        let shown = &shown;
        ways.into_iter().map(move |(name, cell)| {
            let cells = shown.iter().map(|n| cell(&queries.answers[*n]));
            [model.model.clone(), name.to_owned()].into_iter().chain(cells).collect()
        })
    });
    println!("{}", table::render(&header, &rows.collect::<Vec<_>>()));

    println!(
        "Answers saved: the fewest that reach what random order has after so many, on curves that never fall\n"
    );
    let header = ["model", "random", "accuracy", "random needs", "chosen needs", "saved"];
    let rows = asked().flat_map(|(model, queries)| {
        queries.saved.iter().map(|saved| {
            let needs =
                saved.chosen.map_or_else(|| format!("more than {last}"), |needs| format!("{needs:.1}"));
            let won = saved.saved.map_or_else(
                || "none".to_owned(),
                |won| match saved.saved_ci {
                    Some([low, high]) => format!("{won:+.1} ({low:+.1} to {high:+.1})"),
                    None => format!("{won:+.1}"),
                },
            );
            vec![
                model.model.clone(),
                saved.answers.to_string(),
                format!("{:.3}", saved.accuracy),
                format!("{:.1}", saved.random),
                needs,
                won,
            ]
        })
    });
    println!("{}", table::render(&header.map(str::to_owned), &rows.collect::<Vec<_>>()));
}

/// A difference, which may be negative: no dash between the ends of its interval.
fn signed(value: f64, interval: Option<Interval>) -> String {
    match interval {
        Some([low, high]) => format!("{value:+.3} ({low:+.3} to {high:+.3})"),
        None => format!("{value:+.3}"),
    }
}

/// Every model in every group, the oracle last.
fn groups(report: &Report, key: &str) {
    let Some(first) = report.models.iter().find(|model| !model.shots.is_empty()) else { return };
    println!("By {key}\n");
    let shots = first.shots.iter().map(|shot| column(shot.examples));
    let header: Vec<String> =
        [key, "model", "people", "n"].into_iter().map(str::to_owned).chain(shots).collect();
    let mut by_group: BTreeMap<&str, Vec<Vec<String>>> = BTreeMap::new();
    let row = |group: &str, model: &str, measured: &Measured| {
        let summary = &measured.summary;
        vec![group.to_owned(), model.to_owned(), summary.users.to_string(), summary.n.to_string()]
    };
    for model in &report.models {
        let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for shot in &model.shots {
            for (group, measured) in &shot.groups {
                rows.entry(group)
                    .or_insert_with(|| row(group, &model.model, measured))
                    .push(accuracy_of(&measured.summary));
            }
        }
        for (group, row) in rows {
            by_group.entry(group).or_default().push(row);
        }
    }
    let mut closing = Vec::new();
    if let Some(oracle) = &report.oracle {
        for (group, measured) in &oracle.groups {
            let mut row = row(group, "oracle", measured);
            row.push(accuracy_of(&measured.summary));
            by_group.entry(group).or_default().push(row);
        }
        closing.push(format!(
            "The oracle is Bradley-Terry told the {}: a head for each value with enough trained people. Over all {} of {} \
             unseen people who have one: {}\n",
            oracle.attribute,
            oracle.overall.summary.users,
            oracle.unseen_users,
            accuracy_of(&oracle.overall.summary),
        ));
    }
    let rows: Vec<Vec<String>> = by_group.into_values().flatten().collect();
    println!("{}", table::render(&header, &rows));
    for line in closing {
        println!("{line}");
    }
}
