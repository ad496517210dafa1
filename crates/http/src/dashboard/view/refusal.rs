//! The page where there is no other: what happened, and what to do.

use askama::Template;

use crate::{
    dashboard::html::Frame,
    problem::{ProblemType, Told},
};

/// The page.
#[derive(Debug, Clone, Template)]
#[template(path = "dashboard/refusal.html")]
pub(crate) struct Refusal {
    pub frame: Frame,
    pub title: &'static str,
    pub detail: String,
    pub what_to_do: String,
    /// A command that helps; else empty.
    pub command: &'static str,
    pub retry: bool,
    /// Of the page that was asked for.
    pub query: String,
    pub status: u16,
}

/// The page of a problem, at the path and query that met it.
pub(crate) fn of(told: &Told, path: &str, query: &str) -> Refusal {
    let status = told.kind.status();
    let (what_to_do, command) = advice(told);
    Refusal {
        frame: Frame::at(path, ""),
        title: told.kind.title(),
        detail: told.detail.clone().unwrap_or_default(),
        what_to_do,
        command,
        retry: status.is_server_error(),
        query: query.to_owned(),
        status: status.as_u16(),
    }
}

fn advice(told: &Told) -> (String, &'static str) {
    let wait = match told.retry_after_s {
        Some(1) | None => "in a second".to_owned(),
        Some(seconds) => format!("in {seconds} seconds"),
    };
    match told.kind {
        ProblemType::Unauthorized => (
            "Give a key as the password when the browser asks; the name may be anything. Whoever runs this server makes one:".to_owned(),
            "polyreward keys create --name viewer --scopes read",
        ),
        ProblemType::Forbidden => (
            "Ask whoever runs this server for a key with that scope. To be asked for another key, close the browser's window first.".to_owned(),
            "polyreward keys create --name viewer --scopes read",
        ),
        ProblemType::DatabaseUnavailable => (format!(
            "The database is gone, busy or slow; nothing is lost. Try again {wait}. If it stays so, look at GET /ready, and choose fewer days."
        ), ""),
        ProblemType::QueryTooSlow | ProblemType::Overloaded | ProblemType::DeadlineExceeded => (format!(
            "Many ask at once, and scoring comes first. Try again {wait}, or choose fewer days."
        ), ""),
        ProblemType::NoModel => (
            "There is nothing to measure yet. Train a model into the models folder, then reload:".to_owned(),
            "polyreward train --data comparisons.jsonl --heads bt,pal-a --out models",
        ),
        ProblemType::UnknownUser => (
            "Nobody of this id has examples here; they may have been erased.".to_owned(),
            "",
        ),
        ProblemType::NotReady | ProblemType::Draining => (format!("Try again {wait}."), ""),
        ProblemType::Internal => (
            "It is not your fault. The server's log has the cause, under the id in the x-request-id header.".to_owned(),
            "",
        ),
        _ => ("The overview has links to everything there is.".to_owned(), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_page_that_says_what_to_do() {
        for kind in ProblemType::ALL {
            let told = Told { kind: *kind, detail: None, retry_after_s: Some(2) };
            let page = of(&told, "/dashboard/users/ada", "a=%3Cb%3E&c=\"d");
            assert!(!page.what_to_do.is_empty(), "{kind:?}");
            let html = page.render().unwrap();
            assert!(
                html.contains("role=\"alert\"") && html.contains(&kind.title().replace('\'', "&#39;")),
                "{html}"
            );
            assert!(!html.contains("c=\"d"), "{html}");
        }
    }
}
