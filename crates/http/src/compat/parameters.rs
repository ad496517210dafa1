//! The query string of a compatibility route: many clients can set neither headers nor fields of the body.

use std::collections::BTreeMap;

use polyreward_domain::{Attributes, ModelSelector, Overflow, UserId};
use polyreward_service::{Aggregate, Welfare, Whose};
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::template::Template;
use crate::{
    entry::attribute_faults,
    extract::{known_word, query_pairs},
    problem::{InputFault, Problem, ProblemType},
    routes::score::{AggregateBody, OverflowBody},
};

/// What every compatibility route takes in its query string.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the description of what `Parameters` reads")]
pub(crate) struct CompatParams {
    /// The model, as `name` or `name@version`. A field `model` of the body may name it too, but not another one.
    model: Option<String>,
    /// Whose reward. A field `user_id` of the body may name the person too, but not another one.
    user_id: Option<String>,
    /// Whose rewards together, as `country:UK`; more of them narrow the group. Excludes `user_id`.
    group: Option<Vec<String>>,
    /// How a group's rewards become one; `mean` by default.
    #[param(value_type = Option<AggregateBody>)]
    aggregate: Option<String>,
    /// What becomes of a text longer than the backbone's window, instead of what the format has by default.
    #[param(value_type = Option<OverflowBody>)]
    on_overflow: Option<String>,
}

/// A field of the body that says whose reward is asked for.
pub(crate) type Named<'a> = (&'a str, Option<&'a str>);

/// What the query string asks for.
#[derive(Debug)]
pub(crate) struct Parameters {
    model: Option<ModelSelector>,
    user_id: Option<UserId>,
    group: Attributes,
    aggregate: Aggregate,
    pub on_overflow: Option<Overflow>,
    others: BTreeMap<&'static str, String>,
}

