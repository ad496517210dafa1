//! Fields of other servers' bodies that hold texts: one or many, messages, token ids.

use std::{borrow::Cow, fmt};

use polyreward_domain::{Message, Prompt};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, RefOr, Schema, Type},
};

use crate::problem::{InputFault, Problem, ProblemType};

/// A text that holds a conversation, or its ids in the backbone's vocabulary.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    Text(String),
    Ids(Vec<u32>),
}

/// One whole conversation, or several.
#[derive(Debug)]
pub(crate) enum WholeInput {
    One(Whole),
    Many(Vec<Whole>),
}

impl WholeInput {
    /// The conversations with their pointers, and whether it was one that stands alone.
    pub fn into_wholes(self, pointer: &str) -> (Vec<(String, Whole)>, bool) {
        match self {
            Self::One(whole) => (vec![(pointer.to_owned(), whole)], true),
            Self::Many(wholes) => {
                let place = |(at, whole)| (format!("{pointer}/{at}"), whole);
                (wholes.into_iter().enumerate().map(place).collect(), false)
            }
        }
    }

    /// Whether they are ids.
    pub fn is_ids(&self) -> bool {
        match self {
            Self::One(whole) => matches!(whole, Whole::Ids(_)),
            Self::Many(wholes) => wholes.iter().any(|whole| matches!(whole, Whole::Ids(_))),
        }
    }
}

/// A list of ids, or several.
#[derive(Debug)]
pub(crate) struct IdsInput(pub WholeInput);

fn text_schema() -> Object {
    Object::with_type(Type::String)
}

fn ids_schema() -> ArrayBuilder {
    let id = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX));
    ArrayBuilder::new().items(id).min_items(Some(1))
}

impl PartialSchema for WholeInput {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .description(Some(
                "A text, or several; or ids of the backbone's own vocabulary, read as they are, of one text or of several.",
            ))
            .item(text_schema())
            .item(ArrayBuilder::new().items(text_schema()).min_items(Some(1)))
            .item(ids_schema())
            .item(ArrayBuilder::new().items(ids_schema()).min_items(Some(1)))
            .into()
    }
}

impl ToSchema for WholeInput {
    fn name() -> Cow<'static, str> {
        "WholeInput".into()
    }
}

impl PartialSchema for IdsInput {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .description(Some(
                "Ids of the backbone's own vocabulary, read as they are, of one text or of several.",
            ))
            .item(ids_schema())
            .item(ArrayBuilder::new().items(ids_schema()).min_items(Some(1)))
            .into()
    }
}

impl ToSchema for IdsInput {
    fn name() -> Cow<'static, str> {
        "IdsInput".into()
    }
}

impl<'de> Deserialize<'de> for IdsInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let input = WholeInput::deserialize(deserializer)?;
        if input.is_ids() { Ok(Self(input)) } else { Err(D::Error::custom("texts, expected ids")) }
    }
}

/// One text, or several.
#[derive(Debug)]
pub(crate) struct TextInput(WholeInput);

impl TextInput {
    /// The texts with their pointers.
    ///
    /// # Errors
    /// They are token ids.
    pub fn into_texts(self, pointer: &str) -> Result<Vec<(String, String)>, Problem> {
        let text = |(place, whole)| match whole {
            Whole::Text(text) => Ok((place, text)),
            Whole::Ids(_) => {
                let detail = "ids are those of a prompt and its response together: send the texts";
                Err(Problem::of_part(ProblemType::NotSupported, pointer, detail))
            }
        };
        self.0.into_wholes(pointer).0.into_iter().map(text).collect()
    }
}

impl PartialSchema for TextInput {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .description(Some("A text, or several."))
            .item(text_schema())
            .item(ArrayBuilder::new().items(text_schema()).min_items(Some(1)))
            .into()
    }
}

impl ToSchema for TextInput {
    fn name() -> Cow<'static, str> {
        "TextInput".into()
    }
}

impl<'de> Deserialize<'de> for TextInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WholeInput::deserialize(deserializer).map(Self)
    }
}

