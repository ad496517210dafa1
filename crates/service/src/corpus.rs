//! A data set, embedded: records become people and items, every distinct text encoded once.

use std::{collections::HashMap, sync::Arc};

use ndarray::Array2;
use polyreward_backbone::{Backbone, BackboneError, EmbedInput, InputError};
use polyreward_domain::{ComparisonRecord, Overflow, Prompt, TextForm, TextForms};
use polyreward_heads::{EmbeddedForm, ItemComparison, Items};
use sha2::{Digest, Sha256};

/// Why a data set cannot be embedded.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// A text of a record.
    #[error("record {record}: the {form} cannot be embedded")]
    Text {
        /// Which record, from 0.
        record: usize,
        /// Which form of its text.
        form: TextForm,
        /// Why.
        #[source]
        source: InputError,
    },
    /// The backbone failed.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
}

/// Embedded records.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// The distinct (prompt, response) pairs.
    pub items: Items,
    /// The comparison of each record, in their order.
    pub comparisons: Vec<ItemComparison>,
    /// Distinct texts that were cut to the backbone's window.
    pub truncated: usize,
    /// Distinct texts encoded.
    pub texts: usize,
}

/// Embeds every text of the records in the forms asked for; `progress` hears (done, total) texts.
///
/// # Errors
/// The first text that cannot be embedded, or a failing backbone.
pub fn embed_corpus(
    backbone: &Backbone,
    records: &[ComparisonRecord],
    forms: TextForms,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Corpus, CorpusError> {
    let mut index: HashMap<(&Prompt, &str), usize> = HashMap::new();
    let mut members: Vec<(usize, &Prompt, &str)> = Vec::new();
    let mut comparisons = Vec::with_capacity(records.len());
    for (at, record) in records.iter().enumerate() {
        let comparison = &record.comparison;
        let mut item = |response: &'_ str| -> usize {
            // The borrow must come from the record, which outlives the index.
            let response: &str =
                if response == comparison.chosen { &comparison.chosen } else { &comparison.rejected };
            *index.entry((&comparison.prompt, response)).or_insert_with(|| {
                members.push((at, &comparison.prompt, response));
                members.len() - 1
            })
        };
        comparisons.push(ItemComparison {
            chosen: item(&comparison.chosen),
            rejected: item(&comparison.rejected),
            strength: comparison.strength.get(),
            label_confidence: comparison.label_confidence.get(),
        });
    }
    let mut corpus = Corpus {
        items: Items {
            len: members.len(),
            names: members.iter().map(|(_, prompt, response)| name_of(prompt, response)).collect(),
            ..Items::default()
        },
        comparisons,
        truncated: 0,
        texts: 0,
    };
    let texts = Texts::of(&members, forms);
    let inputs: Vec<EmbedInput> = texts.inputs.iter().map(|(input, _)| input.clone()).collect();
    let total = inputs.len();
    let embedded = backbone.embed_blocking(inputs, Overflow::Truncate, None, |done| progress(done, total))?;
    let dim = backbone.info().dim;
    let mut embedded = embedded.into_iter().zip(&texts.inputs);
    for (form, of_item, count) in texts.forms {
        let mut rows = Array2::zeros((count, dim));
        for (mut row, (text, (_, record))) in rows.rows_mut().into_iter().zip(embedded.by_ref().take(count)) {
            let text = text.map_err(|source| CorpusError::Text { record: *record, form, source })?;
            row.assign(&ndarray::ArrayView1::from(&*text.embedding));
            corpus.truncated += usize::from(text.truncated);
            corpus.texts += 1;
        }
        let embedded_form = Some(EmbeddedForm { rows, of_item });
        match form {
            TextForm::PromptResponse => corpus.items.prompt_response = embedded_form,
            TextForm::Prompt => corpus.items.prompt = embedded_form,
            TextForm::Response => corpus.items.response = embedded_form,
        }
    }
    Ok(corpus)
}

/// What names a response to a prompt: the beginning of a hash of both.
pub fn name_of(prompt: &Prompt, response: &str) -> u64 {
    let mut hasher = Sha256::new();
    match prompt {
        Prompt::Text(text) => {
            hasher.update([0]);
            part(&mut hasher, text);
        }
        Prompt::Raw(text) => {
            hasher.update([2]);
            part(&mut hasher, text);
        }
        Prompt::Tokens(ids) => {
            hasher.update([3]);
            hasher.update((ids.len() as u64).to_le_bytes());
            ids.iter().for_each(|id| hasher.update(id.to_le_bytes()));
        }
        Prompt::Chat(messages) => {
            hasher.update([1]);
            for message in messages {
                part(&mut hasher, &message.role);
                part(&mut hasher, &message.content);
            }
        }
    }
    part(&mut hasher, response);
    u64::from_le_bytes(hasher.finalize()[..8].try_into().expect("a SHA-256 digest has 32 bytes"))
}

/// Hashes a text with its length, so that where one ends and the next begins is part of it.
fn part(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// The distinct texts of some items, form by form.
struct Texts {
    /// Every text once, with a record it stands in; the texts of a form follow one another.
    inputs: Vec<(EmbedInput, usize)>,
    /// Form, text of each item, number of texts.
    forms: Vec<(TextForm, Vec<usize>, usize)>,
}

impl Texts {
    fn of(members: &[(usize, &Prompt, &str)], forms: TextForms) -> Self {
        let mut prompts: HashMap<&Prompt, Arc<Prompt>> = HashMap::new();
        let mut texts = Self { inputs: Vec::new(), forms: Vec::new() };
        for form in forms.iter() {
            let mut known: HashMap<(Option<&Prompt>, Option<&str>), usize> = HashMap::new();
            let first = texts.inputs.len();
            let of_item = members
                .iter()
                .map(|&(record, prompt, response)| {
                    let key = match form {
                        TextForm::PromptResponse => (Some(prompt), Some(response)),
                        TextForm::Prompt => (Some(prompt), None),
                        TextForm::Response => (None, Some(response)),
                    };
                    *known.entry(key).or_insert_with(|| {
                        let prompt = prompts.entry(prompt).or_insert_with(|| Arc::new(prompt.clone()));
                        let input =
                            EmbedInput { form, prompt: Arc::clone(prompt), response: Arc::from(response) };
                        texts.inputs.push((input, record));
                        texts.inputs.len() - 1 - first
                    })
                })
                .collect();
            let count = texts.inputs.len() - first;
            texts.forms.push((form, of_item, count));
        }
        texts
    }
}
