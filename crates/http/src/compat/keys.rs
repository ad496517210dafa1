//! Whose body is it: formats that share a path are told apart by their fields, and never by a guess.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use crate::{
    extract::parse,
    problem::{InputFault, Problem, ProblemType},
};

/// Names of the fields of a body that are not null.
#[derive(Debug)]
pub(crate) struct Keys(BTreeSet<String>);

impl Keys {
    /// Of a body that is a JSON object.
    ///
    /// # Errors
    /// It is none.
    pub fn of(body: &[u8]) -> Result<Self, Problem> {
        parse(body)
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Those of some fields that the body has.
    pub fn among<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| self.has(name)).collect()
    }

    /// The one format whose own fields the body has, by position; the first one where it has no format's.
    ///
    /// # Errors
    /// It has fields of two formats, both of which are named.
    pub fn format(&self, formats: &[(&str, &[&str])]) -> Result<usize, Problem> {
        let mut found: Option<(usize, &str, &str)> = None;
        for (at, (format, fields)) in formats.iter().enumerate() {
            let Some(field) = self.among(fields).first().copied() else { continue };
            if let Some((_, other, field_of_other)) = found {
                return Err(ambiguous([(other, field_of_other), (*format, field)]));
            }
            found = Some((at, format, field));
        }
        Ok(found.map_or(0, |(at, ..)| at))
    }
}

/// That a body could be of two formats.
pub(crate) fn ambiguous(fields: [(&str, &str); 2]) -> Problem {
    let [(one, _), (other, _)] = fields;
    let faults = fields.map(|(format, field)| {
        let detail = format!("is a field of the format of {format}");
        InputFault::of(ProblemType::AmbiguousBody, format!("/{field}"), detail)
    });
    Problem::of_faults(ProblemType::AmbiguousBody, faults.into())
        .detail(format!("it has fields of {one} and of {other}"))
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Keys, A::Error> {
                let mut names = BTreeSet::new();
                while let Some(name) = fields.next_key::<String>()? {
                    if fields.next_value::<Option<IgnoredAny>>()?.is_some() {
                        names.insert(name);
                    }
                }
                Ok(Keys(names))
            }
        }

        deserializer.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_of_the_format_whose_fields_it_has() {
        const FORMATS: &[(&str, &[&str])] =
            &[("vLLM", &["input", "messages"]), ("SGLang", &["text", "input_ids"])];
        let format = |body: &str| Keys::of(body.as_bytes()).unwrap().format(FORMATS);
        assert_eq!(format(r#"{"messages": []}"#).unwrap(), 0);
        assert_eq!(format(r#"{"text": "a", "input": null}"#).unwrap(), 1);
        assert_eq!(format("{}").unwrap(), 0);
        let both = format(r#"{"text": "a", "input": "b"}"#).unwrap_err();
        assert_eq!(both.kind(), ProblemType::AmbiguousBody);
        let pointers: Vec<_> = both.faults().iter().map(|fault| fault.pointer.clone().unwrap()).collect();
        assert_eq!(pointers, ["/input", "/text"]);
        assert!(Keys::of(b"[]").is_err() && Keys::of(b"{").is_err());
    }
}
