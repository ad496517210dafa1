//! The vocabulary of polyreward as types: ids, prompts, responses, comparisons. No input or output, no async.
//!
//! A value of one of these types is valid: what comes from outside is checked once, when it is made.

mod access;
mod attributes;
mod comparison;
mod ids;
mod state_version;
mod tally;
mod text;

pub use access::{Scope, ScopeError, Scopes};
pub use attributes::{
    AttributeError, Attributes, MAX_ATTRIBUTES, MAX_KEY_BYTES, MAX_VALUE_BYTES, check_attributes,
};
pub use comparison::{Comparison, ComparisonError, ComparisonRecord, LabelConfidence, Split, Strength};
pub use ids::{
    ExampleId, HeadFamily, IdError, ModelName, ModelRef, ModelSelector, ModelVersion, PersonId, TenantId,
    UserId,
};
pub use state_version::StateVersion;
pub use tally::{BinSums, CONFIDENCE_BINS, Tally, confidence_bin, correctness};
pub use text::{Message, Overflow, Prompt, TextError, TextForm, TextForms, check_text};