impl Parameters {
    /// Reads what every route takes, and `more` of which each may stand once.
    pub fn of(query: Option<&str>, more: &[&'static str]) -> Result<Self, Problem> {
        const EVERYWHERE: [&str; 5] = ["model", "user_id", "group", "aggregate", "on_overflow"];
        let names: Vec<&'static str> = EVERYWHERE.into_iter().chain(more.iter().copied()).collect();
        let (mut once, mut group) = (BTreeMap::new(), Attributes::new());
        for (name, value) in query_pairs(query)? {
            let Some(name) = names.iter().copied().find(|known| *known == name) else {
                let detail = format!("a parameter is unknown; there are {}", names.join(", "));
                return Err(Problem::new(ProblemType::InvalidParameter).detail(detail));
            };
            if name == "group" {
                add_to_group(&mut group, &value)?;
            } else if once.insert(name, value).is_some() {
                return Err(wrong(name, "is given more than once"));
            }
        }
        let mut this = Self {
            model: None,
            user_id: None,
            group,
            aggregate: Aggregate::Mean,
            on_overflow: None,
            others: once,
        };
        this.model = this.read("model", |text| text.parse::<ModelSelector>().map_err(|e| e.to_string()))?;
        this.user_id = this.read("user_id", |text| text.parse::<UserId>().map_err(|e| e.to_string()))?;
        this.on_overflow = this.word::<OverflowBody>("on_overflow")?.map(Into::into);
        if let Some(aggregate) = this.word::<AggregateBody>("aggregate")? {
            if this.group.is_empty() {
                return Err(wrong("aggregate", "is of a group, and there is none"));
            }
            this.aggregate = aggregate.into();
            if matches!(this.aggregate, Aggregate::Softmin | Aggregate::Nash | Aggregate::MaxMin) {
                return Err(wrong(
                    "aggregate",
                    "needs the scale win_rate, which /score with an audience has",
                ));
            }
        }
        if this.user_id.is_some() && !this.group.is_empty() {
            return Err(wrong("group", "cannot stand beside user_id"));
        }
        Ok(this)
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.others.remove(name) else { return Ok(None) };
        read(&text).map(Some).map_err(|detail| wrong(name, &detail))
    }

    /// One of a few words.
    pub fn word<T: DeserializeOwned>(&mut self, name: &'static str) -> Result<Option<T>, Problem> {
        self.read(name, known_word::<T>)
    }

    /// How whole texts are read.
    pub fn template(&mut self) -> Result<Template, Problem> {
        Ok(self.word("template")?.unwrap_or_default())
    }

    /// Which model answers: the one that the query, the body or both name.
    pub fn model(&self, of_body: Option<&str>) -> Result<Option<ModelSelector>, Problem> {
        // Clients that have to send something send nothing.
        let Some(text) = of_body.filter(|text| !text.is_empty()) else { return Ok(self.model.clone()) };
        let of_body = text.parse::<ModelSelector>().ok();
        match (&self.model, of_body) {
            (None, None) => Err(Problem::unknown_model("no model has this name; GET /models lists them")),
            (None, Some(of_body)) => Ok(Some(of_body)),
            (Some(of_query), Some(of_body)) if of_query.name == of_body.name => {
                match (&of_query.version, &of_body.version) {
                    (Some(one), Some(other)) if one != other => Err(contradiction("/model", "model")),
                    (Some(_), _) => Ok(Some(of_query.clone())),
                    (None, _) => Ok(Some(of_body)),
                }
            }
            (Some(_), _) => Err(contradiction("/model", "model")),
        }
    }

    /// Whose reward is asked for, where fields of the body may name a person.
    pub fn whose(&self, of_body: &[Named<'_>]) -> Result<Whose, Problem> {
        let mut whose = self.whose_of_query();
        let mut named_at: Option<&str> = None;
        for (pointer, text) in of_body {
            let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
            let user_id = text.parse::<UserId>();
            let user_id =
                user_id.map_err(|error| Problem::invalid(vec![InputFault::new(*pointer, error)]))?;
            whose = match (whose, named_at) {
                (Whose::Population, _) => Whose::User(user_id),
                (Whose::User(other), _) if other == user_id => Whose::User(other),
                (Whose::User(_), Some(other)) => {
                    let detail = format!("is another person than {other}");
                    return Err(Problem::of_part(ProblemType::Contradiction, pointer, detail));
                }
                (Whose::Audience { .. }, _) => return Err(contradiction(pointer, "group")),
                (_, _) => return Err(contradiction(pointer, "user_id")),
            };
            named_at = Some(pointer);
        }
        Ok(whose)
    }

    fn whose_of_query(&self) -> Whose {
        match &self.user_id {
            Some(user_id) => Whose::User(user_id.clone()),
            None if self.group.is_empty() => Whose::Population,
            None => self.audience(self.group.clone()),
        }
    }

    /// A group that the body names at a place.
    pub fn whose_group(&self, pointer: &str, group: Attributes) -> Result<Whose, Problem> {
        let faults = attribute_faults(pointer, &group);
        if !faults.is_empty() {
            return Err(Problem::invalid(faults));
        }
        match self.whose_of_query() {
            Whose::Population => Ok(self.audience(group)),
            Whose::Audience { group: of_query, .. } if of_query == group => Ok(self.audience(group)),
            Whose::Audience { .. } | Whose::Groups { .. } => Err(contradiction(pointer, "group")),
            Whose::User(_) | Whose::Users(_) => Err(contradiction(pointer, "user_id")),
        }
    }

    fn audience(&self, group: Attributes) -> Whose {
        Whose::Audience { group, aggregates: vec![self.aggregate], welfare: Welfare::default() }
    }
}

fn add_to_group(group: &mut Attributes, value: &str) -> Result<(), Problem> {
    let Some((key, value)) = value.split_once(':') else {
        return Err(wrong("group", "is an attribute's key and value, as country:UK"));
    };
    if group.insert(key.to_owned(), value.to_owned()).is_some_and(|other| other != value) {
        return Err(wrong("group", "asks for two values of one attribute, which nobody has"));
    }
    match attribute_faults("", group).into_iter().next() {
        Some(fault) => Err(wrong("group", &fault.detail)),
        None => Ok(()),
    }
}

fn wrong(name: &'static str, detail: &str) -> Problem {
    Problem::parameters(vec![(name, detail.to_owned())])
}

/// That a part of the body says something else than a query parameter.
pub(super) fn contradiction(pointer: &str, parameter: &str) -> Problem {
    let detail = format!("contradicts {parameter} of the query");
    Problem::of_part(ProblemType::Contradiction, pointer, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Parameters, Problem> {
        Parameters::of(Some(query), &["template"])
    }

    fn user(id: &str) -> Whose {
        Whose::User(id.parse().unwrap())
    }

    #[test]
    fn a_query_names_a_person_or_a_group_and_no_other_parameter() {
        assert_eq!(read("user_id=ada&model=pal-a").unwrap().whose(&[]).unwrap(), user("ada"));
        assert_eq!(read("").unwrap().whose(&[]).unwrap(), Whose::Population);
        let group =
            Attributes::from([("age", "25:34"), ("country", "UK")].map(|(k, v)| (k.into(), v.into())));
        let asked = read("group=country:UK&group=age%3A25:34&aggregate=min").unwrap().whose(&[]).unwrap();
        let welfare = Welfare::default();
        assert_eq!(asked, Whose::Audience { group, aggregates: vec![Aggregate::Min], welfare });
        for bad in [
            "user=ada",
            "group=country:UK&aggregate=nash",
            "group=country:UK&aggregate=maxmin",
            "user_id=a%20b",
            "user_id=ada&user_id=ada",
            "user_id=ada&group=country:UK",
            "group=UK",
            "group=country:UK&group=country:FR",
            "group=:UK",
            "aggregate=mean",
            "group=a:b&aggregate=median",
            "on_overflow=drop",
            "model=NO",
        ] {
            assert_eq!(read(bad).unwrap_err().kind(), ProblemType::InvalidParameter, "{bad}");
        }
    }

    #[test]
    fn a_body_may_say_what_the_query_says_and_nothing_else() {
        let whose = |query: &str, fields: &[Named<'_>]| read(query).unwrap().whose(fields);
        let field = |id| [("/user", Some(id)), ("/user_id", None)];
        assert_eq!(whose("", &field("ada")).unwrap(), user("ada"));
        assert_eq!(whose("user_id=ada", &field("ada")).unwrap(), user("ada"));
        assert_eq!(whose("user_id=ada", &field("")).unwrap(), user("ada"));
        let kind = |query: &str, fields: &[Named<'_>]| whose(query, fields).unwrap_err().kind();
        assert_eq!(kind("user_id=ada", &field("bob")), ProblemType::Contradiction);
        assert_eq!(kind("group=country:UK", &field("bob")), ProblemType::Contradiction);
        let two = [("/user", Some("ada")), ("/user_id", Some("bob"))];
        assert_eq!(kind("", &two), ProblemType::Contradiction);
        assert_eq!(kind("", &field("a b")), ProblemType::InvalidInput);
    }

    #[test]
    fn the_more_exact_of_two_names_of_one_model_is_taken() {
        let model = |query: &str, of_body| read(query).unwrap().model(of_body);
        let name = |query, of_body| model(query, of_body).unwrap().map(|model| model.to_string());
        assert_eq!(name("", None), None);
        assert_eq!(name("", Some("")), None);
        assert_eq!(name("model=pal-a", None).as_deref(), Some("pal-a"));
        let exact = "pal-a@3f9c0000";
        assert_eq!(name("model=pal-a", Some(exact)).as_deref(), Some(exact));
        assert_eq!(name(&format!("model={exact}"), Some("pal-a")).as_deref(), Some(exact));
        let kind = |query, of_body| model(query, of_body).unwrap_err().kind();
        assert_eq!(kind("model=pal-a", Some("bt")), ProblemType::Contradiction);
        assert_eq!(kind("model=pal-a", Some("Org/Model")), ProblemType::Contradiction);
        assert_eq!(kind("", Some("Org/Model")), ProblemType::UnknownModel);
    }
}
