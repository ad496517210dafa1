//! A data set, embedded: records become comparisons of items, every distinct text encoded once.
//!
//! [`embed_corpus`] holds records and embeddings in memory. [`embed_stream`] holds neither: a record's texts are dropped once
//! they are embedded, embeddings go to a file and are read through a map of it. Both number items and texts alike, so that
//! what is trained on either is the same to the bit.

use std::{
    collections::{HashMap, VecDeque},
    iter,
    sync::Arc,
};

use ndarray::{Array2, ArrayView1};
use polyreward_backbone::{
    Backbone, BackboneError, BackboneInfo, EmbedInput, Embedded, EmbeddingFile, EmbeddingFileError,
    EmbeddingIndex, InputError, MappedEmbeddings,
};
use polyreward_domain::{ComparisonRecord, Overflow, Prompt, TextForm, TextForms};
use polyreward_heads::{EmbeddedForm, EmbeddingRows, ItemComparison, Items};
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
    /// The file of embeddings cannot be written or read.
    #[error(transparent)]
    File(#[from] EmbeddingFileError),
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
    let mut texts = Texts::new(forms, backbone.info().clone(), EmbeddingIndex::default());
    let mut queue = VecDeque::new();
    let comparisons = records.iter().enumerate().map(|(at, record)| texts.add(at, record, &mut queue));
    let comparisons: Vec<ItemComparison> = comparisons.collect();
    let inputs: Vec<EmbedInput> = queue.iter().map(|text| text.input.clone()).collect();
    let total = inputs.len();
    let embedded = backbone.embed_blocking(inputs, Overflow::Truncate, None, |done| progress(done, total))?;
    let embedded: Vec<_> = embedded.into_iter().zip(queue).map(|(text, new)| new.embedded(text)).collect();
    let embedded = embedded.into_iter().collect::<Result<Vec<_>, _>>()?;
    let dim = backbone.info().dim;
    let items = texts.into_items(|records, of_item| {
        let mut rows = Array2::zeros((records.len(), dim));
        for (mut row, record) in rows.rows_mut().into_iter().zip(&records) {
            row.assign(&ArrayView1::from(&*embedded[*record as usize].embedding));
        }
        EmbeddedForm::in_memory(rows, of_item)
    });
    let truncated = embedded.iter().filter(|text| text.truncated).count();
    Ok(Corpus { items, comparisons, truncated, texts: total })
}

/// A data set whose embeddings lie in a file.
#[derive(Debug)]
pub struct StreamedCorpus {
    /// The distinct (prompt, response) pairs.
    pub items: Items,
    /// Distinct texts that were cut to the backbone's window.
    pub truncated: usize,
    /// Distinct texts.
    pub texts: usize,
    /// Of them, those that had to be encoded; the others were in the file.
    pub encoded: usize,
}

/// Embeds every text of the records in the forms asked for, those alone that the file does not hold, and adds them to it. The
/// next records are read while texts are encoded; `each` gets every record with its comparison, in their order, before its
/// texts are dropped.
///
/// # Errors
/// The first error of `records` or `each`, a text that cannot be embedded, a failing backbone, a file that cannot be written.
/// What was encoded until then stays in the file.
pub fn embed_stream<E: From<BackboneError> + From<CorpusError>>(
    backbone: &Backbone,
    (mut file, index): (EmbeddingFile, EmbeddingIndex),
    records: impl Iterator<Item = Result<ComparisonRecord, E>>,
    forms: TextForms,
    mut each: impl FnMut(&ComparisonRecord, ItemComparison) -> Result<(), E>,
) -> Result<StreamedCorpus, E> {
    let known = index.len();
    let mut texts = Texts::new(forms, backbone.info().clone(), index);
    let mut records = records.enumerate();
    let mut queue = VecDeque::new();
    let inputs = iter::from_fn(|| {
        loop {
            if let Some(text) = queue.pop_front() {
                let text: NewText = text;
                let input = text.input.clone();
                return Some(Ok((text, input)));
            }
            let (at, record) = records.next()?;
            let read = record.and_then(|record| {
                let comparison = texts.add(at, &record, &mut queue);
                each(&record, comparison)
            });
            if let Err(error) = read {
                return Some(Err(error));
            }
        }
    });
    let added = backbone.embed_each(inputs, Overflow::Truncate, None, |text: NewText, result| {
        let input = text.input.clone();
        let embedded = text.embedded(result)?;
        file.push(&input, &embedded).map_err(CorpusError::from)?;
        Ok(())
    });
    let committed = file.commit().map_err(CorpusError::from);
    added?;
    committed?;
    let encoded = texts.index.len() - known;
    let mapped = Arc::new(file.into_mapped().map_err(CorpusError::from)?);
    let (mut truncated, mut count) = (0, 0);
    let items = texts.into_items(|records, of_item| {
        count += records.len();
        truncated += records.iter().filter(|record| mapped.is_truncated(**record)).count();
        EmbeddedForm { rows: Arc::new(MappedRows { file: Arc::clone(&mapped), records }), of_item }
    });
    Ok(StreamedCorpus { items, truncated, texts: count, encoded })
}

