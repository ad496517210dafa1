//! Names of people and models, as types that cannot be swapped.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a string is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A user id outside `[A-Za-z0-9._~-]{1,128}`.
    #[error("a user id has 1 to 128 characters out of A-Z a-z 0-9 . _ ~ -")]
    User,
    /// A person of a data file without a name, or with one that cannot be printed.
    #[error("a person in a data file has a name of 1 to 512 bytes without control characters")]
    Person,
    /// A model name outside `[a-z0-9][a-z0-9._-]{0,63}`.
    #[error("a model name has 1 to 64 characters out of a-z 0-9 . _ -, the first a letter or digit")]
    ModelName,
    /// A model version outside `[a-z0-9][a-z0-9._-]{0,63}`.
    #[error("a model version has 1 to 64 characters out of a-z 0-9 . _ -, the first a letter or digit")]
    ModelVersion,
    /// A tenant outside `[a-z0-9][a-z0-9._-]{0,63}`.
    #[error("a tenant has 1 to 64 characters out of a-z 0-9 . _ -, the first a letter or digit")]
    Tenant,
    /// An example id outside `[A-Za-z0-9._~-]{1,128}`.
    #[error("an example id has 1 to 128 characters out of A-Z a-z 0-9 . _ ~ -")]
    Example,
    /// A head family that does not exist.
    #[error("unknown head {0:?}; heads are bt, lore, pal-a, pal-b, vpl, micro")]
    HeadFamily(String),
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $error:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err($error) }
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

string_id!(
    /// A person whose comparisons are stored: `[A-Za-z0-9._~-]{1,128}`, chosen by the client.
    UserId,
    IdError::User,
    is_path_segment
);

string_id!(
    /// A comparison that a person posted: `[A-Za-z0-9._~-]{1,128}`, chosen by the client or made of what was compared.
    ExampleId,
    IdError::Example,
    is_path_segment
);

string_id!(
    /// Whose data it is: every row belongs to one tenant, and a key to no other.
    TenantId,
    IdError::Tenant,
    is_folder_name
);

impl Default for TenantId {
    /// The tenant of a server without keys.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// What stands in a URL's path as it is: nothing to escape.
fn is_path_segment(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
}

string_id!(
    /// A person in a data file: 1 to 512 bytes without control characters, as whoever made the file named them.
    /// A [`UserId`] is stricter, since it stands in paths; not every person of a file can become a user.
    PersonId,
    IdError::Person,
    |text| (1..=512).contains(&text.len()) && !text.chars().any(char::is_control)
);

/// Model names and versions are folder names: nothing that could leave the models folder is one.
fn is_folder_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

string_id!(
    /// The name of a model; its versions share it.
    ModelName,
    IdError::ModelName,
    is_folder_name
);

string_id!(
    /// One version of a model: the beginning of the hash of its weights.
    ModelVersion,
    IdError::ModelVersion,
    is_folder_name
);

/// One trained head on one backbone, written `name@version`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelRef {
    /// The model's name.
    pub name: ModelName,
    /// Which version of it.
    pub version: ModelVersion,
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// What a request names: a model in its newest version, or in one version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelSelector {
    /// The model's name.
    pub name: ModelName,
    /// The version; `None` is the newest.
    pub version: Option<ModelVersion>,
}

impl FromStr for ModelSelector {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version.parse()?)),
            None => (text, None),
        };
        Ok(Self { name: name.parse()?, version })
    }
}

impl fmt::Display for ModelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => self.name.fmt(f),
        }
    }
}

/// A family of heads: how a reward depends on the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadFamily {
    /// Bradley-Terry: one reward for all, the yardstick.
    Bt,
    /// Low-rank reward basis (arXiv:2504.14439).
    Lore,
    /// Ideal points in a mixture of prototypes (arXiv:2406.08469).
    PalA,
    /// Ideal points that depend on the prompt (arXiv:2406.08469).
    PalB,
    /// A latent inferred from a person's comparisons (arXiv:2408.10075).
    Vpl,
    /// A routed mixture of Bradley-Terry heads (arXiv:2505.24846).
    Micro,
}

impl HeadFamily {
    /// Every family, the yardstick first.
    pub const ALL: [Self; 6] = [Self::Bt, Self::Lore, Self::PalA, Self::PalB, Self::Vpl, Self::Micro];

    /// The family's name on the command line, in files and over HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bt => "bt",
            Self::Lore => "lore",
            Self::PalA => "pal-a",
            Self::PalB => "pal-b",
            Self::Vpl => "vpl",
            Self::Micro => "micro",
        }
    }
}

impl fmt::Display for HeadFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for HeadFamily {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::ALL
            .into_iter()
            .find(|family| family.as_str() == text)
            .ok_or_else(|| IdError::HeadFamily(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_keep_to_their_alphabet_and_length() {
        for good in ["a", "Ada.Lovelace_~-9", &"x".repeat(128)] {
            assert!(good.parse::<UserId>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", "a\0", &"x".repeat(129)] {
            assert_eq!(bad.parse::<UserId>(), Err(IdError::User), "{bad:?}");
        }
    }

    #[test]
    fn a_person_of_a_data_file_may_have_a_name_that_no_user_can_have() {
        assert!("town.hall/17".parse::<PersonId>().is_ok());
        assert!("town.hall/17".parse::<UserId>().is_err());
        for bad in ["", "a\nb", "a\0", &"x".repeat(513)] {
            assert_eq!(bad.parse::<PersonId>(), Err(IdError::Person), "{bad:?}");
        }
    }

    #[test]
    fn a_model_name_cannot_leave_its_folder() {
        for bad in ["..", ".", "a/b", "a\\b", "-rf", "", "PAL"] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad:?}");
        }
        assert!("pal-a.v2".parse::<ModelName>().is_ok());
    }

    #[test]
    fn a_selector_reads_back_as_written() {
        for text in ["bt", "pal-a@3f9c"] {
            assert_eq!(text.parse::<ModelSelector>().unwrap().to_string(), text);
        }
        assert!("bt@".parse::<ModelSelector>().is_err());
        assert!("bt@a@b".parse::<ModelSelector>().is_err());
    }

    #[test]
    fn families_are_named_alike_in_text_and_json() {
        for family in HeadFamily::ALL {
            assert_eq!(serde_json::to_string(&family).unwrap(), format!("\"{family}\""));
            assert_eq!(family.as_str().parse::<HeadFamily>(), Ok(family));
        }
    }
}
