//! From embeddings to what a head reads: unit length, centred, scaled, one form of the text beside another.

use ndarray::{Array1, Array2, s};
use polyreward_domain::{TextForm, TextForms};
use serde::{Deserialize, Serialize};

use crate::{
    head::{HeadError, TextEmbeddings, check_len},
    weights::{Tensors, WeightsError},
};

/// Below this length an embedding is divided by it instead of its own length.
const SHORTEST: f64 = 1e-12;

/// How the embedding of one form is read: `(e / |e| - mean) / scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct FormInput {
    /// Which form.
    pub form: TextForm,
    /// Mean of the training texts' embeddings at unit length, `[D]`.
    pub mean: Array1<f32>,
    /// Their root mean square a dimension, about that mean.
    pub scale: f32,
}

/// The forms a head reads, in the order in which they stand beside each other.
#[derive(Debug, Clone, PartialEq)]
pub struct TextInput {
    /// At least one, all of the same `D`.
    pub forms: Vec<FormInput>,
}

/// What of a [`TextInput`] stands in the hyper-parameters.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FormCard {
    form: TextForm,
    scale: f32,
}

impl TextInput {
    /// `D`, the length of an embedding; 0 without a form.
    pub fn embedding_dim(&self) -> usize {
        self.forms.first().map_or(0, |form| form.mean.len())
    }

    /// `D * forms`, the length of a row of [`TextInput::apply`].
    pub fn width(&self) -> usize {
        self.forms.iter().map(|form| form.mean.len()).sum()
    }

    /// The forms, as a set.
    pub fn text_forms(&self) -> TextForms {
        self.forms.iter().map(|form| form.form).collect()
    }

    /// `[N, width]`.
    ///
    /// # Errors
    /// A missing form, an embedding of another length, a number that is not finite.
    pub fn apply(&self, texts: &TextEmbeddings<'_>) -> Result<Array2<f32>, HeadError> {
        let mut rows = 0;
        for (at, form) in self.forms.iter().enumerate() {
            let embeddings = texts.form(form.form)?;
            check_len("an embedding", form.mean.len(), embeddings.ncols())?;
            if at > 0 {
                check_len("embeddings of another form", rows, embeddings.nrows())?;
            }
            rows = embeddings.nrows();
        }
        let mut inputs = Array2::zeros((rows, self.width()));
        let mut from = 0;
        for form in &self.forms {
            let (to, factor) = (from + form.mean.len(), 1.0 / f64::from(form.scale));
            let mut block = inputs.slice_mut(s![.., from..to]);
            for (mut row, e) in block.rows_mut().into_iter().zip(texts.form(form.form)?.rows()) {
                let length = e.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(SHORTEST);
                for ((x, e), mean) in row.iter_mut().zip(e).zip(&form.mean) {
                    *x = ((f64::from(*e) / length - f64::from(*mean)) * factor) as f32;
                }
            }
            from = to;
        }
        if inputs.iter().all(|x| x.is_finite()) { Ok(inputs) } else { Err(HeadError::NotFinite("an input")) }
    }

    /// Checks what came from outside.
    pub(crate) fn check(&self) -> Result<(), HeadError> {
        let wrong = |detail: &str| Err(HeadError::Parameter { name: "input", detail: detail.into() });
        if self.embedding_dim() == 0 {
            return wrong("there is none");
        }
        if self.text_forms().iter().count() != self.forms.len() {
            return wrong("a form stands twice");
        }
        for form in &self.forms {
            check_len("the mean of an embedding", self.embedding_dim(), form.mean.len())?;
            if !(form.scale.is_finite() && form.scale > 0.0 && form.mean.iter().all(|x| x.is_finite())) {
                return wrong("a scale is finite and positive, a mean finite");
            }
        }
        Ok(())
    }

    pub(crate) fn card(&self) -> Vec<FormCard> {
        self.forms.iter().map(|form| FormCard { form: form.form, scale: form.scale }).collect()
    }

    pub(crate) fn insert(&self, tensors: &mut Tensors, name: &str) {
        for (at, form) in self.forms.iter().enumerate() {
            tensors.insert(&format!("{name}.{at}.mean"), form.mean.clone());
        }
    }

    pub(crate) fn take(tensors: &mut Tensors, name: &str, card: &[FormCard]) -> Result<Self, WeightsError> {
        let forms = card.iter().enumerate().map(|(at, FormCard { form, scale })| {
            let mean = tensors.take_vector(&format!("{name}.{at}.mean"))?;
            Ok(FormInput { form: *form, mean, scale: *scale })
        });
        Ok(Self { forms: forms.collect::<Result<_, WeightsError>>()? })
    }
}
