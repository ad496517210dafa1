//! Data sets in memory and through a file are the same data sets.

use std::path::Path;

use polyreward_backbone::{Backbone, BackboneOptions, EmbeddingFile};
use polyreward_domain::{
    Attributes, Comparison, ComparisonRecord, LabelConfidence, Message, Prompt, Strength, TextForm, TextForms,
};
use polyreward_heads::ItemComparison;
use polyreward_service::{CorpusError, StreamedCorpus, embed_corpus, embed_stream};

fn backbone() -> Backbone {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backbone/tests/fixtures/tiny-encoder");
    // Alone, so that a text's embedding does not hang on its neighbours.
    let options = BackboneOptions { max_batch_tokens: 1, ..BackboneOptions::default() };
    Backbone::open(&folder, &options).unwrap()
}

/// Comparisons whose prompts and responses come again, of every kind of prompt.
fn records(count: usize) -> Vec<ComparisonRecord> {
    let prompt = |at: usize| match at % 4 {
        0 => Prompt::default(),
        1 => Prompt::Text("A drink?".into()),
        2 => Prompt::Raw("A drink?".into()),
        _ => Prompt::Chat(vec![Message { role: "user".into(), content: "A drink?".into() }]),
    };
    let response = |at: usize| format!("answer {}", at % 37);
    (0..count)
        .map(|at| ComparisonRecord {
            user_id: format!("p{}", at % 5).parse().unwrap(),
            attributes: Attributes::new(),
            comparison: Comparison {
                prompt: prompt(at / 3),
                chosen: response(at * at),
                rejected: response(7 * at + 1),
                strength: Strength::default(),
                label_confidence: LabelConfidence::default(),
                rationale: None,
            },
            split: None,
            tags: Vec::new(),
            id: None,
            created_at: None,
        })
        .collect()
}

fn streamed(
    backbone: &Backbone,
    file: &Path,
    records: &[ComparisonRecord],
    forms: TextForms,
) -> (StreamedCorpus, Vec<ItemComparison>) {
    let mut comparisons = Vec::new();
    let records = records.iter().map(|record| Ok::<_, CorpusError>(record.clone()));
    let opened = EmbeddingFile::open(file, backbone.info()).unwrap();
    let corpus = embed_stream(backbone, opened, records, forms, |_, comparison| {
        comparisons.push(comparison);
        Ok(())
    });
    (corpus.unwrap(), comparisons)
}

#[test]
fn a_streamed_corpus_is_the_one_in_memory_bit_for_bit_however_its_file_came_to_be() {
    let backbone = backbone();
    let all: TextForms = TextForm::ALL.into_iter().collect();
    let records = records(200);
    let in_memory = embed_corpus(&backbone, &records, all, &mut |_, _| ()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (fresh, used) = (folder.path().join("fresh"), folder.path().join("used"));
    // Other records, in another order and of one form, were there before.
    let others: Vec<ComparisonRecord> = records.iter().skip(90).step_by(2).rev().cloned().collect();
    streamed(&backbone, &used, &others, TextForms::only(TextForm::Response));
    for (file, expected) in [(&fresh, false), (&used, false), (&fresh, true)] {
        let (corpus, comparisons) = streamed(&backbone, file, &records, all);
        assert_eq!(comparisons, in_memory.comparisons);
        assert_eq!((corpus.items.len, &corpus.items.names), (in_memory.items.len, &in_memory.items.names));
        assert_eq!((corpus.texts, corpus.truncated), (in_memory.texts, in_memory.truncated));
        assert_eq!(corpus.encoded == 0, expected, "{} of {} encoded", corpus.encoded, corpus.texts);
        for form in TextForm::ALL {
            let (ours, theirs) = (corpus.items.form(form).unwrap(), in_memory.items.form(form).unwrap());
            assert_eq!(ours.of_item, theirs.of_item, "{form}");
            assert_eq!(ours.rows.len(), theirs.rows.len(), "{form}");
            for row in 0..ours.rows.len() {
                let bits = |row: &[f32]| -> Vec<u32> { row.iter().map(|x| x.to_bits()).collect() };
                assert_eq!(bits(ours.rows.row(row)), bits(theirs.rows.row(row)), "{form}, row {row}");
            }
        }
    }
    backbone.shutdown();
}
