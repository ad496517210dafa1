//! What is judged: prompts, responses, and the forms in which a head reads them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// U+0000 ends strings in C libraries and is refused by PostgreSQL.
    #[error("contains the character U+0000 at byte {0}")]
    Nul(usize),
    /// A response without text.
    #[error("is empty")]
    Empty,
    /// A chat without messages.
    #[error("has no messages")]
    NoMessages,
    /// A message whose role is empty or longer than 64 bytes.
    #[error("message {0} needs a role of 1 to 64 bytes")]
    Role(usize),
}

/// Checks that a text can be stored and tokenized.
pub fn check_text(text: &str) -> Result<(), TextError> {
    match text.bytes().position(|byte| byte == 0) {
        Some(at) => Err(TextError::Nul(at)),
        None => Ok(()),
    }
}

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or what the backbone's template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// What a response answers: a text, possibly empty, or a chat.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// Plain text; may be empty.
    Text(String),
    /// The turns before the response.
    Chat(Vec<Message>),
    /// Text that whoever wrote it has already put in the form in which it is to be read, up to where the response goes
    /// on; may be empty. It comes from other servers' clients, is scored, and never stored.
    #[serde(skip)]
    Raw(String),
    /// Ids of the backbone's own tokenizer, read as they are: a whole conversation, beside an empty response. They come
    /// from other servers' clients, are scored, and never stored.
    #[serde(skip)]
    Tokens(Vec<u32>),
}

impl Prompt {
    /// Checks every text in the prompt.
    ///
    /// # Errors
    /// A NUL in a text, a chat without messages, a message without a role.
    pub fn check(&self) -> Result<(), TextError> {
        match self {
            Self::Text(text) | Self::Raw(text) => check_text(text),
            Self::Tokens(ids) => {
                if ids.is_empty() {
                    return Err(TextError::Empty);
                }
                Ok(())
            }
            Self::Chat(messages) => {
                if messages.is_empty() {
                    return Err(TextError::NoMessages);
                }
                for (at, message) in messages.iter().enumerate() {
                    if !(1..=64).contains(&message.role.len()) {
                        return Err(TextError::Role(at));
                    }
                    check_text(&message.role)?;
                    check_text(&message.content)?;
                }
                Ok(())
            }
        }
    }
}

impl Default for Prompt {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// What a head reads of a prompt and a response: one embedding per form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextForm {
    /// The prompt with the response.
    PromptResponse,
    /// The prompt alone (PAL-B's user side, MiCRo's router).
    Prompt,
    /// The response alone (PAL-B's item side).
    Response,
}

impl TextForm {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::PromptResponse, Self::Prompt, Self::Response];
}

impl fmt::Display for TextForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PromptResponse => "prompt with response",
            Self::Prompt => "prompt",
            Self::Response => "response",
        })
    }
}

/// A set of [`TextForm`]s: what a head needs, so that no other form is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextForms {
    /// The prompt with the response.
    pub prompt_response: bool,
    /// The prompt alone.
    pub prompt: bool,
    /// The response alone.
    pub response: bool,
}

impl TextForms {
    /// The set of one form.
    pub fn only(form: TextForm) -> Self {
        [form].into_iter().collect()
    }

    /// Whether the set holds the form.
    pub fn contains(self, form: TextForm) -> bool {
        match form {
            TextForm::PromptResponse => self.prompt_response,
            TextForm::Prompt => self.prompt,
            TextForm::Response => self.response,
        }
    }

    /// The forms in the set, in the order of [`TextForm::ALL`].
    pub fn iter(self) -> impl Iterator<Item = TextForm> {
        TextForm::ALL.into_iter().filter(move |form| self.contains(*form))
    }

    /// Every form of either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }
}

impl FromIterator<TextForm> for TextForms {
    fn from_iter<I: IntoIterator<Item = TextForm>>(forms: I) -> Self {
        let mut set = Self::default();
        for form in forms {
            match form {
                TextForm::PromptResponse => set.prompt_response = true,
                TextForm::Prompt => set.prompt = true,
                TextForm::Response => set.response = true,
            }
        }
        set
    }
}

/// What becomes of a text longer than the backbone's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// Cut by the backbone's policy, and say so.
    #[default]
    Truncate,
    /// An error that names the item and its token count.
    Error,
    /// Cut by the same policy to this many tokens, where the window is larger.
    #[serde(skip)]
    TruncateTo(usize),
}

impl Overflow {
    /// How many tokens are read under a window of so many.
    #[must_use]
    pub fn limit(self, window: usize) -> usize {
        match self {
            Self::Truncate | Self::Error => window,
            Self::TruncateTo(tokens) => tokens.min(window),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_a_string_or_a_chat_in_json() {
        let chat: Prompt = serde_json::from_str(r#"[{"role": "user", "content": "hi"}]"#).unwrap();
        assert_eq!(chat, Prompt::Chat(vec![Message { role: "user".into(), content: "hi".into() }]));
        assert_eq!(serde_json::from_str::<Prompt>(r#""hi""#).unwrap(), Prompt::Text("hi".into()));
        assert!(serde_json::from_str::<Prompt>("7").is_err());
        assert!(serde_json::to_string(&Prompt::Raw("<s>hi".into())).is_err());
    }

    #[test]
    fn a_text_with_nul_is_refused_wherever_it_stands() {
        assert_eq!(Prompt::Text("a\0".into()).check(), Err(TextError::Nul(1)));
        let chat = Prompt::Chat(vec![Message { role: "user".into(), content: "\0".into() }]);
        assert_eq!(chat.check(), Err(TextError::Nul(0)));
        assert_eq!(Prompt::Chat(vec![]).check(), Err(TextError::NoMessages));
        assert_eq!(Prompt::Text(String::new()).check(), Ok(()));
    }

    #[test]
    fn a_set_of_forms_keeps_what_went_in() {
        let set: TextForms = [TextForm::Response, TextForm::Prompt].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [TextForm::Prompt, TextForm::Response]);
        assert!(set.union(TextForms::only(TextForm::PromptResponse)).prompt_response);
    }
}
