//! The description of this API, made from the handlers' own types.

use utoipa::{
    OpenApi, PartialSchema, ToSchema,
    openapi::{
        Content, Header, HeaderBuilder, Object, OpenApi as Document, Ref, RefOr, ResponseBuilder, Type,
        path::{Operation, PathItem},
    },
};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    dashboard,
    problem::{
        PROBLEM_JSON, ProblemBody,
        dialect::{Dialect, OpenAiError, TeiError},
    },
    request_id::REQUEST_ID_HEADER,
    routes,
    state::AppState,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "polyreward",
        description = "A reward model over HTTP whose rewards depend on who is asking.\n\nErrors are RFC 9457 \
            `application/problem+json`. Every reply has an `x-request-id`: the client's own where it is fit to be \
            logged, else a new one.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "scoring", description = "Rewards and preferences"),
        (name = "compatibility", description = "The reward endpoints of other servers, in their formats"),
        (name = "people", description = "Who there is, what they compared, what is believed of them"),
        (name = "accuracy", description = "For whom a reward is right, and for whom it is wrong"),
        (name = "models", description = "Which models there are"),
        (name = "dashboard", description = "Pages for people: for which group is this reward wrong?"),
        (name = "operation", description = "Is it alive, what is it, how does it do"),
    ),
)]
struct Base;

/// Name of the error that every operation may answer with.
const PROBLEM: &str = "Problem";
/// Name of the header that every reply has.
const REQUEST_ID: &str = "RequestId";

/// The OpenAPI 3.1 document, pretty, with a newline at its end; the same for the same code.
pub fn openapi_json() -> String {
    let mut json = document().to_pretty_json().expect("the document is plain structures");
    json.push('\n');
    json
}

fn document() -> Document {
    let mut document = OpenApiRouter::<AppState>::with_openapi(Base::openapi())
        .merge(routes::probes())
        .merge(routes::bounded())
        .merge(dashboard::pages())
        .into_openapi();
    describe_aliases(&mut document);
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            describe_replies(operation, Dialect::of_route(path));
        }
    }
    let components = document.components.get_or_insert_default();
    let mut schemas = vec![
        (ProblemBody::name().into_owned(), ProblemBody::schema()),
        (OpenAiError::name().into_owned(), OpenAiError::schema()),
        (TeiError::name().into_owned(), TeiError::schema()),
    ];
    ProblemBody::schemas(&mut schemas);
    OpenAiError::schemas(&mut schemas);
    components.schemas.extend(schemas);
    for dialect in [Dialect::Problem, Dialect::OpenAi, Dialect::Tei] {
        let (name, media_type, description) = words_of(dialect);
        let content = Content::new(Some(Ref::from_schema_name(name)));
        let mut error = ResponseBuilder::new().description(description).content(media_type, content).build();
        error.headers.insert(REQUEST_ID_HEADER.to_owned(), request_id());
        components.responses.insert(name.to_owned(), RefOr::T(error));
    }
    let header = HeaderBuilder::new()
        .schema(Some(Object::with_type(Type::String)))
        .description(Some("The client's own id where it is fit to be logged, else a new one"))
        .build();
    components.headers.insert(REQUEST_ID.to_owned(), RefOr::T(header));
    document
}

fn request_id() -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{REQUEST_ID}")))
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

/// An alias has the operation of its route, under a name of its own.
fn describe_aliases(document: &mut Document) {
    for (alias, target) in routes::ALIASES {
        let mut item = document.paths.paths.get(target).expect("an alias is of a route").clone();
        for operation in operations(&mut item) {
            let name = operation.operation_id.take().unwrap_or_default();
            operation.operation_id = Some(format!("{name}{}", alias.replace('/', "_")));
            operation.summary = Some(format!("The same as `{target}`."));
            operation.description = None;
        }
        document.paths.paths.insert(alias.to_owned(), item);
    }
}

/// Name, media type and description of the errors of a dialect.
fn words_of(dialect: Dialect) -> (&'static str, &'static str, &'static str) {
    match dialect {
        Dialect::Problem => (PROBLEM, PROBLEM_JSON, "A problem"),
        Dialect::OpenAi => ("OpenAiError", "application/json", "An error as OpenAI's clients read it"),
        Dialect::Tei => {
            ("TeiError", "application/json", "An error as the clients of text-embeddings-inference read it")
        }
    }
}

/// What every operation may answer besides its own.
fn describe_replies(operation: &mut Operation, dialect: Dialect) {
    for reply in operation.responses.responses.values_mut() {
        if let RefOr::T(reply) = reply {
            reply.headers.insert(REQUEST_ID_HEADER.to_owned(), request_id());
        }
    }
    for range in ["4XX", "5XX"] {
        let problem = RefOr::Ref(Ref::from_response_name(words_of(dialect).0));
        operation.responses.responses.entry(range.to_owned()).or_insert(problem);
    }
}
