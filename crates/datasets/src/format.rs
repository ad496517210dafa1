//! The formats by name.

use std::{fmt, str::FromStr};

/// Whose format a file of comparisons has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// polyreward's own: a comparison a row; in a table, its fields are columns of the same names.
    Jsonl,
    /// Anthropic's HH-RLHF: two dialogues a row (`chosen`, `rejected`), alike but for the last turn.
    ///
    /// The turns before the last are the prompt, as a chat. The data set does not tell people apart, so that all
    /// comparisons are of one; they have no id.
    Hh,
    /// PRISM: a survey of people (`survey`), and each response they scored (`utterances`).
    ///
    /// In each interaction the chosen response is compared with each other one; the turns before are the prompt, with
    /// the responses chosen in them. Strength is the difference of the scores, of 1 to 100, divided by 33. A tie, and a
    /// choice against the person's own scores, is counted and gives no comparison. Ids are
    /// `interaction.chosen.rejected`.
    ///
    /// Attributes: `age`, `gender`, `education`, `employment_status`, `marital_status`, `english_proficiency`;
    /// `religion` and `ethnicity` as simplified; `birth_country`, `birth_region`, `birth_subregion`,
    /// `reside_country`, `reside_region`, `reside_subregion`, `same_birth_reside_country` and `special_region`
    /// out of `location`; `us_representative` and `uk_representative`.
    Prism,
    /// Community Alignment: a conversation of up to four turns a row.
    ///
    /// In each turn the preferred response is compared with each other text; the turns before are the prompt, with the
    /// responses preferred in them, and the turn's feedback is the rationale. Ids are `conversation.turn.text`, the
    /// last a digest of the rejected text, whichever slot it stands in.
    ///
    /// Attributes: `age`, `gender`, `education_level`, `political`, `ethnicity`, `country` and `lang`.
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
