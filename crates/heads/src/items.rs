//! People and what they compared, as arrays: what training and evaluation read.

use std::{fmt::Debug, sync::Arc};

use ndarray::{Array2, ArrayView1};
use polyreward_domain::{Attributes, PersonId, TextForm, TextForms};

use crate::head::{Head, HeadError, TextEmbeddings};

/// Embeddings by row, wherever they lie: in memory, or in a file that is larger than memory.
pub trait EmbeddingRows: Debug + Send + Sync {
    /// `T`, the number of rows.
    fn len(&self) -> usize;

    /// `D`, the width of each.
    fn dim(&self) -> usize;

    /// One row, `[D]`; panics if there is no such.
    fn row(&self, at: usize) -> &[f32];

    /// Whether there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A matrix in memory, its rows one behind the other.
#[derive(Debug)]
struct Matrix(Array2<f32>);

impl EmbeddingRows for Matrix {
    fn len(&self) -> usize {
        self.0.nrows()
    }

    fn dim(&self) -> usize {
        self.0.ncols()
    }

    fn row(&self, at: usize) -> &[f32] {
        self.0.row(at).to_slice().expect("the matrix was brought to standard layout")
    }
}

/// The distinct texts of one form, embedded, and which of them each item reads.
#[derive(Debug, Clone)]
pub struct EmbeddedForm {
    /// One row a distinct text, `[T, D]`.
    pub rows: Arc<dyn EmbeddingRows>,
    /// Row of each item, `[I]`.
    pub of_item: Vec<u32>,
}

impl EmbeddedForm {
    /// Of embeddings in memory, `[T, D]`, and the row of each item, `[I]`.
    pub fn in_memory(rows: Array2<f32>, of_item: Vec<u32>) -> Self {
        Self { rows: Arc::new(Matrix(rows.as_standard_layout().into_owned())), of_item }
    }

    /// The embedding of an item, `[D]`.
    pub fn of(&self, item: usize) -> ArrayView1<'_, f32> {
        ArrayView1::from(self.rows.row(self.of_item[item] as usize))
    }
}

/// The distinct (prompt, response) pairs of a data set, embedded in the forms that heads read.
#[derive(Debug, Clone, Default)]
pub struct Items {
    /// Number of items.
    pub len: usize,
    /// What names each item, `[I]`: a hash of its prompt and response, the same in whatever data it stands.
    pub names: Vec<u64>,
    /// Of the prompt with the response.
    pub prompt_response: Option<EmbeddedForm>,
    /// Of the prompt alone.
    pub prompt: Option<EmbeddedForm>,
    /// Of the response alone.
    pub response: Option<EmbeddedForm>,
}

impl Items {
    /// The embeddings of one form.
    ///
    /// # Errors
    /// [`HeadError::MissingForm`] if they were not given.
    pub fn form(&self, form: TextForm) -> Result<&EmbeddedForm, HeadError> {
        match form {
            TextForm::PromptResponse => self.prompt_response.as_ref(),
            TextForm::Prompt => self.prompt.as_ref(),
            TextForm::Response => self.response.as_ref(),
        }
        .ok_or(HeadError::MissingForm(form))
    }

    /// What names the two items of a comparison, the chosen one first.
    pub fn names_of(&self, comparison: &ItemComparison) -> [u64; 2] {
        [self.names[comparison.chosen], self.names[comparison.rejected]]
    }

    /// Features of the items under a head, `[items.len(), F]`, a few thousand items at a time.
    ///
    /// # Errors
    /// A missing form, or embeddings the head refuses.
    pub fn features(&self, head: &dyn Head, items: &[usize]) -> Result<Array2<f32>, HeadError> {
        let mut features = Array2::zeros((items.len(), head.feature_len()));
        for (at, chunk) in items.chunks(4096).enumerate() {
            let gathered = self.gather(head.text_forms(), chunk)?;
            let rows = head.features(&gathered.view())?;
            features.slice_mut(ndarray::s![at * 4096..at * 4096 + chunk.len(), ..]).assign(&rows);
        }
        Ok(features)
    }

    fn gather(&self, forms: TextForms, items: &[usize]) -> Result<Gathered, HeadError> {
        let mut gathered = Gathered::default();
        for form in forms.iter() {
            let source = self.form(form)?;
            let mut rows = Array2::zeros((items.len(), source.rows.dim()));
            for (mut row, item) in rows.rows_mut().into_iter().zip(items) {
                row.assign(&source.of(*item));
            }
            gathered.0.push((form, rows));
        }
        Ok(gathered)
    }
}

/// Rows gathered by item, one matrix a form.
#[derive(Debug, Default)]
struct Gathered(Vec<(TextForm, Array2<f32>)>);

impl Gathered {
    fn view(&self) -> TextEmbeddings<'_> {
        self.0.iter().fold(TextEmbeddings::default(), |texts, (form, rows)| texts.with(*form, rows.view()))
    }
}

/// One comparison, by item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ItemComparison {
    /// The preferred item.
    pub chosen: usize,
    /// The other one.
    pub rejected: usize,
    /// How much it counts; 1 ordinarily.
    pub strength: f64,
    /// Probability that the label is right; 1 ordinarily.
    pub label_confidence: f64,
}

/// A person and their comparisons.
#[derive(Debug, Clone)]
pub struct Person {
    /// Who.
    pub user_id: PersonId,
    /// What is known of them.
    pub attributes: Attributes,
    /// What they preferred.
    pub comparisons: Vec<ItemComparison>,
}
