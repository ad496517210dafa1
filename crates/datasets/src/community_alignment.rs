//! Community Alignment: a row a conversation, of up to four turns; in each a person chose one of four responses.

use std::collections::BTreeSet;

use polyreward_domain::{
    Attributes, Comparison, ComparisonRecord, LabelConfidence, Message, PersonId, Prompt, Strength,
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    container::Columns,
    jsonl::describe,
    row::{Skip, Summary},
};

pub(crate) const COLUMNS: Columns = Columns {
    required: &[
        "conversation_id",
        "annotator_id",
        "assigned_lang",
        "annotator_age",
        "annotator_gender",
        "annotator_education_level",
        "annotator_political",
        "annotator_ethnicity",
        "annotator_country",
        "first_turn_prompt",
        "first_turn_response_a",
        "first_turn_response_b",
        "first_turn_response_c",
        "first_turn_response_d",
        "first_turn_preferred_response",
        "first_turn_feedback",
        "second_turn_prompt",
        "second_turn_response_a",
        "second_turn_response_b",
        "second_turn_response_c",
        "second_turn_response_d",
        "second_turn_preferred_response",
        "second_turn_feedback",
        "third_turn_prompt",
        "third_turn_response_a",
        "third_turn_response_b",
        "third_turn_response_c",
        "third_turn_response_d",
        "third_turn_preferred_response",
        "third_turn_feedback",
        "fourth_turn_prompt",
        "fourth_turn_response_a",
        "fourth_turn_response_b",
        "fourth_turn_response_c",
        "fourth_turn_response_d",
        "fourth_turn_preferred_response",
        "fourth_turn_feedback",
    ],
    optional: &[],
    passed_over: &["wave", "is_pregenerated_first_prompt", "in_balanced_subset", "in_balanced_subset_10"],
};

const TURNS: [&str; 4] = ["first", "second", "third", "fourth"];
const SLOTS: [&str; 4] = ["response_a", "response_b", "response_c", "response_d"];

/// Our attributes, and the columns they come from.
const ATTRIBUTES: [(&str, &str); 7] = [
    ("age", "annotator_age"),
    ("gender", "annotator_gender"),
    ("education_level", "annotator_education_level"),
    ("political", "annotator_political"),
    ("ethnicity", "annotator_ethnicity"),
    ("country", "annotator_country"),
    ("lang", "assigned_lang"),
];

/// Left behind in texts by the models that wrote them.
const END_OF_TEXT: &str = "<|end_of_text|>";

/// A row as comparisons: in each turn the preferred response against each other text, in the order of the texts, since
/// the slots of one prompt's responses are permuted from person to person. The prompt is the conversation so far, with
/// the responses that were preferred.
///
/// A row is taken whole or refused whole.
pub(crate) fn parse(line: &str, summary: &mut Summary) -> Result<Vec<ComparisonRecord>, String> {
    let row: Map<String, Value> = serde_json::from_str(line).map_err(|error| describe(&error))?;
    let row = Conversation { row };
    let id = row.needed("conversation_id")?;
    let user_id: PersonId =
        row.needed("annotator_id")?.parse().map_err(|error| format!("annotator_id: {error}"))?;
    let attributes = row.attributes()?;
    let (mut comparisons, mut skipped) = (Vec::new(), Vec::new());
    let mut history = Vec::new();
    let mut ended = None;
    for turn in TURNS {
        let Some(prompt) = row.text(turn, "prompt")? else {
            ended.get_or_insert(format!("{turn}_turn_prompt is empty"));
            continue;
        };
        if let Some(reason) = ended {
            return Err(format!("{reason}, but {turn}_turn_prompt is not"));
        }
        history.push(Message { role: "user".into(), content: prompt });
        let Some(judged) = row.judged(turn)? else {
            skipped.push(Skip::Unjudged);
            ended = Some(format!("{turn}_turn_preferred_response is empty"));
            continue;
        };
        skipped.extend(judged.skipped);
        for rejected in judged.others {
            let comparison = Comparison {
                prompt: Prompt::Chat(history.clone()),
                chosen: judged.preferred.clone(),
                strength: Strength::default(),
                label_confidence: LabelConfidence::default(),
                rationale: judged.feedback.clone(),
                rejected,
            };
            comparison.check().map_err(|(field, error)| format!("{turn} turn: {field} {error}"))?;
            comparisons.push((format!("{id}.{turn}.{}", digest(&comparison.rejected)), comparison));
        }
        history.push(Message { role: "assistant".into(), content: judged.preferred });
    }
    if history.is_empty() {
        return Err("first_turn_prompt is empty".into());
    }
    summary.unknown(row.row.keys().filter(|name| !COLUMNS.knows(name)));
    summary.skip(skipped);
    let record = |(id, comparison)| ComparisonRecord {
        user_id: user_id.clone(),
        attributes: attributes.clone(),
        comparison,
        split: None,
        tags: Vec::new(),
        id: Some(id),
        created_at: None,
    };
    Ok(comparisons.into_iter().map(record).collect())
}

/// A name for a text, whichever slot it stands in.
fn digest(text: &str) -> String {
    Sha256::digest(text).iter().take(8).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// What was preferred in a turn, and to which other texts.
struct Judged {
    preferred: String,
    others: BTreeSet<String>,
    feedback: Option<String>,
    skipped: Vec<Skip>,
}

struct Conversation {
    row: Map<String, Value>,
}

impl Conversation {
    /// A cell as text; numbers, as some tables hold ids, as their digits.
    fn cell(&self, name: &str) -> Result<Option<String>, String> {
        match self.row.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(format!("{name} is no text")),
        }
    }

    fn needed(&self, name: &str) -> Result<String, String> {
        self.cell(name)?.filter(|text| !text.is_empty()).ok_or_else(|| format!("{name} is empty"))
    }

    fn attributes(&self) -> Result<Attributes, String> {
        let mut attributes = Attributes::new();
        for (key, column) in ATTRIBUTES {
            if let Some(value) = self.cell(column)?.filter(|value| !value.is_empty()) {
                attributes.insert(key.into(), value);
            }
        }
        Ok(attributes)
    }

    /// A turn's text without what models left in it; `None` where nothing remains.
    fn text(&self, turn: &str, field: &str) -> Result<Option<String>, String> {
        let text = self.cell(&format!("{turn}_turn_{field}"))?.unwrap_or_default().replace(END_OF_TEXT, "");
        let text = text.trim();
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    /// What was preferred in a turn, if anything was.
    fn judged(&self, turn: &str) -> Result<Option<Judged>, String> {
        let Some(preferred) = self.text(turn, "preferred_response")? else { return Ok(None) };
        let slot = SLOTS.iter().position(|slot| *slot == preferred).ok_or_else(|| {
            format!(
                "{turn}_turn_preferred_response is none of response_a, response_b, response_c, response_d"
            )
        })?;
        let preferred = self
            .text(turn, SLOTS[slot])?
            .ok_or_else(|| format!("{turn}_turn_{} is preferred, but empty", SLOTS[slot]))?;
        let (mut others, mut skipped) = (BTreeSet::new(), Vec::new());
        for (_, name) in SLOTS.iter().enumerate().filter(|(at, _)| *at != slot) {
            match self.text(turn, name)? {
                None => skipped.push(Skip::EmptyText),
                Some(text) if text == preferred => skipped.push(Skip::EqualText),
                Some(text) => {
                    if !others.insert(text) {
                        skipped.push(Skip::DuplicateText);
                    }
                }
            }
        }
        Ok(Some(Judged { preferred, others, feedback: self.text(turn, "feedback")?, skipped }))
    }
}
