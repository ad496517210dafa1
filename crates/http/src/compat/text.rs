//! Fields of other servers' bodies that hold texts: one or many, messages, token ids.

use std::{borrow::Cow, fmt};

use polyreward_domain::{Message, Prompt};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, Object, OneOfBuilder, RefOr, Schema, Type},
};

use crate::problem::{InputFault, Problem, ProblemType};

/// One text, or several.
#[derive(Debug)]
pub(crate) enum TextInput {
    One(String),
    Many(Vec<String>),
    /// Token ids, which stand for one text or several.
    Ids,
}

impl TextInput {
    /// The texts with their pointers, and whether it was one that stands alone.
    ///
    /// # Errors
    /// They are token ids.
    pub fn into_texts(self, pointer: &str) -> Result<(Vec<(String, String)>, bool), Problem> {
        match self {
            Self::One(text) => Ok((vec![(pointer.to_owned(), text)], true)),
            Self::Many(texts) => {
                let place = |(at, text)| (format!("{pointer}/{at}"), text);
                Ok((texts.into_iter().enumerate().map(place).collect(), false))
            }
            Self::Ids => Err(no_ids(pointer)),
        }
    }
}

/// That texts are wanted.
pub(crate) fn no_ids(pointer: &str) -> Problem {
    let detail = "token ids are another tokenizer's: send the text";
    Problem::of_part(ProblemType::NotSupported, pointer, detail)
}

impl PartialSchema for TextInput {
    fn schema() -> RefOr<Schema> {
        let text = || Object::with_type(Type::String);
        OneOfBuilder::new()
            .description(Some("A text, or several."))
            .item(text())
            .item(ArrayBuilder::new().items(text()).min_items(Some(1)))
            .into()
    }
}

impl ToSchema for TextInput {
    fn name() -> Cow<'static, str> {
        "TextInput".into()
    }
}

/// One entry of a list of texts; a number or a list would be ids.
enum Entry {
    Text(String),
    Ids,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrIds;

