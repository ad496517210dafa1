//! The formats by name.

use std::{fmt, str::FromStr};

/// Whose format a file of comparisons has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// polyreward's own: a comparison a row.
    Jsonl,
    /// Anthropic's HH-RLHF: two dialogues a row, alike but for the last turn.
    Hh,
    /// PRISM: a survey of people, and each response they scored.
    Prism,
    /// Community Alignment: a conversation of up to four turns a row.
    CommunityAlignment,
}

/// Not the name of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown format {0:?}; formats are jsonl, hh, prism, community-alignment")]
pub struct UnknownFormat(String);

impl Format {
    /// Every format, our own first.
    pub const ALL: [Self; 4] = [Self::Jsonl, Self::Hh, Self::Prism, Self::CommunityAlignment];

    /// The format's name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Hh => "hh",
            Self::Prism => "prism",
            Self::CommunityAlignment => "community-alignment",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_reads_back_as_written() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "JSONL".parse::<Format>().unwrap_err().to_string();
        assert!(error.contains("community-alignment"), "{error}");
    }
}
