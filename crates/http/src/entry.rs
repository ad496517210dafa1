//! What entries of a body have in common: prompts and texts, and the faults of each entry by its place.

use std::{borrow::Cow, fmt, sync::Arc};

use polyreward_domain::{Attributes, Message, Prompt, check_attributes, check_text};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, Object, OneOfBuilder, Ref, RefOr, Schema, Type},
};

use crate::problem::InputFault;

/// Longest role of a message, in bytes.
const MAX_ROLE_BYTES: usize = 64;

/// One turn of a chat.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with role and content")]
#[schema(as = Message)]
pub(crate) struct MessageBody {
    /// `system`, `user`, `assistant`, or what the backbone's template knows.
    #[schema(min_length = 1, max_length = 64)]
    role: String,
    /// What is said.
    content: String,
}

/// A prompt as it came. Written by hand: an untagged enum would lose the place of an error inside a chat.
#[derive(Debug)]
pub(crate) enum PromptText {
    Text(String),
    Chat(Vec<MessageBody>),
}

impl PartialSchema for PromptText {
    fn schema() -> RefOr<Schema> {
        let message = Ref::from_schema_name(MessageBody::name());
        OneOfBuilder::new()
            .description(Some("A text, possibly empty, or the turns of a chat."))
            .item(Object::with_type(Type::String))
            .item(ArrayBuilder::new().items(message).min_items(Some(1)))
            .into()
    }
}

impl ToSchema for PromptText {
    fn name() -> Cow<'static, str> {
        "Prompt".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((MessageBody::name().into_owned(), MessageBody::schema()));
    }
}

impl<'de> Deserialize<'de> for PromptText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrChat;

        impl<'de> Visitor<'de> for TextOrChat {
            type Value = PromptText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of messages")
            }

            fn visit_str<E>(self, text: &str) -> Result<PromptText, E> {
                Ok(PromptText::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<PromptText, E> {
                Ok(PromptText::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut messages: A) -> Result<PromptText, A::Error> {
                let mut chat = Vec::new();
                while let Some(message) = messages.next_element()? {
                    chat.push(message);
                }
                Ok(PromptText::Chat(chat))
            }
        }

        deserializer.deserialize_any(TextOrChat)
    }
}

/// What is wrong with attributes at a place of the body.
pub(crate) fn attribute_faults(at: &str, attributes: &Attributes) -> Vec<InputFault> {
    let fault = |(key, error): (Option<&str>, _)| {
        let below = key.map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1")));
        InputFault::new(format!("{at}{}", below.unwrap_or_default()), error)
    };
    check_attributes(attributes).err().map(fault).into_iter().collect()
}

/// Collects the faults of one entry.
pub(crate) struct Check {
    /// Where the entry stands; empty for the whole body.
    place: String,
    pub faults: Vec<InputFault>,
}

impl Check {
    /// Of the entry at a position of a list.
    pub fn new(list: &'static str, at: usize) -> Self {
        Self { place: format!("/{list}/{at}"), faults: Vec::new() }
    }

    /// Of the body itself.
    pub fn whole() -> Self {
        Self { place: String::new(), faults: Vec::new() }
    }

    pub fn fault(&mut self, below: &str, detail: impl fmt::Display) {
        self.faults.push(InputFault::new(format!("{}{below}", self.place), detail));
    }

    pub fn text(&mut self, below: &str, text: &str) {
        if let Err(error) = check_text(text) {
            self.fault(below, error);
        }
    }

    pub fn prompt(&mut self, prompt: PromptText) -> Arc<Prompt> {
        Arc::new(match prompt {
            PromptText::Text(text) => {
                self.text("/prompt", &text);
                Prompt::Text(text)
            }
            PromptText::Chat(messages) => {
                if messages.is_empty() {
                    self.fault("/prompt", "has at least one message");
                }
                for (at, message) in messages.iter().enumerate() {
                    if !(1..=MAX_ROLE_BYTES).contains(&message.role.len()) {
                        self.fault(
                            &format!("/prompt/{at}/role"),
                            format_args!("has 1 to {MAX_ROLE_BYTES} bytes"),
                        );
                    }
                    self.text(&format!("/prompt/{at}/role"), &message.role);
                    self.text(&format!("/prompt/{at}/content"), &message.content);
                }
                Prompt::Chat(
                    messages
                        .into_iter()
                        .map(|MessageBody { role, content }| Message { role, content })
                        .collect(),
                )
            }
        })
    }
}
