//! What a key allows.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One thing a key may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Ask for rewards, and what to ask a person next.
    #[serde(rename = "score")]
    Score,
    /// Store and erase examples and people.
    #[serde(rename = "write")]
    Write,
    /// Read what is stored: people, examples, accuracy.
    #[serde(rename = "read")]
    Read,
    /// Change which models answer.
    #[serde(rename = "admin")]
    Admin,
    /// Read texts of prompts and responses on the dashboard, beside what `read` allows.
    #[serde(rename = "read:text")]
    ReadText,
}

/// A name that no scope has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope {0:?}; scopes are score, write, read, admin, read:text")]
pub struct ScopeError(String);

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::Score, Self::Write, Self::Read, Self::Admin, Self::ReadText];

    /// The scope as commands and JSON name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Write => "write",
            Self::Read => "read",
            Self::Admin => "admin",
            Self::ReadText => "read:text",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| ScopeError(text.to_owned()))
    }
}

/// A set of scopes; none includes another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether the set holds a scope.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether it holds none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes in it.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// Written as names with commas between them, in the order of [`Scope::ALL`].
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Scope::as_str).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for Scopes {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        text.split(',').filter(|name| !name.is_empty()).map(str::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_back_as_written_and_hold_nothing_else() {
        for text in ["score", "score,write", "write,read,admin,read:text", ""] {
            assert_eq!(text.parse::<Scopes>().unwrap().to_string(), text);
        }
        let scopes: Scopes = "score,read".parse().unwrap();
        let held: Vec<bool> = Scope::ALL.into_iter().map(|scope| scopes.contains(scope)).collect();
        assert_eq!(held, [true, false, true, false, false]);
        assert!("score,root".parse::<Scopes>().is_err());
    }
}
