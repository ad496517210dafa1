//! Groups with weights, rules of welfare, and `POST /tournament`.

use serde_json::{Value, json};

use crate::{
    fixture::Server,
    people::{TEXTS, body, near, numbers, people},
};

const UK_AND_US: [(&str, f64); 2] = [("UK", 0.75), ("US", 0.25)];

fn groups(weights: [(&str, f64); 2]) -> Value {
    weights.iter().map(|(country, weight)| json!({"group": {"country": country}, "weight": weight})).collect()
}

/// What an audience makes of the texts, on the scale where utilities mean the same for everybody.
async fn of(server: &Server, audience: Value) -> Value {
    let mut asked = body(&json!({"audience": audience, "reward_scale": "win_rate"}));
    asked["model"] = json!("lore");
    server.score(&asked).await.ok()
}

#[tokio::test]
async fn groups_count_by_weight_however_many_their_members_are() {
    let server = Server::with_people(people()).await;
    let each = async |country: &str| {
        let reply = of(&server, json!({"group": {"country": country}, "aggregate": ["mean"]})).await;
        numbers(&reply["results"][0]["aggregates"]["mean"])
    };
    let (uk, us) = (each("UK").await, each("US").await);
    let all = ["min", "mean", "p20", "share", "softmin", "nash"];
    let together = of(&server, json!({"groups": groups(UK_AND_US), "aggregate": all})).await;
    assert_eq!(together["audience"], json!({"users": 3, "groups": [2, 1]}));
    let result = &together["results"][0];
    assert!(near(&numbers(&result["groups"][0]), &uk) && near(&numbers(&result["groups"][1]), &us));
    let numbers_of = |name: &str| numbers(&result["aggregates"][name]);
    let both =
        |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> { uk.iter().zip(&us).map(|(a, b)| f(*a, *b)).collect() };
    assert!(near(&numbers_of("mean"), &both(&|a, b| 0.75 * a + 0.25 * b)));
    assert!(near(&numbers_of("min"), &both(&f64::min)));
    assert!(near(&numbers_of("nash"), &both(&|a, b| a.powf(0.75) * b.powf(0.25))));
    let softmin = |a: f64, b: f64| -0.1 * (0.75 * (-a / 0.1).exp() + 0.25 * (-b / 0.1).exp()).ln();
    assert!(near(&numbers_of("softmin"), &both(&softmin)));
    assert!((numbers_of("share").iter().sum::<f64>() - 1.0).abs() < 1e-6);
    // Every half and more of the effective 1.6 groups is the heavier group's: a fifth of the weight is below both only where
    // the lighter one is worse off.
    let stretch = |worse: f64, better: f64, weight: f64| {
        let n = 1.0 / (0.75_f64.powi(2) + 0.25_f64.powi(2));
        let (first, last) = (0.2 * (n - 1.0) / n, (0.2 * (n - 1.0) + 1.0) / n);
        n * ((weight.min(last) - first) * worse + (last - weight).max(0.0) * better)
    };
    let p20 = |uk: f64, us: f64| if uk < us { stretch(uk, us, 0.75) } else { stretch(us, uk, 0.25) };
    assert!(near(&numbers_of("p20"), &both(&p20)));
    // The ranking is by the first rule.
    let least = numbers_of("min");
    let ranking: Vec<usize> = serde_json::from_value(result["ranking"].clone()).unwrap();
    assert!(ranking.windows(2).all(|pair| least[pair[0]] >= least[pair[1]]));
    // Twice the weights are the same weights.
    let doubled = of(&server, json!({"groups": groups([("UK", 1.5), ("US", 0.5)]), "aggregate": all})).await;
    assert_eq!(doubled["results"], together["results"]);
}

#[tokio::test]
async fn the_group_that_is_worst_off_over_the_whole_request_is_served_in_all_of_it() {
    let server = Server::with_people(people()).await;
    let items = TEXTS.map(|text| json!({"prompt": "Name a fish.", "responses": [text]}));
    let ask = async |items: &[Value]| {
        let asked = json!({"model": "lore", "reward_scale": "win_rate", "items": items,
            "audience": {"groups": groups(UK_AND_US), "aggregate": ["maxmin", "min"]}});
        server.score(&asked).await.ok()
    };
    let reply = ask(&items).await;
    let of = |result: &Value, name: &str| numbers(&result["aggregates"][name])[0];
    let results = reply["results"].as_array().unwrap();
    let mean = |group: usize| -> f64 {
        let means = results.iter().map(|result| numbers(&result["groups"][group])[0]);
        means.sum::<f64>() / results.len() as f64
    };
    let worst_off = usize::from(mean(1) < mean(0));
    assert_eq!(reply["audience"]["worst_off"], worst_off);
    for result in results {
        assert_eq!(of(result, "maxmin"), numbers(&result["groups"][worst_off])[0]);
        assert!(of(result, "maxmin") >= of(result, "min"));
    }
    // Each response by itself has another worst-off group somewhere, which is served where it is asked for alone.
    let other = results.iter().position(|result| of(result, "maxmin") > of(result, "min")).unwrap();
    let alone = ask(&items[other..=other]).await;
    assert_eq!(alone["audience"]["worst_off"], 1 - worst_off);
    assert_eq!(of(&alone["results"][0], "maxmin"), of(&results[other], "min"));
}

