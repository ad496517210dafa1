//! What is known of a person beside their comparisons.

use std::collections::BTreeMap;

/// What is known of a person, as text by key: `country=UK`.
pub type Attributes = BTreeMap<String, String>;

/// Attributes that one person may have.
pub const MAX_ATTRIBUTES: usize = 64;
/// Bytes of an attribute's key.
pub const MAX_KEY_BYTES: usize = 64;
/// Bytes of an attribute's value.
pub const MAX_VALUE_BYTES: usize = 256;

/// Why attributes cannot be stored. Quotes no value: it may be personal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// More attributes than one person may have.
    #[error("there are more than {MAX_ATTRIBUTES} attributes")]
    TooMany,
    /// A key that is empty, too long, or has control characters.
    #[error("a key has 1 to {MAX_KEY_BYTES} bytes without control characters")]
    Key,
    /// A value that is empty, too long, or has control characters.
    #[error("a value has 1 to {MAX_VALUE_BYTES} bytes without control characters")]
    Value,
}

/// Checks that attributes can be stored, and names the key whose fault it is.
///
/// # Errors
/// The first fault, with its key where it has one.
pub fn check_attributes(attributes: &Attributes) -> Result<(), (Option<&str>, AttributeError)> {
    let fits =
        |text: &str, max: usize| (1..=max).contains(&text.len()) && !text.chars().any(char::is_control);
    if attributes.len() > MAX_ATTRIBUTES {
        return Err((None, AttributeError::TooMany));
    }
    for (key, value) in attributes {
        if !fits(key, MAX_KEY_BYTES) {
            return Err((None, AttributeError::Key));
        }
        if !fits(value, MAX_VALUE_BYTES) {
            return Err((Some(key), AttributeError::Value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_that_cannot_be_stored_is_refused_by_its_key() {
        let of = |key: &str, value: &str| Attributes::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(check_attributes(&of("country", "UK")), Ok(()));
        assert_eq!(check_attributes(&of("", "UK")), Err((None, AttributeError::Key)));
        assert_eq!(check_attributes(&of("a\0", "UK")), Err((None, AttributeError::Key)));
        for bad in ["", "a\nb", &"x".repeat(MAX_VALUE_BYTES + 1)] {
            assert_eq!(check_attributes(&of("country", bad)), Err((Some("country"), AttributeError::Value)));
        }
        let crowd: Attributes = (0..=MAX_ATTRIBUTES).map(|n| (n.to_string(), "x".to_owned())).collect();
        assert_eq!(check_attributes(&crowd), Err((None, AttributeError::TooMany)));
    }
}
