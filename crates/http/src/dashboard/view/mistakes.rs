//! What a model got wrong while it was sure.

use polyreward_domain::{Prompt, Scope};
use polyreward_service::Mistake;

use super::text::{counted, cut, exact, minute, percent};
use crate::dashboard::controls::encode;

/// Characters of a text that are shown.
const TEXT_CHARS: usize = 600;

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub user_id: String,
    /// The person's page, from the root of the server.
    pub href: String,
    pub when: String,
    pub shot: String,
    /// What the model gave to what was chosen.
    pub preference: String,
    pub exact: String,
    pub population: String,
    /// None where they may not be read.
    pub texts: Option<Texts>,
}

/// What was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Texts {
    pub prompt: String,
    pub chosen: String,
    pub rejected: String,
}

/// The section.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mistakes {
    pub rows: Vec<Row>,
    /// The scope that a key lacks to see texts; empty where it does not.
    pub missing_scope: &'static str,
}

/// The section; texts only for who may read them.
pub(crate) fn of(mistakes: &[Mistake], may_read_text: bool) -> Mistakes {
    // A model may have made none: then even its worst prediction preferred what was chosen.
    let wrong = mistakes.iter().filter(|mistake| mistake.preference < 0.5);
    let row = |mistake: &Mistake| Row {
        user_id: mistake.user_id.to_string(),
        href: format!("dashboard/users/{}", encode(mistake.user_id.as_str())),
        when: minute(mistake.created_at),
        shot: counted(mistake.shot, "example", "examples"),
        preference: percent(mistake.preference),
        exact: exact(mistake.preference),
        population: percent(mistake.population_preference),
        texts: may_read_text.then(|| texts(&mistake.prompt, &mistake.chosen, &mistake.rejected)),
    };
    Mistakes {
        rows: wrong.map(row).collect(),
        missing_scope: if may_read_text { "" } else { Scope::ReadText.as_str() },
    }
}

/// The texts of a comparison, cut to what fits.
pub(crate) fn texts(prompt: &Prompt, chosen: &str, rejected: &str) -> Texts {
    let prompt = match prompt {
        Prompt::Text(text) | Prompt::Raw(text) => text.clone(),
        Prompt::Tokens(ids) => format!("{} tokens", ids.len()),
        Prompt::Chat(messages) => {
            let turns = messages.iter().map(|turn| format!("{}: {}", turn.role, turn.content));
            turns.collect::<Vec<_>>().join("\n")
        }
    };
    Texts {
        prompt: cut(&prompt, TEXT_CHARS),
        chosen: cut(chosen, TEXT_CHARS),
        rejected: cut(rejected, TEXT_CHARS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::view::made_up;

    #[test]
    fn texts_are_shown_to_who_may_read_them_alone() {
        let mistakes = [made_up::mistake("ada", "A trout.")];
        let seen = of(&mistakes, true);
        assert_eq!(seen.rows[0].texts.as_ref().unwrap().chosen, "A trout.");
        let hidden = of(&mistakes, false);
        assert_eq!((hidden.rows[0].texts.clone(), hidden.missing_scope), (None, "read:text"));
        assert_eq!(hidden.rows[0].preference, "3.1 %");
        assert_eq!(hidden.rows[0].href, "dashboard/users/ada");
    }

    #[test]
    fn a_prediction_that_was_right_is_no_mistake() {
        let mut right = made_up::mistake("ada", "A trout.");
        right.preference = 0.5;
        assert_eq!(of(&[right], true).rows, []);
    }

    #[test]
    fn a_long_text_is_cut() {
        let texts = texts(&Prompt::default(), &"ü".repeat(10_000), "");
        assert_eq!(texts.chosen.chars().count(), TEXT_CHARS);
    }
}