/// One entry of a list: a text, the ids of one, or one of its ids.
enum Entry {
    Text(String),
    Ids(Vec<u32>),
    Id(u32),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrIds;

        impl<'de> Visitor<'de> for TextOrIds {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id or an array of token ids")
            }

            fn visit_str<E>(self, text: &str) -> Result<Entry, E> {
                Ok(Entry::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Entry, E> {
                Ok(Entry::Text(text))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Entry, E> {
                let id = u32::try_from(id);
                id.map(Entry::Id)
                    .map_err(|_| E::custom("a token id beyond every vocabulary, expected a token id"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Entry, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = entries.next_element()? {
                    ids.push(id);
                }
                Ok(Entry::Ids(ids))
            }
        }

        deserializer.deserialize_any(TextOrIds)
    }
}

impl<'de> Deserialize<'de> for WholeInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = WholeInput;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an array of strings, or token ids")
            }

            fn visit_str<E>(self, text: &str) -> Result<WholeInput, E> {
                Ok(WholeInput::One(Whole::Text(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<WholeInput, E> {
                Ok(WholeInput::One(Whole::Text(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<WholeInput, A::Error> {
                let (mut wholes, mut ids) = (Vec::new(), Vec::new());
                while let Some(entry) = entries.next_element()? {
                    match entry {
                        Entry::Text(text) => wholes.push(Whole::Text(text)),
                        Entry::Ids(ids) => wholes.push(Whole::Ids(ids)),
                        Entry::Id(id) => ids.push(id),
                    }
                }
                let texts = wholes.iter().filter(|whole| matches!(whole, Whole::Text(_))).count();
                let alike = texts == 0 || texts == wholes.len();
                match (ids.is_empty(), wholes.is_empty()) {
                    (true, _) if alike => Ok(WholeInput::Many(wholes)),
                    (false, true) => Ok(WholeInput::One(Whole::Ids(ids))),
                    _ => Err(A::Error::custom("entries of several kinds, expected those of one")),
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

    fn wholes(json: &str) -> Result<(Vec<Whole>, bool), ProblemType> {
        let input = parse::<WholeInput>(json.as_bytes()).map_err(|problem| problem.kind())?;
        let (wholes, alone) = input.into_wholes("/input");
        Ok((wholes.into_iter().map(|(_, whole)| whole).collect(), alone))
    }

    fn text(text: &str) -> Whole {
        Whole::Text(text.to_owned())
    }

    #[test]
    fn texts_are_told_from_ids_and_the_two_are_not_mixed() {
        assert_eq!(wholes(r#""a""#).unwrap(), (vec![text("a")], true));
        assert_eq!(wholes(r#"["a", "b"]"#).unwrap(), (vec![text("a"), text("b")], false));
        assert_eq!(wholes("[]").unwrap(), (vec![], false));
        assert_eq!(wholes("[1, 2]").unwrap(), (vec![Whole::Ids(vec![1, 2])], true));
        let several = vec![Whole::Ids(vec![1]), Whole::Ids(vec![])];
        assert_eq!(wholes("[[1], []]").unwrap(), (several, false));
        for bad in [
            "5",
            r#"["a", 1]"#,
            r#"[[1], "a"]"#,
            "[[1], 1]",
            "[-1]",
            "[1.0]",
            "[4294967296]",
            "[[\"a\"]]",
            "[{}]",
            "{}",
            "null",
        ] {
            assert_eq!(wholes(bad), Err(ProblemType::InvalidInput), "{bad}");
        }
    }

    #[test]
    fn where_texts_are_wanted_ids_are_refused() {
        let texts = |json: &str| parse::<TextInput>(json.as_bytes()).unwrap().into_texts("/queries");
        assert_eq!(texts(r#"["a", "b"]"#).unwrap().len(), 2);
        for ids in ["[1, 2]", "[[1], [2, 3]]"] {
            assert_eq!(texts(ids).unwrap_err().kind(), ProblemType::NotSupported, "{ids}");
        }
        assert!(parse::<IdsInput>(b"[\"a\"]").is_err() && parse::<IdsInput>(b"[[1]]").is_ok());
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
