//! The controls, filled with what was asked.

use super::text::cut;
use crate::dashboard::controls::{Control, Controls, Fault, STEPS, Sort};

/// Characters of an option.
const OPTION_CHARS: usize = 40;

/// What can be chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Choices {
    /// Models, as selectors.
    pub models: Vec<String>,
    /// Attributes that people have, each with how many values it has, as far as that was counted.
    pub attributes: Vec<(String, usize)>,
    /// People that a shown group has at least, when nothing is asked.
    pub floor: usize,
}

/// One of some values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub value: String,
    pub label: String,
    pub selected: bool,
}

/// A control with a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Select {
    pub name: &'static str,
    pub label: &'static str,
    pub options: Vec<Choice>,
    /// What is wrong with it; else empty.
    pub fault: String,
}

/// A control that is typed into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    pub name: &'static str,
    pub label: &'static str,
    pub kind: &'static str,
    pub value: String,
    pub placeholder: String,
    /// What is wrong with it; else empty.
    pub fault: String,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub selects: Vec<Select>,
    pub inputs: Vec<Input>,
}

/// The controls as they were asked; the attributes as the page chose them where nothing was asked.
pub(crate) fn of(controls: &Controls, chosen: [&str; 2], choices: &Choices, faults: &[Fault]) -> Form {
    let fault = |control: Control| {
        let found = faults.iter().find(|fault| fault.control == Some(control));
        found.map(|fault| fault.detail.clone()).unwrap_or_default()
    };
    let select = |control: Control, asked: &str, options: Vec<(String, String)>| Select {
        name: control.name(),
        label: control.label(),
        options: options_of(asked, options),
        fault: fault(control),
    };
    let attributes: Vec<String> = choices.attributes.iter().map(|(name, _)| name.clone()).collect();
    let named = |none: &str, values: &[String]| -> Vec<(String, String)> {
        let values = values.iter().map(|value| (value.clone(), cut(value, OPTION_CHARS)));
        [(String::new(), none.to_owned())].into_iter().chain(values).collect()
    };
    let plain = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(value, label)| ((*value).to_owned(), (*label).to_owned())).collect()
    };
    let steps: Vec<(&str, &str)> =
        [("", "by itself")].into_iter().chain(STEPS.map(|(_, name)| (name, name))).collect();
    let sorts: Vec<(&str, &str)> = Sort::ALL.iter().map(|(_, name, label)| (*name, *label)).collect();
    let input = |control: Control, kind: &'static str, placeholder: String| Input {
        name: control.name(),
        label: control.label(),
        // What is no date would be lost in a field for dates.
        kind: if fault(control).is_empty() { kind } else { "text" },
        value: controls.asked(control).to_owned(),
        placeholder,
        fault: fault(control),
    };
    Form {
        selects: vec![
            select(Control::Model, controls.asked(Control::Model), named("the default", &choices.models)),
            select(Control::GroupBy, chosen[0], named("nothing", &attributes)),
            select(Control::Cross, chosen[1], named("nothing", &attributes)),
            select(Control::Step, controls.asked(Control::Step), plain(&steps)),
            select(Control::Sort, controls.asked(Control::Sort), plain(&sorts)),
        ],
        inputs: vec![
            input(Control::From, "date", String::new()),
            input(Control::To, "date", String::new()),
            input(Control::MinN, "number", choices.floor.to_string()),
        ],
    }
}

/// The options, with the one that was asked for: also where it is none of them.
fn options_of(asked: &str, options: Vec<(String, String)>) -> Vec<Choice> {
    let mut choices: Vec<Choice> =
        options.into_iter().map(|(value, label)| Choice { selected: value == asked, value, label }).collect();
    if !asked.is_empty() && !choices.iter().any(|choice| choice.selected) {
        choices.push(Choice { value: asked.to_owned(), label: cut(asked, OPTION_CHARS), selected: true });
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_filled_with_what_was_asked_even_where_it_cannot_be() {
        let (controls, faults) = Controls::of("model=nobody&from=yesterday&min_n=x", 5);
        let choices =
            Choices { models: vec!["bt".to_owned()], attributes: vec![("country".to_owned(), 3)], floor: 5 };
        let form = of(&controls, ["country", ""], &choices, &faults);
        let selected = |at: usize| {
            form.selects[at].options.iter().find(|option| option.selected).map(|option| option.value.as_str())
        };
        assert_eq!((selected(0), selected(1), selected(2)), (Some("nobody"), Some("country"), Some("")));
        assert_eq!((form.inputs[0].value.as_str(), form.inputs[0].kind), ("yesterday", "text"));
        assert!(form.inputs[0].fault.starts_with("is a day"));
        assert_eq!((form.inputs[1].kind, form.inputs[2].placeholder.as_str()), ("date", "5"));
    }
}
