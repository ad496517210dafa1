//! Columns as domain types and back.

use std::{iter, str::FromStr};

use polyreward_domain::{
    Attributes, Comparison, LabelConfidence, ModelRef, ModelSelector, Prompt, StateVersion, Strength,
    TextForm,
};
use polyreward_storage::{
    Evidence, ExampleEmbedding, PersonSummary, StorageError, StoredExample, UserRecord,
};
use time::OffsetDateTime;

/// A 64-bit digest as the column's signed number: the same bits.
pub(crate) fn digest_of(version: i64) -> u64 {
    version.cast_unsigned()
}

/// A count; the columns hold none below zero.
pub(crate) fn count_of(number: i64) -> Result<u64, StorageError> {
    number.try_into().map_err(|_| StorageError::Corrupt("a count"))
}

/// A count as a column holds it.
pub(crate) fn stored_count(count: u64) -> i64 {
    i64::try_from(count).expect("nobody counts to 2^63")
}

/// A number that somebody chose: how many rows to ask for, or after which to begin. None is beyond the greatest.
pub(crate) fn bounded(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// An id, which was checked when it was stored.
pub(crate) fn id_of<T: FromStr>(text: &str, what: &'static str) -> Result<T, StorageError> {
    text.parse().map_err(|_| StorageError::Corrupt(what))
}

/// A model's name with its version.
pub(crate) fn model_of(text: &str) -> Result<ModelRef, StorageError> {
    match id_of::<ModelSelector>(text, "a model's name")? {
        ModelSelector { name, version: Some(version) } => Ok(ModelRef { name, version }),
        ModelSelector { version: None, .. } => Err(StorageError::Corrupt("a model's name")),
    }
}

/// Floats as a column holds them.
pub(crate) fn bytes_of(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|float| float.to_le_bytes()).collect()
}

/// Floats from a column.
pub(crate) fn floats_of(bytes: &[u8]) -> Result<Vec<f32>, StorageError> {
    let (floats, []) = bytes.as_chunks() else {
        return Err(StorageError::Corrupt("an array of numbers"));
    };
    Ok(floats.iter().map(|float| f32::from_le_bytes(*float)).collect())
}

/// A prompt as a column holds it.
pub(crate) fn json_of(prompt: &Prompt) -> String {
    serde_json::to_string(prompt).expect("a prompt has no map with other keys than text")
}

/// A form as a column holds it.
pub(crate) fn form_name(form: TextForm) -> &'static str {
    match form {
        TextForm::PromptResponse => "prompt_response",
        TextForm::Prompt => "prompt",
        TextForm::Response => "response",
    }
}

fn form_of(name: &str) -> Result<TextForm, StorageError> {
    let form = TextForm::ALL.into_iter().find(|form| form_name(*form) == name);
    form.ok_or(StorageError::Corrupt("the form of an embedding"))
}

pub(crate) struct SummaryRow {
    pub user_id: String,
    pub state_version: i64,
    pub examples: i64,
}

impl TryFrom<SummaryRow> for PersonSummary {
    type Error = StorageError;

    fn try_from(row: SummaryRow) -> Result<Self, StorageError> {
        Ok(Self {
            user_id: id_of(&row.user_id, "a user id")?,
            version: StateVersion::from_number(digest_of(row.state_version)),
            examples: count_of(row.examples)?,
        })
    }
}

/// A person with attributes: of each the key here, the value there.
pub(crate) struct UserRow {
    pub user_id: String,
    pub state_version: i64,
    pub examples: i64,
    pub next_position: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
    pub keys: Vec<String>,
    pub values: Vec<String>,
}

impl TryFrom<UserRow> for UserRecord {
    type Error = StorageError;

    fn try_from(row: UserRow) -> Result<Self, StorageError> {
        Ok(Self {
            user_id: id_of(&row.user_id, "a user id")?,
            version: StateVersion::from_number(digest_of(row.state_version)),
            examples: count_of(row.examples)?,
            next_position: count_of(row.next_position)?,
            attributes: iter::zip(row.keys, row.values).collect::<Attributes>(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

pub(crate) struct ExampleRow {
    pub example_id: String,
    pub position: i64,
    pub prompt: String,
    pub chosen: String,
    pub rejected: String,
    pub strength: f64,
    pub label_confidence: f64,
    pub rationale: Option<String>,
    pub created_at: OffsetDateTime,
}

impl TryFrom<ExampleRow> for StoredExample {
    type Error = StorageError;

    fn try_from(row: ExampleRow) -> Result<Self, StorageError> {
        // Neither error may quote the text.
        let prompt = serde_json::from_str(&row.prompt).map_err(|_| StorageError::Corrupt("a prompt"))?;
        Ok(Self {
            example_id: id_of(&row.example_id, "an example id")?,
            position: count_of(row.position)?,
            comparison: Comparison {
                prompt,
                chosen: row.chosen,
                rejected: row.rejected,
                strength: Strength::try_from(row.strength)
                    .map_err(|_| StorageError::Corrupt("the strength of an example"))?,
                label_confidence: LabelConfidence::try_from(row.label_confidence)
                    .map_err(|_| StorageError::Corrupt("the confidence of an example"))?,
                rationale: row.rationale,
            },
            created_at: row.created_at,
        })
    }
}

/// An example with one of its embeddings, or with none.
pub(crate) struct EvidenceRow {
    pub example_id: String,
    pub chosen_name: i64,
    pub rejected_name: i64,
    pub strength: f64,
    pub label_confidence: f64,
    pub form: Option<String>,
    pub chosen: Option<Vec<u8>>,
    pub rejected: Option<Vec<u8>>,
}

/// Examples from rows in which those of one example follow one another.
pub(crate) fn evidence_of(rows: Vec<EvidenceRow>) -> Result<Vec<Evidence>, StorageError> {
    let mut evidence: Vec<Evidence> = Vec::new();
    for row in rows {
        if evidence.last().is_none_or(|last| last.example_id.as_str() != row.example_id) {
            evidence.push(Evidence {
                example_id: id_of(&row.example_id, "an example id")?,
                names: [digest_of(row.chosen_name), digest_of(row.rejected_name)],
                strength: row.strength,
                label_confidence: row.label_confidence,
                embeddings: Vec::new(),
            });
        }
        if let (Some(example), Some(form), Some(chosen), Some(rejected)) =
            (evidence.last_mut(), row.form, row.chosen, row.rejected)
        {
            example.embeddings.push(ExampleEmbedding {
                form: form_of(&form)?,
                chosen: floats_of(&chosen)?,
                rejected: floats_of(&rejected)?,
            });
        }
    }
    Ok(evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_back_bit_for_bit_and_half_a_float_is_none() {
        let floats = [0.0, -0.0, 1.5, f32::MIN_POSITIVE, f32::INFINITY];
        let back = floats_of(&bytes_of(&floats)).unwrap();
        assert!(iter::zip(floats, back).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert!(matches!(floats_of(&[0; 6]), Err(StorageError::Corrupt(_))));
    }

    #[test]
    fn a_model_is_named_with_its_version() {
        assert_eq!(model_of("bt@1").unwrap().to_string(), "bt@1");
        assert!(matches!(model_of("bt"), Err(StorageError::Corrupt(_))));
    }
}
