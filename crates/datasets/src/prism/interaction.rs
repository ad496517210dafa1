//! One turn of a PRISM conversation: the responses to a prompt, their scores, and which was chosen.

use std::collections::{BTreeMap, HashSet, VecDeque};

use polyreward_domain::{
    Attributes, Comparison, ComparisonRecord, LabelConfidence, Message, PersonId, Prompt, Strength,
};
use serde::{Deserialize, de::IgnoredAny};

use super::survey::Person;
use crate::{
    container::Columns,
    jsonl::describe,
    row::{Skip, Summary},
};

pub(super) const COLUMNS: Columns = Columns {
    required: &[
        "utterance_id",
        "interaction_id",
        "conversation_id",
        "user_id",
        "turn",
        "user_prompt",
        "model_response",
        "score",
        "if_chosen",
    ],
    optional: &[],
    passed_over: &[
        "within_turn_id",
        "included_in_balanced_subset",
        "conversation_type",
        "model_name",
        "model_provider",
    ],
};

/// The survey asked for at most four at once; more would multiply the conversation in memory.
const MAX_RESPONSES: usize = 16;

/// Scores go from 1 to 100.
const SCORES: std::ops::RangeInclusive<f64> = 1.0..=100.0;

/// The score difference that makes an ordinary comparison, of strength 1: that of two scores drawn blindly, on average
/// a third of the scale. Strength is in proportion, from 0.03 for one point to 3 for the whole scale.
const ORDINARY_DIFFERENCE: f64 = 33.0;

/// One response, as its row has it.
pub(super) struct Utterance {
    pub(super) number: u64,
    pub(super) line: String,
    pub(super) conversation_id: String,
    cells: Cells,
}

#[derive(Deserialize)]
struct Cells {
    utterance_id: String,
    interaction_id: String,
    conversation_id: String,
    user_id: PersonId,
    turn: u32,
    user_prompt: String,
    #[serde(default)]
    model_response: Option<String>,
    score: f64,
    if_chosen: bool,
    #[expect(clippy::zero_sized_map_values, reason = "serde flattens into maps only")]
    #[serde(flatten)]
    rest: BTreeMap<String, IgnoredAny>,
}

impl Utterance {
    pub(super) fn parse(number: u64, line: &str, summary: &mut Summary) -> Result<Self, String> {
        let cells: Cells = serde_json::from_str(line).map_err(|error| describe(&error))?;
        let ids = [
            ("utterance_id", &cells.utterance_id),
            ("interaction_id", &cells.interaction_id),
            ("conversation_id", &cells.conversation_id),
        ];
        if let Some((name, _)) = ids.into_iter().find(|(_, id)| id.is_empty()) {
            return Err(format!("{name} is empty"));
        }
        if !SCORES.contains(&cells.score) {
            return Err("score is between 1 and 100".into());
        }
        summary.unknown(cells.rest.keys().filter(|name| !COLUMNS.knows(name)));
        let conversation_id = cells.conversation_id.clone();
        Ok(Self { number, line: line.to_owned(), conversation_id, cells })
    }

    fn response(&self) -> &str {
        self.cells.model_response.as_deref().unwrap_or_default()
    }
}

/// The rows of a conversation as interactions, by turn.
pub(super) fn in_order(rows: Vec<Utterance>) -> VecDeque<Interaction> {
    let mut interactions: BTreeMap<_, Vec<Utterance>> = BTreeMap::new();
    for row in rows {
        interactions.entry(row.cells.interaction_id.clone()).or_default().push(row);
    }
    let mut interactions: Vec<_> = interactions.into_values().map(|rows| Interaction { rows }).collect();
    interactions.sort_by_key(|interaction| (interaction.turn(), interaction.number()));
    interactions.into()
}

/// The responses to one prompt; there is at least one.
pub(super) struct Interaction {
    rows: Vec<Utterance>,
}

impl Interaction {
    pub(super) fn turn(&self) -> u32 {
        self.rows[0].cells.turn
    }

    pub(super) fn person(&self) -> &PersonId {
        &self.rows[0].cells.user_id
    }

