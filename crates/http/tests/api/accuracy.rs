//! For whom a model is right, over HTTP: the same figures in every form, of what is there now, and of nobody else's.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::{HeaderValue, Method};
use polyreward_domain::{Scope, TenantId};
use polyreward_http::Limits;
use polyreward_storage::Storage;
use serde_json::{Value, json};
use time::Duration;

use crate::{
    examples::{examples, learn},
    fixture::{Reply, Server, backbone, open_database, request},
    measured::{BEGINNING, MODEL, Made, Somebody, crowd, escaped, put, server},
    people::TEXTS,
    storage::Watched,
};

async fn accuracy(server: &Server, query: &str) -> Value {
    server.get(&format!("/accuracy?model={MODEL}&{query}")).await.ok()
}

/// Groups by their values, as the answer has them.
fn groups(answer: &Value) -> Vec<&Value> {
    answer["groups"].as_array().unwrap().iter().map(|group| &group["group"]).collect()
}

fn share(people: &[&Somebody], of: fn(&Made) -> f64) -> f64 {
    let all = || people.iter().flat_map(|somebody| &somebody.predictions);
    let right = |preference: f64| if preference > 0.5 { 1.0 } else { 0.0 };
    all().map(|made| right(of(made))).sum::<f64>() / all().count() as f64
}

#[track_caller]
fn is_near(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap_or_else(|| panic!("{value}"));
    assert!((value - expected).abs() < 1e-6, "{value} {expected}");
}

#[tokio::test]
async fn accuracy_by_group_by_shots_and_by_time_have_their_form() {
    let server = server().await;
    insta::assert_json_snapshot!("by_group", accuracy(&server, "group_by=country").await);
    let of = |what: &str| format!("/accuracy/{what}?model={MODEL}&group_by=age&min_n=6");
    insta::assert_json_snapshot!("by_shots", server.get(&of("shots")).await.ok());
    insta::assert_json_snapshot!("by_time", server.get(&of("timeline")).await.ok());
}

#[tokio::test]
async fn every_group_has_its_own_figures_and_few_people_are_counted_and_not_shown() {
    let server = server().await;
    let crowd = crowd();
    let answer = accuracy(&server, "group_by=country").await;
    assert_eq!(
        groups(&answer),
        [&json!({"country": null}), &json!({"country": "UK"}), &json!({"country": "US"})]
    );
    assert_eq!((&answer["suppressed_groups"], &answer["min_n"]), (&json!(1), &json!(5)));
    let of = |country: Option<&str>| -> Vec<&Somebody> {
        let is_there =
            |somebody: &&Somebody| somebody.attributes.get("country").map(String::as_str) == country;
        crowd.iter().filter(is_there).collect()
    };
    for (row, country) in answer["groups"].as_array().unwrap().iter().zip([None, Some("UK"), Some("US")]) {
        let people = of(country);
        assert_eq!(row["users"], people.len());
        is_near(&row["accuracy"], share(&people, |made| made.preference));
        is_near(&row["population_accuracy"], share(&people, |made| made.population_preference));
        assert_eq!(row["bt_accuracy"], 1.0);
        let [low, high] = [&row["accuracy_ci"][0], &row["accuracy_ci"][1]].map(|end| end.as_f64().unwrap());
        let accuracy = row["accuracy"].as_f64().unwrap();
        assert!(low <= accuracy && accuracy <= high && low < high, "{row}");
    }
    let everybody: Vec<&Somebody> = crowd.iter().collect();
    assert_eq!(answer["overall"]["users"], crowd.len());
    is_near(&answer["overall"]["accuracy"], share(&everybody, |made| made.preference));
    assert_eq!(answer["worst_group"]["group"], json!({"country": "US"}));
    assert_eq!(answer["gap"]["worst"]["group"], json!({"country": "US"}));
    assert_eq!(answer["gap"]["best"]["group"], json!({"country": "UK"}));
    is_near(
        &answer["gap"]["value"],
        share(&of(Some("UK")), |made| made.preference) - share(&of(Some("US")), |made| made.preference),
    );

    let fewer = accuracy(&server, "group_by=country&min_n=8").await;
    assert_eq!((groups(&fewer), &fewer["suppressed_groups"]), (vec![&json!({"country": "UK"})], &json!(3)));
    assert_eq!((&fewer["gap"], &fewer["worst_group"]["group"]), (&Value::Null, &json!({"country": "UK"})));
    let none = accuracy(&server, "group_by=country&min_n=1000000000").await;
    assert_eq!(
        (groups(&none).len(), &none["suppressed_groups"], &none["worst_group"]),
        (0, &json!(4), &Value::Null)
    );
    let everybody = accuracy(&server, "").await;
    assert_eq!((groups(&everybody).len(), &everybody["suppressed_groups"]), (0, &json!(0)));
    for figure in ["users", "n", "accuracy", "user_accuracy", "log_loss", "ece", "gain"] {
        assert_eq!(everybody["overall"][figure], answer["overall"][figure], "{figure}");
    }
}

