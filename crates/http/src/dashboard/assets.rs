//! Files of the pages, inside the program: each under a name that changes with its content, so that it is kept for long.

use std::{fmt::Write as _, sync::LazyLock};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use crate::{
    extract::PathText,
    problem::{Problem, ProblemType},
};

/// A year: whoever has the file of this name has the right one.
const CACHE_CONTROL: &str = "public, max-age=31536000, immutable";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// A file.
#[derive(Debug)]
pub(crate) struct Asset {
    /// Its name, with the beginning of its hash.
    pub name: String,
    content_type: &'static str,
    bytes: &'static [u8],
    etag: HeaderValue,
}

impl Asset {
    fn new(stem: &str, extension: &str, content_type: &'static str, bytes: &'static [u8]) -> Self {
        let mut hash = String::new();
        for byte in &Sha256::digest(bytes)[..8] {
            write!(hash, "{byte:02x}").expect("writing to a string cannot fail");
        }
        // Weak: what is sent may be compressed.
        let etag = HeaderValue::from_str(&format!("W/\"{hash}\"")).expect("a hash is ASCII");
        Self { name: format!("{stem}-{hash}.{extension}"), content_type, bytes, etag }
    }
}

/// Every file.
#[derive(Debug)]
pub(crate) struct Assets {
    pub css: Asset,
    pub js: Asset,
    pub chart_css: Asset,
    pub chart_js: Asset,
}

impl Assets {
    fn find(&self, name: &str) -> Option<&Asset> {
        [&self.css, &self.js, &self.chart_css, &self.chart_js].into_iter().find(|asset| asset.name == name)
    }
}

/// The files of this program.
pub(crate) static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    css: Asset::new("dashboard", "css", CSS, include_bytes!("../../assets/dashboard/dashboard.css")),
    js: Asset::new("dashboard", "js", JS, include_bytes!("../../assets/dashboard/dashboard.js")),
    chart_css: Asset::new("uplot", "css", CSS, include_bytes!("../../assets/vendor/uplot/uPlot.min.css")),
    chart_js: Asset::new("uplot", "js", JS, include_bytes!("../../assets/vendor/uplot/uPlot.iife.min.js")),
});

/// A file of the pages.
pub(crate) async fn file(PathText(name): PathText<String>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.find(&name) else { return Problem::new(ProblemType::NotFound).into_response() };
    let kept = [
        (header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL)),
        (header::ETAG, asset.etag.clone()),
    ];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| names(known, &asset.etag)) {
        return (StatusCode::NOT_MODIFIED, kept).into_response();
    }
    (kept, [(header::CONTENT_TYPE, asset.content_type)], asset.bytes).into_response()
}

/// Whether `If-None-Match` names an entity tag, RFC 9110 section 13.1.2: weakly.
fn names(known: &HeaderValue, etag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let (Ok(known), Ok(etag)) = (known.to_str(), etag.to_str()) else { return false };
    known.trim() == "*" || known.split(',').any(|tag| opaque(tag) == opaque(etag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_changes_with_the_content() {
        let of = |bytes| Asset::new("a", "css", CSS, bytes).name;
        assert_ne!(of(b"x"), of(b"y"));
        assert!(of(b"x").starts_with("a-2d711642b726b044."));
    }

    #[test]
    fn a_tag_is_known_however_it_is_sent() {
        let etag = HeaderValue::from_static("W/\"ab\"");
        for known in ["W/\"ab\"", "\"ab\"", "\"x\", W/\"ab\"", "*"] {
            assert!(names(&HeaderValue::from_static(known), &etag), "{known}");
        }
        assert!(!names(&HeaderValue::from_static("\"x\""), &etag));
    }
}
