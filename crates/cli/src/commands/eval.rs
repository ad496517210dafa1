//! `polyreward eval`: how right each model is, for whom, and after how many examples.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use polyreward_domain::{ComparisonRecord, HeadFamily, Split, TextForms};
use polyreward_heads::{
    ItemComparison, Items, Person,
    evaluation::{Bootstrap, Interval, PersonPredictions, Summary, accuracy_difference, summarize},
};
use polyreward_service::{Corpus, Model, ModelRegistry, Shot, UnseenPerson, embed_corpus, few_shot};
use polyreward_training::{HoldOut, TrainingData, predict};
use serde::Serialize;

use crate::{
    commands::open_backbone,
    config::{self, Overrides, PathOverride},
    dataset::{self, Dataset},
    progress::Progress,
    table,
};

/// Measure models on people they have not seen
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of model folders
    #[arg(long, default_value = "models", value_name = "DIR")]
    models: PathBuf,
    /// JSONL files of comparisons with splits train, context and query
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Numbers of examples to show a model before it is tested
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,4,8,16", value_name = "N,N")]
    shots: Vec<usize>,
    /// Attribute whose values are the groups, or `tags`
    #[arg(long, value_name = "KEY")]
    group_by: Option<String>,
    /// Also write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Backbone folder
    #[arg(long, value_name = "DIR")]
    backbone: Option<PathBuf>,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// The whole outcome, as `--json` writes it.
#[derive(Debug, Serialize)]
struct Report {
    data_sha256: String,
    backbone: String,
    bootstrap_draws: usize,
    models: Vec<ModelReport>,
}

#[derive(Debug, Serialize)]
struct ModelReport {
    model: String,
    head: HeadFamily,
    /// By split, with no examples.
    splits: BTreeMap<&'static str, Summary>,
    /// Unseen people, by number of examples.
    shots: Vec<ShotReport>,
}

#[derive(Debug, Serialize)]
struct ShotReport {
    examples: usize,
    overall: Measured,
    groups: BTreeMap<String, Measured>,
}

#[derive(Debug, Clone, Serialize)]
struct Measured {
    #[serde(flatten)]
    summary: Summary,
    /// Accuracy less that of Bradley-Terry on the same comparisons.
    gain_over_bt: Option<f64>,
    gain_over_bt_ci: Option<Interval>,
}

