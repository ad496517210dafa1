//! Which texts a request needs, and where their embeddings go.

use std::{collections::HashMap, ops::Range, sync::Arc};

use ndarray::Array2;
use polyreward_backbone::{EmbedInput, Embedded, InputError};
use polyreward_domain::{Prompt, TextForm, TextForms};
use polyreward_heads::{HeadError, TextEmbeddings};

use super::{Fault, Part, Work};
use crate::registry::Model;

/// Which texts a request needs, each once, and where they go.
pub(crate) struct Plan {
    /// What the backbone is asked for.
    pub inputs: Vec<EmbedInput>,
    /// For every response of the request in turn: its inputs, one a form of the head.
    pub rows: Vec<Vec<usize>>,
    /// The forms, in the order of the inputs of a row.
    forms: Vec<TextForm>,
    /// For every pair or item: its first row and number of rows.
    pub groups: Vec<(usize, usize)>,
    /// Whether the groups are pairs.
    pub pairs: bool,
}

impl Plan {
    pub fn of(work: &Work, forms: TextForms) -> Self {
        let mut plan = Self {
            inputs: Vec::new(),
            rows: Vec::new(),
            forms: forms.iter().collect(),
            groups: Vec::new(),
            pairs: matches!(work, Work::Pairs(_)),
        };
        let mut known = Known::default();
        match work {
            Work::Pairs(pairs) => {
                for pair in pairs {
                    plan.add_group(&pair.prompt, [&pair.response_a, &pair.response_b], &mut known);
                }
            }
            Work::Items(items) => {
                for item in items {
                    plan.add_group(&item.prompt, &item.responses, &mut known);
                }
            }
        }
        plan
    }

    fn add_group<'a>(
        &mut self,
        prompt: &'a Arc<Prompt>,
        responses: impl IntoIterator<Item = &'a Arc<str>>,
        known: &mut Known<'a>,
    ) {
        let first = self.rows.len();
        let prompt_at = known.prompt(prompt);
        // Ids are a whole text, of which a response's form reads as much.
        let is_whole = matches!(**prompt, Prompt::Tokens(_));
        for response in responses {
            let response_at = number(&mut known.responses, &**response);
            let row = self.forms.iter().map(|form| {
                let key = match form {
                    TextForm::PromptResponse => (*form, Some(prompt_at), Some(response_at)),
                    TextForm::Prompt => (*form, Some(prompt_at), None),
                    TextForm::Response => (*form, is_whole.then_some(prompt_at), Some(response_at)),
                };
                *known.inputs.entry(key).or_insert_with(|| {
                    let input = EmbedInput {
                        form: *form,
                        prompt: Arc::clone(prompt),
                        response: Arc::clone(response),
                    };
                    self.inputs.push(input);
                    self.inputs.len() - 1
                })
            });
            let row = row.collect();
            self.rows.push(row);
        }
        self.groups.push((first, self.rows.len() - first));
    }

    /// The first fault of every group, if it has one.
    pub fn faults(&self, embedded: &[Result<Embedded, InputError>]) -> Vec<Option<Fault>> {
        let fault = |at: usize, &(first, len): &(usize, usize)| {
            (0..len).find_map(|position| {
                let error =
                    self.rows[first + position].iter().find_map(|input| embedded[*input].as_ref().err())?;
                Some(Fault { at, part: self.part(position), error: error.clone() })
            })
        };
        self.groups.iter().enumerate().map(|(at, group)| fault(at, group)).collect()
    }

    /// What a position in a group is called.
    pub fn part(&self, position: usize) -> Part {
        match (self.pairs, position) {
            (true, 0) => Part::ResponseA,
            (true, _) => Part::ResponseB,
            (false, position) => Part::Response(position),
        }
    }

    /// Features of every response, `[rows, F]`; of zeros where a text has no embedding or its row is left out.
    pub fn features(
        &self,
        model: &Model,
        embedded: &[Result<Embedded, InputError>],
        left_out: &[usize],
    ) -> Result<Array2<f32>, HeadError> {
        self.features_of(model, embedded, 0..self.rows.len(), left_out)
    }

    pub fn features_of(
        &self,
        model: &Model,
        embedded: &[Result<Embedded, InputError>],
        rows: Range<usize>,
        left_out: &[usize],
    ) -> Result<Array2<f32>, HeadError> {
        let dim = model.head.embedding_dim();
        let mut matrices: Vec<Array2<f32>> =
            self.forms.iter().map(|_| Array2::zeros((rows.len(), dim))).collect();
        for (to, from) in rows.enumerate().filter(|(_, row)| !left_out.contains(row)) {
            for (matrix, input) in matrices.iter_mut().zip(&self.rows[from]) {
                if let Ok(text) = &embedded[*input] {
                    matrix.row_mut(to).assign(&ndarray::ArrayView1::from(&*text.embedding));
                }
            }
        }
        let texts = self
            .forms
            .iter()
            .zip(&matrices)
            .fold(TextEmbeddings::default(), |texts, (form, rows)| texts.with(*form, rows.view()));
        model.head.features(&texts)
    }

    /// Tokens of a group's texts.
    pub fn tokens(&self, (first, len): (usize, usize), embedded: &[Result<Embedded, InputError>]) -> usize {
        let texts = self.rows[first..first + len].iter().flatten();
        texts.filter_map(|input| embedded[*input].as_ref().ok()).map(|text| text.tokens).sum()
    }

    pub fn truncated(&self, group: (usize, usize), embedded: &[Result<Embedded, InputError>]) -> bool {
        self.rows[group.0..group.0 + group.1]
            .iter()
            .flatten()
            .any(|input| embedded[*input].as_ref().is_ok_and(|text| text.truncated))
    }
}

