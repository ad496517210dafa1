//! The page that answers for which group a reward is wrong.

use std::sync::Arc;

use askama::Template;
use polyreward_service::{Accuracy, Curves, MeasureQuery, Mistake, Shots, Timeline, VersionChanges};

use super::{
    calibration::{self, Calibration},
    form::{self, Choices, Form},
    groups::{self, Groups},
    headline::{self, Number},
    intersections::{self, Intersections},
    mistakes::{self, Mistakes},
    scene::Shape,
    shots::{self, Curve},
    text::{Label, count, counted, day},
    timeline::{self, Line},
};
use crate::dashboard::{
    controls::{Attribute, Control, Controls, Fault, Sort, accuracy_query},
    html::Frame,
};

/// What was measured.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub accuracy: Arc<Accuracy>,
    pub changes: Option<Arc<VersionChanges>>,
    pub shots: Arc<Curves<Shots>>,
    pub timeline: Arc<Timeline>,
    pub crossed: Option<Arc<Accuracy>>,
    pub mistakes: Vec<Mistake>,
    /// Whether whoever asks may read what was compared.
    pub may_read_text: bool,
}

/// The attributes that make the groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub group_by: Option<String>,
    pub cross: Option<String>,
}

impl Chosen {
    /// What was asked, or what the page shows of its own accord: the attribute with the most values that one page shows, as
    /// the finest split hides the fewest people.
    pub fn of(controls: &Controls, attributes: &[(String, usize)]) -> Self {
        let group_by = match &controls.group_by {
            Attribute::Named(name) => Some(name.clone()),
            Attribute::None => None,
            Attribute::Unasked => {
                let fineness = |values: usize| if values > groups::ROWS { 0 } else { values };
                // Of two that are as fine, the first by name.
                let finest = attributes.iter().rev().max_by_key(|(_, values)| fineness(*values));
                finest.map(|(name, _)| name.clone())
            }
        };
        let cross = match &controls.cross {
            Attribute::Named(name) => Some(name.clone()),
            Attribute::None | Attribute::Unasked => None,
        };
        Self { group_by, cross }
    }

    fn as_text(&self) -> [&str; 2] {
        [self.group_by.as_deref().unwrap_or_default(), self.cross.as_deref().unwrap_or_default()]
    }
}

/// What is wrong, with the control that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FaultLine {
    pub control: &'static str,
    pub sentence: String,
}

/// Other forms of the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Links {
    pub csv: String,
    pub json: String,
    pub permalink: String,
}

/// That nothing was predicted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Empty {
    pub title: String,
    pub words: String,
    /// What fills the page; empty where other controls would.
    pub command: String,
}

/// A page of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageLink {
    pub number: usize,
    pub query: String,
    pub here: bool,
}

/// An attribute that could be crossed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CrossLink {
    pub name: Label,
    pub query: String,
}

/// The sections below the controls.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    pub numbers: Vec<Number>,
    pub groups: Groups,
    pub no_groups: String,
    pub sort: String,
    pub pages: Vec<PageLink>,
    pub shots: Option<Curve>,
    pub calibration: Option<Calibration>,
    pub intersections: Option<Intersections>,
    pub no_intersections: String,
    pub crosses: Vec<CrossLink>,
    pub timeline: Option<Line>,
    pub mistakes: Mistakes,
}

/// The page.
#[derive(Debug, Clone, Template)]
#[template(path = "dashboard/overview.html")]
pub(crate) struct Overview {
    pub frame: Frame,
    pub form: Form,
    pub faults: Vec<FaultLine>,
    pub context: Vec<(&'static str, String)>,
    pub links: Option<Links>,
    pub empty: Option<Empty>,
    pub shown: Option<Shown>,
}

/// The page where what was asked cannot be shown.
pub(crate) fn refused(controls: &Controls, choices: &Choices, faults: &[Fault]) -> Overview {
    let chosen = Chosen::of(controls, &choices.attributes);
    Overview {
        frame: Frame::at("/", "overview"),
        form: form::of(controls, chosen.as_text(), choices, faults),
        faults: faults
            .iter()
            .map(|fault| FaultLine {
                control: fault.control.filter(|control| *control != Control::Page).map_or("", Control::name),
                sentence: fault.sentence(),
            })
            .collect(),
        context: Vec::new(),
        links: None,
        empty: None,
        shown: None,
    }
}

/// The page of what was measured; `host` is where the server was asked.
pub(crate) fn of(
    controls: &Controls,
    chosen: &Chosen,
    choices: &Choices,
    query: &MeasureQuery,
    measured: &Measured,
    host: &str,
) -> Overview {
    let accuracy = &measured.accuracy;
    Overview {
        frame: Frame::at("/", "overview"),
        form: form::of(controls, chosen.as_text(), choices, &[]),
        faults: Vec::new(),
        context: context(accuracy),
        links: Some(Links {
            csv: accuracy_query(query, Some("csv")),
            json: accuracy_query(query, None),
            permalink: permalink(controls, chosen, accuracy),
        }),
        empty: accuracy.overall.is_none().then(|| empty(controls, accuracy, host)),
        shown: accuracy.overall.is_some().then(|| shown(controls, chosen, choices, measured)),
    }
}

/// This page under a URL that names what the page chose of its own accord.
fn permalink(controls: &Controls, chosen: &Chosen, accuracy: &Accuracy) -> String {
    let [group_by, cross] = chosen.as_text();
    controls
        .with(Control::Model, &accuracy.model.to_string())
        .with(Control::GroupBy, group_by)
        .with(Control::Cross, cross)
        .query()
}

fn context(accuracy: &Accuracy) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Model", accuracy.model.to_string())];
    if let Some(overall) = &accuracy.overall {
        facts.push((
            "Counted",
            format!(
                "{} about {}",
                counted(overall.n, "prediction", "predictions"),
                counted(overall.users as u64, "person", "people")
            ),
        ));
    }
    let span = &accuracy.span;
    let to = span.to.map(|to| day(to - time::Duration::DAY));
    facts.push((
        "Predicted",
        match (span.from.map(day), to) {
            (None, None) => "at any time".to_owned(),
            (Some(from), None) => format!("from {from}"),
            (None, Some(to)) => format!("until {to}"),
            (Some(from), Some(to)) => format!("from {from} to {to}"),
        },
    ));
    facts.push((
        "Groups",
        format!("{} shown, of {} or more people", count(accuracy.groups.len() as u64), accuracy.min_users),
    ));
    facts
}

