//! `inputs` of `/predict`: a text; two texts, which are one pair; or several of either.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, Object, OneOfBuilder, RefOr, Schema, Type},
};

/// What is judged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A text that holds a conversation.
    Text(String),
    /// A prompt and its response.
    Pair(String, String),
}

/// As it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PredictInputs {
    One(Input),
    Many(Vec<Input>),
}

impl PredictInputs {
    /// The inputs with their pointers, and whether it was one that stands alone.
    pub(super) fn into_inputs(self) -> (Vec<(String, Input)>, bool) {
        match self {
            Self::One(input) => (vec![("/inputs".to_owned(), input)], true),
            Self::Many(inputs) => {
                let place = |(at, input)| (format!("/inputs/{at}"), input);
                (inputs.into_iter().enumerate().map(place).collect(), false)
            }
        }
    }
}

impl PartialSchema for PredictInputs {
    fn schema() -> RefOr<Schema> {
        let texts = || {
            let text = Object::with_type(Type::String);
            ArrayBuilder::new().items(text).min_items(Some(1)).max_items(Some(2))
        };
        OneOfBuilder::new()
            .description(Some("A text; a prompt and its response; or several of either, each in a list."))
            .item(Object::with_type(Type::String))
            .item(texts())
            .item(ArrayBuilder::new().items(texts()))
            .into()
    }
}

impl ToSchema for PredictInputs {
    fn name() -> Cow<'static, str> {
        "TeiPredictInputs".into()
    }
}

/// A text, or a list of one or two.
enum Entry {
    Text(String),
    Texts(Vec<String>),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrTexts;

        impl<'de> Visitor<'de> for TextOrTexts {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of one or two strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<Entry, E> {
                Ok(Entry::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Entry, E> {
                Ok(Entry::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Entry, A::Error> {
                let mut all = Vec::with_capacity(2);
                while let Some(text) = texts.next_element()? {
                    all.push(text);
                }
                Ok(Entry::Texts(all))
            }
        }

        deserializer.deserialize_any(TextOrTexts)
    }
}

fn input_of<E: Error>(texts: Vec<String>) -> Result<Input, E> {
    let mut texts = texts.into_iter();
    match (texts.next(), texts.next(), texts.next()) {
        (Some(text), None, None) => Ok(Input::Text(text)),
        (Some(prompt), Some(response), None) => Ok(Input::Pair(prompt, response)),
        _ => Err(E::custom("another number of texts, expected one text, or a prompt and its response")),
    }
}

impl<'de> Deserialize<'de> for PredictInputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Inputs;

        impl<'de> Visitor<'de> for Inputs {
            type Value = PredictInputs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array")
            }

            fn visit_str<E>(self, text: &str) -> Result<PredictInputs, E> {
                Ok(PredictInputs::One(Input::Text(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<PredictInputs, E> {
                Ok(PredictInputs::One(Input::Text(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<PredictInputs, A::Error> {
                let (mut texts, mut inputs) = (Vec::new(), Vec::new());
                while let Some(entry) = entries.next_element()? {
                    match entry {
                        Entry::Text(text) => texts.push(text),
                        Entry::Texts(texts) => inputs.push(input_of(texts)?),
                    }
                }
                match (texts.is_empty(), inputs.is_empty()) {
                    (true, _) => Ok(PredictInputs::Many(inputs)),
                    (false, true) => input_of(texts).map(PredictInputs::One),
                    (false, false) => Err(A::Error::custom("texts beside lists, expected one or the other")),
                }
            }
        }

        deserializer.deserialize_any(Inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<PredictInputs> {
        serde_json::from_str(json).ok()
    }

    fn text(text: &str) -> Input {
        Input::Text(text.to_owned())
    }

    #[test]
    fn two_texts_are_one_pair_and_lists_are_several_inputs() {
        let pair = || Input::Pair("a".to_owned(), "b".to_owned());
        assert_eq!(read(r#""a""#), Some(PredictInputs::One(text("a"))));
        assert_eq!(read(r#"["a"]"#), Some(PredictInputs::One(text("a"))));
        assert_eq!(read(r#"["a", "b"]"#), Some(PredictInputs::One(pair())));
        assert_eq!(read(r#"[["a"], ["a", "b"]]"#), Some(PredictInputs::Many(vec![text("a"), pair()])));
        assert_eq!(read("[]"), Some(PredictInputs::Many(Vec::new())));
        for bad in
            [r#"["a", "b", "c"]"#, r#"[["a"], "b"]"#, "[[]]", "[[1]]", "5", "{}", r#"[["a", "b", "c"]]"#]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