/// Texts by number: each is hashed once for every place it stands in, not once for every response beside it.
#[derive(Default)]
struct Known<'a> {
    prompts: HashMap<&'a Prompt, usize>,
    /// The same by where they are: one that many items share is hashed once.
    places: HashMap<*const Prompt, usize>,
    responses: HashMap<&'a str, usize>,
    inputs: HashMap<(TextForm, Option<usize>, Option<usize>), usize>,
}

impl<'a> Known<'a> {
    fn prompt(&mut self, prompt: &'a Arc<Prompt>) -> usize {
        let prompts = &mut self.prompts;
        *self.places.entry(Arc::as_ptr(prompt)).or_insert_with(|| number(prompts, &**prompt))
    }
}

/// The number of a text, the next free one where it is new.
fn number<T: std::hash::Hash + Eq>(known: &mut HashMap<T, usize>, text: T) -> usize {
    let next = known.len();
    *known.entry(text).or_insert(next)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::score::{Item, Pair};

    fn text(text: &str) -> Arc<Prompt> {
        Arc::new(Prompt::Text(text.into()))
    }

    #[test]
    fn a_text_that_stands_in_several_places_is_embedded_once() {
        let pair = |prompt: &str, a: &str, b: &str| Pair {
            prompt: text(prompt),
            response_a: a.into(),
            response_b: b.into(),
        };
        let work = Work::Pairs(vec![pair("p", "a", "b"), pair("p", "b", "c"), pair("q", "a", "a")]);
        let both: TextForms = [TextForm::Prompt, TextForm::PromptResponse].into_iter().collect();
        let plan = Plan::of(&work, both);
        assert_eq!(plan.inputs.len(), 2 + 4);
        assert_eq!(plan.rows[1], plan.rows[2]);
        assert_eq!(plan.rows[4], plan.rows[5]);
        assert_eq!(plan.groups, [(0, 2), (2, 2), (4, 2)]);
        assert_eq!(Plan::of(&work, TextForms::only(TextForm::Response)).inputs.len(), 3);
    }

    #[test]
    fn ids_are_told_apart_in_every_form_but_the_prompts() {
        let ids =
            |ids: &[u32]| Item { prompt: Arc::new(Prompt::Tokens(ids.to_vec())), responses: vec!["".into()] };
        let work = Work::Items(vec![ids(&[1]), ids(&[2]), ids(&[1])]);
        for form in [TextForm::Response, TextForm::PromptResponse] {
            let plan = Plan::of(&work, TextForms::only(form));
            assert_eq!((plan.inputs.len(), plan.rows[0] == plan.rows[2]), (2, true), "{form:?}");
        }
    }

    #[test]
    fn a_long_prompt_is_not_read_again_for_every_response() {
        let responses = (0..1024).map(|n: usize| n.to_string().into()).collect();
        let work = Work::Items(vec![Item { prompt: text(&"fish ".repeat(1 << 20)), responses }]);
        let started = Instant::now();
        let plan = Plan::of(&work, TextForms::only(TextForm::PromptResponse));
        assert_eq!(plan.inputs.len(), 1024);
        let prompt = text(&"fish ".repeat(1 << 20));
        let item = |n: usize| Item { prompt: Arc::clone(&prompt), responses: vec![n.to_string().into()] };
        let plan =
            Plan::of(&Work::Items((0..1024).map(item).collect()), TextForms::only(TextForm::PromptResponse));
        assert_eq!(plan.inputs.len(), 1024);
        // 5 MiB, against the 5 GiB that take many seconds to read.
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}
