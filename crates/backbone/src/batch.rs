//! Which texts run together: cuts of least cost, and the padded arrays of a batch.

use crate::folder::PaddingSide;
use crate::tokenize::TokenizedText;

/// Fixed work of one run of the model, in tokens' worth: measured on MiniLM, 2 cores.
pub const RUN_COST_TOKENS: usize = 24;

/// Cuts a sequence of lengths into batches so that the total cost is least.
///
/// A batch of `B` texts of which the longest has `L` tokens costs [`RUN_COST_TOKENS`]` + B * L`: padding is
/// paid for, and so is each run. `B * L` stays within `max_batch_tokens`, but a text that is longer alone
/// gets a batch of its own. Returns the end of each batch; the last is `lengths.len()`.
///
/// Batches are contiguous, so sort the lengths first. Dynamic programming over cut points: `O(N * B)`.
pub fn least_cost_cuts(lengths: &[usize], max_batch_tokens: usize) -> Vec<usize> {
    // least[end] is the least cost of the texts before `end`, and from[end] where its last batch starts.
    let mut least = vec![0_usize; lengths.len() + 1];
    let mut from = vec![0_usize; lengths.len() + 1];
    for end in 1..=lengths.len() {
        let mut longest = 0;
        least[end] = usize::MAX;
        for start in (0..end).rev() {
            longest = longest.max(lengths[start]);
            let padded = longest * (end - start);
            if padded > max_batch_tokens && end - start > 1 {
                break; // more texts only pad further
            }
            let cost = least[start] + RUN_COST_TOKENS + padded;
            if cost < least[end] {
                (least[end], from[end]) = (cost, start);
            }
        }
    }
    let mut cuts = Vec::new();
    let mut end = lengths.len();
    while end > 0 {
        cuts.push(end);
        end = from[end];
    }
    cuts.reverse();
    cuts
}

/// The arrays of one run: `[texts, width]`, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PaddedBatch {
    pub texts: usize,
    pub width: usize,
    /// Tokens without padding.
    pub tokens: usize,
    pub input_ids: Vec<i64>,
    pub attention_mask: Vec<i64>,
    pub token_type_ids: Vec<i64>,
    pub position_ids: Vec<i64>,
}

impl PaddedBatch {
    pub fn new(texts: &[&TokenizedText], side: PaddingSide, pad_id: u32) -> Self {
        let width = texts.iter().map(|text| text.ids.len()).max().unwrap_or(0);
        let cells = texts.len() * width;
        let mut batch = Self {
            texts: texts.len(),
            width,
            tokens: 0,
            input_ids: vec![i64::from(pad_id); cells],
            attention_mask: vec![0; cells],
            token_type_ids: vec![0; cells],
            position_ids: vec![0; cells],
        };
        for (row, text) in texts.iter().enumerate() {
            let length = text.ids.len();
            let start = row * width
                + match side {
                    PaddingSide::Left => width - length,
                    PaddingSide::Right => 0,
                };
            for (cell, ((id, type_id), position)) in
                (start..).zip(text.ids.iter().zip(&text.type_ids).zip(0..))
            {
                batch.input_ids[cell] = i64::from(*id);
                batch.token_type_ids[cell] = i64::from(*type_id);
                batch.attention_mask[cell] = 1;
                batch.position_ids[cell] = position;
            }
            batch.tokens += length;
        }
        batch
    }

    /// The mask of one text.
    pub fn mask(&self, row: usize) -> &[i64] {
        &self.attention_mask[row * self.width..(row + 1) * self.width]
    }

    /// Tokens with padding.
    pub fn padded_tokens(&self) -> usize {
        self.texts * self.width
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cost(lengths: &[usize], cuts: &[usize]) -> usize {
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        starts
            .zip(cuts)
            .map(|(start, end)| RUN_COST_TOKENS + lengths[start..*end].iter().max().unwrap() * (end - start))
            .sum()
    }

    fn fits(lengths: &[usize], cuts: &[usize], max: usize) -> bool {
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        starts.zip(cuts).all(|(start, end)| {
            end - start == 1 || lengths[start..*end].iter().max().unwrap() * (end - start) <= max
        })
    }

    /// Every way to cut, one bit a gap.
    fn brute_force(lengths: &[usize], max: usize) -> usize {
        let gaps = lengths.len() - 1;
        (0..1_u32 << gaps)
            .map(|bits| {
                let inner = (0..gaps).filter(|gap| bits >> gap & 1 == 1).map(|gap| gap + 1);
                inner.chain([lengths.len()]).collect::<Vec<_>>()
            })
            .filter(|cuts| fits(lengths, cuts, max))
            .map(|cuts| cost(lengths, &cuts))
            .min()
            .unwrap()
    }

    proptest! {
        #[test]
        fn no_other_cuts_cost_less(mut lengths in prop::collection::vec(1_usize..300, 1..10), max in 1_usize..1200) {
            lengths.sort_unstable();
            let cuts = least_cost_cuts(&lengths, max);
            prop_assert_eq!(cuts.last(), Some(&lengths.len()));
            prop_assert!(cuts.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(fits(&lengths, &cuts, max));
            prop_assert_eq!(cost(&lengths, &cuts), brute_force(&lengths, max));
        }
    }

    #[test]
    fn nothing_is_cut_into_no_batches() {
        assert!(least_cost_cuts(&[], 1024).is_empty());
        assert_eq!(least_cost_cuts(&[5000], 1024), [1]);
    }

    #[test]
    fn padding_goes_to_the_side_that_is_asked_for() {
        let short = TokenizedText::of_ids(vec![7]);
        let long = TokenizedText::of_ids(vec![8, 9]);
        let right = PaddedBatch::new(&[&short, &long], PaddingSide::Right, 1);
        assert_eq!(right.input_ids, [7, 1, 8, 9]);
        assert_eq!(right.attention_mask, [1, 0, 1, 1]);
        let left = PaddedBatch::new(&[&short, &long], PaddingSide::Left, 1);
        assert_eq!(left.input_ids, [1, 7, 8, 9]);
        assert_eq!(left.mask(0), [0, 1]);
        assert_eq!(left.position_ids, [0, 0, 0, 1]);
        assert_eq!((left.tokens, left.padded_tokens()), (3, 4));
    }
}
