//! Pages as responses.

use askama::Template;
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::assets::ASSETS;
use crate::problem::Problem;

/// A page loads its own files, sends its own form, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What every page has around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// From the page's path to the root of the server, which may be behind a path prefix.
    pub root: String,
    /// Which page it is.
    pub here: &'static str,
    pub css: &'static str,
    pub js: &'static str,
    pub chart_css: &'static str,
    pub chart_js: &'static str,
}

impl Frame {
    /// Of the page at a path, `here` in the navigation.
    pub fn at(path: &str, here: &'static str) -> Self {
        let depth = path.bytes().skip(1).filter(|byte| *byte == b'/').count();
        let root = if depth == 0 { "./".to_owned() } else { "../".repeat(depth) };
        let (css, js) = (&ASSETS.css.name, &ASSETS.js.name);
        Self { root, here, css, js, chart_css: &ASSETS.chart_css.name, chart_js: &ASSETS.chart_js.name }
    }
}

/// A page as a response.
pub(crate) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            ];
            (status, headers, html).into_response()
        }
        Err(error) => Problem::internal(&error).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_root_is_as_long_as_the_path() {
        let root = |path| Frame::at(path, "").root;
        assert_eq!(root("/"), "./");
        assert_eq!(root("/dashboard/models"), "../");
        assert_eq!(root("/dashboard/users/ada"), "../../");
    }
}