#[tokio::test]
async fn the_members_of_one_group_have_rules_of_their_own() {
    let server = Server::with_people(people()).await;
    let everybody =
        json!({"group": {}, "aggregate": ["nash", "softmin", "min", "mean"], "temperature": 0.02});
    let reply = of(&server, everybody).await;
    let result = &reply["results"][0]["aggregates"];
    let (nash, softmin) = (numbers(&result["nash"]), numbers(&result["softmin"]));
    let (min, mean) = (numbers(&result["min"]), numbers(&result["mean"]));
    for at in 0..nash.len() {
        assert!(min[at] <= nash[at] + 1e-6 && nash[at] <= mean[at] + 1e-6, "{result}");
        assert!(min[at] <= softmin[at] + 1e-6 && softmin[at] <= mean[at] + 1e-6, "{result}");
    }
    assert!(reply["results"][0].get("groups").is_none());
}

#[tokio::test]
async fn a_group_of_nobody_and_rules_without_a_scale_are_named() {
    let server = Server::with_people(people()).await;
    let nobody = body(&json!({"audience": {"groups": groups([("UK", 1.0), ("FR", 1.0)])}}));
    assert_eq!(server.score(&nobody).await.pointers(422, "invalid-input"), ["/audience/groups/1/group"]);
    let raw = body(&json!({"audience": {"group": {}, "aggregate": ["nash"]}}));
    assert_eq!(server.score(&raw).await.pointers(422, "invalid-input"), ["/audience/aggregate/0"]);
}

#[tokio::test]
async fn a_tournament_sets_the_rules_side_by_side() {
    let server = Server::with_people(people()).await;
    let asked = json!({"model": "lore", "prompt": "Name a fish.", "responses": TEXTS,
        "audience": {"groups": groups(UK_AND_US)}});
    let reply = server.post("/tournament", &asked).await.ok();
    let rows: Vec<Vec<f64>> = serde_json::from_value(reply["preference"].clone()).unwrap();
    // Each share is what `/score` answers for the pair.
    let pairs = json!([{"prompt": "Name a fish.", "response_a": TEXTS[0], "response_b": TEXTS[3]}]);
    let score = json!({"model": "lore", "pairs": pairs, "audience": {"groups": groups(UK_AND_US)}});
    let pair = server.score(&score).await.ok();
    assert!((rows[0][3] - pair["results"][0]["preference"].as_f64().unwrap()).abs() < 1e-9);
    for (a, row) in rows.iter().enumerate() {
        assert_eq!(row[a], 0.5);
        for (b, share) in row.iter().enumerate() {
            assert_eq!(1.0 - rows[b][a], *share);
        }
    }
    let borda = numbers(&reply["borda"]);
    let others = (TEXTS.len() - 1) as f64;
    let expected: Vec<f64> = rows.iter().map(|row| (row.iter().sum::<f64>() - 0.5) / others).collect();
    assert!(near(&borda, &expected));
    // No response is preferred to a draw from the lottery.
    let lottery = numbers(&reply["maximal_lottery"]);
    assert!((lottery.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    for row in &rows {
        let against: f64 = row.iter().zip(&lottery).map(|(share, chance)| share * chance).sum();
        assert!(against <= 0.5 + 1e-6, "{reply}");
    }
    // The regularised equilibrium is its own regularised best answer.
    let regularized = &reply["regularized"];
    let equilibrium = numbers(&regularized["lottery"]);
    let against = |row: &Vec<f64>| row.iter().zip(&equilibrium).map(|(share, x)| share * x).sum::<f64>();
    let powers: Vec<f64> = rows.iter().map(|row| (against(row) / 0.1).exp()).collect();
    let total: f64 = powers.iter().sum();
    assert!(powers.iter().zip(&equilibrium).all(|(power, x)| (power / total - x).abs() < 1e-6), "{reply}");
    let best = rows.iter().map(against).fold(0.0, f64::max);
    assert!((regularized["exploitability"].as_f64().unwrap() - (best - 0.5)).abs() < 1e-9);
    assert_eq!(regularized["beta"], 0.1);
    let of_items = of(&server, json!({"groups": groups(UK_AND_US), "aggregate": ["mean", "min"]})).await;
    for rule in ["mean", "min"] {
        assert!(near(&numbers(&reply[rule]), &numbers(&of_items["results"][0]["aggregates"][rule])));
    }
    assert_eq!(reply["audience"], json!({"users": 3, "groups": [2, 1]}));
}

#[tokio::test]
async fn what_cannot_compete_is_named() {
    let server = Server::with_people(people()).await;
    let with = |field: &str, value: Value| {
        let mut asked = json!({"prompt": "", "responses": ["a", "b"], "audience": {"group": {}}});
        asked[field] = value;
        asked
    };
    for (asked, pointer) in [
        (with("responses", json!([])), "/responses"),
        (with("responses", json!(["a", "\0"])), "/responses/1"),
        (with("prompt", json!("\0")), "/prompt"),
        (with("audience", json!({"group": {"country": "FR"}})), "/audience/group"),
        (with("audience", json!({"group": {}, "aggregate": ["mean"]})), "/audience/aggregate"),
        (with("model", json!("a b")), "/model"),
        (with("beta", json!(0.001)), "/beta"),
        (with("on_overflow", json!("cut")), "/on_overflow"),
    ] {
        assert_eq!(server.post("/tournament", &asked).await.pointers(422, "invalid-input"), [pointer]);
    }
    let long = "word ".repeat(5000);
    let mut asked = with("responses", json!(["a", long]));
    asked["on_overflow"] = json!("error");
    assert_eq!(server.post("/tournament", &asked).await.pointers(422, "invalid-input"), ["/responses/1"]);
    let many = with("responses", json!(vec!["a"; 33]));
    let problem = server.post("/tournament", &many).await.problem(413, "too-many-texts");
    assert_eq!(problem["limit"], json!({"name": "max_responses", "value": 32}));
    let alone = server.post("/tournament", &with("responses", json!(["a"]))).await.ok();
    assert_eq!((&alone["condorcet_winner"], &alone["maximal_lottery"]), (&json!(0), &json!([1.0])));
}
