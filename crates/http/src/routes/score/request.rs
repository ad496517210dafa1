//! The body of `POST /score` and its way to a [`ScoreQuery`]: the one place that checks it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use polyreward_domain::{ModelSelector, Overflow, UserId};
use polyreward_service::{
    Asked, Fault, Item, Pair, Part, RewardScale, ScoreError, ScoreQuery, Unusable, Whose, Work,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::audience::AudienceBody;
use crate::{
    entry::{Check, PromptText},
    extract::known_word,
    limits::{Deadline, Limits},
    problem::{InputFault, Problem, ProblemType},
};

/// What to score, for whom, and how. Exactly one of `pairs` and `items` is given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with pairs or items")]
#[schema(example = json!({
    "user_id": "ada",
    "pairs": [{"prompt": "Name a fish.", "response_a": "A trout.", "response_b": "Fish are tasty."}],
}))]
pub(crate) struct ScoreRequest {
    /// The model, as `name` for its newest version or `name@version`; by default the server's.
    #[schema(example = "pal-a")]
    model: Option<String>,
    /// Whose reward; nobody's is the population's. An unknown person is not an error.
    #[schema(pattern = "^[A-Za-z0-9._~-]{1,128}$", example = "ada")]
    user_id: Option<String>,
    /// Whose rewards, each of them; at most `max_users` of `GET /info`, which can be configured. Cannot stand beside `user_id` or `audience`.
    #[schema(value_type = Option<Vec<UserIdText>>, min_items = 1, max_items = 16_384, example = json!(null))]
    user_ids: Option<Vec<String>>,
    /// Whose rewards together. Cannot stand beside `user_id` or `user_ids`.
    #[schema(example = json!(null))]
    audience: Option<AudienceBody>,
    /// Two responses to each prompt.
    #[schema(min_items = 1)]
    pairs: Option<Vec<PairBody>>,
    /// One or more responses to each prompt.
    #[schema(min_items = 1)]
    items: Option<Vec<ItemBody>>,
    /// The scale of the rewards; `raw` by default.
    #[schema(value_type = Option<RewardScaleBody>)]
    reward_scale: Option<String>,
    /// What becomes of a text longer than the backbone's window; `truncate` by default.
    #[schema(value_type = Option<OverflowBody>)]
    on_overflow: Option<String>,
    /// Whether good items are answered beside bad ones; false by default.
    partial: Option<bool>,
}

/// The id of a person.
#[derive(Debug, ToSchema)]
#[schema(as = UserId, pattern = "^[A-Za-z0-9._~-]{1,128}$", example = "ada")]
#[expect(dead_code, reason = "ids are read as text, so that every one that is not valid is named")]
pub(crate) struct UserIdText(String);

/// Two responses to one prompt.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with prompt, response_a and response_b")]
#[schema(as = Pair)]
pub(crate) struct PairBody {
    prompt: PromptText,
    /// One response; may be empty.
    response_a: String,
    /// The other one.
    response_b: String,
}

/// One or more responses to one prompt.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with prompt and responses")]
#[schema(as = Item)]
pub(crate) struct ItemBody {
    prompt: PromptText,
    /// The responses; each may be empty.
    #[schema(min_items = 1)]
    responses: Vec<String>,
}

/// The scale of rewards.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RewardScale)]
pub(crate) enum RewardScaleBody {
    /// Logits, with an arbitrary origin.
    Raw,
    /// Standard deviations from the mean over the training responses.
    Standard,
    /// Mean preference against the model's reference responses, in [0, 1].
    WinRate,
}

/// What becomes of a text longer than the backbone's window.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = OnOverflow)]
pub(crate) enum OverflowBody {
    /// It is cut, and the result says so.
    Truncate,
    /// It is an error.
    Error,
}

/// Where the results of a query go: which entries of the request it holds, and what is wrong with the others.
#[derive(Debug)]
pub(crate) struct Places {
    /// `pairs` or `items`.
    list: &'static str,
    /// Entries of the request.
    pub len: usize,
    /// Position in the request of each entry of the query.
    kept: Vec<usize>,
    /// The first fault of each entry that is not in the query.
    pub refused: BTreeMap<usize, InputFault>,
    /// Whether good entries are answered beside bad ones.
    pub partial: bool,
}

