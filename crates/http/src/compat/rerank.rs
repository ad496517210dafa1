//! `POST /rerank`, `/v1/rerank` and `/v2/rerank`: one answer that the clients of vLLM, Cohere, Jina and infinity read alike,
//! sorted by reward. A body with `texts` is text-embeddings-inference's and is answered in its format; SGLang's bare list
//! is asked for with `shape=list`, since its body is like the others'.

use axum::response::Response;
use polyreward_domain::{Overflow, Prompt};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ask::{Ask, Asking, Entries, Reward, Rewards},
    keys::Keys,
    openai::{TokenUsage, answer, cut_to, cut_to_window, scale_of, wrong},
    parameters::CompatParams,
    sglang::SglangMeta,
    tei::{self, TeiRanked, TeiRerankRequest},
};
use crate::{
    extract::{JsonBytes, parse},
    problem::{Problem, dialect::Dialect},
};

/// Formats of the path, with the fields that only they have.
const FORMATS: &[(&str, &[&str])] = &[
    ("vLLM, Cohere, Jina and infinity", &["documents", "top_n", "return_documents", "use_activation"]),
    ("text-embeddings-inference", &["texts", "return_text", "truncate", "truncation_direction"]),
];

/// The shape of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// An object with `results`.
    #[default]
    Object,
    /// A bare list, as SGLang's clients read it.
    List,
}

/// What the query string of the rerank routes takes besides.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the description of what the handler reads")]
pub(crate) struct RerankParams {
    /// `object` by default; `list` is SGLang's.
    #[param(inline)]
    shape: Option<Shape>,
}

/// A prompt and the responses to sort; what else the servers know is not looked at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with query and documents")]
#[schema(example = json!({"query": "Name a fish.", "documents": ["A trout.", "Fish are tasty."], "top_n": 1}))]
pub(crate) struct RerankRequest {
    /// The model, as `name` or `name@version`.
    model: Option<String>,
    /// The prompt.
    query: String,
    /// The responses, each a text or an object with `text`.
    #[schema(value_type = Vec<String>)]
    documents: Vec<Document>,
    /// So many of the best; all where it is 0 or absent.
    top_n: Option<i64>,
    /// Whether results repeat their documents, as by default.
    return_documents: Option<bool>,
    /// Whether rewards are raw; on the `win_rate` scale by default.
    raw_scores: Option<bool>,
    /// The opposite of `raw_scores`.
    use_activation: Option<bool>,
    /// An older name of `use_activation`.
    activation: Option<bool>,
    /// A query and its document of more tokens are cut at their start, to the last so many; -1 is the window. Without it,
    /// those longer than the window are refused.
    truncate_prompt_tokens: Option<i64>,
    /// At least the window: longer texts are cut at their start. Without it they are refused.
    max_tokens_per_doc: Option<i64>,
    /// Whose reward.
    user: Option<String>,
    /// Whose reward.
    user_id: Option<String>,
}

/// A response to be sorted.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string or an object with text")]
enum Document {
    Text(String),
    Object { text: String },
}

impl Document {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { text } => text,
        }
    }
}

/// Responses from the best to the worst.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RerankReply {
    id: String,
    #[schema(example = "rerank")]
    object: &'static str,
    /// The model that answered, as `name@version`.
    model: String,
    /// Seconds since 1970.
    created: i64,
    results: Vec<RankedReply>,
    usage: TokenUsage,
    meta: RerankMeta,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ranked)]
struct RankedReply {
    /// Position in the request.
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<DocumentReply>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RankedDocument)]
struct DocumentReply {
    text: String,
}

/// What Cohere's clients expect beside the results.
#[derive(Debug, Serialize, ToSchema)]
struct RerankMeta {
    api_version: ApiVersion,
    billed_units: BilledUnits,
}

#[derive(Debug, Serialize, ToSchema)]
struct ApiVersion {
    #[schema(example = "2")]
    version: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct BilledUnits {
    search_units: usize,
}

/// One of SGLang's bare list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SglangRanked {
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    /// Position in the request.
    index: usize,
    meta_info: SglangMeta,
}

/// A body of one of the formats.
#[derive(Deserialize, ToSchema)]
#[schema(as = RerankBody, example = json!({"query": "Name a fish.", "documents": ["A trout.", "Fish are tasty."], "top_n": 1}))]
#[serde(untagged)]
#[expect(dead_code, reason = "only described: the body decides, and each format has a handler")]
pub(crate) enum RerankBody {
    Documents(RerankRequest),
    Texts(TeiRerankRequest),
}

/// An answer in the format of the body.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described: the body decides, and each format has a handler")]
pub(crate) enum RerankAnswer {
    Object(RerankReply),
    Tei(Vec<TeiRanked>),
    Sglang(Vec<SglangRanked>),
}

