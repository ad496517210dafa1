//! Folders of models, sound and not.

use std::os::unix::fs::symlink;

use ndarray::Array1;
use polyreward_backbone::{InputShape, Pooling};
use polyreward_domain::{HeadFamily, TextForm};
use polyreward_heads::{
    BackboneCard, BradleyTerry, BtParameters, CARD_FORMAT, Calibration, FormInput, Layer, RewardStatistics,
    TextInput, TrainingDataCard, Trunk, sha256_hex, write_head,
};
use serde_json::json;
use tempfile::TempDir;

use super::*;

const DIM: usize = 4;

fn backbone() -> BackboneInfo {
    BackboneInfo {
        name: "tiny".into(),
        hash: "ab".repeat(32),
        dim: DIM,
        max_tokens: 16,
        precision: None,
        input: InputShape::Pair,
        pooling: Pooling::Mean,
        licence: None,
        source: None,
    }
}

/// A models folder.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> ModelRegistry {
        ModelRegistry::open(self.0.path(), backbone()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a Bradley-Terry model of so many dimensions, all weights `weight`.
    fn write(&self, name: &str, version: &str, dim: usize, weight: f32) {
        let form = FormInput { form: TextForm::PromptResponse, mean: Array1::zeros(dim), scale: 1.0 };
        let trunk = Trunk {
            input: TextInput { forms: vec![form] },
            hidden: None,
            population: Layer { weight: Array2::from_elem((1, dim), weight), bias: Array1::zeros(1) },
        };
        let head = BradleyTerry::new(BtParameters { trunk, weights_covariance: None }).unwrap();
        let (hyperparameters, weights) = write_head(&head, &Array2::zeros((1, dim))).unwrap();
        let card = ModelCard {
            format: CARD_FORMAT,
            name: name.parse().unwrap(),
            version: version.parse().unwrap(),
            head: HeadFamily::Bt,
            backbone: BackboneCard { name: "tiny".into(), hash: backbone().hash, dim: DIM },
            hyperparameters,
            training: Value::Null,
            seed: 0,
            training_data: TrainingDataCard {
                sha256: "cd".into(),
                people: 2,
                comparisons: 9,
                validation_people: 1,
                validation_comparisons: 3,
                held_out_comparisons: 1,
            },
            reward_statistics: RewardStatistics { mean: 0.0, standard_deviation: 1.0, responses: 4 },
            calibration: Calibration::default(),
            weights_sha256: sha256_hex(&weights),
            polyreward_version: "0.1.0".into(),
        };
        let folder = self.path(name).join(version);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("model.json"), serde_json::to_vec(&card).unwrap()).unwrap();
        fs::write(folder.join("head.safetensors"), weights).unwrap();
        fs::write(folder.join("evaluation.json"), json!({"validation": {"log_loss": 0.5}}).to_string())
            .unwrap();
    }
}

fn names(registry: &ModelRegistry) -> Vec<String> {
    registry.registered().models().map(|model| model.reference.to_string()).collect()
}

/// The only failure of a registry.
#[track_caller]
fn failure(registered: &Registered) -> &FailedModel {
    let [failed] = registered.failed() else { panic!("{:?}", registered.failed()) };
    failed
}

