//! One person: what is known and believed of them, how right that was, and what to ask next.

use askama::Template;
use polyreward_domain::{HeadFamily, Scope};
use polyreward_service::{Believed, Candidate, Pair, Profile, StoredExample, UserRecord, Weight};

use super::{
    mistakes::{Texts, texts},
    scene::{Scale, Scene, Shape},
    table::{Cell, Table},
    text::{Label, counted, exact, minute, percent, points, signed, three},
};
use crate::dashboard::html::Frame;

const ROW: f64 = 26.0;
const TOP: f64 = 22.0;
/// Weights that are drawn; the table has all.
const DRAWN: usize = 16;
/// Half of a 95 % interval in standard deviations.
const NORMAL_95: f64 = 1.96;

/// What one model believes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Belief {
    pub model: String,
    pub head: &'static str,
    pub summary: String,
    /// How much of the prior's is left; empty for a head that is the same for everybody.
    pub uncertainty: String,
    /// How right it was so far, against the population's reward.
    pub accuracy: String,
    /// Why the examples cannot be used; else empty.
    pub unusable: String,
    pub plot: Option<Scene>,
    pub table: Option<Table>,
    pub table_id: String,
}

/// An example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Example {
    pub id: String,
    pub when: String,
    pub texts: Option<Texts>,
}

/// A pair to ask the person about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    pub gain: String,
    pub exact: String,
    pub preference: String,
    pub prompt: String,
    pub first: String,
    pub second: String,
}

/// What to ask next, or why that is not said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next {
    Queries { model: String, queries: Vec<Query> },
    Nothing(String),
}

/// The page.
#[derive(Debug, Clone, Template)]
#[template(path = "dashboard/person.html")]
pub(crate) struct PersonPage {
    pub frame: Frame,
    pub user_id: String,
    pub facts: Vec<(&'static str, String)>,
    pub attributes: Vec<(Label, Label, String)>,
    pub beliefs: Vec<Belief>,
    pub examples: Vec<Example>,
    pub missing_scope: &'static str,
    pub queries: Vec<Query>,
    /// By which model the queries are ranked; empty without them.
    pub ranked_by: String,
    /// Why there are no queries; empty where there are.
    pub no_queries: String,
}

/// The page; texts only for who may read them.
pub(crate) fn of(
    profile: &Profile,
    examples: &[StoredExample],
    next: Next,
    may_read_text: bool,
) -> PersonPage {
    let UserRecord { user_id, attributes, created_at, updated_at, .. } = &profile.user;
    let (ranked_by, queries, no_queries) = match next {
        Next::Queries { model, queries } => (model, queries, String::new()),
        Next::Nothing(why) => (String::new(), Vec::new(), why),
    };
    PersonPage {
        frame: Frame::at(&format!("/dashboard/users/{user_id}"), "person"),
        user_id: user_id.to_string(),
        facts: vec![
            ("Examples", counted(profile.user.examples, "example", "examples")),
            ("Since", format!("{} UTC", minute(*created_at))),
            ("Changed", format!("{} UTC", minute(*updated_at))),
        ],
        attributes: attributes
            .iter()
            .map(|(key, value)| {
                let query = crate::dashboard::controls::query_of([("group_by", key.as_str())]);
                (Label::new(key.clone()), Label::new(value.clone()), query)
            })
            .collect(),
        beliefs: profile.models.iter().enumerate().map(|(at, believed)| belief(at, believed)).collect(),
        examples: examples.iter().rev().map(|stored| example(stored, may_read_text)).collect(),
        missing_scope: if may_read_text { "" } else { Scope::ReadText.as_str() },
        queries,
        ranked_by,
        no_queries,
    }
}

fn example(stored: &StoredExample, may_read_text: bool) -> Example {
    let comparison = &stored.comparison;
    Example {
        id: stored.example_id.to_string(),
        when: minute(stored.created_at),
        texts: may_read_text.then(|| texts(&comparison.prompt, &comparison.chosen, &comparison.rejected)),
    }
}

/// A ranked pair.
pub(crate) fn query(candidate: &Candidate, pair: &Pair) -> Query {
    let Texts { prompt, chosen, rejected } = texts(&pair.prompt, &pair.response_a, &pair.response_b);
    Query {
        gain: three(candidate.gain),
        exact: exact(candidate.gain),
        preference: percent(candidate.preference),
        prompt,
        first: chosen,
        second: rejected,
    }
}

fn belief(at: usize, believed: &Believed) -> Belief {
    let accuracy = match &believed.tally {
        Some(tally) if tally.predictions > 0 => {
            let n = tally.predictions as f64;
            let (own, population) = (tally.correct / n, tally.population_correct / n);
            format!(
                "Right in {} of {} before it learned from them; the population's reward {} ({}).",
                percent(own),
                counted(tally.predictions, "example", "examples"),
                percent(population),
                points(own - population)
            )
        }
        _ => "It predicted none of the person's examples before it learned from them.".to_owned(),
    };
    let has_weights = !believed.weights.is_empty();
    Belief {
        model: believed.model.to_string(),
        head: believed.head.as_str(),
        summary: believed.summary.clone(),
        uncertainty: if has_weights { percent(believed.uncertainty) } else { String::new() },
        accuracy,
        unusable: believed.unusable.as_ref().map(ToString::to_string).unwrap_or_default(),
        plot: has_weights.then(|| plot(at, believed)),
        table: has_weights.then(|| table(believed)),
        table_id: format!("weights-table-{at}"),
    }
}

/// What a weight of a family is on.
fn noun(family: HeadFamily) -> &'static str {
    match family {
        HeadFamily::Bt => "weight",
        HeadFamily::Lore => "basis",
        HeadFamily::PalA | HeadFamily::PalB => "prototype",
        HeadFamily::Vpl => "latent",
        HeadFamily::Micro => "head",
    }
}

