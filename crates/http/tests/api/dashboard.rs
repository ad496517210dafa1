//! The pages: what they answer, to whom, and what can never be on them.

use std::io::Read;

use axum::{body::Body, http::Method};
use flate2::read::GzDecoder;
use polyreward_domain::{Scope, TenantId};
use polyreward_http::Limits;

use crate::{
    fixture::{Reply, Server, backbone, request},
    measured::{self, MODEL, Somebody, crowd, escaped, put},
    people::people,
};

const PAGES: [&str; 3] = ["/", "/dashboard/models", "/dashboard/users/uk-0"];

/// The overview of the crowd's own model.
fn overview(query: &str) -> String {
    format!("/?model={}&{query}", escaped(MODEL))
}

async fn get(server: &Server, path: &str, headers: &[(&'static str, &str)]) -> Reply {
    let mut request = request(Method::GET, path, Body::empty());
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    server.send(request).await
}

/// A page, with what every page keeps to.
#[track_caller]
fn page(reply: &Reply, status: u16) -> String {
    let html = reply.text();
    assert_eq!(reply.status.as_u16(), status, "{html}");
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    let policy = reply.header("content-security-policy");
    for directive in [
        "default-src 'none'",
        "style-src 'self';",
        "script-src 'self';",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(directive), "{directive} {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(reply.header("cache-control"), "no-store");
    for forbidden in [" style=", "<style", " onclick=", "javascript:", "//cdn", "https://"] {
        assert!(!html.contains(forbidden), "{forbidden} {html}");
    }
    assert_eq!(html.matches("<script").count(), html.matches("<script src=").count());
    assert!(html.starts_with("<!doctype html>") && html.contains("<html lang=\"en\">"));
    html
}

#[tokio::test]
async fn every_page_is_one_and_keeps_to_its_policy() {
    let server = measured::server().await;
    for path in PAGES {
        page(&server.get(path).await, 200);
    }
    let html = page(&server.get(&overview("group_by=country&cross=age")).await, 200);
    for id in
        ["context", "headline", "groups", "shots", "calibration", "intersections", "timeline", "mistakes"]
    {
        assert!(html.contains(&format!("<section id=\"{id}\"")), "{id}");
    }
    assert!(html.contains("Worst for country=US"), "{html}");
}

#[tokio::test]
async fn figures_of_a_page_are_those_of_the_api() {
    let server = measured::server().await;
    let html = page(&server.get(&overview("group_by=country")).await, 200);
    let link = html.split("id=\"json\" href=\"./").nth(1).unwrap().split('"').next().unwrap();
    let json = server.get(&format!("/{}", link.replace("&#38;", "&"))).await.ok();
    assert_eq!(json["model"], MODEL);
    for row in json["groups"].as_array().unwrap() {
        let accuracy = row["accuracy"].to_string();
        assert!(html.contains(&format!("<td>{accuracy}</td>")), "{accuracy}");
    }
}

#[tokio::test]
async fn the_page_chooses_the_finest_attribute_where_nobody_does() {
    let server = measured::server().await;
    let html = page(&server.get(&overview("")).await, 200);
    assert!(html.contains("<option value=\"country\" selected>"));
    let html = page(&server.get(&overview("group_by=")).await, 200);
    assert!(html.contains("Choose an attribute to group by"));
}

#[tokio::test]
async fn what_cannot_be_shown_names_its_control_and_keeps_what_was_asked() {
    let server = measured::server().await;
    for (query, said) in [
        ("group_by=nobody-has-it", "Group by: nobody has this attribute"),
        ("group_by=country&cross=nobody-has-it", "Cross with: nobody has this attribute"),
        ("group_by=country'%3B%20DROP%20TABLE%20users%3B--", "Group by: nobody has this attribute"),
        ("model=nobody", "Model: there is no such model"),
        ("from=2026-02-01&to=2026-01-01", "To: is before From"),
        ("from=1026-02-01", "From: is a day of the years"),
        ("min_n=-3", "People at least: is a whole number"),
        ("min_n=4", "People at least: is a whole number from 5"),
        ("page=99", "Page: there are 1 pages of groups"),
        ("colour=red", "a parameter is unknown"),
    ] {
        let html = page(&server.get(&format!("/?{query}")).await, 422);
        assert!(html.contains("role=\"alert\"") && html.contains(said), "{query} {html}");
        assert!(
            html.contains("<form id=\"controls\"") && !html.contains("<section id=\"headline\""),
            "{query}"
        );
    }
    let html = page(&server.get("/?from=2026-02-01&to=2026-01-01&group_by=age").await, 422);
    assert!(html.contains("value=\"2026-02-01\"") && html.contains("<option value=\"age\" selected>"));
}

#[tokio::test]
async fn nothing_predicted_yet_is_a_page_that_says_how_to_begin() {
    let server = Server::with_people(Vec::new()).await;
    let html = page(&server.get("/").await, 200);
    assert!(html.contains("No predictions yet") && html.contains("/users/ada/examples"), "{html}");
    assert!(!html.contains("role=\"img\""));
    assert!(
        page(&Server::empty(backbone(), Limits::default()).await.get("/").await, 503)
            .contains("No model is loaded")
    );
}

#[tokio::test]
async fn names_are_text_whatever_they_say() {
    let server = Server::with_people(Vec::new()).await;
    let names = [
        "<img src=x onerror=alert(1)>",
        "</svg><script>alert(2)</script>",
        "\u{202e}evil",
        "\" autofocus=\"",
    ];
    let mut crowd = Vec::new();
    for (at, name) in names.iter().enumerate() {
        for person in 0..6 {
            crowd.push(Somebody::new(&format!("p{at}-{person}"), &[("<b>key", name)]).right(person % 4, 4));
        }
    }
    put(&server.storage, &TenantId::default(), MODEL, &crowd).await;
    for path in [overview(""), "/dashboard/users/p0-0".to_owned(), "/dashboard/users/p1-0".to_owned()] {
        let html = page(&server.get(&path).await, 200);
        assert!(!html.contains("<img") && !html.contains("<script>") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&#60;b&#62;key"));
    }
    let html = page(&server.get(&overview("")).await, 200);
    assert!(html.contains("<bdi>\u{202e}evil</bdi>"));
}

#[tokio::test]
async fn without_a_key_there_is_a_page_that_asks_for_one() {
    let server = measured::server().await;
    let read = server.key("default", &[Scope::Read]).await;
    let score = server.key("default", &[Scope::Score]).await;
    for path in PAGES {
        let reply = server.get(path).await;
        assert!(page(&reply, 401).contains("as the password"));
        assert_eq!(reply.header("www-authenticate"), "Basic realm=\"polyreward\", charset=\"UTF-8\"");
        let bearer = format!("Bearer {}", score.secret);
        assert!(
            page(&get(&server, path, &[("authorization", &bearer)]).await, 403).contains("the scope read")
        );
        let bearer = format!("Bearer {}", read.secret);
        page(&get(&server, path, &[("authorization", &bearer)]).await, 200);
    }
    // A program that asks for JSON alone is answered as everywhere else.
    let reply = get(&server, "/", &[("accept", "application/json")]).await;
    reply.problem(401, "unauthorized");
    let asset = asset(&page(&server.get("/").await, 401), "dashboard-");
    assert_eq!(server.get(&asset).await.status, 200, "styles need no key");
}

#[tokio::test]
async fn texts_are_shown_to_keys_that_may_read_them_alone() {
    let server = measured::server().await;
    let reads = server.key("default", &[Scope::Read]).await;
    let texts = server.key("default", &[Scope::Read, Scope::ReadText]).await;
    for path in [overview(""), "/dashboard/users/uk-0".to_owned()] {
        let as_key = async |secret: &str| page(&get(&server, &path, &[("x-api-key", secret)]).await, 200);
        let html = as_key(&reads.secret).await;
        assert!(!html.contains("A trout.") && !html.contains("asks for number"), "{html}");
        assert!(html.contains("<code>read:text</code>"));
        let html = as_key(&texts.secret).await;
        assert!(html.contains("A trout.") && html.contains("asks for number"), "{html}");
    }
}

#[tokio::test]
async fn another_tenants_people_are_on_no_page() {
    let server = measured::server().await;
    let other = server.key("other", &[Scope::Read, Scope::ReadText]).await;
    let headers = [("x-api-key", other.secret.as_str())];
    let html = page(&get(&server, "/", &headers).await, 200);
    assert!(
        html.contains("No predictions yet") && !html.contains("value=\"country\"") && !html.contains(MODEL),
        "{html}"
    );
    page(&get(&server, &overview(""), &headers).await, 422);
    page(&get(&server, "/dashboard/users/uk-0", &headers).await, 404);
}

#[tokio::test]
async fn a_person_can_be_looked_at_and_nobody_cannot() {
    let server = Server::with_people(people()).await;
    let html = page(&server.get("/dashboard/users/ada").await, 200);
    for said in ["What each model believes", "What to ask next", "Last examples", "lore@"] {
        assert!(html.contains(said), "{said}");
    }
    assert!(page(&server.get("/dashboard/users/nobody").await, 404).contains("There is no such user"));
    page(&server.get("/dashboard/users/a%20b").await, 400);
    assert!(page(&server.get("/dashboard/nowhere").await, 404).contains("nothing at this path"));
}

#[tokio::test]
async fn pairs_to_ask_are_of_others_and_new_to_the_person() {
    let server = Server::with_people(people()).await;
    let example = |chosen: &str, rejected: &str| serde_json::json!({"examples": [{"prompt": "A drink?", "chosen": chosen, "rejected": rejected}]});
    for (user, chosen, rejected) in
        [("ben", "tea", "coffee"), ("ben", "water", "milk"), ("cem", "coffee", "tea")]
    {
        let reply = server.post(&format!("/users/{user}/examples"), &example(chosen, rejected)).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    let next = async |user: &str| {
        let html = page(&server.get(&format!("/dashboard/users/{user}")).await, 200);
        let (_, rest) = html.split_once("<section id=\"next\"").unwrap();
        rest.split_once("</section>").unwrap().0.to_owned()
    };
    let of_cem = next("cem").await;
    assert!(of_cem.contains("milk") && !of_cem.contains("coffee"), "{of_cem}");
    assert!(of_cem.contains("nats"));
    assert!(next("ben").await.contains("there is nothing to choose from"));
    let of_ada = next("ada").await;
    assert_eq!(of_ada.matches("coffee").count(), 1, "one pair, whoever judged it: {of_ada}");
}

/// The first file of a page whose name begins so.
fn asset(html: &str, name: &str) -> String {
    let (_, rest) = html.split_once(&format!("dashboard/assets/{name}")).unwrap();
    format!("/dashboard/assets/{name}{}", rest.split('"').next().unwrap())
}

#[tokio::test]
async fn files_are_kept_for_long_and_asked_for_once() {
    let server = measured::server().await;
    let css = asset(&page(&server.get("/").await, 200), "dashboard-");
    let reply = server.get(&css).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "text/css; charset=utf-8"));
    assert!(reply.header("cache-control").contains("immutable"));
    let again = get(&server, &css, &[("if-none-match", reply.header("etag"))]).await;
    assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
    page(&server.get("/dashboard/assets/dashboard-0000.css").await, 404);
}

#[tokio::test]
async fn a_page_with_all_its_files_is_small() {
    let server = Server::with_people(Vec::new()).await;
    let mut people = crowd();
    for group in 0..100 {
        for person in 0..5 {
            let name = format!("g{group}-{person}");
            let attributes =
                [("country", format!("country number {group}")), ("age", format!("age {}", group % 9))];
            let attributes = attributes.each_ref().map(|(key, value)| (*key, value.as_str()));
            people.push(Somebody::new(&name, &attributes).right(group % 5, 5));
        }
    }
    put(&server.storage, &TenantId::default(), MODEL, &people).await;
    let path = overview("group_by=country&cross=age");
    let reply = get(&server, &path, &[("accept-encoding", "gzip")]).await;
    assert_eq!(reply.header("content-encoding"), "gzip");
    let mut html = String::new();
    GzDecoder::new(reply.body.as_slice()).read_to_string(&mut html).unwrap();
    let mut sent = reply.body.len();
    for part in html.split("dashboard/assets/").skip(1) {
        let name = part.split('"').next().unwrap();
        let file = get(&server, &format!("/dashboard/assets/{name}"), &[("accept-encoding", "gzip")]).await;
        assert_eq!((file.status.as_u16(), file.header("content-encoding")), (200, "gzip"), "{name}");
        sent += file.body.len();
    }
    assert!(sent <= 100_000, "{sent} bytes");
}
