//! What is known of PRISM's people.

use std::collections::HashMap;

use polyreward_domain::{Attributes, PersonId};
use serde_json::{Map, Value};

use crate::{
    container::Columns,
    jsonl::describe,
    row::{Skip, Summary},
};

pub(super) const COLUMNS: Columns = Columns {
    required: &[
        "user_id",
        "survey_only",
        "age",
        "gender",
        "education",
        "employment_status",
        "marital_status",
        "english_proficiency",
        "religion",
        "ethnicity",
        "location",
    ],
    optional: &["included_in_US_REP", "included_in_UK_REP"],
    passed_over: &[
        "num_completed_conversations",
        "timing_duration_s",
        "timing_duration_mins",
        "generated_datetime",
        "consent",
        "consent_age",
        "lm_familiarity",
        "lm_indirect_use",
        "lm_direct_use",
        "lm_frequency_use",
        "lm_usecases",
        "order_lm_usecases",
        "stated_prefs",
        "order_stated_prefs",
        "self_description",
        "system_string",
        "study_id",
        "study_locale",
        "included_in_balanced_subset",
    ],
};

/// Our attributes, and the fields they come from.
const ATTRIBUTES: [(&str, &str); 8] = [
    ("age", "age"),
    ("gender", "gender"),
    ("education", "education"),
    ("employment_status", "employment_status"),
    ("marital_status", "marital_status"),
    ("english_proficiency", "english_proficiency"),
    ("us_representative", "included_in_US_REP"),
    ("uk_representative", "included_in_UK_REP"),
];

/// A field with fields of its own.
struct Nested {
    name: &'static str,
    /// Our attributes, and the inner fields they come from.
    attributes: &'static [(&'static str, &'static str)],
    passed_over: &'static [&'static str],
}

const NESTED: [Nested; 3] = [
    Nested {
        name: "religion",
        attributes: &[("religion", "simplified")],
        passed_over: &["self_described", "categorised"],
    },
    Nested {
        name: "ethnicity",
        attributes: &[("ethnicity", "simplified")],
        passed_over: &["self_described", "categorised"],
    },
    Nested {
        name: "location",
        attributes: &[
            ("birth_country", "birth_country"),
            ("birth_region", "birth_region"),
            ("birth_subregion", "birth_subregion"),
            ("reside_country", "reside_country"),
            ("reside_region", "reside_region"),
            ("reside_subregion", "reside_subregion"),
            ("same_birth_reside_country", "same_birth_reside_country"),
            ("special_region", "special_region"),
        ],
        passed_over: &["birth_countryISO", "reside_countryISO"],
    },
];

impl Nested {
    fn knows(&self, name: &str) -> bool {
        self.passed_over.contains(&name) || self.attributes.iter().any(|(_, known)| *known == name)
    }
}

/// A person of the survey.
pub(super) enum Person {
    /// With conversations.
    Known(Attributes),
    /// Without: skipped.
    SurveyOnly,
}

/// PRISM's people by name.
#[derive(Default)]
pub(super) struct Survey {
    people: HashMap<PersonId, Person>,
}

impl Survey {
    pub(super) fn person(&self, id: &PersonId) -> Option<&Person> {
        self.people.get(id)
    }

    /// Reads one line of the survey.
    pub(super) fn add(&mut self, line: &str, summary: &mut Summary) -> Result<(), String> {
        let row: Map<String, Value> = serde_json::from_str(line).map_err(|error| describe(&error))?;
        let id = row.get("user_id").and_then(Value::as_str).ok_or("user_id is no text")?;
        let id: PersonId = id.parse().map_err(|error| format!("user_id: {error}"))?;
        let survey_only =
            row.get("survey_only").and_then(Value::as_bool).ok_or("survey_only is no boolean")?;
        let (attributes, unknown) = attributes(&row)?;
        if self.people.contains_key(&id) {
            return Err("its person is there a second time".into());
        }
        summary.unknown(unknown);
        let person = if survey_only {
            summary.skip([Skip::SurveyOnly]);
            Person::SurveyOnly
        } else {
            Person::Known(attributes)
        };
        self.people.insert(id, person);
        Ok(())
    }
}

/// The person's attributes, flat, and the names of fields that are not of the format.
fn attributes(row: &Map<String, Value>) -> Result<(Attributes, Vec<String>), String> {
    let mut attributes = Attributes::new();
    let mut unknown: Vec<_> = row.keys().filter(|name| !COLUMNS.knows(name)).cloned().collect();
    for (key, name) in ATTRIBUTES {
        attributes.extend(text(name, row.get(name))?.map(|text| (key.to_owned(), text)));
    }
    for nested in NESTED {
        let outer = nested.name;
        let inner = match row.get(outer) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(inner)) => inner,
            Some(_) => return Err(format!("{outer} is no object")),
        };
        for (key, name) in nested.attributes {
            let text = text(&format!("{outer}.{name}"), inner.get(*name))?;
            attributes.extend(text.map(|text| ((*key).to_owned(), text)));
        }
        let names = inner.keys().filter(|name| !nested.knows(name));
        unknown.extend(names.map(|name| format!("{outer}.{name}")));
    }
    Ok((attributes, unknown))
}

/// A field's value as text, where it has one.
fn text(name: &str, value: Option<&Value>) -> Result<Option<String>, String> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        Some(_) => return Err(format!("{name} is no text")),
    };
    Ok(Some(text).filter(|text| !text.is_empty()))
}
