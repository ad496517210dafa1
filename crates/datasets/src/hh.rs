//! Anthropic's HH-RLHF: two dialogues a row, the preferred one and the other, alike but for the last turn.

use polyreward_domain::{Comparison, ComparisonRecord, LabelConfidence, Message, PersonId, Prompt, Strength};
use serde::{Deserialize, de::IgnoredAny};

use crate::{container::Columns, jsonl::describe};

pub(crate) const COLUMNS: Columns =
    Columns { required: &["chosen", "rejected"], optional: &[], passed_over: &[] };

/// How a turn begins, and whose it is.
const TURNS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];

#[derive(Deserialize)]
struct Dialogues {
    chosen: String,
    rejected: String,
    #[expect(clippy::zero_sized_map_values, reason = "serde flattens into maps only")]
    #[serde(flatten)]
    unknown: std::collections::BTreeMap<String, IgnoredAny>,
}

/// A row as a comparison of `user_id`, since the data set does not tell people apart, with the names of its unknown
/// fields. The turns before the last are the prompt, as a chat; white space around a turn's text is not part of it.
pub(crate) fn parse(
    line: &str,
    user_id: &PersonId,
) -> Result<(ComparisonRecord, impl Iterator<Item = String> + use<>), String> {
    let row: Dialogues = serde_json::from_str(line).map_err(|error| describe(&error))?;
    let (prompt, chosen) = split(&row.chosen).map_err(|reason| format!("chosen {reason}"))?;
    let (other, rejected) = split(&row.rejected).map_err(|reason| format!("rejected {reason}"))?;
    if prompt != other {
        return Err("the two dialogues differ before their last turn".into());
    }
    let comparison = Comparison {
        prompt: Prompt::Chat(prompt),
        chosen,
        rejected,
        strength: Strength::default(),
        label_confidence: LabelConfidence::default(),
        rationale: None,
    };
    comparison.check().map_err(|(field, error)| format!("{field} {error}"))?;
    let record = ComparisonRecord {
        user_id: user_id.clone(),
        attributes: std::collections::BTreeMap::new(),
        comparison,
        split: None,
        tags: Vec::new(),
        id: None,
        created_at: None,
    };
    Ok((record, row.unknown.into_keys()))
}

/// A dialogue as the turns up to the last human one, and the response to it.
fn split(dialogue: &str) -> Result<(Vec<Message>, String), &'static str> {
    let mut turns = turns(dialogue)?;
    let last = turns.pop().filter(|turn| turn.role == "assistant").ok_or("does not end with a response")?;
    if last.content.is_empty() {
        return Err("ends with an empty response");
    }
    if turns.last().is_none_or(|turn| turn.role != "user") {
        return Err("has no human turn before the response");
    }
    Ok((turns, last.content))
}

fn turns(dialogue: &str) -> Result<Vec<Message>, &'static str> {
    let mut turns = Vec::new();
    let mut rest = dialogue.trim_start_matches(' ');
    while let Some((marker, role)) = TURNS.into_iter().find(|(marker, _)| rest.starts_with(marker)) {
        let text = &rest[marker.len()..];
        let end = TURNS.iter().filter_map(|(marker, _)| text.find(marker)).min().unwrap_or(text.len());
        turns.push(Message { role: role.into(), content: text[..end].trim().into() });
        rest = &text[end..];
    }
    if rest.is_empty() { Ok(turns) } else { Err("does not begin with a turn") }
}