impl Places {
    /// Of a body that has one prompt's responses at its top.
    pub fn of_responses() -> Self {
        Self { list: "", len: 1, kept: vec![0], refused: BTreeMap::new(), partial: false }
    }

    /// A fault of an entry of the query, placed in the request.
    pub fn fault(&self, fault: &Fault) -> InputFault {
        let entry = if self.list.is_empty() {
            String::new()
        } else {
            format!("/{}/{}", self.list, self.kept[fault.at])
        };
        let pointer = match fault.part {
            Part::ResponseA => format!("{entry}/response_a"),
            Part::ResponseB => format!("{entry}/response_b"),
            Part::Response(at) => format!("{entry}/responses/{at}"),
        };
        InputFault::of_text(pointer, &fault.error)
    }

    /// The service's error as this request's.
    pub fn problem(&self, error: ScoreError) -> Problem {
        problem_of(error, |fault| self.fault(fault))
    }
}

/// The service's error as that of a request which has its texts where `place` says, and the people where `/score` has them.
pub(crate) fn problem_of(error: ScoreError, place: impl Fn(&Fault) -> InputFault) -> Problem {
    score_problem(error, place, |asked| match asked {
        Asked::User => "/user_id".to_owned(),
        Asked::Users(at) => format!("/user_ids/{at}"),
        Asked::Audience => place_of(None),
        Asked::Group(at) => place_of(Some(at)),
    })
}

/// Where a group stands: the audience's only one, or one of several.
fn place_of(group: Option<usize>) -> String {
    group.map_or_else(|| "/audience/group".to_owned(), |at| format!("/audience/groups/{at}/group"))
}

/// The service's error as that of a request in which faults stand at some places, and the people asked for at others.
pub(crate) fn score_problem(
    error: ScoreError,
    fault: impl Fn(&Fault) -> InputFault,
    whose: impl Fn(Asked) -> String,
) -> Problem {
    match error {
        ScoreError::Faults(faults) => Problem::invalid(faults.iter().map(fault).collect()),
        ScoreError::Model(error) => error.into(),
        ScoreError::Backbone(error) => (&error).into(),
        ScoreError::EmptyAudience(group) => {
            Problem::invalid(vec![InputFault::new(place_of(group), "nobody has these attributes")])
        }
        ScoreError::TooManyRewards { limit, .. } => {
            Problem::new(ProblemType::TooManyRewards).detail(&error).limit("max_rewards", limit)
        }
        ScoreError::NoRoom => Problem::overloaded(&error),
        ScoreError::DeadlineExceeded => Problem::deadline_exceeded(&error),
        ScoreError::UnusableExamples(people) => {
            let unusable = |(asked, why): &(Asked, Unusable)| {
                InputFault::of(ProblemType::UnusableExamples, whose(*asked), why)
            };
            Problem::unusable_examples(people.iter().map(unusable).collect())
        }
        ScoreError::States(error) => (&error).into(),
        ScoreError::Head(error) => Problem::internal(&error),
    }
}

impl ScoreRequest {
    /// Entries, before anything is checked.
    pub(super) fn len(&self) -> usize {
        self.pairs.as_ref().map_or(0, Vec::len) + self.items.as_ref().map_or(0, Vec::len)
    }

    /// Checks everything and collects every fault.
    ///
    /// # Errors
    /// Too many texts, or faults: of the request as a whole, or of any entry unless `partial` is asked for.
    pub(super) fn into_query(
        self,
        limits: &Limits,
        deadline: Deadline,
    ) -> Result<(ScoreQuery, Places), Problem> {
        self.check_batch(limits)?;
        let mut faults = Vec::new();
        let mut optional = Optional(&mut faults);
        let model = optional.check("/model", self.model, str::parse::<ModelSelector>);
        let scale = optional.check("/reward_scale", self.reward_scale, known_word::<RewardScaleBody>);
        let overflow = optional.check("/on_overflow", self.on_overflow, known_word::<OverflowBody>);
        let partial = self.partial.unwrap_or(false);
        let scale = scale.map_or(RewardScale::default(), Into::into);
        let whose = whose(self.user_id, self.user_ids, self.audience, scale, &mut faults);
        let entries = match (self.pairs, self.items) {
            (Some(pairs), None) => Some(Entries::of_pairs(pairs)),
            (None, Some(items)) => Some(Entries::of_items(items)),
            (Some(_), Some(_)) => {
                faults.push(InputFault::new("/pairs", "cannot stand beside items"));
                faults.push(InputFault::new("/items", "cannot stand beside pairs"));
                None
            }
            (None, None) => {
                faults.push(InputFault::new("", "needs pairs or items"));
                None
            }
        };
        let entries = entries.map(|mut entries| {
            if entries.places.len == 0 {
                faults.push(InputFault::new(format!("/{}", entries.places.list), "has at least one entry"));
            }
            if !partial {
                faults.append(&mut entries.faults);
            }
            entries.places.partial = partial;
            entries
        });
        match entries {
            Some(entries) if faults.is_empty() => {
                let query = ScoreQuery {
                    model,
                    whose,
                    work: entries.work,
                    scale,
                    also: None,
                    overflow: overflow.map_or(Overflow::default(), Into::into),
                    partial,
                    deadline: Some(deadline.0),
                };
                Ok((query, entries.places))
            }
            _ => Err(Problem::invalid(faults)),
        }
    }