fn empty(controls: &Controls, accuracy: &Accuracy, host: &str) -> Empty {
    if controls.span.from.is_some() || controls.span.to.is_some() {
        return Empty {
            title: "No predictions at this time".to_owned(),
            words: format!("{} predicted nothing between these days. Choose others.", accuracy.model),
            command: String::new(),
        };
    }
    Empty {
        title: "No predictions yet".to_owned(),
        words: format!("Nobody's preferences have been predicted by {}.", accuracy.model),
        command: format!(
            "curl http://{host}/users/ada/examples \\\n  -H 'Authorization: Bearer pr_...' -H 'Content-Type: application/json' \\\n  \
             -d '{{\"attributes\": {{\"country\": \"UK\"}},\n       \"examples\": [{{\"prompt\": \"Name a fish.\", \"chosen\": \"A trout.\", \
             \"rejected\": \"Fish are tasty.\"}}]}}'"
        ),
    }
}

fn shown(controls: &Controls, chosen: &Chosen, choices: &Choices, measured: &Measured) -> Shown {
    let accuracy = &measured.accuracy;
    let groups = groups::of(accuracy, controls.sort, controls.page);
    let pages = (1..=groups.pages)
        .map(|number| PageLink {
            number,
            query: controls.with(Control::Page, &number.to_string()).query(),
            here: number == groups.page,
        })
        .collect();
    let sort = Sort::ALL.iter().find(|(sort, ..)| *sort == controls.sort).map_or("", |(_, _, label)| label);
    let (no_intersections, crosses) = no_intersections(controls, chosen, choices);
    Shown {
        numbers: headline::of(accuracy, measured.changes.as_deref()),
        no_groups: no_groups(chosen, accuracy),
        groups,
        sort: format!("by {sort}"),
        pages,
        shots: shots::of(&measured.shots),
        calibration: accuracy.overall.as_ref().and_then(calibration::of),
        intersections: measured.crossed.as_deref().and_then(intersections::of),
        no_intersections,
        crosses,
        timeline: timeline::of(&measured.timeline),
        mistakes: mistakes::of(&measured.mistakes, measured.may_read_text),
    }
}

fn no_groups(chosen: &Chosen, accuracy: &Accuracy) -> String {
    match &chosen.group_by {
        None => "Choose an attribute to group by; people get attributes with their examples.".to_owned(),
        Some(_) => format!(
            "No group has {} or more. Nobody is shown alone.",
            counted(accuracy.min_users as u64, "person", "people")
        ),
    }
}

