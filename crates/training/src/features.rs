//! Features of items under a head, of as many items at a time as memory should hold.

use std::collections::HashMap;

use ndarray::{Array2, ArrayView1};
use polyreward_heads::{Head, Items};

use crate::error::TrainingError;

/// Comparisons, or people's comparisons, whose items' features are held at once: however many there are in all.
pub(crate) const COMPARISONS_AT_ONCE: usize = 4096;

/// The features of some items, each once.
#[derive(Debug)]
pub(crate) struct ItemFeatures {
    rows: Array2<f32>,
    position: HashMap<usize, usize>,
}

impl ItemFeatures {
    pub(crate) fn of(
        items: &Items,
        head: &dyn Head,
        wanted: impl IntoIterator<Item = usize>,
    ) -> Result<Self, TrainingError> {
        let mut distinct: Vec<usize> = wanted.into_iter().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let rows = items.features(head, &distinct)?;
        let position = distinct.into_iter().enumerate().map(|(at, item)| (item, at)).collect();
        Ok(Self { rows, position })
    }

    /// An item's features, `[F]`.
    pub(crate) fn row(&self, item: usize) -> ArrayView1<'_, f32> {
        self.rows.row(self.position[&item])
    }

    /// The features of items one below another, `[N, F]`.
    pub(crate) fn rows(&self, items: impl ExactSizeIterator<Item = usize>) -> Array2<f32> {
        let mut rows = Array2::zeros((items.len(), self.rows.ncols()));
        for (mut row, item) in rows.rows_mut().into_iter().zip(items) {
            row.assign(&self.row(item));
        }
        rows
    }
}

/// Where to cut a list so that the lengths in a part add up to [`COMPARISONS_AT_ONCE`] at most, or are of one alone.
pub(crate) fn parts<T>(list: &[T], length: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |one: &&T| {
            sum += length(one);
            sum <= COMPARISONS_AT_ONCE
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (part, behind) = rest.split_at(count);
        rest = behind;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_everything_in_order_and_little_at_once() {
        let lengths = [1, 4095, 1, 9000, 2, 2];
        let cut: Vec<&[usize]> = parts(&lengths, |length| *length).collect();
        assert_eq!(cut, [&[1, 4095][..], &[1], &[9000], &[2, 2]]);
        assert_eq!(parts(&[] as &[usize], |length| *length).count(), 0);
    }
}
