//! `POST /evaluate`: accuracy on labelled comparisons that are not kept.

use std::{collections::HashMap, sync::Arc};

use axum::{Json, extract::State};
use polyreward_domain::{
    Attributes, Comparison, ComparisonRecord, LabelConfidence, ModelSelector, PersonId, Strength,
};
use polyreward_service::{Asked, EvaluateQuery, Fault, MeasureError, Measurer, Part};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    accuracy::{AccuracyReply, checked_min_n, key_faults},
    score::{Optional, score_problem},
};
use crate::{
    auth::Authorized,
    entry::{Check, PromptText, attribute_faults},
    extract::JsonBody,
    limits::{Deadline, Limits},
    problem::{InputFault, Problem, ProblemType},
};

/// What people preferred.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with comparisons")]
#[schema(as = EvaluateRequest, example = json!({
    "group_by": ["country"],
    "comparisons": [{"user_id": "ada", "attributes": {"country": "UK"}, "prompt": "Name a fish.",
                     "chosen": "A trout.", "rejected": "Fish are tasty."}],
}))]
pub(crate) struct EvaluateRequest {
    /// The model, as `name` for its newest version or `name@version`; by default the server's.
    model: Option<String>,
    /// Attributes that make the groups.
    #[schema(max_items = 2)]
    group_by: Option<Vec<String>>,
    /// People that a shown group has at least; can only raise the server's floor, `min_users` of `GET /info`.
    min_n: Option<usize>,
    /// At most half of `max_batch` of `GET /info`.
    #[schema(min_items = 1)]
    comparisons: Vec<LabelledBody>,
}

/// One observed preference, as files of comparisons hold it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with user_id, prompt, chosen and rejected")]
#[schema(as = LabelledComparison)]
pub(crate) struct LabelledBody {
    /// Whose preference. Somebody who is known here is predicted with what their examples here tell.
    #[schema(min_length = 1, max_length = 512, example = "ada")]
    user_id: String,
    /// What is known of the person beside what is known here; the same in all of their comparisons.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    attributes: Option<Attributes>,
    prompt: PromptText,
    /// The preferred response.
    chosen: String,
    /// The other one.
    rejected: String,
    /// Read as in `POST /users/{user_id}/examples`; every comparison counts the same here.
    #[schema(exclusive_minimum = 0.0, maximum = 10.0)]
    strength: Option<f64>,
    /// Read, and of no effect here.
    #[schema(minimum = 0.0, maximum = 1.0)]
    label_confidence: Option<f64>,
    /// Read, and of no effect here.
    rationale: Option<String>,
    /// Read, and of no effect here.
    id: Option<String>,
    /// Read, and of no effect here.
    created_at: Option<String>,
}

impl LabelledBody {
    fn into_record(self, check: &mut Check) -> Option<ComparisonRecord> {
        let user_id = self.user_id.parse::<PersonId>().map_err(|error| check.fault("/user_id", error));
        check.text("/chosen", &self.chosen);
        check.text("/rejected", &self.rejected);
        if self.chosen == self.rejected {
            check.fault("/rejected", "is the same text as chosen");
        }
        let prompt = check.prompt(self.prompt);
        let strength = self.strength.map_or(Ok(Strength::default()), Strength::try_from);
        let strength = strength.map_err(|error| check.fault("/strength", error));
        let confidence =
            self.label_confidence.map_or(Ok(LabelConfidence::default()), LabelConfidence::try_from);
        let label_confidence = confidence.map_err(|error| check.fault("/label_confidence", error));
        let comparison = Comparison {
            prompt: Arc::unwrap_or_clone(prompt),
            chosen: self.chosen,
            rejected: self.rejected,
            strength: strength.ok()?,
            label_confidence: label_confidence.ok()?,
            rationale: self.rationale,
        };
        Some(ComparisonRecord {
            user_id: user_id.ok()?,
            attributes: self.attributes.unwrap_or_default(),
            comparison,
            split: None,
            tags: Vec::new(),
            id: self.id,
            created_at: self.created_at,
        })
    }
}

