//! What every head can do.

use std::fmt::Debug;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use polyreward_domain::{HeadFamily, TextForm, TextForms};

use crate::{
    calibration::Calibration,
    state::{StateView, UserState},
    weights::Tensors,
};

/// Why a head cannot compute.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// Two inputs that must agree in a size do not.
    #[error("{what} has {actual}, expected {expected}")]
    DimensionMismatch {
        /// Which size of which input.
        what: &'static str,
        /// The size the head has.
        expected: usize,
        /// The size that came.
        actual: usize,
    },
    /// A text form the head reads was not given.
    #[error("the head reads the embedding of the {0}, which is missing")]
    MissingForm(TextForm),
    /// A number that is not finite came in or would go out.
    #[error("{0} is not finite")]
    NotFinite(&'static str),
    /// A parameter that no head of this family can have.
    #[error("parameter {name}: {detail}")]
    Parameter {
        /// The parameter's name.
        name: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

/// Errors unless `actual == expected`.
pub(crate) fn check_len(what: &'static str, expected: usize, actual: usize) -> Result<(), HeadError> {
    if actual == expected { Ok(()) } else { Err(HeadError::DimensionMismatch { what, expected, actual }) }
}

/// The embeddings of `N` texts, one row each, in the forms that were asked for; shapes `[N, D]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct TextEmbeddings<'a> {
    /// Of the prompt with the response.
    pub prompt_response: Option<ArrayView2<'a, f32>>,
    /// Of the prompt alone.
    pub prompt: Option<ArrayView2<'a, f32>>,
    /// Of the response alone.
    pub response: Option<ArrayView2<'a, f32>>,
}

impl<'a> TextEmbeddings<'a> {
    /// The embeddings of one form.
    ///
    /// # Errors
    /// [`HeadError::MissingForm`] if they were not given.
    pub fn form(&self, form: TextForm) -> Result<ArrayView2<'a, f32>, HeadError> {
        match form {
            TextForm::PromptResponse => self.prompt_response,
            TextForm::Prompt => self.prompt,
            TextForm::Response => self.response,
        }
        .ok_or(HeadError::MissingForm(form))
    }

    /// The same embeddings with those of one form in place of what was there.
    #[must_use]
    pub fn with(mut self, form: TextForm, rows: ArrayView2<'a, f32>) -> Self {
        match form {
            TextForm::PromptResponse => self.prompt_response = Some(rows),
            TextForm::Prompt => self.prompt = Some(rows),
            TextForm::Response => self.response = Some(rows),
        }
        self
    }
}

/// One comparison of a person, as features, ready for a likelihood.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// Features of the preferred response, `[F]`.
    pub chosen: ArrayView1<'a, f32>,
    /// Features of the other one, `[F]`.
    pub rejected: ArrayView1<'a, f32>,
    /// What names the two responses, each with its prompt: of observations that name the same two in the same order, the
    /// strongest counts and the others do not. Features cannot tell that, as a head need not read the prompt.
    pub names: [u64; 2],
    /// How much it counts against an ordinary comparison; 1 ordinarily.
    pub strength: f64,
    /// Probability that the label is right; 1 ordinarily.
    pub label_confidence: f64,
}

/// Posterior mean and variance of a reward or margin, both `[U, N]`, in logits and squared logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Posterior means.
    pub mean: Array2<f32>,
    /// Posterior variances.
    pub variance: Array2<f32>,
}

/// Two responses to each of `N` prompts, as every user has them; `[U, N]` each.
#[derive(Debug, Clone, PartialEq)]
pub struct PairMoments {
    /// Posterior means of the first responses' rewards.
    pub reward_a: Array2<f32>,
    /// And of the second ones'.
    pub reward_b: Array2<f32>,
    /// The margins between them.
    pub margin: Moments,
}

/// A trained reward function whose output depends on a user state.
///
/// Sizes: `N` rows, `D` embedding, `F` features of a text, `U` users, `R` responses.
pub trait Head: Debug + Send + Sync {
    /// The family, which names the formulas.
    fn family(&self) -> HeadFamily;