/// Evaluates every model of the folder.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let overrides =
        Overrides { backbone: PathOverride { path: arguments.backbone.clone() }, ..Overrides::default() };
    let config = config::load(arguments.config.as_deref(), &overrides)?;
    let dataset = dataset::read(&arguments.data)?;
    let backbone = open_backbone(&config)?;
    let registry = ModelRegistry::open(&arguments.models, backbone.info().clone())?;
    let registered = registry.registered();
    for failed in registered.failed() {
        eprintln!("{}: {}", failed.folder, failed.detail);
    }
    let models: Vec<Arc<Model>> = registered.models().cloned().collect();
    ensure!(!models.is_empty(), "no model in {} can be used", arguments.models.display());
    let forms =
        models.iter().map(|model| model.head.text_forms()).fold(TextForms::default(), TextForms::union);
    let mut progress = Progress::start("embedding", 0);
    let corpus = embed_corpus(&backbone, &dataset.records, forms, &mut |done, total| {
        progress.set(done, total, "texts");
    })?;
    progress.finish(&format!("{} texts, {} of them cut to the window", corpus.texts, corpus.truncated));
    let groups = Groups::of(&dataset.records, arguments.group_by.as_deref())?;
    let bootstrap = Bootstrap { seed: arguments.seed, ..Bootstrap::default() };
    let report = measure(arguments, &dataset, &corpus, &models, &groups, bootstrap)?;
    let report = Report {
        data_sha256: dataset.sha256,
        backbone: backbone.info().name.clone(),
        bootstrap_draws: bootstrap.draws,
        models: report,
    };
    print(&report, arguments.group_by.as_deref());
    if let Some(path) = &arguments.json {
        let bytes = serde_json::to_vec_pretty(&report)?;
        fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The people of a part of the data and, for each of their comparisons, the record it came from.
struct Part {
    people: Vec<Person>,
    records: Vec<Vec<usize>>,
}

impl Part {
    fn of(dataset: &Dataset, corpus: &Corpus, wanted: impl Fn(&ComparisonRecord) -> bool) -> Self {
        let mut position: HashMap<&str, usize> = HashMap::new();
        let mut part = Self { people: Vec::new(), records: Vec::new() };
        for (at, (record, comparison)) in dataset.records.iter().zip(&corpus.comparisons).enumerate() {
            if !wanted(record) || comparison.chosen == comparison.rejected {
                continue;
            }
            let person = *position.entry(record.user_id.as_str()).or_insert_with(|| {
                part.people.push(Person {
                    user_id: record.user_id.clone(),
                    attributes: record.attributes.clone(),
                    comparisons: Vec::new(),
                });
                part.records.push(Vec::new());
                part.people.len() - 1
            });
            part.people[person].comparisons.push(*comparison);
            part.records[person].push(at);
        }
        part
    }

    fn all_rows(&self) -> Vec<(usize, &ItemComparison)> {
        let rows = self.people.iter().enumerate();
        rows.flat_map(|(at, person)| person.comparisons.iter().map(move |row| (at, row))).collect()
    }
}

/// Groups of each record: values of an attribute, or the record's tags.
struct Groups(Option<Vec<Vec<String>>>);

impl Groups {
    fn of(records: &[ComparisonRecord], key: Option<&str>) -> anyhow::Result<Self> {
        let Some(key) = key else { return Ok(Self(None)) };
        let of_record = |record: &ComparisonRecord| -> Vec<String> {
            if key == "tags" {
                record.tags.clone()
            } else {
                record.attributes.get(key).cloned().into_iter().collect()
            }
        };
        let groups: Vec<_> = records.iter().map(of_record).collect();
        if groups.iter().all(Vec::is_empty) {
            let known: std::collections::BTreeSet<_> =
                records.iter().flat_map(|record| record.attributes.keys()).map(String::as_str).collect();
            bail!(
                "--group-by: nobody has the attribute {key}; known: {}, tags",
                Vec::from_iter(known).join(", ")
            );
        }
        Ok(Self(Some(groups)))
    }

    /// Predictions by group, each with an entry for every person so that people stay aligned between models.
    fn split(
        &self,
        records: &[Vec<usize>],
        people: &[PersonPredictions],
    ) -> BTreeMap<String, Vec<PersonPredictions>> {
        let mut by_group: BTreeMap<String, Vec<PersonPredictions>> = BTreeMap::new();
        let Some(groups) = &self.0 else { return by_group };
        for (person, (records, predictions)) in records.iter().zip(people).enumerate() {
            for (record, prediction) in records.iter().zip(predictions) {
                for group in &groups[*record] {
                    let rows =
                        by_group.entry(group.clone()).or_insert_with(|| vec![Vec::new(); people.len()]);
                    rows[person].push(*prediction);
                }
            }
        }
        by_group
    }
}

fn measure(
    arguments: &Arguments,
    dataset: &Dataset,
    corpus: &Corpus,
    models: &[Arc<Model>],
    groups: &Groups,
    bootstrap: Bootstrap,
) -> anyhow::Result<Vec<ModelReport>> {
    let split = |wanted: Split| {
        Part::of(dataset, corpus, move |record| record.split.unwrap_or(Split::Train) == wanted)
    };
    let (train, context, query) = (split(Split::Train), split(Split::Context), split(Split::Query));
    let unseen = unseen_people(&context, &query);
    let mut shots: Vec<Vec<Shot>> = Vec::new();
    for model in models {
        shots.push(few_shot(model, &corpus.items, &unseen, &arguments.shots)?);
    }
    let bt = models.iter().position(|model| model.card.head == HeadFamily::Bt);
    let yardstick = bt.map(|at| shots[at].clone());
    let mut reports = Vec::new();
    for (model, shots) in models.iter().zip(shots) {
        let mut shot_reports = Vec::new();
        for (at, shot) in shots.iter().enumerate() {
            let bt = yardstick.as_ref().map(|shots| &shots[at].predictions);
            shot_reports.extend(shot_report(shot, bt, groups, &query, bootstrap));
        }
        reports.push(ModelReport {
            model: model.reference.to_string(),
            head: model.card.head,
            splits: split_summaries(model, &corpus.items, dataset, [&train, &context, &query], bootstrap)?,
            shots: shot_reports,
        });
    }
    Ok(reports)
}

/// People with queries, and whatever context there is of them.
fn unseen_people(context: &Part, query: &Part) -> Vec<UnseenPerson> {
    let contexts: HashMap<&str, &Person> =
        context.people.iter().map(|person| (person.user_id.as_str(), person)).collect();
    query
        .people
        .iter()
        .map(|person| UnseenPerson {
            context: contexts
                .get(person.user_id.as_str())
                .map(|context| context.comparisons.clone())
                .unwrap_or_default(),
            query: person.comparisons.clone(),
        })
        .collect()
}

fn shot_report(
    shot: &Shot,
    bt: Option<&Vec<PersonPredictions>>,
    groups: &Groups,
    query: &Part,
    bootstrap: Bootstrap,
) -> Option<ShotReport> {
    let measured = |predictions: &[PersonPredictions], bt: Option<&[PersonPredictions]>| {
        let gain = bt.and_then(|bt| accuracy_difference(predictions, bt, bootstrap));
        summarize(predictions, bootstrap).map(|summary| Measured {
            summary,
            gain_over_bt: gain.map(|(gain, _)| gain),
            gain_over_bt_ci: gain.and_then(|(_, interval)| interval),
        })
    };
    let bt_groups = bt.map(|bt| groups.split(&query.records, bt));
    let by_group = groups
        .split(&query.records, &shot.predictions)
        .into_iter()
        .filter_map(|(group, rows)| {
            let bt = bt_groups.as_ref().and_then(|groups| groups.get(&group)).map(Vec::as_slice);
            Some((group, measured(&rows, bt)?))
        })
        .collect();
    Some(ShotReport {
        examples: shot.examples,
        overall: measured(&shot.predictions, bt.map(Vec::as_slice))?,
        groups: by_group,
    })
}

/// Population accuracy on each part of the data; seen people on comparisons kept out of training, where the data
/// are the model's own.
fn split_summaries(
    model: &Model,
    items: &Items,
    dataset: &Dataset,
    [train, context, query]: [&Part; 3],
    bootstrap: Bootstrap,
) -> anyhow::Result<BTreeMap<&'static str, Summary>> {
    let mut summaries = BTreeMap::new();
    let mut add = |name, part: &Part, rows: Vec<(usize, &ItemComparison)>| -> anyhow::Result<()> {
        let data = TrainingData { items: items.clone(), people: part.people.clone() };
        let predictions = predict(&data, model.head.as_ref(), model.card.calibration, &rows)?;
        if let Some(summary) = summarize(&predictions, bootstrap) {
            summaries.insert(name, summary);
        }
        Ok(())
    };
    if model.card.training_data.sha256 == dataset.sha256 {
        let hold_out = HoldOut::choose(&train.people, model.card.seed)?;
        add("train, fitted", train, hold_out.training_rows(&train.people))?;
        add("train, kept out", train, hold_out.held_out_rows(&train.people))?;
    } else {
        add("train, other data than fitted", train, train.all_rows())?;
    }
    add("context", context, context.all_rows())?;
    add("query", query, query.all_rows())?;
    Ok(summaries)
}

