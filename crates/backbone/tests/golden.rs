//! Embeddings equal those of a forward pass in float64 numpy, whatever shares the batch.
//! The golden files are made by `tools/make_test_backbones.py`; tolerances stand beside each comparison.

mod common;

use common::{
    GoldenItem, cached_backbone, cosine, embed, fixtures, golden, largest_difference, open, options,
};
use polyreward_backbone::{Backbone, BackboneOptions};
use polyreward_domain::Overflow;

/// Token ids and embeddings of the items, within `tolerance`.
async fn matches_golden(backbone: &Backbone, items: &[GoldenItem], tolerance: f32) {
    let inputs: Vec<_> = items.iter().map(GoldenItem::input).collect();
    let tokens = backbone.tokenize(&inputs, Overflow::Truncate);
    let embedded = embed(backbone, items).await;
    for ((item, text), embedded) in items.iter().zip(tokens).zip(embedded) {
        let text = text.unwrap();
        assert_eq!(text.ids, item.token_ids, "{:?}", item.response);
        assert_eq!((text.truncated, embedded.truncated), (item.truncated, item.truncated));
        assert_eq!(embedded.tokens, item.token_ids.len());
        let difference = largest_difference(&embedded.embedding, &item.embedding);
        assert!(difference <= tolerance, "{:?} differs by {difference}", item.response);
    }
}

/// Each item alone and in batches of every composition gives the same, within `1e-5`.
async fn is_the_same_in_any_batch(backbone: &Backbone, items: &[GoldenItem]) {
    let mut alone = Vec::new();
    for item in items {
        alone.extend(embed(backbone, std::slice::from_ref(item)).await);
    }
    for size in [2, 3, 5, items.len()] {
        for start in 0..items.len() {
            let chosen: Vec<usize> = (0..size).map(|step| (start + step * step) % items.len()).collect();
            let batch: Vec<GoldenItem> = chosen.iter().map(|at| items[*at].clone()).collect();
            for (at, together) in chosen.iter().zip(embed(backbone, &batch).await) {
                let difference = largest_difference(&alone[*at].embedding, &together.embedding);
                assert!(difference <= 1e-5, "item {at} in a batch of {size} differs by {difference}");
            }
        }
    }
}

/// One session, and batches that hold whatever arrives together.
fn one_batch() -> BackboneOptions {
    BackboneOptions { max_batch_tokens: 1 << 20, ..options(1) }
}

#[tokio::test]
async fn a_small_encoder_gives_the_golden_embeddings() {
    let backbone = open(&fixtures().join("tiny-encoder"), &options(2));
    matches_golden(&backbone, &golden("tiny-encoder/golden.json"), 1e-5).await;
}

#[tokio::test]
async fn a_small_encoder_with_token_types_and_cls_pooling_gives_the_golden_embeddings() {
    let backbone = open(&fixtures().join("tiny-encoder-cls"), &options(1));
    matches_golden(&backbone, &golden("tiny-encoder-cls/golden.json"), 1e-5).await;
}

#[tokio::test]
async fn a_small_decoder_with_a_chat_template_gives_the_golden_embeddings() {
    let backbone = open(&fixtures().join("tiny-decoder"), &options(1));
    let items = golden("tiny-decoder/golden.json");
    assert!(items.iter().any(|item| item.truncated), "no chat of the file is too long");
    matches_golden(&backbone, &items, 1e-5).await;
}

#[tokio::test]
async fn small_backbones_give_the_same_in_any_batch() {
    for name in ["tiny-encoder", "tiny-encoder-cls", "tiny-decoder"] {
        let items = golden(&format!("{name}/golden.json"));
        is_the_same_in_any_batch(&open(&fixtures().join(name), &one_batch()), &items).await;
    }
}

#[tokio::test]
async fn minilm_in_float32_gives_the_golden_embeddings_in_any_batch() {
    let items = golden("minilm-golden.json");
    let backbone = open(&cached_backbone("all-minilm-l6-v2-fp32"), &one_batch());
    matches_golden(&backbone, &items, 1e-4).await;
    is_the_same_in_any_batch(&backbone, &items).await;
}

#[tokio::test]
async fn minilm_in_int8_is_near_the_golden_embeddings_and_the_same_in_any_batch() {
    let items = golden("minilm-golden.json");
    let backbone = open(&cached_backbone("all-minilm-l6-v2-int8"), &one_batch());
    let embedded = embed(&backbone, &items).await;
    let cosines = items.iter().zip(&embedded).map(|(item, got)| cosine(&item.embedding, &got.embedding));
    let mean = cosines.sum::<f32>() / items.len() as f32;
    assert!(mean >= 0.995, "mean cosine {mean}");
    is_the_same_in_any_batch(&backbone, &items).await;
}

#[tokio::test]
async fn many_callers_over_two_sessions_each_get_their_own() {
    let items = golden("tiny-encoder/golden.json");
    let backbone = open(&fixtures().join("tiny-encoder"), &options(2));
    let callers: Vec<_> = (0..50)
        .map(|caller| {
            let (backbone, items) = (backbone.clone(), items.clone());
            tokio::spawn(async move {
                let mine: Vec<GoldenItem> = items.iter().cycle().skip(caller).take(7).cloned().collect();
                for (item, got) in mine.iter().zip(embed(&backbone, &mine).await) {
                    assert!(largest_difference(&item.embedding, &got.embedding) <= 1e-5);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(backbone.queued_texts(), 0);
}