#[tokio::test]
async fn two_attributes_make_a_group_of_each_pair_of_values() {
    let server = server().await;
    let answer = accuracy(&server, "group_by=country,age").await;
    let uk = |age: &str| json!({"country": "UK", "age": age});
    assert_eq!(groups(&answer), [&uk("18-34"), &uk("35+")]);
    assert_eq!(answer["suppressed_groups"], 6);
    assert_eq!(answer["group_by"], json!(["country", "age"]));
    let turned = accuracy(&server, "group_by=age,country").await;
    assert_eq!(turned["groups"][0], answer["groups"][0]);
}

#[tokio::test]
async fn predictions_count_from_one_moment_on_and_before_another() {
    let server = server().await;
    let n = async |query: &str| accuracy(&server, query).await["overall"]["n"].as_u64().unwrap_or(0);
    let made_in = |from: i64, to: i64| -> u64 {
        let all = crowd().into_iter().flat_map(|somebody| somebody.predictions);
        let (from, to) = (BEGINNING + Duration::hours(from), BEGINNING + Duration::hours(to));
        all.filter(|made| from <= made.at && made.at < to).count() as u64
    };
    assert_eq!(n("").await, made_in(0, 100));
    assert_eq!(n("from=2026-01-31T01:00:00Z").await, made_in(1, 100));
    assert_eq!(n("to=2026-01-31T01:00:00Z").await, made_in(0, 1));
    assert_eq!(n("from=2026-01-31T02:00:00%2B01:00&to=2026-01-31T03:00:00Z").await, made_in(1, 3));
    assert_eq!(n("from=2026-02-01").await, 0);
    let empty = accuracy(&server, "group_by=country&to=2026-01-31").await;
    assert_eq!((&empty["overall"], &empty["to"]), (&Value::Null, &json!("2026-01-31T00:00:00Z")));
    assert_eq!((groups(&empty).len(), &empty["gap"]), (0, &Value::Null));
    assert!(empty["disagreement"]["detail"].as_str().unwrap().starts_with("not estimable: "));
}

/// Lines of a CSV answer, by the names of their cells.
fn lines(reply: &Reply) -> Vec<BTreeMap<String, String>> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "text/csv; charset=utf-8");
    let mut reader = csv::Reader::from_reader(reply.body.as_slice());
    reader.deserialize().map(|line| line.expect("a line of as many cells as the header")).collect()
}

/// The figures of a row in JSON under the names they have in CSV.
fn cells(row: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| if value.is_null() { String::new() } else { value.to_string() };
    let mut cells = BTreeMap::new();
    for (name, value) in row.as_object().unwrap() {
        match name.as_str() {
            "group" | "reliability" => {}
            "shots" => cells.extend(["from", "to"].map(|end| (format!("shots_{end}"), text(&value[end])))),
            "start" => drop(cells.insert(name.clone(), value.as_str().unwrap().to_owned())),
            name => match name.strip_suffix("_ci") {
                Some(of) => {
                    cells.extend(
                        [("low", 0), ("high", 1)].map(|(end, at)| (format!("{of}_{end}"), text(&value[at]))),
                    );
                }
                None => drop(cells.insert(name.to_owned(), text(value))),
            },
        }
    }
    cells
}