fn ends(weight: &Weight) -> [f64; 2] {
    let half = NORMAL_95 * weight.deviation;
    [weight.mean - half, weight.mean + half]
}

fn plot(at: usize, believed: &Believed) -> Scene {
    let mut drawn: Vec<(usize, &Weight)> = believed.weights.iter().enumerate().collect();
    // Where there are more than fit, those that tell the person most from the population.
    let away = |weight: &Weight| (weight.mean - weight.population).abs();
    drawn.sort_by(|a, b| away(b.1).total_cmp(&away(a.1)));
    drawn.truncate(DRAWN);
    drawn.sort_by_key(|(at, _)| *at);
    let values = || drawn.iter().flat_map(|(_, weight)| ends(weight).into_iter().chain([weight.population]));
    let (low, high) = (values().fold(0.0, f64::min), values().fold(0.0, f64::max));
    let scale = Scale::between(low, high, 29.0, 97.0);
    let bottom = TOP + ROW * drawn.len() as f64;
    let title = format!("Weights of {}", believed.model);
    let mut scene = Scene::new(format!("weights-{at}"), title, (bottom + 4.0) as u32);
    scene.description = format!(
        "{} {} with 95 % intervals, beside the population's. {}",
        drawn.len(),
        if drawn.len() == 1 { "weight" } else { "weights" },
        believed.summary
    );
    for tick in scale.ticks() {
        scene.line((scale.at(tick), TOP - 4.0), (scale.at(tick), bottom), "grid");
        scene.text(
            (scale.at(tick), 12.0),
            "middle",
            "tick",
            signed(tick, usize::from(high - low < 4.0), false),
        );
    }
    for (row, (index, weight)) in drawn.into_iter().enumerate() {
        let y = TOP + ROW * (row as f64 + 0.5);
        let [low, high] = ends(weight);
        let name = format!("{} {}", noun(believed.head), index + 1);
        scene.text((0.0, y + 4.0), "start", "name", name.clone());
        scene.line((scale.at(low), y), (scale.at(high), y), "interval");
        let population = format!("{name}, population: {}", three(weight.population));
        scene.mark(Shape::Square, (scale.at(weight.population), y), "population", population);
        let title = format!("{name}: {} [{}, {}]", three(weight.mean), three(low), three(high));
        scene.mark(Shape::Circle, (scale.at(weight.mean), y), "model", title);
    }
    scene
}

fn table(believed: &Believed) -> Table {
    let columns = [
        ("Weight", "weight"),
        ("Mean", "mean"),
        ("Deviation", "deviation"),
        ("low", "low"),
        ("high", "high"),
        ("Population", "population"),
    ];
    let mut table = Table::new(format!("Weights of {}", believed.model), &columns);
    for (at, weight) in believed.weights.iter().enumerate() {
        let [low, high] = ends(weight);
        let name = Cell::head(format!("{} {}", noun(believed.head), at + 1));
        let numbers = [weight.mean, weight.deviation, low, high, weight.population];
        table.rows.push([name].into_iter().chain(numbers.map(|number| Cell::new(exact(number)))).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use polyreward_domain::StateVersion;
    use polyreward_service::ModelTally;
    use time::macros::datetime;

    use super::*;
    use crate::dashboard::view::made_up;

    fn profile(weights: usize) -> Profile {
        let weight = |at: usize| Weight { mean: (at as f64).sin(), deviation: 0.3, population: 0.1 };
        Profile {
            user: UserRecord {
                user_id: "ada".parse().unwrap(),
                version: StateVersion::default(),
                examples: 3,
                next_position: 3,
                attributes: [("country".to_owned(), "<b>UK</b>".to_owned())].into(),
                created_at: datetime!(2026-10-01 0:00 UTC),
                updated_at: datetime!(2026-10-02 0:00 UTC),
            },
            models: vec![Believed {
                model: made_up::model("lore@1a2b"),
                head: HeadFamily::Lore,
                examples: 3,
                weights: (0..weights).map(weight).collect(),
                uncertainty: 0.62,
                summary: "3 examples; 62 % of the prior's uncertainty is left.".to_owned(),
                unusable: None,
                tally: Some(ModelTally {
                    model: made_up::model("lore@1a2b"),
                    predictions: 3,
                    correct: 2.5,
                    population_correct: 1.0,
                }),
            }],
        }
    }

    #[test]
    fn a_belief_is_told_in_words_numbers_and_a_picture() {
        let page = of(&profile(4), &[], Next::Nothing("x".to_owned()), false);
        let belief = &page.beliefs[0];
        assert_eq!(
            belief.accuracy,
            "Right in 83.3 % of 3 examples before it learned from them; the population's reward 33.3 % (+50.0 points)."
        );
        assert_eq!(belief.plot.as_ref().unwrap().marks.len(), 8);
        assert_eq!(belief.table.as_ref().unwrap().rows.len(), 4);
        let html = page.render().unwrap();
        assert!(html.contains("&#60;b&#62;UK") && html.contains("read:text"));
        if let Some(folder) = std::env::var_os("DASHBOARD_PAGES") {
            std::fs::write(std::path::Path::new(&folder).join("person.html"), html).unwrap();
        }
    }

    #[test]
    fn of_many_weights_those_furthest_from_the_population_are_drawn() {
        let page = of(&profile(64), &[], Next::Nothing(String::new()), true);
        let belief = &page.beliefs[0];
        assert_eq!(belief.plot.as_ref().unwrap().marks.len(), 2 * DRAWN);
        assert_eq!(belief.table.as_ref().unwrap().rows.len(), 64);
    }
}
