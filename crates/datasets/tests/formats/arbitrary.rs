//! Whatever the bytes are, reading ends, and neither panics nor loses count of a row.

use polyreward_datasets::Format;
use proptest::prelude::*;

use crate::support::{Files, gzip, parquet, read_paths, texts};

fn survives(bytes: &[u8]) {
    let files = Files::new();
    let survey = files.add("survey", bytes);
    let utterances = files.add("utterances", bytes);
    for format in Format::ALL {
        let paths = match format {
            Format::Prism => vec![survey.clone(), utterances.clone()],
            _ => vec![survey.clone()],
        };
        let Ok(read) = read_paths(&paths, format) else { continue };
        if format != Format::Prism {
            assert_eq!(read.summary.rows, read.rows.len() as u64);
            assert_eq!(read.summary.rejected, read.rejected_rows());
        }
        assert_eq!(read.summary.records, read.records().len() as u64);
    }
}

/// Pieces that get past the first checks.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "{\"chosen\":",
        "\"rejected\":",
        "\"user_id\":",
        "\"score\":",
        "\"turn\":",
        "\"if_chosen\":",
        "true",
        "1",
        "\"\\n\\nHuman: a\\n\\nAssistant: b\"",
        "\"a\"",
        ",",
        "}",
        "\n",
        "\"",
        "{",
        "[",
        "\u{0}",
        "\u{feff}",
        "é",
        "conversation_id",
        "annotator_id",
        "first_turn_prompt",
        "PAR1",
    ];
    prop_oneof![
        4 => proptest::sample::select(known.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        survives(&bytes);
    }

    #[test]
    fn pieces_of_files_never_panic(pieces in proptest::collection::vec(piece(), 0..40)) {
        let bytes = pieces.concat();
        survives(&bytes);
        survives(&gzip(&bytes));
    }

    #[test]
    fn a_damaged_table_never_panics(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let column = |text| texts((0..20).map(|_| Some(text)));
        let mut bytes = parquet(vec![
            ("user_id", column("ada")),
            ("chosen", column("\n\nHuman: a\n\nAssistant: b")),
            ("rejected", column("\n\nHuman: a\n\nAssistant: c")),
        ]);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives(&bytes);
    }
}
