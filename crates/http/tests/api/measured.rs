//! People with predictions, put into a database as if models had made them.

use std::sync::Arc;

use polyreward_domain::{Attributes, Comparison, LabelConfidence, Prompt, StateVersion, Strength, TenantId};
use polyreward_storage::{NewExample, Prediction, Storage};
use time::{Duration, OffsetDateTime};

use crate::fixture::Server;

/// The model that made them: of a version that is not loaded any more.
pub const MODEL: &str = "lore@old";
/// When the first prediction was made.
pub const BEGINNING: OffsetDateTime = time::macros::datetime!(2026-01-31 00:00 UTC);

/// Somebody to be put in.
#[derive(Debug, Clone)]
pub struct Somebody {
    pub user_id: String,
    pub attributes: Attributes,
    pub predictions: Vec<Made>,
}

/// What was predicted of one example.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    pub preference: f64,
    pub population_preference: f64,
    pub baseline_preference: Option<f64>,
    pub at: OffsetDateTime,
}

impl Somebody {
    pub fn new(user_id: &str, attributes: &[(&str, &str)]) -> Self {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Self { user_id: user_id.to_owned(), attributes: attributes.collect(), predictions: Vec::new() }
    }

    /// With so many predictions, of which the first few are right, an hour apart.
    pub fn right(mut self, right: usize, of: usize) -> Self {
        let made = |at: u32| Made {
            preference: if at < right as u32 { 0.8 } else { 0.3 },
            population_preference: if at.is_multiple_of(2) { 0.6 } else { 0.4 },
            baseline_preference: (!at.is_multiple_of(3)).then_some(0.7),
            at: BEGINNING + Duration::hours(at.into()),
        };
        self.predictions = (0..of as u32).map(made).collect();
        self
    }
}

/// Twelve in the UK, most of whom are predicted well; six in the US, who are not; three in France; two of whom no country is
/// known, and five more.
pub fn crowd() -> Vec<Somebody> {
    let mut crowd = Vec::new();
    let mut add = |country: Option<&str>, people: usize, right: fn(usize) -> usize| {
        for number in 0..people {
            let name = format!("{}-{number}", country.unwrap_or("no").to_lowercase());
            let age = if number % 2 == 0 { "18-34" } else { "35+" };
            let mut attributes = vec![("age", age)];
            attributes.extend(country.map(|country| ("country", country)));
            let of = 4 + number % 3;
            crowd.push(Somebody::new(&name, &attributes).right(right(number).min(of), of));
        }
    };
    add(Some("UK"), 12, |number| 4 + number % 2);
    add(Some("US"), 6, |number| 1 + number % 3);
    add(Some("FR"), 3, |_| 2);
    add(None, 7, |_| 3);
    crowd
}

/// Puts people in, each with all of their predictions by one model.
pub async fn put(storage: &Arc<dyn Storage>, tenant: &TenantId, model: &str, people: &[Somebody]) {
    for (number, somebody) in people.iter().enumerate() {
        let user_id = somebody.user_id.parse().expect("the id of a user");
        let mut transaction = storage.begin(tenant).await.expect("the database is there");
        let (user, _) = transaction.hold_or_create_user(&user_id, BEGINNING).await.expect("a row");
        let first = usize::try_from(user.next_position).expect("few examples");
        let all = first + somebody.predictions.len();
        let example = |at: usize| NewExample {
            example_id: format!("e{at}").parse().expect("the id of an example"),
            position: at as u64,
            comparison: Comparison {
                prompt: Prompt::Text(format!("{} asks for number {at}.", somebody.user_id)),
                chosen: "A trout.".into(),
                rejected: "Fish are tasty.".into(),
                strength: Strength::default(),
                label_confidence: LabelConfidence::default(),
                rationale: None,
            },
            // Nobody judges what another did.
            names: [2 * (1000 * number + at) as u64, (1 << 40) + (1000 * number + at) as u64],
            embeddings: Vec::new(),
            created_at: BEGINNING,
        };
        let predictions: Vec<Prediction> = (0..)
            .zip(&somebody.predictions)
            .map(|(at, made)| Prediction {
                example_id: format!("e{}", first + at).parse().expect("the id of an example"),
                model: model_ref(model),
                shot: (first + at) as u64,
                preference: made.preference,
                population_preference: made.population_preference,
                baseline_preference: made.baseline_preference,
                created_at: made.at,
            })
            .collect();
        let examples: Vec<NewExample> = (first..all).map(example).collect();
        transaction.add_examples(&user_id, "none", &examples).await.expect("the examples are stored");
        transaction.add_predictions(&user_id, &predictions).await.expect("the predictions are stored");
        transaction.put_attributes(&user_id, &somebody.attributes).await.expect("the attributes are stored");
        let version = StateVersion::from_number((number * 1000 + all) as u64);
        transaction
            .save_user(&user_id, version, all as u64, all as u64, BEGINNING)
            .await
            .expect("the row is stored");
        transaction.commit().await.expect("it is committed");
    }
}

pub fn model_ref(model: &str) -> polyreward_domain::ModelRef {
    let (name, version) = model.split_once('@').expect("name@version");
    polyreward_domain::ModelRef {
        name: name.parse().expect("a model name"),
        version: version.parse().expect("a version"),
    }
}

/// A server of the [`crowd`].
pub async fn server() -> Server {
    let server = Server::with_people(Vec::new()).await;
    put(&server.storage, &TenantId::default(), MODEL, &crowd()).await;
    server
}

/// A text as it stands in a query.
pub fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| format!("{escaped}%{byte:02X}"))
}
