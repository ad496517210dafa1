//! The models: what they are, what they were trained on, how right they were then and are now.

use std::collections::HashMap;

use askama::Template;
use polyreward_domain::ModelRef;
use polyreward_service::{FailedModel, Figures, Model, Registered};
use serde_json::Value;

use super::{
    table::{Cell, Table},
    text::{counted, exact_or_empty, percent, percent_interval, percent_or_nothing},
};
use crate::dashboard::{controls::query_of, html::Frame};

/// One model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Card {
    pub id: String,
    pub model: String,
    pub is_default: bool,
    pub facts: Vec<(&'static str, String)>,
    /// How right it was so far; with where the page of that is.
    pub measured: String,
    pub query: String,
    pub table: Option<Table>,
    pub table_id: String,
}

/// A folder that could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub folder: String,
    pub detail: String,
    pub still_serving: bool,
}

/// The page.
#[derive(Debug, Clone, Template)]
#[template(path = "dashboard/models.html")]
pub(crate) struct ModelsPage {
    pub frame: Frame,
    pub cards: Vec<Card>,
    pub failed: Vec<Failed>,
    /// Models that predicted and are no longer loaded.
    pub gone: Vec<(String, String)>,
}

/// The page; figures by model, where any were counted.
pub(crate) fn of(
    registered: &Registered,
    gone: &[ModelRef],
    figures: &HashMap<ModelRef, Option<Figures>>,
) -> ModelsPage {
    let default = registered.default_model().map(|model| &model.reference);
    ModelsPage {
        frame: Frame::at("/dashboard/models", "models"),
        cards: registered
            .models()
            .enumerate()
            .map(|(at, model)| {
                card(at, model, default == Some(&model.reference), figures.get(&model.reference))
            })
            .collect(),
        failed: registered.failed().iter().map(failed).collect(),
        gone: gone
            .iter()
            .map(|model| (model.to_string(), query_of([("model", model.to_string().as_str())])))
            .collect(),
    }
}

fn failed(failed: &FailedModel) -> Failed {
    let FailedModel { folder, detail, still_serving } = failed.clone();
    Failed { folder, detail, still_serving }
}

fn card(at: usize, model: &Model, is_default: bool, figures: Option<&Option<Figures>>) -> Card {
    let card = &model.card;
    let data = &card.training_data;
    let measured = match figures {
        Some(Some(figures)) => format!(
            "So far right in {} {} of {} about {}; the population's reward {}.",
            percent(figures.accuracy),
            percent_interval(figures.accuracy_ci),
            counted(figures.n, "prediction", "predictions"),
            counted(figures.users as u64, "person", "people"),
            percent(figures.population_accuracy)
        ),
        Some(None) => "It has predicted nothing yet.".to_owned(),
        None => "Not counted here; its own page counts it.".to_owned(),
    };
    Card {
        id: format!("model-{at}"),
        model: model.reference.to_string(),
        is_default,
        facts: vec![
            ("Head", card.head.to_string()),
            ("Version", model.reference.version.to_string()),
            ("Backbone", format!("{}, {} numbers a text", card.backbone.name, card.backbone.dim)),
            (
                "Trained on",
                format!(
                    "{} of {}",
                    counted(data.comparisons as u64, "comparison", "comparisons"),
                    counted(data.people as u64, "person", "people")
                ),
            ),
            (
                "Held out",
                format!(
                    "{} of {}",
                    counted(data.validation_comparisons as u64, "comparison", "comparisons"),
                    counted(data.validation_people as u64, "person", "people")
                ),
            ),
            ("Data", data.sha256.chars().take(12).collect()),
        ],
        measured,
        query: query_of([("model", model.reference.to_string().as_str())]),
        table: evaluation(model),
        table_id: format!("evaluation-table-{at}"),
    }
}

/// Held-out people at so many examples, and people seen in training.
fn evaluation(model: &Model) -> Option<Table> {
    let columns = [
        ("Evaluated on", "evaluation"),
        ("People", "users"),
        ("n", "n"),
        ("Accuracy", "accuracy"),
        ("low", "accuracy_ci_low"),
        ("high", "accuracy_ci_high"),
        ("In words", "words"),
        ("Log loss", "log_loss"),
        ("ECE", "ece"),
    ];
    let mut table = Table::new(format!("Evaluation of {}", model.reference), &columns);
    let shots = model.evaluation["shots"].as_array().into_iter().flatten();
    let shots = shots.filter_map(|shot| {
        let examples = shot["examples"].as_u64()?;
        Some((format!("unseen people, {}", counted(examples, "example", "examples")), &shot["summary"]))
    });
    let whole = [("unseen people", "validation"), ("seen people, unseen comparisons", "seen_people")];
    let whole = whole.into_iter().map(|(name, part)| (name.to_owned(), &model.evaluation[part]));
    for (name, summary) in whole.chain(shots) {
        if let Some(row) = row(name, summary) {
            table.rows.push(row);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

fn row(name: String, summary: &Value) -> Option<Vec<Cell>> {
    let accuracy = summary["accuracy"].as_f64()?;
    let number = |field: &str| exact_or_empty(summary[field].as_f64());
    let end = |at: usize| summary["accuracy_ci"][at].as_f64();
    let interval = end(0).zip(end(1)).map(|(low, high)| [low, high]);
    Some(vec![
        Cell::head(name),
        Cell::new(summary["users"].as_u64().unwrap_or_default().to_string()),
        Cell::new(summary["n"].as_u64().unwrap_or_default().to_string()),
        Cell::new(number("accuracy")),
        Cell::new(exact_or_empty(end(0))),
        Cell::new(exact_or_empty(end(1))),
        Cell::new(format!("{} {}", percent_or_nothing(Some(accuracy)), percent_interval(interval))),
        Cell::new(number("log_loss")),
        Cell::new(number("ece")),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_evaluation_is_read_as_far_as_it_is_there() {
        let summary = json!({"users": 3, "n": 30, "accuracy": 0.5, "accuracy_ci": [0.25, 0.75], "log_loss": 0.7, "ece": 0.1});
        let row = row("x".to_owned(), &summary).unwrap();
        assert_eq!(row[6].text, "50.0 % [25.0, 75.0]");
        assert_eq!(super::row("x".to_owned(), &Value::Null), None);
        let alone = json!({"accuracy": 1.0, "accuracy_ci": null});
        assert_eq!(super::row("x".to_owned(), &alone).unwrap()[6].text, "100.0 % no interval");
    }

    #[test]
    fn no_model_is_said() {
        let page = of(&Registered::default(), &[], &HashMap::new());
        assert!(page.render().unwrap().contains("No model is loaded"));
    }
}
