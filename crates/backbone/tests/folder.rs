//! A folder that is not what it says is refused, and the error names the file.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{embed, fixtures, golden, largest_difference, library, open, options};
use polyreward_backbone::{Backbone, BackboneError, EmbedInput, library_version};
use polyreward_domain::{Overflow, Prompt, TextForm};
use serde_json::{Value, json};
use tempfile::TempDir;

fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(fixtures().join(name)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("backbone.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
}

fn refusal(folder: &Path) -> BackboneError {
    match Backbone::open(folder, &options(1)) {
        Ok(backbone) => panic!("{backbone:?} was opened"),
        Err(error) => error,
    }
}

#[test]
fn a_whole_folder_is_described() {
    let backbone = open(&fixtures().join("tiny-encoder"), &options(1));
    let info = backbone.info();
    assert_eq!((info.name.as_str(), info.dim, info.max_tokens), ("tiny-encoder", 32, 64));
    assert_eq!(info.precision.as_deref(), Some("fp32"));
    assert_eq!(info.hash.len(), 64);
    assert!(backbone.is_ready());
    let other = open(&fixtures().join("tiny-encoder-cls"), &options(1));
    assert_ne!(other.info().hash, info.hash);
    assert!(library_version(Some(&library())).unwrap().contains("ORT"));
    assert_eq!(golden("tiny-encoder/golden.json")[0].embedding.len(), info.dim);
}

#[tokio::test]
async fn a_folder_that_joins_prompt_and_response_embeds_them_as_one_text() {
    let folder = copy("tiny-encoder");
    edit(folder.path(), |config| config["input"] = json!("concat"));
    let concat = open(folder.path(), &options(1));
    let pair = open(&fixtures().join("tiny-encoder"), &options(1));
    assert_ne!(concat.info().hash, pair.info().hash);
    for item in golden("tiny-encoder/golden.json") {
        let Prompt::Text(prompt) = &item.prompt else { continue };
        // One segment is the same in either shape.
        let joined = EmbedInput {
            form: TextForm::Response,
            prompt: Arc::default(),
            response: format!("{prompt}\n{}", item.response).into(),
        };
        let expected = pair.embed(vec![joined], Overflow::Truncate, None).await.unwrap().remove(0).unwrap();
        let embedded = embed(&concat, std::slice::from_ref(&item)).await.remove(0);
        assert!(largest_difference(&embedded.embedding, &expected.embedding) <= 1e-5, "{:?}", item.response);
        assert_eq!((embedded.tokens, embedded.truncated), (expected.tokens, expected.truncated));
    }
}

#[test]
fn a_missing_file_is_named() {
    for file in ["backbone.json", "model.onnx", "tokenizer.json"] {
        let folder = copy("tiny-encoder");
        std::fs::remove_file(folder.path().join(file)).unwrap();
        let error = refusal(folder.path());
        assert!(matches!(&error, BackboneError::File { path, .. } if path.ends_with(file)), "{error}");
    }
    let folder = copy("tiny-decoder");
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    assert!(refusal(folder.path()).to_string().contains("chat_template.jinja"));
    assert!(matches!(refusal(&fixtures().join("nowhere")), BackboneError::File { .. }));
}

#[test]
fn a_changed_file_is_refused() {
    for file in ["model.onnx", "tokenizer.json"] {
        let folder = copy("tiny-encoder");
        let path = folder.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = refusal(folder.path());
        assert!(
            matches!(&error, BackboneError::HashMismatch { path, .. } if path.ends_with(file)),
            "{error}"
        );
    }
}

#[test]
fn a_description_with_an_unknown_or_missing_field_is_refused() {
    let folder = copy("tiny-encoder");
    edit(folder.path(), |config| config["max_token"] = json!(5));
    assert!(refusal(folder.path()).to_string().contains("max_token"));
    let folder = copy("tiny-encoder");
    edit(folder.path(), |config| drop(config.as_object_mut().unwrap().remove("dim")));
    assert!(refusal(folder.path()).to_string().contains("dim"));
    let folder = copy("tiny-encoder");
    edit(folder.path(), |config| config["format"] = json!(2));
    assert!(matches!(refusal(folder.path()), BackboneError::BadConfig { .. }));
}

#[test]
fn a_description_that_the_model_does_not_bear_out_is_refused() {
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 3] = [
        (|config| config["dim"] = json!(33), "shape"),
        (|config| config["pooling"] = json!("none"), "shape"),
        (|config| config["output"] = json!("elsewhere"), "elsewhere"),
    ];
    for (change, word) in changes {
        let folder = copy("tiny-encoder");
        edit(folder.path(), change);
        let error = refusal(folder.path());
        assert!(matches!(&error, BackboneError::Session(detail) if detail.contains(word)), "{error}");
    }
}

#[test]
fn special_tokens_that_the_tokenizer_does_not_know_are_refused() {
    let folder = copy("tiny-decoder");
    edit(folder.path(), |config| config["bos_token"] = json!("<begin>"));
    assert!(refusal(folder.path()).to_string().contains("<begin>"));
    let folder = copy("tiny-encoder");
    edit(folder.path(), |config| config["max_tokens"] = json!(3));
    assert!(refusal(folder.path()).to_string().contains("window"));
}

#[test]
fn a_template_that_does_not_parse_is_refused() {
    let folder = copy("tiny-decoder");
    std::fs::write(folder.path().join("chat_template.jinja"), "{% for %}").unwrap();
    assert!(matches!(refusal(folder.path()), BackboneError::BadConfig { .. }));
}

#[test]
fn a_file_too_large_is_not_read() {
    let folder = copy("tiny-encoder");
    let model = std::fs::File::options().write(true).open(folder.path().join("model.onnx")).unwrap();
    model.set_len(3 << 30).unwrap(); // sparse
    let error = refusal(folder.path());
    assert!(matches!(error, BackboneError::TooLarge { size, .. } if size == 3 << 30), "{error}");
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_not_followed() {
    let folder = copy("tiny-encoder");
    let path = folder.path().join("model.onnx");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(fixtures().join("tiny-encoder/model.onnx"), &path).unwrap();
    let error = refusal(folder.path());
    assert!(
        matches!(&error, BackboneError::BadConfig { detail, .. } if detail.contains("outside")),
        "{error}"
    );
}