#[tokio::test]
async fn a_table_has_the_figures_of_the_json_line_by_line() {
    let server = server().await;
    for (path, points) in [("/accuracy", false), ("/accuracy/shots", true), ("/accuracy/timeline", true)] {
        let query = format!("{path}?model={MODEL}&group_by=country,age");
        let answer = server.get(&query).await.ok();
        let mut expected = Vec::new();
        let mut add = |group: Option<&Value>, row: &Value| {
            let mut line = cells(row);
            line.insert("row".into(), if group.is_some() { "group" } else { "overall" }.into());
            for key in ["country", "age"] {
                let value = group.and_then(|group| group[key].as_str()).unwrap_or_default();
                line.insert(key.into(), value.into());
            }
            expected.push(line);
        };
        if points {
            answer["overall"].as_array().unwrap().iter().for_each(|point| add(None, point));
            for curve in answer["groups"].as_array().unwrap() {
                for point in curve["points"].as_array().unwrap() {
                    add(Some(&curve["group"]), point);
                }
            }
        } else {
            add(None, &answer["overall"]);
            answer["groups"].as_array().unwrap().iter().for_each(|row| add(Some(&row["group"]), row));
        }
        let table = server.get(&format!("{query}&format=csv")).await;
        assert_eq!(lines(&table), expected, "{path}");
        assert!(expected.len() > 2);
        let file = format!("attachment; filename=\"{}.csv\"", path[1..].replace('/', "-"));
        assert_eq!(
            (table.header("content-disposition"), table.header("x-model-version")),
            (file.as_str(), MODEL)
        );
        assert!(table.text().ends_with("\r\n"));
    }
}