    /// Counts people and texts first: what is too much is not looked at.
    fn check_batch(&self, limits: &Limits) -> Result<(), Problem> {
        let of_pairs = self.pairs.as_ref().map_or(0, |pairs| 2 * pairs.len());
        let (users, max_users) = (self.user_ids.as_ref().map_or(0, Vec::len), limits.max_users);
        if users > max_users {
            let detail = format!("{users} people, more than the {max_users} of one request");
            return Err(Problem::new(ProblemType::TooManyUsers).detail(detail).limit("max_users", max_users));
        }
        let of_items: usize = self.items.iter().flatten().map(|item| item.responses.len().max(1)).sum();
        let (texts, max) = (of_pairs + of_items, limits.max_batch);
        if texts <= max {
            return Ok(());
        }
        let detail = format!(
            "{texts} texts (two a pair, the responses of each item), more than the {max} of one request"
        );
        Err(Problem::new(ProblemType::TooManyTexts).detail(detail).limit("max_batch", max))
    }
}

/// Whose rewards the fields ask for; what is wrong with them becomes faults.
fn whose(
    user_id: Option<String>,
    user_ids: Option<Vec<String>>,
    audience: Option<AudienceBody>,
    scale: RewardScale,
    faults: &mut Vec<InputFault>,
) -> Whose {
    let given = [
        ("/user_id", user_id.is_some()),
        ("/user_ids", user_ids.is_some()),
        ("/audience", audience.is_some()),
    ];
    if given.iter().filter(|(_, given)| *given).count() > 1 {
        let detail = "user_id, user_ids and audience exclude one another";
        faults.extend(
            given.iter().filter(|(_, given)| *given).map(|(field, _)| InputFault::new(*field, detail)),
        );
        return Whose::Population;
    }
    let mut optional = Optional(faults);
    if let Some(user_ids) = user_ids {
        if user_ids.is_empty() {
            faults.push(InputFault::new("/user_ids", "has at least one entry"));
            return Whose::Population;
        }
        let check =
            |(at, user_id)| optional.check(&format!("/user_ids/{at}"), Some(user_id), str::parse::<UserId>);
        return Whose::Users(user_ids.into_iter().enumerate().filter_map(check).collect());
    }
    if let Some(body) = audience {
        return super::audience::audience(body, scale, faults);
    }
    optional.check("/user_id", user_id, str::parse::<UserId>).map_or(Whose::Population, Whose::User)
}

/// Reads optional fields, and collects what is wrong with them.
pub(crate) struct Optional<'a>(pub &'a mut Vec<InputFault>);

impl Optional<'_> {
    pub fn check<T, E: fmt::Display>(
        &mut self,
        pointer: &str,
        text: Option<String>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = read(&text?);
        value.map_err(|error| self.0.push(InputFault::new(pointer, error))).ok()
    }
}

/// The entries of a request: the good ones as work, the bad ones as faults.
pub(crate) struct Entries {
    pub work: Work,
    pub places: Places,
    /// Every fault of every entry.
    pub faults: Vec<InputFault>,
}