fn with_interval(value: f64, interval: Option<Interval>) -> String {
    match interval {
        Some([low, high]) => format!("{value:.3} ({low:.3}-{high:.3})"),
        None => format!("{value:.3}"),
    }
}

fn print(report: &Report, group_by: Option<&str>) {
    println!("Accuracy with no examples, 95 % intervals over people ({} draws)\n", report.bootstrap_draws);
    let header = ["model", "split", "people", "n", "accuracy", "mean over people", "log loss", "ece"];
    let mut rows = Vec::new();
    for model in &report.models {
        for (split, summary) in &model.splits {
            rows.push(vec![
                model.model.clone(),
                (*split).to_owned(),
                summary.users.to_string(),
                summary.n.to_string(),
                with_interval(summary.accuracy, summary.accuracy_ci),
                format!("{:.3}", summary.user_accuracy),
                format!("{:.3}", summary.log_loss),
                format!("{:.3}", summary.ece),
            ]);
        }
    }
    println!("{}", table::render(&header.map(str::to_owned), &rows));
    let Some(first) = report.models.iter().find(|model| !model.shots.is_empty()) else { return };
    let shots: Vec<String> = first.shots.iter().map(|shot| format!("{} examples", shot.examples)).collect();
    println!("Unseen people: accuracy on their queries, by number of their examples\n");
    let header: Vec<String> = std::iter::once("model".to_owned()).chain(shots.clone()).collect();
    let rows = report.models.iter().map(|model| {
        let cells = model.shots.iter().map(|shot| {
            let summary = &shot.overall.summary;
            with_interval(summary.accuracy, summary.accuracy_ci)
        });
        std::iter::once(model.model.clone()).chain(cells).collect()
    });
    println!("{}", table::render(&header, &rows.collect::<Vec<_>>()));
    if let Some(key) = group_by {
        print_groups(report, key, shots);
    }
}

fn print_groups(report: &Report, key: &str, shots: Vec<String>) {
    println!("By {key}\n");
    let header: Vec<String> =
        [key, "model", "people", "n"].into_iter().map(str::to_owned).chain(shots).collect();
    let mut rows: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for model in &report.models {
        for shot in &model.shots {
            for (group, measured) in &shot.groups {
                let summary = &measured.summary;
                rows.entry((group, &model.model))
                    .or_insert_with(|| {
                        vec![
                            group.clone(),
                            model.model.clone(),
                            summary.users.to_string(),
                            summary.n.to_string(),
                        ]
                    })
                    .push(with_interval(summary.accuracy, summary.accuracy_ci));
            }
        }
    }
    println!("{}", table::render(&header, &rows.into_values().collect::<Vec<_>>()));
}