    /// The first row's.
    pub(super) fn number(&self) -> u64 {
        self.rows[0].number
    }

    pub(super) fn into_rows(self) -> Vec<Utterance> {
        self.rows
    }

    /// Checks that the rows are of one turn, and one of them chosen.
    pub(super) fn check(&self) -> Result<(), String> {
        let first = &self.rows[0].cells;
        let mut ids = HashSet::new();
        for Utterance { cells, .. } in &self.rows {
            let differs = [
                ("user_id", cells.user_id != first.user_id),
                ("turn", cells.turn != first.turn),
                ("user_prompt", cells.user_prompt != first.user_prompt),
            ];
            if let Some((name, _)) = differs.into_iter().find(|(_, differs)| *differs) {
                return Err(format!("its rows differ in {name}"));
            }
            if !ids.insert(&cells.utterance_id) {
                return Err("one of its utterance ids is there twice".into());
            }
        }
        if self.rows.len() > MAX_RESPONSES {
            return Err(format!("it has more than {MAX_RESPONSES} responses"));
        }
        match self.rows.iter().filter(|row| row.cells.if_chosen).count() {
            1 => Ok(()),
            0 => Err("none of its responses is chosen".into()),
            _ => Err("several of its responses are chosen".into()),
        }
    }

    /// The chosen response against each other one, after what was said before, to which this turn is added.
    pub(super) fn comparisons(
        &self,
        person: &Person,
        history: &mut Vec<Message>,
    ) -> Result<(Vec<ComparisonRecord>, Vec<Skip>), String> {
        let chosen = self.rows.iter().find(|row| row.cells.if_chosen).ok_or("none is chosen")?;
        history.push(Message { role: "user".into(), content: chosen.cells.user_prompt.clone() });
        let told = match person {
            Person::Known(attributes) => self.pairs(chosen, attributes, history)?,
            Person::SurveyOnly => (Vec::new(), vec![Skip::SurveyOnlyTurn]),
        };
        history.push(Message { role: "assistant".into(), content: chosen.response().into() });
        Ok(told)
    }

    fn pairs(
        &self,
        chosen: &Utterance,
        attributes: &Attributes,
        prompt: &[Message],
    ) -> Result<(Vec<ComparisonRecord>, Vec<Skip>), String> {
        let (mut records, mut skipped) = (Vec::new(), Vec::new());
        let mut texts = HashSet::new();
        for other in self.rows.iter().filter(|row| !row.cells.if_chosen) {
            let strength = match strength(chosen, other) {
                Ok(strength) if texts.insert(other.response()) => strength,
                Ok(_) => {
                    skipped.push(Skip::DuplicateText);
                    continue;
                }
                Err(reason) => {
                    skipped.push(reason);
                    continue;
                }
            };
            let comparison = Comparison {
                prompt: Prompt::Chat(prompt.to_vec()),
                chosen: chosen.response().into(),
                rejected: other.response().into(),
                strength,
                label_confidence: LabelConfidence::default(),
                rationale: None,
            };
            comparison.check().map_err(|(field, error)| format!("{field} {error}"))?;
            let ids = [&chosen.cells.interaction_id, &chosen.cells.utterance_id, &other.cells.utterance_id];
            records.push(ComparisonRecord {
                user_id: chosen.cells.user_id.clone(),
                attributes: attributes.clone(),
                comparison,
                split: None,
                tags: Vec::new(),
                id: Some(ids.map(String::as_str).join(".")),
                created_at: None,
            });
        }
        Ok((records, skipped))
    }
}

/// How much the choice counts, by the difference of the scores; or why it is no comparison.
fn strength(chosen: &Utterance, other: &Utterance) -> Result<Strength, Skip> {
    if chosen.response().trim().is_empty() || other.response().trim().is_empty() {
        return Err(Skip::EmptyText);
    }
    if chosen.response() == other.response() {
        return Err(Skip::EqualText);
    }
    let difference = chosen.cells.score - other.cells.score;
    if difference == 0.0 {
        return Err(Skip::Tie);
    }
    Strength::try_from(difference / ORDINARY_DIFFERENCE).map_err(|_| Skip::Contradiction)
}
