//! The vocabulary of polyreward as types: ids, prompts, responses, comparisons. No input or output, no async.
//!
//! A value of one of these types is valid: what comes from outside is checked once, when it is made.

mod comparison;
mod ids;
mod text;

pub use comparison::{
    Attributes, Comparison, ComparisonError, ComparisonRecord, LabelConfidence, Split, Strength,
};
pub use ids::{HeadFamily, IdError, ModelName, ModelRef, ModelSelector, ModelVersion, PersonId, UserId};
pub use text::{Message, Overflow, Prompt, TextError, TextForm, TextForms, check_text};