/// Responses to a prompt from the best to the worst, for clients of rerankers.
///
/// A body with `documents` is vLLM's, Cohere's, Jina's or infinity's, and one answer serves all of them; a body with `texts`
/// is text-embeddings-inference's. Ties are in the order of the request.
#[utoipa::path(post, path = "/rerank", tag = "compatibility", operation_id = "rerank", request_body = RerankBody,
    params(CompatParams, RerankParams),
    responses((status = 200, description = "The responses from the best to the worst", body = RerankAnswer)))]
#[tracing::instrument(name = "http.rerank", skip_all)]
pub(crate) async fn rerank(asking: Asking, JsonBytes(body): JsonBytes) -> Result<Response, Problem> {
    if Keys::of(&body)?.format(FORMATS)? == 1 {
        let answer = match parse(&body) {
            Ok(request) => tei::rerank(&asking, request).await,
            Err(problem) => Err(problem),
        };
        return Ok(answer.unwrap_or_else(|problem| Dialect::Tei.respond(problem)));
    }
    documents(&asking, &body).await
}

async fn documents(asking: &Asking, body: &[u8]) -> Result<Response, Problem> {
    let body: RerankRequest = parse(body)?;
    let mut parameters = asking.parameters(&["shape"])?;
    let shape: Shape = parameters.word("shape")?.unwrap_or_default();
    let most = body.most()?;
    let raw = |flag: Option<bool>| flag.map(|on| !on);
    let cuts = [
        cut_to("/truncate_prompt_tokens", body.truncate_prompt_tokens, asking.window)?,
        cut_to_window(
            "/max_tokens_per_doc",
            body.max_tokens_per_doc.filter(|tokens| *tokens != 0),
            asking.window,
        )?,
    ];
    let scale = scale_of(&[
        ("/raw_scores", body.raw_scores),
        ("/use_activation", raw(body.use_activation)),
        ("/activation", raw(body.activation)),
    ])?;
    let model = parameters.model(body.model.as_deref())?;
    let whose =
        parameters.whose(&[("/user", body.user.as_deref()), ("/user_id", body.user_id.as_deref())])?;
    asking.check_batch(body.documents.len())?;
    let mut entries = Entries::default();
    let prompt = entries.prompt("/query", Prompt::Text(body.query));
    let texts: Vec<String> = body.documents.into_iter().map(Document::into_text).collect();
    for (at, text) in texts.iter().enumerate() {
        entries.push(format!("/documents/{at}"), &prompt, text.clone());
    }
    let cut = cuts.into_iter().flatten().next();
    let overflow = parameters.on_overflow.or(cut).unwrap_or(Overflow::Error);
    let rewards = asking.score(Ask { model, whose, scale, also: None, overflow, entries }).await?;
    let ranked = ranked(&rewards.each, most);
    let document = |at: usize| body.return_documents.unwrap_or(true).then(|| texts[at].clone());
    Ok(match shape {
        Shape::Object => object(asking, rewards, &ranked, document),
        Shape::List => {
            let one = |(index, reward): &(usize, Reward)| SglangRanked {
                score: reward.value,
                document: document(*index),
                index: *index,
                meta_info: SglangMeta::of(asking, reward.tokens),
            };
            answer(rewards.headers, ranked.iter().map(one).collect::<Vec<_>>())
        }
    })
}

fn object(
    asking: &Asking,
    rewards: Rewards,
    ranked: &[(usize, Reward)],
    document: impl Fn(usize) -> Option<String>,
) -> Response {
    let one = |(index, reward): &(usize, Reward)| RankedReply {
        index: *index,
        relevance_score: reward.value,
        document: document(*index).map(|text| DocumentReply { text }),
    };
    let version = if asking.path.starts_with("/v1/") { "1" } else { "2" };
    let reply = RerankReply {
        id: asking.id("rerank"),
        object: "rerank",
        created: asking.created,
        results: ranked.iter().map(one).collect(),
        usage: TokenUsage::of(&rewards),
        model: rewards.model,
        meta: RerankMeta {
            api_version: ApiVersion { version },
            billed_units: BilledUnits { search_units: 1 },
        },
    };
    answer(rewards.headers, reply)
}

impl RerankRequest {
    /// How many results are wanted.
    fn most(&self) -> Result<usize, Problem> {
        match self.top_n {
            None | Some(0) => Ok(usize::MAX),
            Some(top_n) => {
                usize::try_from(top_n).map_err(|_| wrong("/top_n", "is a number of results, 0 for all"))
            }
        }
    }
}

/// Rewards with their positions, from the best to the worst; ties by position.
pub(super) fn ranked(rewards: &[Reward], most: usize) -> Vec<(usize, Reward)> {
    let mut ranked: Vec<(usize, Reward)> = rewards.iter().copied().enumerate().collect();
    ranked.sort_by(|(x, a), (y, b)| b.value.total_cmp(&a.value).then(x.cmp(y)));
    ranked.truncate(most);
    ranked
}
