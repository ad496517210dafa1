//! ONNX Runtime's library is loaded once per process, so this is one test in a binary of its own.

mod common;

use common::{fixtures, library, options};
use polyreward_backbone::{Backbone, BackboneError, BackboneOptions};

#[test]
fn a_library_that_cannot_be_used_is_an_error_and_a_good_one_still_loads_after_it() {
    let folder = fixtures().join("tiny-encoder");
    let with = |library| BackboneOptions { library: Some(library), ..options(1) };
    let missing = Backbone::open(&folder, &with("/nowhere/libonnxruntime.so".into())).unwrap_err();
    assert!(matches!(missing, BackboneError::Library { .. }));
    let message = missing.to_string();
    assert!(
        message.contains("/nowhere/libonnxruntime.so") && message.contains("ORT_DYLIB_PATH"),
        "{message}"
    );

    let no_library = Backbone::open(&folder, &with(folder.join("tokenizer.json"))).unwrap_err();
    assert!(matches!(no_library, BackboneError::Library { .. }), "{no_library}");

    assert!(Backbone::open(&folder, &with(library())).unwrap().is_ready());
}
