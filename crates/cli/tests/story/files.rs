//! Commands that read and write files.

use std::fs::File;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::support::{Place, opposites, people, stderr, stdout};

#[test]
fn the_same_seed_gives_the_same_model_and_is_not_trained_twice() {
    let place = Place::trained();
    let first = place.model_folder();
    let again = place.run(&["train", "--data", "people.jsonl", "--heads", "bt", "--out", "models"]);
    assert!(again.status.success());
    assert!(stderr(&again).contains("is there already"), "{}", stderr(&again));
    let elsewhere = place.run(&["train", "--data", "people.jsonl", "--heads", "all", "--out", "other"]);
    assert!(elsewhere.status.success(), "{}", stderr(&elsewhere));
    for file in ["model.json", "head.safetensors", "evaluation.json"] {
        let version = first.file_name().unwrap().to_str().unwrap();
        let other = place.path("other/bt").join(version).join(file);
        assert_eq!(std::fs::read(first.join(file)).unwrap(), std::fs::read(other).unwrap(), "{file}");
    }
}

#[test]
fn an_evaluation_counts_people_and_gives_intervals() {
    let place = Place::trained();
    let arguments = [
        "eval",
        "--models",
        "models",
        "--data",
        "people.jsonl",
        "--group-by",
        "country",
        "--json",
        "report.json",
    ];
    let output = place.run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("By country"), "{}", stdout(&output));
    let report: Value = serde_json::from_slice(&std::fs::read(place.path("report.json")).unwrap()).unwrap();
    let model = &report["models"][0];
    assert_eq!(model["shots"].as_array().unwrap().len(), 6);
    let overall = &model["shots"][0]["overall"];
    assert_eq!((overall["users"].as_u64(), overall["n"].as_u64()), (Some(6), Some(48)));
    let accuracy = overall["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.8, "tea is liked nine times of ten, and {accuracy} is right");
    let interval = overall["accuracy_ci"].as_array().unwrap();
    assert!(interval[0].as_f64().unwrap() <= accuracy && accuracy <= interval[1].as_f64().unwrap());
    let groups = model["shots"][0]["groups"].as_object().unwrap();
    assert_eq!(groups["UK"]["users"].as_u64().unwrap() + groups["DE"]["users"].as_u64().unwrap(), 6);
    assert_eq!(overall["gain_over_bt"].as_f64(), Some(0.0));
    let unknown = place.run(&["eval", "--data", "people.jsonl", "--group-by", "planet"]);
    assert!(!unknown.status.success() && stderr(&unknown).contains("country"), "{}", stderr(&unknown));
}