impl EvaluateRequest {
    /// Checks everything and collects every fault.
    fn into_query(self, limits: &Limits, deadline: Deadline, floor: usize) -> Result<EvaluateQuery, Problem> {
        let (texts, max) = (2 * self.comparisons.len(), limits.max_batch);
        if texts > max {
            let detail = format!("{texts} texts, two a comparison, more than the {max} of one request");
            return Err(Problem::new(ProblemType::TooManyTexts).detail(detail).limit("max_batch", max));
        }
        let mut faults = Vec::new();
        let model = Optional(&mut faults).check("/model", self.model, str::parse::<ModelSelector>);
        let group_by = self.group_by.unwrap_or_default();
        faults.extend(key_faults(&group_by).into_iter().map(|(at, fault)| {
            InputFault::new(at.map_or_else(|| "/group_by".to_owned(), |at| format!("/group_by/{at}")), fault)
        }));
        let min_users = self.min_n.map(|asked| checked_min_n(Some(asked), floor)).transpose();
        let min_users = min_users.map_err(|fault| faults.push(InputFault::new("/min_n", fault)));
        if self.comparisons.is_empty() {
            faults.push(InputFault::new("/comparisons", "has at least one entry"));
        }
        let mut comparisons = Vec::with_capacity(self.comparisons.len());
        let mut known: HashMap<PersonId, Attributes> = HashMap::new();
        for (at, body) in self.comparisons.into_iter().enumerate() {
            let mut check = Check::new("comparisons", at);
            let attributes = body.attributes.clone().unwrap_or_default();
            check.faults.extend(attribute_faults(&format!("/comparisons/{at}/attributes"), &attributes));
            if let Some(record) = body.into_record(&mut check) {
                let before = known.entry(record.user_id.clone()).or_default();
                if attributes.iter().any(|(key, value)| before.get(key).is_some_and(|other| other != value)) {
                    check.fault("/attributes", "are not those of an earlier comparison of the same person");
                }
                before.extend(attributes);
                comparisons.push(record);
            }
            faults.append(&mut check.faults);
        }
        match min_users {
            Ok(min_users) if faults.is_empty() => {
                let deadline = Some(deadline.0);
                Ok(EvaluateQuery { model, group_by, min_users, comparisons, deadline })
            }
            _ => Err(Problem::invalid(faults)),
        }
    }
}

/// Where the people of some comparisons are named first, by their number in the order in which they come.
fn first_places(comparisons: &[ComparisonRecord]) -> Vec<usize> {
    let mut known = std::collections::HashSet::new();
    (0..comparisons.len()).filter(|at| known.insert(&comparisons[*at].user_id)).collect()
}

/// The service's error as this request's.
fn problem(error: MeasureError, first_places: &[usize]) -> Problem {
    match error {
        MeasureError::Registry(error) => error.into(),
        MeasureError::UnknownAttribute { at, .. } => {
            Problem::invalid(vec![InputFault::new(format!("/group_by/{at}"), &error)])
        }
        MeasureError::Score(error) => {
            let fault = |fault: &Fault| {
                let side = if fault.part == Part::ResponseA { "chosen" } else { "rejected" };
                InputFault::of_text(format!("/comparisons/{}/{side}", fault.at), &fault.error)
            };
            let whose = |asked: Asked| match asked {
                Asked::Users(at) => format!("/comparisons/{}/user_id", first_places[at]),
                Asked::User | Asked::Audience | Asked::Group(_) => "/comparisons".to_owned(),
            };
            score_problem(error, fault, whose)
        }
        other => other.into(),
    }
}

/// Accuracy on labelled comparisons; nothing is stored.
///
/// Each is predicted with what the server believes of its person now. Examples that the person has here already are no fair
/// test of it. Groups are made of the attributes that stand beside the comparisons, else of those that are known here.
#[utoipa::path(post, path = "/evaluate", tag = "accuracy", operation_id = "evaluate", request_body = EvaluateRequest, params(
    ("x-request-timeout-ms" = Option<u64>, Header, description = "Lowers the deadline of 100 s", minimum = 1),
), responses((status = 200, description = "Accuracy by group", body = AccuracyReply)))]
#[tracing::instrument(name = "http.evaluate", skip_all, fields(comparisons = body.comparisons.len()))]
pub(crate) async fn evaluate(
    caller: Authorized,
    State(measurer): State<Measurer>,
    State(limits): State<Arc<Limits>>,
    deadline: Deadline,
    JsonBody(body): JsonBody<EvaluateRequest>,
) -> Result<Json<AccuracyReply>, Problem> {
    let query = body.into_query(&limits, deadline, measurer.options().min_users)?;
    let places = first_places(&query.comparisons);
    let answer = tokio::time::timeout_at(deadline.0.into(), measurer.evaluate(&caller.0.tenant, query)).await;
    let answer =
        answer.map_err(|_elapsed| Problem::deadline_exceeded("the figures were not computed in time"))?;
    Ok(Json(AccuracyReply::from(&answer.map_err(|error| problem(error, &places))?)))
}