#[tokio::test]
async fn hostile_names_are_told_as_they_are_and_no_spreadsheet_computes_them() {
    let long = "\u{202e}".repeat(85);
    let names = ["=cmd|' /C calc'!A0", "<img src=x onerror=alert(1)>", "a,\"b\";c", "-1+1", "@x", &long];
    let server = Server::with_people(Vec::new()).await;
    let mut crowd = Vec::new();
    for (number, name) in names.into_iter().enumerate() {
        for person in 0..5 {
            crowd.push(Somebody::new(&format!("u{number}-{person}"), &[("=key", name)]).right(2, 4));
        }
    }
    put(&server.storage, &TenantId::default(), MODEL, &crowd).await;
    let group_by = format!("group_by={}", escaped("=key"));
    let answer = accuracy(&server, &group_by).await;
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let told: Vec<&str> = groups(&answer).iter().map(|group| group["=key"].as_str().unwrap()).collect();
    assert_eq!(told, sorted);
    let table = server.get(&format!("/accuracy?model={MODEL}&format=csv&{group_by}")).await;
    let told: Vec<String> = lines(&table).iter().skip(1).map(|line| line["'=key"].clone()).collect();
    let guarded = |name: &&str| {
        if name.starts_with(['=', '-', '@']) { format!("'{name}") } else { (*name).to_owned() }
    };
    assert_eq!(told, sorted.iter().map(guarded).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_by_the_name_of_its_parameter() {
    let server = server().await;
    let refused = async |path: &str, query: &str| {
        let problem = server.get(&format!("{path}?{query}")).await.problem(400, "invalid-parameter");
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{problem}");
        (
            errors[0]["parameter"].as_str().unwrap().to_owned(),
            errors[0]["detail"].as_str().unwrap().to_owned(),
        )
    };
    for path in ["/accuracy", "/accuracy/shots", "/accuracy/timeline"] {
        for (query, parameter) in [
            ("from=2026-02-01&to=2026-01-01", "to"),
            ("from=0000-01-01", "from"),
            ("to=9999-12-31T23:59:59-23:59", "to"),
            ("min_n=4", "min_n"),
            ("min_n=-1", "min_n"),
            ("min_n=18446744073709551616", "min_n"),
            ("format=xlsx", "format"),
            ("model=../bt", "model"),
            ("group_by=country,country", "group_by"),
            ("group_by=country,age,height", "group_by"),
        ] {
            assert_eq!(refused(path, query).await.0, parameter, "{path} {query}");
        }
        for injection in
            ["country'; DROP TABLE users; --", "country\" OR 1=1", "%", "country)", "$1", "?", "' || '"]
        {
            let query = format!("model={MODEL}&group_by={}", escaped(injection));
            let (parameter, detail) = refused(path, &query).await;
            assert_eq!(parameter, "group_by", "{injection}");
            assert_eq!(detail, "nobody has the attribute; there are age, country");
        }
        let problem = server.get(&format!("{path}?model=pal-z")).await.problem(422, "unknown-model");
        assert_eq!(problem["errors"][0]["parameter"], "model");
        server.get(&format!("{path}?model=lore@none")).await.problem(422, "unknown-model");
        server.get(&format!("{path}?colour=red")).await.problem(400, "invalid-parameter");
    }
    assert!(refused("/accuracy", "min_n=4").await.1.contains("from 5, the floor"));
    assert_eq!(refused("/accuracy/timeline", "step=year").await.0, "step");
    server.get("/accuracy?step=day").await.problem(400, "invalid-parameter");
    assert_eq!(accuracy(&server, "").await["overall"]["users"], crowd().len());
}

#[tokio::test]
async fn a_time_line_has_a_step_that_is_readable_and_never_too_many_points() {
    let server = Server::with_people(Vec::new()).await;
    let made = |hours: i64| Made {
        preference: 0.9,
        population_preference: 0.4,
        baseline_preference: None,
        at: BEGINNING + Duration::hours(hours),
    };
    let timeline =
        async |query: &str| server.get(&format!("/accuracy/timeline?model=lore@old&{query}")).await;
    let mut somebody = Somebody::new("ada", &[("country", "UK")]);
    for (hours, step, points) in [(5, "hour", 2), (24 * 30, "day", 3), (24 * 365, "week", 4)] {
        somebody.predictions = if points == 2 { vec![made(0), made(hours)] } else { vec![made(hours)] };
        put(&server.storage, &TenantId::default(), MODEL, std::slice::from_ref(&somebody)).await;
        let answer = timeline("").await.ok();
        assert_eq!(answer["step"], step);
        assert_eq!(answer["overall"].as_array().unwrap().len(), if step == "hour" { 2 } else { points - 1 });
    }
    // 2026-01-31 is a Saturday; its week begins on Monday.
    assert_eq!(timeline("").await.ok()["overall"][0]["start"], "2026-01-26T00:00:00Z");
    let problem = timeline("step=hour").await.problem(400, "invalid-parameter");
    assert_eq!(problem["errors"][0]["parameter"], "step");
    let day = timeline("step=day").await.ok();
    assert_eq!(day["step"], "day");
    assert_eq!(timeline("step=hour&to=2026-02-02").await.ok()["step"], "hour");
    assert_eq!(timeline("step=hour&from=0001-01-01&to=9999-12-31").await.status, 400);
    let later = Somebody { predictions: vec![made(24 * 400)], ..somebody };
    put(&server.storage, &TenantId::default(), "lore@new", &[later]).await;
    let versions = timeline("").await.ok()["versions"].clone();
    assert_eq!(
        versions,
        json!([{"model": "lore@old", "first": "2026-01-31T00:00:00Z"}, {"model": "lore@new", "first": "2027-03-07T00:00:00Z"}])
    );
    // A name without a loaded version means the newest of those that are loaded.
    let loaded = server.get("/accuracy/timeline?model=lore").await.ok();
    assert!(loaded["model"] != "lore@new" && loaded["overall"] == json!([]));
}

#[tokio::test]
async fn what_was_written_counts_at_once_and_what_was_erased_does_not_any_more() {
    let server = Server::with_people(Vec::new()).await;
    let overall = async |model: &str| {
        server.get(&format!("/accuracy?model={model}&group_by=country")).await.ok()["overall"].clone()
    };
    for person in ["ada", "bob", "cid"] {
        server.put(&format!("/users/{person}"), &json!({"attributes": {"country": "UK"}})).await;
    }
    assert_eq!(overall("lore").await, Value::Null);
    learn(&server, "ada", &examples()).await;
    let (lore, bt) = (overall("lore").await, overall("bt").await);
    assert_eq!((&lore["users"], &lore["n"]), (&json!(1), &json!(3)));
    assert_eq!(lore["accuracy_ci"], Value::Null);
    // What `bt` said of the same examples stands beside what every model said.
    assert_eq!((&lore["bt_accuracy"], &bt["bt_accuracy"]), (&bt["accuracy"], &bt["accuracy"]));
    assert!(bt["accuracy"].is_number());
    learn(&server, "bob", &examples()[..1]).await;
    assert_eq!(overall("lore").await["n"], 4);
    assert_eq!(server.delete("/users/ada").await.status, 204);
    let left = overall("lore").await;
    assert_eq!((&left["users"], &left["n"]), (&json!(1), &json!(1)));
    assert_eq!(server.delete("/users/bob").await.status, 204);
    assert_eq!(overall("lore").await, Value::Null);
}

#[tokio::test]
async fn people_who_judged_the_same_pair_agree_or_do_not() {
    let server = Server::with_people(Vec::new()).await;
    let judge = async |person: &str, country: &str, chosen: &str, rejected: &str| {
        let example = json!({"prompt": "Name a fish.", "chosen": chosen, "rejected": rejected});
        let body = json!({"attributes": {"country": country}, "examples": [example]});
        assert_eq!(server.post(&format!("/users/{person}/examples"), &body).await.status, 201);
    };
    let disagreement =
        async || server.get("/accuracy?model=lore&group_by=country").await.ok()["disagreement"].clone();
    judge("ada", "UK", TEXTS[0], TEXTS[1]).await;
    let alone = disagreement().await;
    assert_eq!((&alone["alpha"], &alone["pairs"]), (&Value::Null, &json!(0)));
    judge("bob", "UK", TEXTS[0], TEXTS[1]).await;
    judge("cid", "US", TEXTS[1], TEXTS[0]).await;
    judge("dee", "US", TEXTS[1], TEXTS[0]).await;
    let apart = disagreement().await;
    assert_eq!(
        (&apart["pairs"], &apart["judgements"], &apart["detail"]),
        (&json!(1), &json!(4), &Value::Null)
    );
    // Two countries that take one side each: agreement within, none between.
    let of = |name: &str| apart[name].as_f64().unwrap_or_else(|| panic!("{name}: {apart}"));
    assert!(of("within_groups") > of("alpha") && of("alpha") > of("between_groups"), "{apart}");
}

#[tokio::test]
async fn another_tenants_people_are_in_no_figure() {
    let server = server().await;
    let (ours, theirs) =
        (server.key("default", &[Scope::Read]).await, server.key("other", &[Scope::Read]).await);
    let ask = async |path: &str, key: &str| {
        let mut request = request(Method::GET, path, axum::body::Body::empty());
        request.headers_mut().insert("x-api-key", HeaderValue::from_str(key).unwrap());
        server.send(request).await
    };
    let path = format!("/accuracy?model={MODEL}");
    assert_eq!(ask(&path, &ours.secret).await.ok()["overall"]["users"], crowd().len());
    // Of a version that only predicted for others, nothing is known.
    ask(&path, &theirs.secret).await.problem(422, "unknown-model");
    for what in ["", "/shots", "/timeline"] {
        let answer = ask(&format!("/accuracy{what}?model=lore"), &theirs.secret).await.ok();
        assert!(answer["overall"].is_null() || answer["overall"] == json!([]), "{answer}");
        let problem = ask(&format!("/accuracy{what}?model=lore&group_by=country"), &theirs.secret).await;
        let problem = problem.problem(400, "invalid-parameter");
        assert_eq!(problem["errors"][0]["detail"], "nobody has the attribute; there is none");
    }
}

#[tokio::test]
async fn a_database_that_is_slow_or_gone_is_a_503_and_what_is_kept_needs_little_of_it() {
    let database = Arc::new(tempfile::tempdir().unwrap());
    let watched = Arc::new(Watched::new(open_database(&database).await));
    let storage: Arc<dyn Storage> = watched.clone();
    put(&storage, &TenantId::default(), MODEL, &crowd()).await;
    let server = Server::over(database, watched.clone(), backbone(), Limits::default());
    let path = |what: &str| format!("/accuracy{what}?model={MODEL}&group_by=country");
    let all = ["", "/shots", "/timeline"].map(path);

    watched.outage.begin_after(0);
    for path in &all {
        server.get(path).await.problem(503, "database-unavailable");
    }
    watched.outage.end();
    watched.sums.slow();
    for path in &all {
        let problem = server.get(path).await.problem(503, "query-too-slow");
        assert!(problem["detail"].as_str().unwrap().contains("shorter time"));
    }
    watched.sums.quick();
    watched.sums.hold();
    let mut hurried = request(Method::GET, &all[0], axum::body::Body::empty());
    hurried.headers_mut().insert("x-request-timeout-ms", HeaderValue::from_static("50"));
    server.send(hurried).await.problem(503, "deadline-exceeded");
    watched.sums.quick();
    let answers =
        [server.get(&all[0]).await.ok(), server.get(&all[1]).await.ok(), server.get(&all[2]).await.ok()];
    // The moment, and the models of a version that is not loaded, which are kept as well.
    watched.sums.slow();
    for (path, answer) in all.iter().zip(answers) {
        assert_eq!(server.get(path).await.ok(), answer);
    }
}
