//! What training reads: people's comparisons, and texts as rows of numbers gathered when a step needs them.

use std::collections::HashMap;

use candle_core::Tensor;
use ndarray::Array1;
use polyreward_domain::TextForm;
use polyreward_heads::{EmbeddedForm, FormInput, Items, TextInput};
use rand_chacha::ChaCha8Rng;

use crate::{
    data::{HoldOut, TrainingData},
    error::TrainingError,
    network,
};

/// A comparison; the label is right with probability `1 - doubt`, which is at least one half.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pair {
    pub(crate) chosen: u32,
    pub(crate) rejected: u32,
    pub(crate) strength: f32,
    pub(crate) doubt: f32,
}

/// Trained people, each with their distinct comparisons.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) people: Vec<Vec<Pair>>,
    /// Comparisons of one person in a step at most.
    pub(crate) cap: usize,
}

/// A person may have at least this many comparisons in a step, whoever the others are.
const SMALLEST_CAP: usize = 24;
/// And at most this many.
const LARGEST_CAP: usize = 128;

impl Crowd {
    /// The comparisons trained on. One person's comparison of the same two items counts once, a label that is more likely
    /// wrong than right is turned around, a tie is left out.
    pub(crate) fn of(data: &TrainingData, hold_out: &HoldOut, cap: Option<usize>) -> Self {
        let mut people: Vec<Vec<Pair>> = Vec::new();
        let mut known: HashMap<(u32, u32), usize> = HashMap::new();
        let mut last = usize::MAX;
        for (person, row) in hold_out.training_rows(&data.people) {
            if person != last {
                people.push(Vec::new());
                known.clear();
                last = person;
            }
            let right = row.label_confidence >= 0.5;
            let (chosen, rejected) =
                if right { (row.chosen, row.rejected) } else { (row.rejected, row.chosen) };
            if chosen == rejected {
                continue;
            }
            let doubt = if right { 1.0 - row.label_confidence } else { row.label_confidence };
            let pair = Pair {
                chosen: chosen as u32,
                rejected: rejected as u32,
                strength: row.strength as f32,
                doubt: doubt as f32,
            };
            let of_person = people.last_mut().expect("a person was just added");
            match known.get(&(pair.chosen, pair.rejected)) {
                Some(at) if of_person[*at].strength < pair.strength => of_person[*at] = pair,
                Some(_) => {}
                None => {
                    known.insert((pair.chosen, pair.rejected), of_person.len());
                    of_person.push(pair);
                }
            }
        }
        people.retain(|person| !person.is_empty());
        let mut counts: Vec<usize> = people.iter().map(Vec::len).collect();
        counts.sort_unstable();
        let median = counts.get(counts.len() / 2).copied().unwrap_or(0);
        let cap = cap.unwrap_or((2 * median).clamp(SMALLEST_CAP, LARGEST_CAP));
        Self { people, cap }
    }

    /// The items in it, each once.
    pub(crate) fn items(&self) -> Vec<usize> {
        let pairs = self.people.iter().flatten();
        let mut items: Vec<usize> =
            pairs.flat_map(|pair| [pair.chosen as usize, pair.rejected as usize]).collect();
        items.sort_unstable();
        items.dedup();
        items
    }
}

/// One form as a network reads it.
struct Source<'a> {
    form: &'a EmbeddedForm,
    mean: Vec<f32>,
    factor: f32,
    /// Of every row, `[T]`.
    lengths: Vec<f32>,
}

/// The Euclidean length of an embedding, never 0.
fn length_of(row: &[f32]) -> f32 {
    row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(1e-12) as f32
}

/// Gathers rows of a [`TextInput`] by item.
pub(crate) struct Reader<'a> {
    input: TextInput,
    sources: Vec<Source<'a>>,
}

impl<'a> Reader<'a> {
    /// Centres and scales each form by the texts of the given items.
    pub(crate) fn fit(items: &'a Items, forms: &[TextForm], seen: &[usize]) -> Result<Self, TrainingError> {
        let mut inputs = Vec::new();
        let mut sources = Vec::new();
        for form in forms {
            let embedded = items.form(*form)?;
            let rows = &embedded.rows;
            let lengths: Vec<f32> = (0..rows.len()).map(|at| length_of(rows.row(at))).collect();
            let mut used: Vec<u32> = seen.iter().map(|item| embedded.of_item[*item]).collect();
            used.sort_unstable();
            used.dedup();
            let mut mean = Array1::<f64>::zeros(rows.dim());
            for at in used.iter().map(|row| *row as usize) {
                let (row, length) = (rows.row(at), f64::from(lengths[at]));
                mean.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x) / length);
            }
            mean /= used.len().max(1) as f64;
            let mut square = 0.0;
            for at in used.iter().map(|row| *row as usize) {
                let (row, length) = (rows.row(at), f64::from(lengths[at]));
                square +=
                    row.iter().zip(&mean).map(|(x, m)| (f64::from(*x) / length - m).powi(2)).sum::<f64>();
            }
            let scale = (square / (used.len().max(1) * mean.len()) as f64).sqrt().max(1e-3) as f32;
            let mean = mean.mapv(|m| m as f32);
            sources.push(Source { form: embedded, mean: mean.to_vec(), factor: 1.0 / scale, lengths });
            inputs.push(FormInput { form: *form, mean, scale });
        }
        Ok(Self { input: TextInput { forms: inputs }, sources })
    }

    /// How the head reads the same numbers.
    pub(crate) fn input(&self) -> TextInput {
        self.input.clone()
    }

    /// Numbers in a row.
    pub(crate) fn width(&self) -> usize {
        self.input.width()
    }

    /// A number for each item such that two items with the same number have the same row.
    pub(crate) fn key(&self, item: u32) -> u32 {
        self.sources[0].form.of_item[item as usize]
    }

    /// Rows of items, `[N, width]`, with some numbers left out.
    pub(crate) fn read(
        &self,
        items: &[u32],
        dropout: f32,
        rng: &mut ChaCha8Rng,
    ) -> Result<Tensor, TrainingError> {
        let mut values = Vec::with_capacity(items.len() * self.width());
        for item in items {
            for source in &self.sources {
                let at = source.form.of_item[*item as usize] as usize;
                let inverse = 1.0 / source.lengths[at];
                let row = source.form.rows.row(at);
                values.extend(row.iter().zip(&source.mean).map(|(x, m)| (x * inverse - m) * source.factor));
            }
        }
        network::drop_out(&mut values, dropout, rng);
        network::data(values, &[items.len(), self.width()])
    }
}