    /// The forms of text whose embeddings [`Head::features`] reads; no other form need be encoded.
    fn text_forms(&self) -> TextForms;

    /// `D`: the length of an embedding.
    fn embedding_dim(&self) -> usize;

    /// `F`: the number of features of a text.
    fn feature_len(&self) -> usize;

    /// Whether a user state changes a reward; false for Bradley-Terry.
    fn is_personal(&self) -> bool;

    /// Whether [`Head::margins`] are logits of preferences that are averaged over the state already, so that calibration must
    /// not moderate them again by their variance.
    fn margins_are_marginal(&self) -> bool {
        false
    }

    /// What depends on the text alone, `[N, F]`.
    ///
    /// # Errors
    /// A missing form, an embedding of another length, a number that is not finite.
    fn features(&self, texts: &TextEmbeddings<'_>) -> Result<Array2<f32>, HeadError>;

    /// The state of somebody with no examples: the trained prior.
    fn population(&self) -> &UserState;

    /// The state of a person given all their examples; none gives [`Head::population`] exactly.
    ///
    /// Neither the order of the examples nor `start`, a state to begin the search from, changes the result
    /// beyond the solver's tolerance.
    ///
    /// # Errors
    /// Features of another length, or a number that is not finite.
    fn adapt(&self, examples: &[Observation<'_>], start: Option<&UserState>) -> Result<UserState, HeadError>;

    /// Rewards of the responses to one prompt for each user: `[U, R]` from features `[R, F]`, in logits.
    ///
    /// # Errors
    /// Features or states of another length.
    fn rewards(&self, users: &[StateView<'_>], features: ArrayView2<'_, f32>) -> Result<Moments, HeadError>;

    /// The means of [`Head::rewards`] alone, `[U, R]`, at less cost where nobody asks how sure they are.
    ///
    /// # Errors
    /// As of [`Head::rewards`].
    fn mean_rewards(
        &self,
        users: &[StateView<'_>],
        features: ArrayView2<'_, f32>,
    ) -> Result<Array2<f32>, HeadError> {
        Ok(self.rewards(users, features)?.mean)
    }

    /// Margins `reward(a) - reward(b)` for each user: `[U, N]` from features `[N, F]`, in logits; antisymmetric
    /// to the last bit.
    ///
    /// # Errors
    /// Features or states of another length.
    fn margins(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Moments, HeadError>;

    /// Expected information in nats that a person's answer to each pair would give of their state, `[N]` from features
    /// `[N, F]`: see [`Calibration::information_gain`]. Nothing for a head that learns from nobody.
    ///
    /// A head whose margins are marginal has averaged over the state what this is to be the spread of: it must take the
    /// state apart itself.
    ///
    /// # Errors
    /// Features or a state of another length.
    fn information(
        &self,
        user: StateView<'_>,
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
        calibration: Calibration,
    ) -> Result<Array1<f64>, HeadError> {
        let Moments { mean, variance } = self.margins(&[user], a, b)?;
        if !self.is_personal() {
            return Ok(Array1::zeros(mean.ncols()));
        }
        let gain = |(mean, variance): (&f32, &f32)| {
            calibration.information_gain(f64::from(*mean), f64::from(*variance))
        };
        Ok(mean.iter().zip(&variance).map(gain).collect())
    }

    /// [`Head::mean_rewards`] of either side and [`Head::margins`] at once, as every pair that is scored needs them: what the
    /// three have in common is computed once.
    ///
    /// # Errors
    /// As of [`Head::margins`].
    fn pairs(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<PairMoments, HeadError> {
        one_by_one(self, users, a, b)
    }

    /// Hyper-parameters and weights, for [`crate::write_head`].
    fn tensors(&self) -> Tensors;
}

/// [`Head::pairs`] of a head to which its parts have nothing in common.
pub(crate) fn one_by_one<H: Head + ?Sized>(
    head: &H,
    users: &[StateView<'_>],
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
) -> Result<PairMoments, HeadError> {
    Ok(PairMoments {
        reward_a: head.mean_rewards(users, a)?,
        reward_b: head.mean_rewards(users, b)?,
        margin: head.margins(users, a, b)?,
    })
}