impl Entries {
    pub fn of_pairs(pairs: Vec<PairBody>) -> Self {
        let (good, places, faults) = sift("pairs", pairs, |pair, check| {
            check.text("/response_a", &pair.response_a);
            check.text("/response_b", &pair.response_b);
            Pair {
                prompt: check.prompt(pair.prompt),
                response_a: pair.response_a.into(),
                response_b: pair.response_b.into(),
            }
        });
        Self {
            work: if good.is_empty() { Work::Items(Vec::new()) } else { Work::Pairs(good) },
            places,
            faults,
        }
    }

    fn of_items(items: Vec<ItemBody>) -> Self {
        let (good, places, faults) = sift("items", items, |item, check| {
            if item.responses.is_empty() {
                check.fault("/responses", "has at least one response");
            }
            for (at, response) in item.responses.iter().enumerate() {
                check.text(&format!("/responses/{at}"), response);
            }
            let prompt = check.prompt(item.prompt);
            Item { prompt, responses: item.responses.into_iter().map(Arc::from).collect() }
        });
        Self { work: Work::Items(good), places, faults }
    }
}

/// Converts entries, and parts those with faults from those without.
fn sift<B, T>(
    list: &'static str,
    bodies: Vec<B>,
    convert: impl Fn(B, &mut Check) -> T,
) -> (Vec<T>, Places, Vec<InputFault>) {
    let mut places = Places {
        list,
        len: bodies.len(),
        kept: Vec::with_capacity(bodies.len()),
        refused: BTreeMap::new(),
        partial: false,
    };
    let (mut good, mut faults) = (Vec::with_capacity(bodies.len()), Vec::new());
    for (at, body) in bodies.into_iter().enumerate() {
        let mut check = Check::new(list, at);
        let entry = convert(body, &mut check);
        match check.faults.first() {
            None => {
                good.push(entry);
                places.kept.push(at);
            }
            Some(first) => {
                places.refused.insert(at, first.clone());
                faults.append(&mut check.faults);
            }
        }
    }
    (good, places, faults)
}

impl From<RewardScaleBody> for RewardScale {
    fn from(scale: RewardScaleBody) -> Self {
        match scale {
            RewardScaleBody::Raw => Self::Raw,
            RewardScaleBody::Standard => Self::Standard,
            RewardScaleBody::WinRate => Self::WinRate,
        }
    }
}