        impl<'de> Visitor<'de> for TextOrIds {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Entry, E> {
                Ok(Entry::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Entry, E> {
                Ok(Entry::Text(text))
            }

            fn visit_u64<E>(self, _id: u64) -> Result<Entry, E> {
                Ok(Entry::Ids)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<Entry, A::Error> {
                while ids.next_element::<u64>()?.is_some() {}
                Ok(Entry::Ids)
            }
        }

        deserializer.deserialize_any(TextOrIds)
    }
}

impl<'de> Deserialize<'de> for TextInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = TextInput;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<TextInput, E> {
                Ok(TextInput::One(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<TextInput, E> {
                Ok(TextInput::One(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<TextInput, A::Error> {
                let (mut texts, mut ids) = (Vec::new(), false);
                while let Some(entry) = entries.next_element()? {
                    match entry {
                        Entry::Text(text) => texts.push(text),
                        Entry::Ids => ids = true,
                    }
                }
                match (ids, texts.is_empty()) {
                    (false, _) => Ok(TextInput::Many(texts)),
                    (true, true) => Ok(TextInput::Ids),
                    (true, false) => Err(A::Error::custom("texts beside ids, expected texts alone")),
                }
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

/// What a message says: a text, or parts of which each is one.
#[derive(Debug)]
pub(crate) struct Content(String);

impl PartialSchema for Content {
    fn schema() -> RefOr<Schema> {
        let part = Object::with_type(Type::Object);
        OneOfBuilder::new()
            .description(Some(
                "A text, or parts `{\"type\": \"text\", \"text\": \"...\"}`, joined by newlines.",
            ))
            .item(Object::with_type(Type::String))
            .item(ArrayBuilder::new().items(part))
            .into()
    }
}

impl ToSchema for Content {
    fn name() -> Cow<'static, str> {
        "MessageContent".into()
    }
}

/// One part of a message.
#[derive(Deserialize)]
struct PartBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
    #[serde(rename = "image_url")]
    _image_url: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts;

        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of parts with a text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Content, E> {
                Ok(Content(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
                let mut texts = Vec::new();
                while let Some(PartBody { kind, text, .. }) = parts.next_element()? {
                    let text = text.filter(|_| kind.as_deref().unwrap_or("text") == "text");
                    texts.push(text.ok_or_else(|| {
                        A::Error::custom("a part that is no text, expected an array of parts with a text")
                    })?);
                }
                Ok(Content(texts.join("\n")))
            }
        }

        deserializer.deserialize_any(TextOrParts)
    }
}

/// One turn of a chat, as OpenAI's clients send it; what else it has is not looked at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with role and content")]
#[schema(as = CompatMessage)]
pub(crate) struct ChatMessage {
    /// `system`, `user`, `assistant`, or what the backbone's template knows.
    #[schema(min_length = 1, max_length = 64, example = "user")]
    role: String,
    #[schema(value_type = Content)]
    content: Content,
}

impl From<ChatMessage> for Message {
    fn from(ChatMessage { role, content: Content(content) }: ChatMessage) -> Self {
        Self { role, content }
    }
}

/// The turns before a response, or the text of all of them.
#[derive(Debug)]
pub(crate) enum PromptInput {
    Text(String),
    Chat(Vec<Message>),
}

impl PartialSchema for PromptInput {
    fn schema() -> RefOr<Schema> {
        let message = utoipa::openapi::Ref::from_schema_name(ChatMessage::name());
        OneOfBuilder::new()
            .description(Some("A text, or the turns of a chat."))
            .item(Object::with_type(Type::String))
            .item(ArrayBuilder::new().items(message).min_items(Some(1)))
            .into()
    }
}

impl ToSchema for PromptInput {
    fn name() -> Cow<'static, str> {
        "CompatPrompt".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((ChatMessage::name().into_owned(), ChatMessage::schema()));
        ChatMessage::schemas(schemas);
    }
}

impl<'de> Deserialize<'de> for PromptInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrChat;

        impl<'de> Visitor<'de> for TextOrChat {
            type Value = PromptInput;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of messages")
            }

            fn visit_str<E>(self, text: &str) -> Result<PromptInput, E> {
                Ok(PromptInput::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<PromptInput, E> {
                Ok(PromptInput::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut messages: A) -> Result<PromptInput, A::Error> {
                let mut chat = Vec::new();
                while let Some(message) = messages.next_element::<ChatMessage>()? {
                    chat.push(message.into());
                }
                Ok(PromptInput::Chat(chat))
            }
        }

        deserializer.deserialize_any(TextOrChat)
    }
}

/// A conversation that ends with a response: what comes before it, and the response.
///
/// # Errors
/// It ends otherwise.
pub(crate) fn conversation(messages: Vec<ChatMessage>, pointer: &str) -> Result<(Prompt, String), Problem> {
    let mut messages: Vec<Message> = messages.into_iter().map(Message::from).collect();
    let Some(last) = messages.pop_if(|message| message.role == "assistant") else {
        let detail = "ends with a message of the assistant, whose reward is asked for";
        return Err(Problem::invalid(vec![InputFault::new(pointer, detail)]));
    };
    let prompt = if messages.is_empty() { Prompt::Text(String::new()) } else { Prompt::Chat(messages) };
    Ok((prompt, last.content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::parse;

    fn texts(json: &str) -> Result<usize, Problem> {
        Ok(parse::<TextInput>(json.as_bytes())?.into_texts("/input")?.0.len())
    }

    #[test]
    fn texts_are_told_from_ids_and_the_two_are_not_mixed() {
        assert_eq!((texts(r#""a""#).unwrap(), texts(r#"["a", "b"]"#).unwrap()), (1, 2));
        assert_eq!(texts("[]").unwrap(), 0);
        for ids in ["[1, 2]", "[[1], [2, 3]]"] {
            assert_eq!(texts(ids).unwrap_err().kind(), ProblemType::NotSupported, "{ids}");
        }
        for bad in ["5", r#"["a", 1]"#, "[-1]", "[{}]", "{}", "null"] {
            assert_eq!(texts(bad).unwrap_err().kind(), ProblemType::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn a_message_of_parts_is_their_texts() {
        let read = |json: &str| parse::<Vec<ChatMessage>>(json.as_bytes());
        let parts = r#"[{"role": "assistant", "name": "x", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}]"#;
        assert_eq!(conversation(read(parts).unwrap(), "/messages").unwrap().1, "a\nb");
        let image =
            r#"[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "SECRET"}}]}]"#;
        let problem = read(image).unwrap_err();
        assert!(!format!("{problem:?}").contains("SECRET"));
        let user = r#"[{"role": "user", "content": "hi"}]"#;
        assert!(conversation(read(user).unwrap(), "/messages").is_err());
        assert!(conversation(Vec::new(), "/messages").is_err());
    }
}
