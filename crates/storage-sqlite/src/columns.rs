//! Domain types as columns hold them, and back. What cannot be read back was not written by this program.

use polyreward_domain::{ModelRef, ModelSelector, TextForm};
use polyreward_storage::StorageError;
use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;

/// Microseconds since 1970.
pub(crate) fn micros(at: OffsetDateTime) -> i64 {
    at.unix_timestamp_nanos().div_euclid(1000) as i64
}

pub(crate) fn moment(micros: i64) -> Result<OffsetDateTime, StorageError> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
        .map_err(|_| StorageError::Corrupt("a time"))
}

/// A count or a place in an order; these never come near the end of an `i64`.
pub(crate) fn count(number: u64) -> Result<i64, StorageError> {
    i64::try_from(number).map_err(|error| StorageError::Backend(error.into()))
}

pub(crate) fn counted(number: i64) -> Result<u64, StorageError> {
    u64::try_from(number).map_err(|_| StorageError::Corrupt("a count"))
}

pub(crate) fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(crate) fn blob(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

pub(crate) fn numbers(blob: &[u8], what: &'static str) -> Result<Vec<f32>, StorageError> {
    let (numbers, rest) = blob.as_chunks::<4>();
    if rest.is_empty() {
        Ok(numbers.iter().copied().map(f32::from_le_bytes).collect())
    } else {
        Err(StorageError::Corrupt(what))
    }
}

pub(crate) fn digest(blob: &[u8], what: &'static str) -> Result<[u8; 32], StorageError> {
    blob.try_into().map_err(|_| StorageError::Corrupt(what))
}

/// An id or another text that was checked on the way in.
pub(crate) fn parsed<T: TryFrom<String>>(text: String, what: &'static str) -> Result<T, StorageError> {
    T::try_from(text).map_err(|_| StorageError::Corrupt(what))
}

pub(crate) fn json(value: &(impl Serialize + ?Sized)) -> Result<String, StorageError> {
    serde_json::to_string(value).map_err(|error| StorageError::Backend(error.into()))
}

pub(crate) fn from_json<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StorageError> {
    serde_json::from_str(text).map_err(|_| StorageError::Corrupt(what))
}

pub(crate) fn model_ref(text: &str) -> Result<ModelRef, StorageError> {
    match text.parse() {
        Ok(ModelSelector { name, version: Some(version) }) => Ok(ModelRef { name, version }),
        _ => Err(StorageError::Corrupt("a model's name")),
    }
}

pub(crate) const fn form_name(form: TextForm) -> &'static str {
    match form {
        TextForm::PromptResponse => "prompt_response",
        TextForm::Prompt => "prompt",
        TextForm::Response => "response",
    }
}

pub(crate) fn text_form(name: &str) -> Result<TextForm, StorageError> {
    TextForm::ALL
        .into_iter()
        .find(|form| form_name(*form) == name)
        .ok_or(StorageError::Corrupt("the form of an embedding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_before_1970_is_cut_to_the_microsecond_before_it() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(-1).unwrap();
        assert_eq!(micros(at), -1);
        assert_eq!(moment(-1).unwrap().unix_timestamp_nanos(), -1000);
    }

    #[test]
    fn numbers_are_the_same_bits_in_little_endian() {
        let written = [1.0f32, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX];
        let blob = blob(&written);
        assert_eq!(blob[..4], [0, 0, 0x80, 0x3f]);
        let bits = |numbers: &[f32]| numbers.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&numbers(&blob, "x").unwrap()), bits(&written));
        assert!(numbers(&blob[1..], "x").is_err());
    }

    #[test]
    fn a_model_without_a_version_is_no_model_of_a_row() {
        assert!(model_ref("pal-a").is_err());
        assert_eq!(model_ref("pal-a@1f").unwrap().to_string(), "pal-a@1f");
    }
}
