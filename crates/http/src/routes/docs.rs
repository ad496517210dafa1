//! `GET /openapi.json` and `GET /docs`: the description of this API, and a page that renders it offline.

use std::sync::{Arc, LazyLock};

use axum::{
    http::header,
    response::{IntoResponse, Redirect, Response},
};
use utoipa_swagger_ui::Config;

use crate::{
    extract::PathText,
    openapi::openapi_json,
    problem::{Problem, ProblemType},
};

/// The page loads its own files and this server's description, nothing else. The renderer sets inline styles.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

static DOCUMENT: LazyLock<String> = LazyLock::new(openapi_json);

/// Relative, so that the page works behind a path prefix; no validator is asked elsewhere.
static PAGE: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::new(["../openapi.json"]).validator_url("none").use_base_layout()));

/// This description, OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", tag = "operation", operation_id = "openapi", responses(
    (status = 200, description = "OpenAPI 3.1", content_type = "application/json"),
))]
pub(crate) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// A page that renders this description; loads nothing from elsewhere.
#[utoipa::path(get, path = "/docs", tag = "operation", operation_id = "docs", responses(
    (status = 308, description = "To the page, `docs/`"),
))]
pub(crate) async fn docs() -> Redirect {
    Redirect::permanent("docs/")
}

/// The page.
pub(crate) async fn index() -> Response {
    serve("index.html")
}

/// A file of the page.
pub(crate) async fn file(PathText(file): PathText<String>) -> Response {
    serve(&file)
}

fn serve(file: &str) -> Response {
    match utoipa_swagger_ui::serve(file, Arc::clone(&PAGE)) {
        Ok(Some(file)) => {
            let headers = [
                (header::CONTENT_TYPE, file.content_type),
                (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY.to_owned()),
            ];
            let encoding = file.gzpipped.then_some([(header::CONTENT_ENCODING, "gzip")]);
            (headers, encoding, file.bytes.into_owned()).into_response()
        }
        Ok(None) => Problem::new(ProblemType::NotFound).into_response(),
        Err(error) => Problem::internal(error.as_ref()).into_response(),
    }
}