/// Some embeddings of a file, in an order of their own.
#[derive(Debug)]
struct MappedRows {
    file: Arc<MappedEmbeddings>,
    records: Vec<u32>,
}

impl EmbeddingRows for MappedRows {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn dim(&self) -> usize {
        self.file.dim()
    }

    fn row(&self, at: usize) -> &[f32] {
        self.file.row(self.records[at])
    }
}

/// What names a response to a prompt: the beginning of a hash of both.
pub fn name_of(prompt: &Prompt, response: &str) -> u64 {
    u64::from_le_bytes(digest_of(prompt, response)[..8].try_into().expect("a SHA-256 digest has 32 bytes"))
}

/// A hash of a prompt and a response to it.
fn digest_of(prompt: &Prompt, response: &str) -> [u8; 32] {
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
            for id in ids {
                hasher.update(id.to_le_bytes());
            }
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
    hasher.finalize().into()
}

/// Hashes a text with its length, so that where one ends and the next begins is part of it.
fn part(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// A text that has to be encoded.
struct NewText {
    /// A record that it stands in, from 0.
    record: usize,
    input: EmbedInput,
}

impl NewText {
    fn embedded(self, result: Result<Embedded, InputError>) -> Result<Embedded, CorpusError> {
        let (record, form) = (self.record, self.input.form);
        result.map_err(|source| CorpusError::Text { record, form, source })
    }
}

/// The distinct items of the records so far, and the distinct texts that they read, without a text: hashes and numbers.
struct Texts {
    info: BackboneInfo,
    /// By half of a digest: 128 bits of SHA-256 tell items apart.
    items: HashMap<u128, u32>,
    names: Vec<u64>,
    forms: Vec<FormTexts>,
    /// Where the embedding of each text is, or will be.
    index: EmbeddingIndex,
}

/// The distinct texts of one form, in the order in which they came.
struct FormTexts {
    form: TextForm,
    /// Row of each record of embeddings.
    rows: HashMap<u32, u32>,
    /// Record of each row.
    records: Vec<u32>,
    /// Row of each item.
    of_item: Vec<u32>,
}

impl Texts {
    fn new(forms: TextForms, info: BackboneInfo, index: EmbeddingIndex) -> Self {
        let of = |form| FormTexts { form, rows: HashMap::new(), records: Vec::new(), of_item: Vec::new() };
        let forms = forms.iter().map(of).collect();
        Self { info, items: HashMap::new(), names: Vec::new(), forms, index }
    }

    /// A record as a comparison; its texts that nobody has the embedding of join the queue.
    fn add(&mut self, at: usize, record: &ComparisonRecord, queue: &mut VecDeque<NewText>) -> ItemComparison {
        let comparison = &record.comparison;
        let mut prompt = None;
        let mut item = |response: &str| -> usize {
            let digest = digest_of(&comparison.prompt, response);
            let identity = u128::from_le_bytes(digest[..16].try_into().expect("a digest has 32 bytes"));
            let next = self.names.len() as u32;
            let item = *self.items.entry(identity).or_insert(next);
            if item == next {
                self.names.push(u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes")));
                let prompt = prompt.get_or_insert_with(|| Arc::new(comparison.prompt.clone()));
                let response: Arc<str> = Arc::from(response);
                for form in &mut self.forms {
                    let (prompt, response) = (Arc::clone(prompt), Arc::clone(&response));
                    let input = EmbedInput { form: form.form, prompt, response };
                    let (record, is_new) = self.index.record(&self.info, &input);
                    if is_new {
                        queue.push_back(NewText { record: at, input });
                    }
                    form.read(record);
                }
            }
            item as usize
        };
        ItemComparison {
            chosen: item(&comparison.chosen),
            rejected: item(&comparison.rejected),
            strength: comparison.strength.get(),
            label_confidence: comparison.label_confidence.get(),
        }
    }

    /// The items; `embed` makes a form of the records that its rows are in and the row of each item.
    fn into_items(self, mut embed: impl FnMut(Vec<u32>, Vec<u32>) -> EmbeddedForm) -> Items {
        let mut items = Items { len: self.names.len(), names: self.names, ..Items::default() };
        for FormTexts { form, records, of_item, .. } in self.forms {
            let embedded = Some(embed(records, of_item));
            match form {
                TextForm::PromptResponse => items.prompt_response = embedded,
                TextForm::Prompt => items.prompt = embedded,
                TextForm::Response => items.response = embedded,
            }
        }
        items
    }
}

impl FormTexts {
    /// The next item reads the text with this embedding.
    fn read(&mut self, record: u32) {
        let next = self.records.len() as u32;
        let row = *self.rows.entry(record).or_insert(next);
        if row == next {
            self.records.push(record);
        }
        self.of_item.push(row);
    }
}