fn no_intersections(controls: &Controls, chosen: &Chosen, choices: &Choices) -> (String, Vec<CrossLink>) {
    let Some(group_by) = &chosen.group_by else {
        return ("Intersections need an attribute to group by.".to_owned(), Vec::new());
    };
    let others: Vec<CrossLink> = choices
        .attributes
        .iter()
        .map(|(name, _)| name)
        .filter(|name| *name != group_by && Some(*name) != chosen.cross.as_ref())
        .map(|name| CrossLink {
            name: Label::new(name.clone()),
            query: controls.with(Control::GroupBy, group_by).with(Control::Cross, name).query(),
        })
        .collect();
    let words = match (&chosen.cross, others.is_empty()) {
        (Some(_), _) => "No combination has as many people as a shown one has at least.",
        (None, true) => "There is no second attribute to cross with.",
        (None, false) => "Choose a second attribute to cross with:",
    };
    (words.to_owned(), others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::view::made_up;

    fn choices() -> Choices {
        Choices {
            models: vec!["pal-a".to_owned(), "pal-a@1a2b".to_owned()],
            attributes: vec![("age".to_owned(), 4), ("country".to_owned(), 6), ("id".to_owned(), 51)],
            floor: 5,
        }
    }

    fn measured(accuracy: Accuracy) -> Measured {
        Measured {
            accuracy: Arc::new(accuracy),
            changes: Some(Arc::new(made_up::changes())),
            shots: Arc::new(made_up::shots()),
            timeline: Arc::new(made_up::timeline()),
            crossed: Some(Arc::new(made_up::crossed(9, 6))),
            mistakes: vec![
                made_up::mistake("ada", "A trout."),
                made_up::mistake("ben", "<img src=x onerror=alert(1)>"),
            ],
            may_read_text: true,
        }
    }

    fn page(query: &str, measured: &Measured) -> Overview {
        let (controls, faults) = Controls::of(query, 5);
        assert_eq!(faults, []);
        let chosen = Chosen::of(&controls, &choices().attributes);
        let asked = MeasureQuery {
            model: controls.model.clone(),
            group_by: chosen.group_by.iter().cloned().collect(),
            span: controls.span,
            min_users: controls.min_n,
        };
        of(&controls, &chosen, &choices(), &asked, measured, "127.0.0.1:8080")
    }

    /// Writes the page where a person can look at it, if they said where.
    fn keep(name: &str, html: &str) {
        if let Some(folder) = std::env::var_os("DASHBOARD_PAGES") {
            std::fs::write(std::path::Path::new(&folder).join(name), html).unwrap();
        }
    }

    #[test]
    fn sections_come_in_the_order_of_the_questions() {
        let html = page("group_by=country&cross=age", &measured(made_up::unfair())).render().unwrap();
        keep("overview.html", &html);
        let ids = [
            "context",
            "headline",
            "groups",
            "shots",
            "calibration",
            "intersections",
            "timeline",
            "mistakes",
        ];
        let places: Vec<usize> =
            ids.iter().map(|id| html.find(&format!("<section id=\"{id}\"")).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
        assert!(
            html.contains(
                "Worst for country=DE: 51.0 % [47.0, 55.0], 33.0 points below the best (country=UK)."
            )
        );
    }

    #[test]
    fn what_others_wrote_is_text() {
        let mut accuracy = made_up::unfair();
        accuracy.groups[1].group = vec![Some("<img src=x onerror=alert(1)>\u{202e}".to_owned())];
        let html = page("group_by=country", &measured(accuracy)).render().unwrap();
        keep("hostile.html", &html);
        assert!(!html.contains("<img") && html.contains("&#60;img"));
        assert!(!html.contains(" style=") && !html.contains("<style"));
        assert!(html.matches("<script").count() == html.matches("<script src=").count());
    }

    #[test]
    fn five_hundred_groups_are_pages_with_links() {
        let mut accuracy = made_up::unfair();
        let group = accuracy.groups[0].clone();
        accuracy.groups = (0..500)
            .map(|at| polyreward_service::GroupFigures {
                group: vec![Some(format!("c{at:03}"))],
                ..group.clone()
            })
            .collect();
        let shown = page("group_by=country&page=3", &measured(accuracy)).shown.unwrap();
        assert_eq!(shown.pages.len(), 10);
        assert!(shown.pages[2].here && shown.pages[3].query.ends_with("page=4"));
    }

    #[test]
    fn a_page_without_a_prediction_says_how_to_fill_it() {
        let mut accuracy = made_up::unfair();
        (accuracy.overall, accuracy.gap, accuracy.worst) = (None, None, None);
        accuracy.groups.clear();
        let empty = measured(accuracy);
        let html = page("", &empty).render().unwrap();
        keep("empty.html", &html);
        assert!(
            html.contains("No predictions yet")
                && html.contains("curl http://127.0.0.1:8080/users/ada/examples")
        );
        let html = page("from=2020-01-01", &empty).render().unwrap();
        assert!(html.contains("No predictions at this time") && !html.contains("curl"));
    }

    #[test]
    fn a_refusal_names_the_control_and_keeps_what_was_asked() {
        let (controls, faults) = Controls::of("from=2026-02-01&to=2026-01-01&group_by=nothing", 5);
        let html = refused(&controls, &choices(), &faults).render().unwrap();
        keep("refused.html", &html);
        assert!(html.contains("role=\"alert\"") && html.contains("To: is before From"));
        assert!(
            html.contains("value=\"2026-02-01\"") && html.contains("<option value=\"nothing\" selected>")
        );
        assert!(!html.contains("<section id=\"headline\""));
    }

    #[test]
    fn links_ask_for_the_same() {
        let links =
            page("from=2026-01-01&to=2026-01-31&min_n=9", &measured(made_up::unfair())).links.unwrap();
        assert_eq!(
            links.csv,
            "group_by=country&from=2026-01-01T00%3A00%3A00Z&to=2026-02-01T00%3A00%3A00Z&min_n=9&format=csv"
        );
        assert_eq!(
            links.permalink,
            "model=pal-a%403f9c&group_by=country&cross=&from=2026-01-01&to=2026-01-31&min_n=9"
        );
    }
}
