//! Whole fits on small made-up populations.

use std::fs;

use ndarray::Array2;
use polyreward_domain::{Attributes, HeadFamily, TextForm};
use polyreward_heads::{
    BackboneCard, Distance, EmbeddedForm, Head, IdealPoint, ItemComparison, Items, Observation, Person,
    write_head,
};
use polyreward_training::{
    CappedPeople, EpisodeConfig, Fitting, HoldOut, PalAConfig, PalBConfig, Progress, Provenance, TrainConfig,
    TrainingData, write_model,
};
use rand::{Rng, RngExt};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Numbers of an embedding.
const DIM: usize = 12;
/// Texts.
const ITEMS: usize = 400;

fn form(rng: &mut impl Rng) -> EmbeddedForm {
    let rows = Array2::from_shape_fn((ITEMS, DIM), |_| rng.random_range(-1.0_f32..1.0));
    EmbeddedForm::in_memory(rows, (0..ITEMS as u32).collect())
}

/// People of two opposite tastes, half each: one likes a direction of the responses, the other its opposite.
fn opposites(people: usize, comparisons: usize, seed: u64) -> TrainingData {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let joint = form(&mut rng);
    let mut prompt = form(&mut rng);
    prompt.of_item = vec![0; ITEMS];
    let items = Items {
        len: ITEMS,
        names: (0..ITEMS as u64).collect(),
        response: Some(joint.clone()),
        prompt_response: Some(joint.clone()),
        prompt: Some(prompt),
    };
    let people = (0..people)
        .map(|person| Person {
            user_id: format!("p{person}").parse().unwrap(),
            attributes: Attributes::new(),
            comparisons: (0..comparisons)
                .map(|_| {
                    let (a, b) = (rng.random_range(0..ITEMS), rng.random_range(0..ITEMS));
                    let taste = |item: usize| joint.of(item)[0] + joint.of(item)[1];
                    let likes_a = (taste(a) > taste(b)) == (person % 2 == 0);
                    let (chosen, rejected) = if likes_a { (a, b) } else { (b, a) };
                    ItemComparison { chosen, rejected, strength: 1.0, label_confidence: 1.0 }
                })
                .filter(|comparison| comparison.chosen != comparison.rejected)
                .collect(),
        })
        .collect();
    TrainingData { items, people, capped: CappedPeople::default() }
}

fn config(epochs: usize) -> TrainConfig {
    TrainConfig {
        episodes: EpisodeConfig {
            text_forms: Some(vec![TextForm::Response]),
            epochs: Some(epochs),
            hidden: 16,
            ..EpisodeConfig::default()
        },
        ..TrainConfig::default()
    }
}

fn fit(data: &TrainingData, config: &TrainConfig, family: HeadFamily) -> Box<dyn Head> {
    let hold_out = HoldOut::choose(&data.people, &data.items.names, 0).unwrap();
    let fitting = Fitting::prepare(data, &hold_out, config, &[family], 0, &mut |_| {}).unwrap();
    fitting.fit(family, &mut |_| {}).unwrap().head
}

/// Accuracy on people nobody was trained on, after so many of their comparisons.
fn accuracy(head: &dyn Head, data: &TrainingData, examples: usize) -> f64 {
    let (mut right, mut all) = (0.0, 0.0);
    for person in &data.people {
        let (shown, asked) = person.comparisons.split_at(examples);
        let side = |rows: &[ItemComparison], of: fn(&ItemComparison) -> usize| {
            data.items.features(head, &rows.iter().map(of).collect::<Vec<_>>()).unwrap()
        };
        let (chosen, rejected) = (side(shown, |row| row.chosen), side(shown, |row| row.rejected));
        let observations: Vec<Observation<'_>> = (0..examples)
            .map(|at| Observation {
                chosen: chosen.row(at),
                rejected: rejected.row(at),
                names: data.items.names_of(&shown[at]),
                strength: 1.0,
                label_confidence: 1.0,
            })
            .collect();
        let state = head.adapt(&observations, None).unwrap();
        let (a, b) = (side(asked, |row| row.chosen), side(asked, |row| row.rejected));
        let margins = head.margins(&[state.view()], a.view(), b.view()).unwrap().mean;
        right += margins.iter().filter(|margin| **margin > 0.0).count() as f64;
        all += margins.len() as f64;
    }
    right / all
}