#[test]
fn an_evaluation_shows_who_one_reward_is_wrong_for_and_what_could_be_known() {
    let place = Place::new();
    place.write("people.jsonl", &opposites(40));
    for seed in ["0", "1"] {
        let trained =
            ["train", "--data", "people.jsonl", "--heads", "bt,lore", "--out", "models", "--seed", seed];
        let trained = place.run(&trained);
        assert!(trained.status.success(), "{}", stderr(&trained));
    }
    let eval = ["eval", "--models", "models", "--data", "people.jsonl", "--group-by", "country"];
    let output = place.run(&[&eval[..], &["--json", "report.json", "--svg", "curves.svg"]].concat());
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    for title in
        ["Worst group", "Seen people", "log loss / calibration error", "oracle", "over the models of a name"]
    {
        assert!(text.contains(title), "{title:?} is not in {text}");
    }
    let report: Value = serde_json::from_slice(&std::fs::read(place.path("report.json")).unwrap()).unwrap();
    let accuracy = |measured: &Value| measured["accuracy"].as_f64().unwrap();
    let oracle = &report["oracle"];
    assert_eq!(oracle["overall"]["users"], 10);
    assert!(accuracy(&oracle["overall"]) > 0.8, "{oracle}");
    let models = report["models"].as_array().unwrap();
    let of = |name: &'static str| models.iter().filter(move |model| model["name"] == name);
    assert_eq!(
        (of("bt").count(), of("lore").count(), report["by_name"].as_array().unwrap().len()),
        (2, 2, 2)
    );
    for (bt, lore) in of("bt").zip(of("lore")) {
        let shot = |model: &Value, examples: u64| -> Value {
            let shots = model["shots"].as_array().unwrap();
            shots.iter().find(|shot| shot["examples"] == examples).unwrap().clone()
        };
        assert!(accuracy(&shot(bt, 8)["overall"]) < 0.7, "one reward is right for opposite tastes");
        let eight = shot(lore, 8);
        assert!(accuracy(&eight["overall"]) > 0.75, "{eight}");
        assert!(eight["overall"]["gain_over_bt_ci"][0].as_f64().unwrap() > 0.0, "{eight}");
        let groups = ["UK", "DE"].map(|group| accuracy(&eight["groups"][group]));
        assert_eq!(accuracy(&eight["worst_group"]), groups[0].min(groups[1]));
        assert_eq!(lore["seen_shots"].as_array().unwrap().len(), 6);
    }
    let svg = std::fs::read_to_string(place.path("curves.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("lore (mean of 2)") && svg.contains("oracle"), "{svg}");
    let without = place.run(&[&eval[..], &["--no-oracle"]].concat());
    assert!(without.status.success() && !stdout(&without).contains("oracle"));
}

#[test]
fn an_evaluation_says_how_many_answers_are_saved_by_asking_what_tells_most() {
    let place = Place::new();
    place.write("people.jsonl", &opposites(40));
    let trained = place.run(&["train", "--data", "people.jsonl", "--heads", "bt,lore", "--out", "models"]);
    assert!(trained.status.success(), "{}", stderr(&trained));
    let eval = ["eval", "--models", "models", "--data", "people.jsonl", "--json", "report.json"];
    let report = |more: &[&str]| -> (String, Value) {
        let output = place.run(&[&eval[..], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let json = serde_json::from_slice(&std::fs::read(place.path("report.json")).unwrap()).unwrap();
        (stdout(&output), json)
    };
    let model = |report: &Value, name: &str| {
        let models = report["models"].as_array().unwrap();
        models.iter().find(|model| model["name"] == name).unwrap().clone()
    };
    // Eight comparisons each: the first answers are chosen, at the eighth there is no choice.
    let (text, json) = report(&["--queries", "8"]);
    assert!(text.contains("most telling") && text.contains("Answers saved"), "{text}");
    assert!(model(&json, "bt").get("queries").is_none(), "it learns from nobody");
    let lore = model(&json, "lore");
    let queries = &lore["queries"];
    assert_eq!((queries["users"].as_u64(), queries["left_out"].as_u64()), (Some(10), Some(0)));
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value}"));
    assert!((number(&queries["choices"]) - 8.0).abs() < 1e-9);
    let answers = queries["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 9);
    for at in answers {
        let [chosen, random, difference] = ["chosen", "random", "difference"].map(|way| number(&at[way]));
        assert!((chosen - random - difference).abs() < 1e-9, "{at}");
        let interval = [&at["difference_ci"][0], &at["difference_ci"][1]].map(number);
        assert!(interval[0] <= difference + 1e-9 && difference <= interval[1] + 1e-9, "{at}");
    }
    // Without answers, and with all of them, the choice is nothing: what few-shot evaluation finds too.
    for (end, shot) in [(0, 0), (8, 4)] {
        assert!(number(&answers[end]["difference"]).abs() < 1e-9);
        assert!(
            (number(&answers[end]["chosen"]) - number(&lore["shots"][shot]["overall"]["accuracy"])).abs()
                < 1e-9
        );
    }
    // Isotonic regression by its formula: the largest, over where a run begins, of the least mean up to where it ends.
    let random: Vec<f64> = answers.iter().map(|at| number(&at["random"])).collect();
    let risen = |at: usize| {
        let mean = |from: usize, to: usize| random[from..=to].iter().sum::<f64>() / (to - from + 1) as f64;
        let least = |from: usize| (at..random.len()).map(|to| mean(from, to)).fold(f64::INFINITY, f64::min);
        (0..=at).map(least).fold(f64::NEG_INFINITY, f64::max)
    };
    let saved = queries["saved"].as_array().unwrap();
    assert_eq!(saved.iter().map(|row| row["answers"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 8]);
    for row in saved {
        let target = risen(row["answers"].as_u64().unwrap() as usize);
        assert!((number(&row["accuracy"]) - target).abs() < 1e-9, "{row}");
        match (row["chosen"].as_f64(), row["saved"].as_f64()) {
            (Some(chosen), Some(saved)) => {
                assert!((number(&row["random"]) - chosen - saved).abs() < 1e-9, "{row}");
            }
            (chosen, saved) => assert_eq!((chosen, saved), (None, None), "{row}"),
        }
    }
    let (text, without) = report(&[]);
    assert!(model(&without, "lore").get("queries").is_none() && !text.contains("most telling"));
    let refused = place.run(&[&eval[..], &["--queries"]].concat());
    assert!(!refused.status.success() && stderr(&refused).contains("16 distinct comparisons"));
    assert_eq!(place.run(&[&eval[..], &["--queries", "0"]].concat()).status.code(), Some(2));
}

#[test]
fn texts_become_a_parquet_file_in_their_order() {
    let place = Place::new();
    let lines = "{\"id\": \"a\", \"response\": \"warm tea\"}\n\n\
                 {\"prompt\": \"A drink?\", \"response\": \"warm tea\"}\n\
                 {\"prompt\": [{\"role\": \"user\", \"content\": \"A drink?\"}]}\n";
    place.write("texts.jsonl", lines);
    let output = place.run(&["embed", "--in", "texts.jsonl", "--out", "texts.parquet"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let file = File::open(place.path("texts.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(arrow_array::RecordBatch::num_rows).sum::<usize>(), 3);
    let ids: Vec<Option<String>> = batches[0]
        .column_by_name("id")
        .and_then(|column| column.as_any().downcast_ref::<arrow_array::StringArray>())
        .unwrap()
        .iter()
        .map(|id| id.map(str::to_owned))
        .collect();
    assert_eq!(ids, [Some("a".to_owned()), None, None]);
    let columns: Vec<String> =
        batches[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(columns, ["id", "embedding", "tokens", "truncated"]);
    place.write("texts.jsonl", "{\"response\": \"tea\"}\n{\"answer\": \"tea\"}\n");
    let bad = place.run(&["embed", "--in", "texts.jsonl", "--out", "bad.parquet"]);
    assert!(!bad.status.success() && stderr(&bad).contains("line 2"), "{}", stderr(&bad));
    // A line without end does not fill the memory.
    place.write("texts.jsonl", &format!("{{\"response\": \"tea\"}}\n{}", "x".repeat((16 << 20) + 1)));
    let bad = place.run(&["embed", "--in", "texts.jsonl", "--out", "bad.parquet"]);
    let message = stderr(&bad);
    assert!(
        !bad.status.success() && message.contains("line 2") && message.contains("longer than"),
        "{message}"
    );
    assert!(!place.path("bad.parquet").exists(), "a failed run leaves a file");
}

#[test]
fn a_backbone_check_shows_what_a_folder_holds() {
    let place = Place::new();
    let folder = crate::support::backbone();
    let output = place.run(&["backbone", "check", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    for part in ["dim         32", "cosine", "texts/s"] {
        assert!(stdout(&output).contains(part), "{}", stdout(&output));
    }
}

#[test]
fn gzipped_data_trains_the_same_head() {
    let place = Place::new();
    place.write("people.jsonl", &people(8));
    let zipped =
        std::process::Command::new("gzip").arg("-k").arg(place.path("people.jsonl")).status().unwrap();
    assert!(zipped.success());
    for (data, out) in [("people.jsonl", "plain"), ("people.jsonl.gz", "zipped")] {
        let output = place.run(&["train", "--data", data, "--heads", "bt", "--out", out]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let weights = |out: &str| {
        let version = std::fs::read_dir(place.path(out).join("bt")).unwrap().next().unwrap().unwrap().path();
        std::fs::read(version.join("head.safetensors")).unwrap()
    };
    assert_eq!(weights("plain"), weights("zipped"));
}

/// The bytes of the only version of a model.
fn model_of(place: &Place, out: &str, model: &str) -> [Vec<u8>; 3] {
    let mut versions = std::fs::read_dir(place.path(out).join(model)).unwrap();
    let folder = versions.next().unwrap().unwrap().path();
    ["model.json", "head.safetensors", "evaluation.json"]
        .map(|file| std::fs::read(folder.join(file)).unwrap())
}

#[test]
fn known_embeddings_train_the_same_models_without_a_forward_pass() {
    let place = Place::new();
    place.write("people.jsonl", &people(24));
    let train = |out: &str, more: &[&str]| {
        let arguments = ["train", "--data", "people.jsonl", "--heads", "bt,pal-b", "--out", out];
        let output = place.run(&[&arguments, more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    train("without", &[]);
    let file = ["--embeddings", "texts.embeddings"];
    assert!(train("first", &file).contains(" texts, 0 of them known"));
    let written = std::fs::read(place.path("texts.embeddings")).unwrap();
    let said = train("second", &file);
    let texts = said.split(" texts, ").next().unwrap().rsplit(' ').next().unwrap();
    assert!(said.contains(&format!(" texts, {texts} of them known")), "{said}");
    assert_eq!(std::fs::read(place.path("texts.embeddings")).unwrap(), written);
    for model in ["bt", "pal-b"] {
        let expected = model_of(&place, "without", model);
        assert_eq!(model_of(&place, "first", model), expected);
        assert_eq!(model_of(&place, "second", model), expected);
    }
    let left: Vec<_> =
        std::fs::read_dir(place.path("without")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "a run leaves more than its models: {left:?}");
}

#[test]
fn embeddings_that_are_cut_or_of_another_backbone_are_refused() {
    let place = Place::new();
    place.write("people.jsonl", &people(24));
    let train = ["train", "--data", "people.jsonl", "--heads", "bt", "--embeddings", "texts.embeddings"];
    let output = place.run(&train);
    assert!(output.status.success(), "{}", stderr(&output));
    std::fs::remove_dir_all(place.path("models")).unwrap();
    let whole = std::fs::read(place.path("texts.embeddings")).unwrap();
    let refused = |bytes: &[u8], backbone: &str, part: &str| {
        std::fs::write(place.path("texts.embeddings"), bytes).unwrap();
        let folder = crate::support::backbone().with_file_name(backbone);
        let output = place.command(&train).env("POLYREWARD_BACKBONE__PATH", folder).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert!(text.contains("texts.embeddings") && text.contains(part), "{part:?} is not in: {text}");
        assert!(!place.path("models/bt").exists(), "a refused run leaves a model");
        assert_eq!(
            std::fs::read(place.path("texts.embeddings")).unwrap(),
            bytes,
            "a refused file is changed"
        );
    };
    refused(&whole[..whole.len() - 4], "tiny-encoder", "cut off");
    refused(&whole, "tiny-encoder-cls", "another backbone");
    refused(b"PAR1", "tiny-encoder", "not a file of embeddings");
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    refused(&damaged, "tiny-encoder", "checksum");
}

#[test]
fn one_person_trains_no_more_than_the_cap_and_the_model_says_so() {
    let place = Place::new();
    let ordinary = people(24);
    let one = "{\"user_id\": \"loud\", \"prompt\": \"A drink?\", \"chosen\": \"coffee number N\", \"rejected\": \"tea\"}\n";
    let loud: String = (0..60).map(|at| one.replace('N', &at.to_string())).collect();
    place.write("people.jsonl", &format!("{ordinary}{loud}"));
    place.write("capped.toml", "[train]\nmax_comparisons_per_user = 30\n");
    let train = |out: &str, more: &[&str]| {
        let arguments = ["train", "--data", "people.jsonl", "--heads", "bt", "--out", out];
        let output = place.run(&[&arguments, more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let [card, _, _] = model_of(&place, out, "bt");
        (serde_json::from_slice::<Value>(&card).unwrap(), stderr(&output))
    };
    let capped = ["--config", "capped.toml"];
    let (card, said) = train("capped", &capped);
    assert!(said.contains("1 people brought more than 30 comparisons: 30 of theirs"), "{said}");
    let told = serde_json::json!({"at_most": 30, "people": 1, "left_out": 30});
    assert_eq!(card["training"]["comparisons_of_one_person"], told);
    let (free, _) = train("free", &[]);
    assert_eq!(free["training"]["comparisons_of_one_person"]["left_out"], 0);
    let rows = |card: &Value| -> u64 {
        let data = &card["training_data"];
        ["comparisons", "validation_comparisons", "held_out_comparisons"]
            .map(|key| data[key].as_u64().unwrap())
            .iter()
            .sum()
    };
    assert_eq!(rows(&free), rows(&card) + 30);
    train("again", &capped);
    assert_eq!(model_of(&place, "again", "bt"), model_of(&place, "capped", "bt"));
    // Another cap is another training, not one that is there already.
    let arguments = ["train", "--data", "people.jsonl", "--heads", "bt", "--out", "capped"];
    let other = place.run(&arguments);
    assert!(!stderr(&other).contains("is there already"), "{}", stderr(&other));
}