#[test]
fn a_folder_that_is_not_sound_is_reported_beside_one_that_is() {
    type Damage = fn(&Place);
    let damages: [(Damage, &str); 7] = [
        (|place| fs::write(place.path("bad/1/model.json"), "{\"format\": 1").unwrap(), "model.json is not"),
        (|place| fs::write(place.path("bad/1/evaluation.json"), "{").unwrap(), "evaluation.json is not JSON"),
        // Its hash is right, and its shape is another backbone's.
        (|place| place.write("bad", "1", DIM + 1, 1.0), "embeddings of length 5"),
        // Its weights are finite, and its rewards are not.
        (|place| place.write("bad", "1", DIM, f32::MAX), "a reward is not finite"),
        (
            |place| {
                let outside = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
                fs::remove_file(place.path("bad/1/head.safetensors")).unwrap();
                symlink(outside, place.path("bad/1/head.safetensors")).unwrap();
            },
            "leads out of the models folder",
        ),
        (
            |place| fs::rename(place.path("bad/1"), place.path("bad/2")).unwrap(),
            "names bad@1, its folder bad@2",
        ),
        (
            |place| {
                fs::remove_file(place.path("bad/1/model.json")).unwrap();
                fs::create_dir(place.path("bad/1/model.json")).unwrap();
            },
            "is not a plain file",
        ),
    ];
    for (damage, word) in damages {
        let place = Place::new();
        place.write("good", "1", DIM, 1.0);
        place.write("bad", "1", DIM, 1.0);
        assert_eq!(names(&place.open()), ["bad@1", "good@1"]);
        damage(&place);
        let registry = place.open();
        assert_eq!(names(&registry), ["good@1"], "{word}");
        let registered = registry.registered();
        let failed = failure(&registered);
        assert!(failed.detail.contains(word) && !failed.still_serving, "{failed:?}");
        assert!(!failed.detail.contains(place.0.path().to_str().unwrap()), "{failed:?}");
    }
}

#[test]
fn a_name_that_cannot_be_listed_keeps_the_versions_that_were_loaded() {
    let place = Place::new();
    for (name, version) in [("bt", "1"), ("bt", "2"), ("other", "1")] {
        place.write(name, version, DIM, 1.0);
    }
    let registry = place.open();
    let before = registry.registered();
    // A link to itself can be neither looked at nor listed, not even by root.
    fs::rename(place.path("bt"), place.path(".bt")).unwrap();
    symlink("bt", place.path("bt")).unwrap();
    let report = registry.reload().unwrap();
    assert!(report.removed.is_empty() && report.added.is_empty(), "{report:?}");
    let registered = registry.registered();
    assert_eq!(names(&registry), ["bt@1", "bt@2", "other@1"]);
    assert!(registered.models().zip(before.models()).all(|(now, then)| Arc::ptr_eq(now, then)));
    let failed = failure(&registered);
    assert_eq!((failed.folder.as_str(), failed.still_serving), ("bt", true));
    // Whoever never read it has nothing to serve.
    let fresh = place.open();
    assert_eq!(names(&fresh), ["other@1"]);
    assert!(!failure(&fresh.registered()).still_serving);
    // One that is gone is gone.
    fs::remove_file(place.path("bt")).unwrap();
    assert_eq!(registry.reload().unwrap().removed.len(), 2);
}

#[test]
fn a_default_that_cannot_be_read_is_passed_over() {
    let place = Place::new();
    place.write("bt", "1", DIM, 1.0);
    let path = place.path(DEFAULT_FILE);
    let registry = place.open();
    fs::create_dir(&path).unwrap();
    registry.reload().unwrap();
    assert_eq!(names(&place.open()), ["bt@1"]);
    fs::remove_dir(&path).unwrap();
    fs::File::create(&path).unwrap().set_len(MAX_JSON_BYTES + 1).unwrap(); // sparse
    registry.reload().unwrap();
    fs::write(&path, "{").unwrap();
    registry.reload().unwrap();
    assert_eq!(registry.registered().default_model().unwrap().reference.to_string(), "bt@1");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let place = Place::new();
    place.write("bt", "1", DIM, 1.0);
    let file = fs::File::options().write(true).open(place.path("bt/1/model.json")).unwrap();
    file.set_len(MAX_JSON_BYTES + 1).unwrap();
    assert!(failure(&place.open().registered()).detail.contains("more than the"));
    // Nor one whose size says nothing, as those of the kernel do.
    let registry = ModelRegistry { folder: "/proc".into(), ..place.open() };
    let endless = Path::new("/proc/self/maps");
    if endless.exists() {
        assert!(matches!(registry.read(endless, 10), Err(RegistryError::TooLarge { bytes: 11, .. })));
    }
}