#[test]
fn two_opposite_tastes_are_told_apart_from_eight_examples() {
    let data = opposites(80, 24, 1);
    // Other people, other comparisons, the same texts.
    let unseen = relabelled(TrainingData { people: opposites(24, 24, 2).people, ..data.clone() });
    let config = config(30);
    for family in HeadFamily::ALL {
        let head = fit(&data, &config, family);
        let (none, eight) = (accuracy(head.as_ref(), &unseen, 0), accuracy(head.as_ref(), &unseen, 8));
        assert!((none - 0.5).abs() < 0.1, "{family} knows {none} of people it has not met");
        if family == HeadFamily::Bt {
            assert!((eight - 0.5).abs() < 0.1, "{family}: {eight}");
        } else {
            assert!(eight > 0.8, "{family}: {eight}");
        }
    }
}

#[test]
fn the_papers_own_forms_are_trained_where_they_are_asked_for() {
    let data = opposites(60, 24, 1);
    let unseen = relabelled(TrainingData { people: opposites(24, 24, 2).people, ..data.clone() });
    let hold_out = HoldOut::choose(&data.people, &data.items.names, 0).unwrap();
    let mut small = config(10);
    small.episodes.learning_rate = 1e-2;
    let pal_a = |distance, ideal_point| TrainConfig {
        pal_a: PalAConfig { prototypes: Some(8), distance, ideal_point, ..PalAConfig::default() },
        ..small.clone()
    };
    let pal_b = PalBConfig { prototypes: Some(4), normalised: true, ..PalBConfig::default() };
    let cases = [
        (HeadFamily::PalA, pal_a(Distance::Plain, IdealPoint::MixturePoints), 17),
        (HeadFamily::PalA, pal_a(Distance::Plain, IdealPoint::ProjectedMixture), 17),
        (HeadFamily::PalA, pal_a(Distance::Squared, IdealPoint::ProjectedMixture), 17),
        (HeadFamily::PalB, TrainConfig { pal_b, ..small.clone() }, 4 + 10 + 1),
    ];
    for (family, config, features) in cases {
        let fitting = Fitting::prepare(&data, &hold_out, &config, &[family], 0, &mut |_| {}).unwrap();
        let mut losses = Vec::new();
        let mut hear = |Progress::Epoch { loss, .. }| losses.push(loss);
        let head = fitting.fit(family, &mut hear).unwrap().head;
        assert!(losses[losses.len() - 1] < 0.95 * losses[0], "{family}: {losses:?}");
        assert_eq!(head.feature_len(), features, "{family}");
        let eight = accuracy(head.as_ref(), &unseen, 8);
        assert!(eight > 0.6, "{family} {:?}: {eight}", config.pal_a);
    }
}

/// The same people's comparisons as their tastes have it over the texts of the data.
fn relabelled(mut data: TrainingData) -> TrainingData {
    let response = data.items.response.as_ref().unwrap().clone();
    for (person, of_person) in data.people.iter_mut().enumerate() {
        for row in &mut of_person.comparisons {
            let taste = |item: usize| response.of(item)[0] + response.of(item)[1];
            if (taste(row.chosen) > taste(row.rejected)) != (person % 2 == 0) {
                (row.chosen, row.rejected) = (row.rejected, row.chosen);
            }
        }
    }
    data
}

#[test]
fn a_seed_gives_the_same_bytes_again() {
    let data = opposites(20, 10, 3);
    let bytes = |family, seed| {
        let config = config(2);
        let hold_out = HoldOut::choose(&data.people, &data.items.names, seed).unwrap();
        let fitting = Fitting::prepare(&data, &hold_out, &config, &[family], seed, &mut |_| {}).unwrap();
        let head = fitting.fit(family, &mut |_| {}).unwrap().head;
        write_head(head.as_ref(), &Array2::zeros((1, head.feature_len()))).unwrap()
    };
    for family in HeadFamily::ALL {
        assert_eq!(bytes(family, 5), bytes(family, 5), "{family}");
    }
    assert_ne!(bytes(HeadFamily::Lore, 5).1, bytes(HeadFamily::Lore, 6).1);
}

#[test]
fn a_text_form_that_only_misleads_is_not_read() {
    let mut data = opposites(40, 12, 4);
    data.items.prompt_response = Some(form(&mut ChaCha8Rng::seed_from_u64(99)));
    let hold_out = HoldOut::choose(&data.people, &data.items.names, 0).unwrap();
    let config = TrainConfig {
        episodes: EpisodeConfig { hidden: 16, ..EpisodeConfig::default() },
        ..TrainConfig::default()
    };
    let fitting = Fitting::prepare(&data, &hold_out, &config, &[HeadFamily::Lore], 0, &mut |_| {}).unwrap();
    assert_eq!(fitting.text_forms(), [TextForm::Response]);
}

