//! How a model does on people whom it is told of one answer after another, by how the next question is chosen.

use ndarray::{Array2, Axis};
use polyreward_heads::{Calibration, Head, HeadError, Items, UserState};
use rand::seq::SliceRandom;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::few_shot::{Shot, Sides, TestedPerson};

/// How the next comparison is chosen of those a person has not been asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The one whose answer is expected to tell most under what is believed of the person by then.
    Information,
    /// Any, in an order drawn for each person.
    Random {
        /// Seed of the draws.
        seed: u64,
    },
}

/// What became of asking.
#[derive(Debug, Clone, PartialEq)]
pub struct Inquiry {
    /// For each person, positions in their context in the order they were asked about.
    pub asked: Vec<Vec<usize>>,
    /// Predictions after no answer, one, two and so on.
    pub shots: Vec<Shot>,
}

/// Asks every person about as many comparisons of their context, one after another, and predicts their queries after each
/// answer. People with fewer are asked about all they have.
///
/// # Errors
/// Embeddings the head refuses.
pub fn inquire(
    head: &dyn Head,
    calibration: Calibration,
    items: &Items,
    people: &[TestedPerson],
    policy: Policy,
    answers: usize,
) -> Result<Inquiry, HeadError> {
    let mut inquiry = Inquiry {
        asked: Vec::with_capacity(people.len()),
        shots: (0..=answers).map(|examples| Shot { examples, predictions: Vec::new() }).collect(),
    };
    for (at, person) in people.iter().enumerate() {
        let sides = Sides::of(head, items, person)?;
        let questions = Questions::of(&sides);
        let mut open: Vec<usize> = (0..person.context.len()).collect();
        if let Policy::Random { seed } = policy {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(at as u64);
            open.shuffle(&mut rng);
        }
        let mut asked = Vec::with_capacity(answers);
        let mut state = head.population().clone();
        for shot in &mut inquiry.shots {
            if shot.examples > 0 && !open.is_empty() {
                let next = match policy {
                    Policy::Information => questions.most_telling(head, calibration, &state, &open)?,
                    Policy::Random { .. } => 0,
                };
                asked.push(open.remove(next));
                state = sides.adapt(head, person, asked.iter().copied())?;
            }
            shot.predictions.push(sides.predict(head, calibration, &state)?);
        }
        inquiry.asked.push(asked);
    }
    Ok(inquiry)
}

/// What a person can be asked, without the answers: the responses of each comparison stand in the order of their names,
/// which does not tell the preferred one.
struct Questions {
    a: Array2<f32>,
    b: Array2<f32>,
}

impl Questions {
    fn of(sides: &Sides) -> Self {
        let [mut a, mut b] = sides.context.clone();
        for (row, [chosen, rejected]) in sides.names.iter().enumerate() {
            if chosen > rejected {
                a.row_mut(row).assign(&sides.context[1].row(row));
                b.row_mut(row).assign(&sides.context[0].row(row));
            }
        }
        Self { a, b }
    }

    /// Which of the open ones, by position among them; ties go to the first.
    fn most_telling(
        &self,
        head: &dyn Head,
        calibration: Calibration,
        state: &UserState,
        open: &[usize],
    ) -> Result<usize, HeadError> {
        let rows = |side: &Array2<f32>| side.select(Axis(0), open);
        let gains =
            head.information(state.view(), rows(&self.a).view(), rows(&self.b).view(), calibration)?;
        let first = gains.iter().enumerate().rev().max_by(|x, y| x.1.total_cmp(y.1));
        Ok(first.expect("one is open").0)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};
    use polyreward_domain::TextForm;
    use polyreward_heads::{
        EmbeddedForm, FormInput, ItemComparison, Layer, Lore, LoreParameters, TextInput, Trunk,
    };

    use super::*;

    const DIM: usize = 4;
    const POOL: usize = 10;
    const ANSWERS: usize = 6;