impl From<OverflowBody> for Overflow {
    fn from(overflow: OverflowBody) -> Self {
        match overflow {
            OverflowBody::Truncate => Self::Truncate,
            OverflowBody::Error => Self::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::extract::parse;
    use polyreward_domain::Attributes;
    use polyreward_service::{Aggregate, Welfare};

    fn query(body: &Value) -> Result<(ScoreQuery, Places), Problem> {
        let limits = Limits { max_batch: 8, ..Limits::default() };
        parse::<ScoreRequest>(body.to_string().as_bytes())?
            .into_query(&limits, Deadline(std::time::Instant::now()))
    }

    fn pointers(body: &Value) -> Vec<String> {
        let problem = query(body).expect_err("the body is not valid");
        problem.faults().iter().map(|fault| fault.pointer.clone().unwrap()).collect()
    }

    #[test]
    fn every_fault_of_a_body_is_named() {
        let body = json!({"model": "NO", "user_id": "a b", "items": [
            {"prompt": "\0", "responses": []},
            {"prompt": [], "responses": ["good"]},
            {"prompt": [{"role": "", "content": "\0"}], "responses": ["a", "\0"]},
        ]});
        assert_eq!(
            pointers(&body),
            [
                "/model",
                "/user_id",
                "/items/0/responses",
                "/items/0/prompt",
                "/items/1/prompt",
                "/items/2/responses/1",
                "/items/2/prompt/0/role",
                "/items/2/prompt/0/content",
            ]
        );
    }

    #[test]
    fn exactly_one_list_with_an_entry_is_given() {
        let pair = json!({"prompt": "", "response_a": "", "response_b": ""});
        let item = json!({"prompt": "", "responses": [""]});
        assert_eq!(pointers(&json!({})), [""]);
        assert_eq!(pointers(&json!({"pairs": []})), ["/pairs"]);
        assert_eq!(pointers(&json!({"items": []})), ["/items"]);
        assert_eq!(pointers(&json!({"pairs": [pair], "items": [item]})), ["/pairs", "/items"]);
        assert!(query(&json!({"pairs": [pair], "items": null})).is_ok());
    }

    #[test]
    fn one_way_of_saying_whose_is_taken_and_checked() {
        let with = |whose: Value| {
            let mut body = json!({"pairs": [{"prompt": "", "response_a": "", "response_b": "x"}]});
            body.as_object_mut().unwrap().extend(whose.as_object().unwrap().clone());
            body
        };
        let whose = |body: Value| query(&with(body)).unwrap().0.whose;
        assert_eq!(whose(json!({})), Whose::Population);
        let user_ids = json!({"user_ids": ["ada", "bob", "ada"]});
        assert!(matches!(whose(user_ids), Whose::Users(users) if users.len() == 3));
        let audience = json!({"audience": {"group": {}, "aggregate": ["share", "p20"]}});
        let aggregates = vec![Aggregate::Share, Aggregate::P20];
        let welfare = Welfare::default();
        assert_eq!(whose(audience), Whose::Audience { group: Attributes::new(), aggregates, welfare });
        let faults = |body: Value| pointers(&with(body));
        assert_eq!(faults(json!({"user_id": "a", "user_ids": ["b"]})), ["/user_id", "/user_ids"]);
        assert_eq!(faults(json!({"user_ids": []})), ["/user_ids"]);
        assert_eq!(faults(json!({"user_ids": ["a", "b c"]})), ["/user_ids/1"]);
        assert_eq!(faults(json!({"audience": {"aggregate": ["mean"]}})), ["/audience/group"]);
        let bad = json!({"audience": {"group": {}, "aggregate": ["mean", "median", "mean"]}});
        assert_eq!(faults(bad), ["/audience/aggregate/1", "/audience/aggregate"]);
        assert_eq!(faults(json!({"audience": {"group": {}, "aggregate": []}})), ["/audience/aggregate"]);
        assert_eq!(
            faults(json!({"audience": {"group": {}, "aggregate": ["gini"]}})),
            ["/audience/aggregate/0"]
        );
        let crowd = query(&with(json!({"user_ids": vec!["a"; 20_000]}))).unwrap_err();
        assert_eq!(crowd.kind(), ProblemType::TooManyUsers);
    }

    #[test]
    fn too_many_texts_are_counted_and_not_looked_at() {
        let pair = json!({"prompt": "", "response_a": "\0", "response_b": ""});
        let problem = query(&json!({"pairs": vec![pair; 5]})).unwrap_err();
        assert_eq!(problem.kind(), ProblemType::TooManyTexts);
        let item = json!({"prompt": "", "responses": []});
        assert_eq!(query(&json!({"items": vec![item; 9]})).unwrap_err().kind(), ProblemType::TooManyTexts);
    }

    #[test]
    fn a_wrong_type_is_named_down_to_the_message() {
        let entry =
            |prompt: Value| json!({"pairs": [{"prompt": prompt, "response_a": "", "response_b": ""}]});
        assert_eq!(pointers(&entry(json!([{"role": "user", "content": 5}]))), ["/pairs/0/prompt/0/content"]);
        assert_eq!(pointers(&entry(json!([{"role": "user"}]))), ["/pairs/0/prompt/0/content"]);
        assert_eq!(pointers(&entry(json!(null))), ["/pairs/0/prompt"]);
        assert_eq!(pointers(&entry(json!({"a": 1}))), ["/pairs/0/prompt"]);
        assert_eq!(pointers(&json!({"pairs": {}})), ["/pairs"]);
        assert_eq!(pointers(&json!({"users": ["ada"]})), ["/users"]);
    }

    #[test]
    fn partial_leaves_the_bad_entries_out_and_remembers_their_place() {
        let pair = |text: &str| json!({"prompt": "", "response_a": text, "response_b": ""});
        let (query, places) =
            query(&json!({"partial": true, "pairs": [pair("\0"), pair("x"), pair("\0")]})).unwrap();
        assert!(matches!(query.work, Work::Pairs(pairs) if pairs.len() == 1));
        assert_eq!(places.refused.keys().copied().collect::<Vec<_>>(), [0, 2]);
        let error = polyreward_backbone::InputError::Tokenizer;
        let fault = places.fault(&Fault { at: 0, part: Part::ResponseB, error });
        assert_eq!(fault.pointer.as_deref(), Some("/pairs/1/response_b"));
    }
}