#[test]
fn a_model_folder_says_how_right_the_head_is_by_number_of_examples() {
    let data = opposites(40, 40, 5);
    let hold_out = HoldOut::choose(&data.people, &data.items.names, 0).unwrap();
    let config = config(2);
    let fitting = Fitting::prepare(&data, &hold_out, &config, &[HeadFamily::Lore], 0, &mut |_| {}).unwrap();
    let trained = fitting.fit(HeadFamily::Lore, &mut |_| {}).unwrap();
    let models = tempfile::tempdir().unwrap();
    let provenance = Provenance {
        name: "lore".parse().unwrap(),
        backbone: BackboneCard { name: "made-up".into(), hash: "0".into(), dim: DIM },
        data_sha256: "0".into(),
        seed: 0,
        polyreward_version: "0".into(),
    };
    let folder = write_model(models.path(), &trained, &data, &hold_out, &provenance).unwrap();
    let shots: Vec<usize> = folder.evaluation.shots.iter().map(|shot| shot.examples).collect();
    assert_eq!(shots, [0, 1, 2, 4, 8, 16]);
    assert!(folder.evaluation.shots.iter().all(|shot| shot.summary.n > 0));
    let evaluation = fs::read_to_string(folder.path.join("evaluation.json")).unwrap();
    assert!(evaluation.contains("\"shots\"") && evaluation.contains("\"seen_people\""));
}

#[test]
fn data_that_cannot_teach_a_personal_head_says_so() {
    let refused = |data: &TrainingData, family| {
        let config = config(1);
        let hold_out = HoldOut::choose(&data.people, &data.items.names, 0).unwrap();
        Fitting::prepare(data, &hold_out, &config, &[family], 0, &mut |_| {})
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    let few = opposites(3, 10, 6);
    let text = refused(&few, HeadFamily::Lore).unwrap_err();
    assert!(text.contains("lore learns from how people differ") && text.contains("there are 2"), "{text}");
    let short = opposites(30, 2, 7);
    assert!(refused(&short, HeadFamily::Vpl).unwrap_err().contains("there are 0"));
    assert_eq!(refused(&few, HeadFamily::Bt), Ok(()));
    let mut ties = opposites(8, 5, 8);
    let hold_out = HoldOut::choose(&ties.people, &ties.items.names, 0).unwrap();
    for person in &hold_out.training {
        ties.people[*person].comparisons.iter_mut().for_each(|row| row.rejected = row.chosen);
    }
    assert!(refused(&ties, HeadFamily::Bt).unwrap_err().contains("is a tie"));
}

#[test]
fn people_who_compared_the_same_few_texts_can_be_held_out() {
    let mut data = opposites(20, 8, 9);
    for row in data.people.iter_mut().flat_map(|person| &mut person.comparisons) {
        let (chosen, rejected) = (row.chosen % 2, row.rejected % 2);
        (row.chosen, row.rejected) = if chosen == rejected { (0, 1) } else { (chosen, rejected) };
    }
    let head = fit(&data, &config(2), HeadFamily::Bt);
    assert!(accuracy(head.as_ref(), &data, 0).is_finite());
}

#[test]
fn a_configuration_out_of_range_is_refused_by_name() {
    let refused = |change: fn(&mut TrainConfig)| {
        let mut config = TrainConfig::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    assert!(TrainConfig::default().check().is_ok());
    assert!(refused(|c| c.lore.rank = Some(0)).contains("lore.rank"));
    assert!(refused(|c| c.episodes.text_forms = Some(vec![])).contains("episodes.text_forms"));
    assert!(refused(|c| c.episodes.dropout = 1.0).contains("episodes.dropout"));
    assert!(refused(|c| c.episodes.learning_rate = f64::NAN).contains("episodes.learning_rate"));
    assert!(refused(|c| c.pal_a.concentration = 0.0).contains("pal_a.concentration"));
    // What was trained before there was a choice is not trained again for it.
    let written = TrainConfig::default().of(HeadFamily::PalA)["head"].to_string();
    assert!(!written.contains("distance") && !written.contains("ideal_point"), "{written}");
    let read = serde_json::from_str::<TrainConfig>(
        r#"{"pal_a": {"distance": "plain", "ideal_point": "projected-mixture"}, "pal_b": {"normalised": true}}"#,
    );
    let read = read.unwrap();
    assert_eq!((read.pal_a.distance, read.pal_b.normalised), (Distance::Plain, true));
    assert_ne!(read.of(HeadFamily::PalB), TrainConfig::default().of(HeadFamily::PalB));
    assert!(refused(|c| c.micro.label_noise = 0.5).contains("micro.label_noise"));
}