    fn lore() -> Lore {
        let form = FormInput { form: TextForm::Response, mean: Array1::zeros(DIM), scale: 1.0 };
        let population = Layer { weight: Array2::zeros((1, DIM)), bias: Array1::zeros(1) };
        let trunk = Trunk { input: TextInput { forms: vec![form] }, hidden: None, population };
        Lore::new(LoreParameters { trunk, basis: Array2::eye(DIM) * 2.0, label_noise: 0.02 }).unwrap()
    }

    /// Three people; the items' embeddings and names follow no order.
    fn world() -> (Items, Vec<TestedPerson>) {
        let len = 4 * POOL;
        let rows = Array2::from_shape_fn((len, DIM), |(at, k)| ((at * 37 + k * 11) as f32 * 0.7).sin());
        let items = Items {
            len,
            names: (0..len as u64).map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect(),
            response: Some(EmbeddedForm::in_memory(rows, (0..len as u32).collect())),
            ..Items::default()
        };
        let comparison =
            |chosen, rejected| ItemComparison { chosen, rejected, strength: 1.0, label_confidence: 1.0 };
        let people = (0..3).map(|person| TestedPerson {
            context: (0..POOL).map(|at| comparison(2 * at, (2 * at + 1 + 6 * person) % (2 * POOL))).collect(),
            query: (POOL..2 * POOL).map(|at| comparison(2 * at, 2 * at + 1)).collect(),
        });
        (items, people.collect())
    }

    fn informed(items: &Items, people: &[TestedPerson]) -> Inquiry {
        inquire(&lore(), Calibration::default(), items, people, Policy::Information, ANSWERS).unwrap()
    }

    #[test]
    fn a_label_is_not_read_before_it_is_asked_for() {
        let (items, people) = world();
        let asked = informed(&items, &people).asked;
        assert!(asked.iter().all(|asked| asked.len() == ANSWERS));
        assert!(asked.iter().any(|asked| !asked.is_sorted()), "{asked:?}");
        let mut moved = 0;
        for told in 0..ANSWERS {
            let mut others = people.clone();
            for (person, asked) in others.iter_mut().zip(&asked) {
                for (at, row) in person.context.iter_mut().enumerate() {
                    if !asked[..told].contains(&at) {
                        std::mem::swap(&mut row.chosen, &mut row.rejected);
                        (row.strength, row.label_confidence) = (3.0, 0.7);
                    }
                }
            }
            for (other, asked) in informed(&items, &others).asked.iter().zip(&asked) {
                assert_eq!(other[..=told], asked[..=told]);
                moved += usize::from(other[told + 1..] != asked[told + 1..]);
            }
        }
        // Once it is told, it counts: other answers lead to other questions.
        assert!(moved > 0);
    }

    #[test]
    fn the_first_question_is_the_one_whose_answer_tells_most() {
        let (items, people) = world();
        let (head, asked) = (lore(), informed(&items, &people).asked);
        for (person, asked) in people.iter().zip(asked) {
            let side = |of: fn(&ItemComparison) -> usize| -> Array2<f32> {
                items.features(&head, &person.context.iter().map(of).collect::<Vec<_>>()).unwrap()
            };
            let (chosen, rejected) = (side(|row| row.chosen), side(|row| row.rejected));
            let gains = head
                .information(head.population().view(), chosen.view(), rejected.view(), Calibration::default())
                .unwrap();
            assert!(gains.iter().all(|gain| *gain <= gains[asked[0]]));
        }
    }

    #[test]
    fn every_policy_begins_and_ends_at_the_same_predictions() {
        let (items, mut people) = world();
        people[1].context.truncate(3);
        let inquire =
            |policy| inquire(&lore(), Calibration::default(), &items, &people, policy, POOL).unwrap();
        let random = |seed| inquire(Policy::Random { seed });
        let informed = inquire(Policy::Information);
        let (first, second) = (random(1), random(2));
        assert_eq!(first, random(1));
        assert_ne!(first.asked, second.asked);
        for inquiry in [&first, &second] {
            assert_eq!(inquiry.shots.len(), POOL + 1);
            for end in [0, POOL] {
                assert_eq!(inquiry.shots[end], informed.shots[end]);
            }
            let mut all = inquiry.asked[1].clone();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
        }
    }
}
