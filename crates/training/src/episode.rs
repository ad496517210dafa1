//! Episodes: a person's comparisons, some of them shown as examples and the others asked about, as serving will do it.
//!
//! A head is trained for what it will be used for: the user's state is computed from the shown comparisons, and the loss is
//! that of the predictions which follow for the others. Heads that are linear in the user find the state by Newton's method
//! outside the graph; one further step inside it, `w = w* - S g(w*)` with `S` the inverse Hessian and `g` the gradient at the
//! solution `w*`, leaves the value where it is and carries the gradient of the solution (implicit differentiation).

use std::{collections::HashMap, thread};

use candle_core::Tensor;
use ndarray::{Array1, Array2};
use polyreward_heads::{
    Head, HeadError, LinearEvidence, Observation, Posterior, UserState, gaussian_posterior, simplex_posterior,
};
use rand::{Rng, RngExt};

use crate::{
    crowd::{Crowd, Pair, Reader},
    error::TrainingError,
    network::{data, sigmoid, vector},
};

/// How many examples an episode shows; few are commoner, as they are in use.
const CONTEXT_SIZES: [usize; 13] = [0, 0, 1, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16];

/// Some people, some of their comparisons, and which of those are shown and which asked about in each of `R` episodes.
#[derive(Debug)]
pub(crate) struct Step {
    /// `B`, people.
    pub(crate) people: usize,
    /// `P`, places for comparisons of one person; those of people with fewer stay empty.
    pub(crate) places: usize,
    /// `R`, episodes of each person.
    pub(crate) draws: usize,
    /// `M`, the distinct items.
    pub(crate) items: Vec<u32>,
    /// Position in `items` of each place's chosen response, `[B * P]`.
    pub(crate) chosen: Tensor,
    /// And of the other one.
    pub(crate) rejected: Tensor,
    /// The chosen item of each place, as the data number it.
    pub(crate) item_of_place: Vec<u32>,
    /// Probability that a label is wrong, `[B, P, 1]`.
    pub(crate) doubts: Tensor,
    /// Strength of what is shown, else 0, `[B, P, R]`.
    pub(crate) shown: Tensor,
    /// Strength of what is asked about, else 0, `[B, P, R]`.
    pub(crate) asked: Tensor,
    doubt_values: Vec<f32>,
    shown_values: Vec<f32>,
}

impl Step {
    /// Draws episodes of the people; `examples` at most are shown, none to a head that does not adapt.
    pub(crate) fn draw(
        crowd: &Crowd,
        people: &[usize],
        draws: usize,
        examples: usize,
        rng: &mut impl Rng,
    ) -> Result<Self, TrainingError> {
        let sizes: Vec<usize> = CONTEXT_SIZES.into_iter().filter(|size| *size <= examples).collect();
        let chosen_pairs: Vec<Vec<Pair>> =
            people.iter().map(|person| sample(&crowd.people[*person], crowd.cap, rng)).collect();
        let places = chosen_pairs.iter().map(Vec::len).max().unwrap_or(0);
        let mut local: HashMap<u32, u32> = HashMap::new();
        let mut items: Vec<u32> = Vec::new();
        let mut number = |item: u32| {
            *local.entry(item).or_insert_with(|| {
                items.push(item);
                items.len() as u32 - 1
            })
        };
        let cells = people.len() * places;
        let (mut chosen, mut rejected) = (vec![0; cells], vec![0; cells]);
        let mut item_of_place = vec![chosen_pairs[0][0].chosen; cells];
        let mut doubts = vec![0.0; cells];
        let (mut shown, mut asked) = (vec![0.0; cells * draws], vec![0.0; cells * draws]);
        for (person, pairs) in chosen_pairs.iter().enumerate() {
            for (at, pair) in pairs.iter().enumerate() {
                let cell = person * places + at;
                chosen[cell] = number(pair.chosen);
                rejected[cell] = number(pair.rejected);
                item_of_place[cell] = pair.chosen;
                doubts[cell] = pair.doubt;
            }
            for draw in 0..draws {
                let size = sizes[rng.random_range(0..sizes.len())].min(pairs.len().saturating_sub(2));
                let context = first_shuffled(pairs.len(), size, rng);
                let of = |at: usize| [pairs[at].chosen, pairs[at].rejected];
                let texts: Vec<u32> = context.iter().flat_map(|at| of(*at)).collect();
                for (at, pair) in pairs.iter().enumerate() {
                    let cell = (person * places + at) * draws + draw;
                    if context.contains(&at) {
                        shown[cell] = pair.strength;
                    } else if !of(at).iter().any(|item| texts.contains(item)) {
                        asked[cell] = pair.strength;
                    }
                }
            }
        }
        let shape = [people.len(), places, draws];
        Ok(Self {
            people: people.len(),
            places,
            draws,
            items,
            chosen: Tensor::new(chosen, &candle_core::Device::Cpu)?,
            rejected: Tensor::new(rejected, &candle_core::Device::Cpu)?,
            item_of_place,
            doubts: data(doubts.clone(), &[people.len(), places, 1])?,
            shown: data(shown.clone(), &shape)?,
            asked: data(asked, &shape)?,
            doubt_values: doubts,
            shown_values: shown,
        })
    }

    /// Rows of chosen less rejected, `[M, F]` to `[B * P, F]`.
    pub(crate) fn difference(&self, of_items: &Tensor) -> Result<Tensor, TrainingError> {
        Ok((of_items.index_select(&self.chosen, 0)? - of_items.index_select(&self.rejected, 0)?)?)
    }

    /// The distinct prompts, each by an item that has it, and which of them each place has, `[B * P]`.
    pub(crate) fn prompts(&self, reader: &Reader<'_>) -> Result<(Vec<u32>, Tensor), TrainingError> {
        let mut position: HashMap<u32, u32> = HashMap::new();
        let mut prompts = Vec::new();
        let of_place: Vec<u32> = self
            .item_of_place
            .iter()
            .map(|item| {
                *position.entry(reader.key(*item)).or_insert_with(|| {
                    prompts.push(*item);
                    prompts.len() as u32 - 1
                })
            })
            .collect();
        Ok((prompts, Tensor::new(of_place, &candle_core::Device::Cpu)?))
    }

    /// The doubts with the same label noise for all, `[B, P, 1]`.
    pub(crate) fn noise(&self, label_noise: f64) -> Result<Tensor, TrainingError> {
        Ok(self.doubts.affine(1.0 - 2.0 * label_noise, label_noise)?)
    }

    /// Mean negative log likelihood of what is asked about, given the probabilities `[B, P, R]` of the true preferences.
    pub(crate) fn loss(&self, probabilities: &Tensor, label_noise: f64) -> Result<Tensor, TrainingError> {
        let noise = self.noise(label_noise)?;
        let observed = observe(probabilities, &noise)?.clamp(1e-7, 1.0)?;
        let total = self.asked.sum_all()?.clamp(1e-6, f64::INFINITY)?;
        Ok(((observed.log()? * &self.asked)?.sum_all()?.neg()? / total)?)
    }

    /// What an adapting head believes in each episode, `[B * R]` of them, of places' features `[B * P, F]`.
    pub(crate) fn states(
        &self,
        head: &dyn Head,
        [chosen, rejected]: [&Array2<f32>; 2],
    ) -> Result<Vec<UserState>, TrainingError> {
        let adapt = |episode: usize| {
            let (person, draw) = (episode / self.draws, episode % self.draws);
            let strength = |cell: usize| f64::from(self.shown_values[cell * self.draws + draw]);
            let examples: Vec<Observation<'_>> = (person * self.places..(person + 1) * self.places)
                .filter(|cell| strength(*cell) > 0.0)
                .map(|cell| Observation {
                    chosen: chosen.row(cell),
                    rejected: rejected.row(cell),
                    // Nothing is said twice in an episode.
                    names: [cell as u64, u64::MAX],
                    strength: strength(cell),
                    label_confidence: 1.0 - f64::from(self.doubt_values[cell]),
                })
                .collect();
            head.adapt(&examples, None)
        };
        Ok(in_parallel(self.people * self.draws, adapt)?)
    }

    /// The posteriors of all episodes, `[B * R]` of them, from rows `[B * P, K]` and offsets `[B * P]`.
    fn posteriors(
        &self,
        rows: &Tensor,
        offsets: &Tensor,
        prior: Prior<'_>,
        label_noise: f64,
    ) -> Result<Vec<Posterior>, TrainingError> {
        let width = rows.dim(1)?;
        let (rows, offsets) = (vector(rows)?, vector(offsets)?);
        let alpha = match prior {
            Prior::Gaussian => None,
            Prior::Simplex(log_alpha) => Some(vector(log_alpha)?.mapv(|a| f64::from(a).exp())),
        };
        let solve = |episode: usize| -> Result<Posterior, HeadError> {
            let (person, draw) = (episode / self.draws, episode % self.draws);
            let cells: Vec<usize> = (person * self.places..(person + 1) * self.places)
                .filter(|cell| self.shown_values[cell * self.draws + draw] > 0.0)
                .collect();
            let directions =
                Array2::from_shape_fn((cells.len(), width), |(i, k)| f64::from(rows[cells[i] * width + k]));
            let offsets: Array1<f64> = cells.iter().map(|cell| f64::from(offsets[*cell])).collect();
            let strengths: Vec<f64> =
                cells.iter().map(|cell| f64::from(self.shown_values[cell * self.draws + draw])).collect();
            let confidences: Vec<f64> =
                cells.iter().map(|cell| 1.0 - f64::from(self.doubt_values[*cell])).collect();
            let evidence = LinearEvidence {
                directions: directions.view(),
                offsets: offsets.view(),
                strengths: &strengths,
                confidences: &confidences,
                label_noise,
            };
            match &alpha {
                None => gaussian_posterior(&evidence, None),
                Some(alpha) => simplex_posterior(&evidence, alpha.view(), None),
            }
        };
        Ok(in_parallel(self.people * self.draws, solve)?)
    }
}

/// Runs a function of `0..count` on all cores, in order.
fn in_parallel<T: Send, E: Send>(
    count: usize,
    f: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(8);
    let share = count.div_ceil(threads).max(1);
    let f = &f;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..count)
            .step_by(share)
            .map(|from| {
                scope.spawn(move || (from..count.min(from + share)).map(f).collect::<Result<Vec<_>, E>>())
            })
            .collect();
        let mut all = Vec::with_capacity(count);
        for worker in workers {
            match worker.join() {
                Ok(part) => all.extend(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

/// `e + (1 - 2 e) p`: the probability of a label that is wrong with probability `e`.
fn observe(probabilities: &Tensor, noise: &Tensor) -> Result<Tensor, TrainingError> {
    Ok(probabilities.broadcast_mul(&noise.affine(-2.0, 1.0)?)?.broadcast_add(noise)?)
}

/// At most `cap` of a person's comparisons, at random.
fn sample(pairs: &[Pair], cap: usize, rng: &mut impl Rng) -> Vec<Pair> {
    if pairs.len() <= cap {
        return pairs.to_vec();
    }
    first_shuffled(pairs.len(), cap, rng).into_iter().map(|at| pairs[at]).collect()
}

/// The first few of `0..len` in a random order.
fn first_shuffled(len: usize, few: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    for at in 0..few {
        order.swap(at, rng.random_range(at..len));
    }
    order.truncate(few);
    order
}

/// A random order of `0..len`.
pub(crate) fn shuffled(len: usize, rng: &mut impl Rng) -> Vec<usize> {
    first_shuffled(len, len, rng)
}

/// What a linear head believes of a person before any example.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Prior<'a> {
    /// `N(0, I)`.
    Gaussian,
    /// On the simplex, `-sum alpha_k ln w_k`; the logarithms of `alpha`, `[K]`.
    Simplex(&'a Tensor),
}

/// Posterior mean and variance of every place's margin in every episode, both `[B, P, R]`, with gradients.
///
/// `rows` `[B * P, K]` and `offsets` `[B * P]`: a margin is `rows . w + offset`.
pub(crate) fn linear_margins(
    step: &Step,
    rows: &Tensor,
    offsets: &Tensor,
    prior: Prior<'_>,
    label_noise: f64,
) -> Result<(Tensor, Tensor), TrainingError> {
    let (people, places, draws, width) = (step.people, step.places, step.draws, rows.dim(1)?);
    let posteriors = step.posteriors(rows, offsets, prior, label_noise)?;
    let mut means = vec![0.0; people * width * draws];
    let mut side_by_side = vec![0.0; people * width * draws * width];
    let mut stacked = Vec::with_capacity(people * draws * width * width);
    for (episode, posterior) in posteriors.iter().enumerate() {
        let (person, draw) = (episode / draws, episode % draws);
        for (k, w) in posterior.mean.iter().enumerate() {
            means[(person * width + k) * draws + draw] = *w as f32;
        }
        for ((k, l), v) in posterior.covariance.indexed_iter() {
            side_by_side[((person * width + k) * draws + draw) * width + l] = *v as f32;
            stacked.push(*v as f32);
        }
    }
    let solution = data(means, &[people, width, draws])?;
    let rows = rows.reshape((people, places, width))?;
    let offsets = offsets.reshape((people, places, 1))?;

    // The gradient of the negative log posterior at the solution, a function of rows, offsets and prior.
    let margins = rows.matmul(&solution)?.broadcast_add(&offsets)?;
    let pull = pull(step, &margins, label_noise)?;
    let from_examples = rows.transpose(1, 2)?.contiguous()?.matmul(&pull)?;
    let from_prior = match prior {
        Prior::Gaussian => solution.clone(),
        Prior::Simplex(log_alpha) => {
            let inverse = solution.clamp(1e-30, f64::INFINITY)?.recip()?;
            inverse.broadcast_mul(&log_alpha.exp()?.reshape((1, width, 1))?)?.neg()?
        }
    };
    let gradient = (from_prior - from_examples)?;

    let covariances = data(stacked, &[people * draws, width, width])?;
    let gradient = gradient.transpose(1, 2)?.contiguous()?.reshape((people * draws, width, 1))?;
    let newton = covariances.matmul(&gradient)?.reshape((people, draws, width))?;
    let state = (solution - newton.transpose(1, 2)?.contiguous()?)?;

    let mean = rows.matmul(&state)?.broadcast_add(&offsets)?;
    let side_by_side = data(side_by_side, &[people, width, draws * width])?;
    let spread = rows.matmul(&side_by_side)?.reshape((people, places, draws, width))?;
    let variance = spread.broadcast_mul(&rows.unsqueeze(2)?)?.sum(3)?;
    Ok((mean, variance))
}

/// How hard each shown label pulls its margin up, `[B, P, R]`: the slope of its log likelihood, as often as it counts.
fn pull(step: &Step, margins: &Tensor, label_noise: f64) -> Result<Tensor, TrainingError> {
    let right = sigmoid(&margins.clamp(-30.0, 30.0)?)?;
    let noise = step.noise(label_noise)?;
    let observed = observe(&right, &noise)?;
    let steepness = (&right * (1.0 - &right)?)?.broadcast_mul(&noise.affine(-2.0, 1.0)?)?;
    Ok(((steepness / observed)? * &step.shown)?)
}

/// Margins `[B, P, R]` of every place, and their derivatives by the weights, `[B, P, R, K]`, at weights `[B, R, K]`.
pub(crate) type Curved<'a> = &'a dyn Fn(&Tensor) -> Result<(Tensor, Tensor), TrainingError>;

/// [`linear_margins`] where a margin is any smooth function of weights on the simplex: about the states that serving finds.
/// The step in the graph is that of Gauss and Newton, so the gradient is that of the solution where margins are near
/// linear, and close to it elsewhere; values are those of serving.
pub(crate) fn curved_margins(
    step: &Step,
    states: &[UserState],
    margins: Curved<'_>,
    log_alpha: &Tensor,
    label_noise: f64,
) -> Result<(Tensor, Tensor), TrainingError> {
    let (people, places, draws, width) = (step.people, step.places, step.draws, log_alpha.dim(0)?);
    let means = states.iter().flat_map(|state| state.mean().to_vec()).collect();
    let covariances = states.iter().flat_map(UserState::covariance).collect();
    let solution = data(means, &[people, draws, width])?;
    let covariances = data(covariances, &[people * draws, width, width])?;

    let (at_solution, slopes) = margins(&solution)?;
    let pull = pull(step, &at_solution, label_noise)?.unsqueeze(3)?;
    let from_examples = slopes.broadcast_mul(&pull)?.sum(1)?;
    let inverse = solution.clamp(1e-30, f64::INFINITY)?.recip()?;
    let from_prior = inverse.broadcast_mul(&log_alpha.exp()?.reshape((1, 1, width))?)?.neg()?;
    let gradient = (from_prior - from_examples)?.reshape((people * draws, width, 1))?;
    let newton = covariances.matmul(&gradient)?.reshape((people, draws, width))?;
    let (mean, _) = margins(&(solution - newton)?)?;

    let slopes = slopes.transpose(1, 2)?.contiguous()?.reshape((people * draws, places, width))?;
    let spread = (slopes.matmul(&covariances)? * &slopes)?.sum(2)?;
    let variance = spread.reshape((people, draws, places))?.transpose(1, 2)?.contiguous()?;
    Ok((mean, variance))
}

/// `sigmoid(m / sqrt(1 + pi v / 8))` (MacKay 1992).
pub(crate) fn moderated(mean: &Tensor, variance: &Tensor) -> Result<Tensor, TrainingError> {
    let widening = variance.clamp(0.0, f64::INFINITY)?.affine(std::f64::consts::PI / 8.0, 1.0)?.sqrt()?;
    sigmoid(&(mean / widening)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    use super::*;

    fn crowd() -> Crowd {
        let pair = |at: u32, strength| Pair { chosen: 2 * at, rejected: 2 * at + 1, strength, doubt: 0.1 };
        Crowd { people: vec![(0..6).map(|at| pair(at, 1.0 + at as f32 / 4.0)).collect()], cap: 24 }
    }

    #[test]
    fn nothing_that_is_asked_shares_a_text_with_what_is_shown() {
        let pair = |chosen, rejected| Pair { chosen, rejected, strength: 1.0, doubt: 0.0 };
        let pairs = vec![pair(0, 1), pair(1, 2), pair(3, 4), pair(4, 0), pair(5, 6), pair(7, 8)];
        let crowd = Crowd { people: vec![pairs.clone()], cap: 24 };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let step = Step::draw(&crowd, &[0], 50, 16, &mut rng).unwrap();
        let (shown, asked) = (vector(&step.shown).unwrap(), vector(&step.asked).unwrap());
        for draw in 0..50 {
            for (i, a) in pairs.iter().enumerate().filter(|(i, _)| shown[i * 50 + draw] > 0.0) {
                assert_eq!(asked[i * 50 + draw], 0.0);
                for (j, b) in pairs.iter().enumerate().filter(|(j, _)| asked[j * 50 + draw] > 0.0) {
                    let texts = [b.chosen, b.rejected];
                    assert!(!texts.contains(&a.chosen) && !texts.contains(&a.rejected), "{i} and {j}");
                }
            }
        }
    }

    #[test]
    fn nobody_has_more_places_in_a_step_than_the_cap() {
        let mut crowd = crowd();
        crowd.cap = 4;
        let step = Step::draw(&crowd, &[0], 2, 16, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        assert_eq!(step.places, 4);
    }

    /// The loss as a function of the rows' first entries, for both priors, against central differences.
    #[test]
    fn the_gradient_through_the_newton_step_is_that_of_the_solution() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let step = Step::draw(&crowd(), &[0], 3, 4, &mut rng).unwrap();
        let values: Vec<f32> = (0..18).map(|_| rng.random_range(-1.5_f32..1.5)).collect();
        let offsets = data((0..6).map(|at| at as f32 / 10.0 - 0.2).collect(), &[6]).unwrap();
        let log_alpha = Var::new(&[0.3_f32, -0.5, 0.1], &Device::Cpu).unwrap();
        for simplex in [false, true] {
            let loss = |rows: &Tensor, log_alpha: &Tensor| {
                let prior = if simplex { Prior::Simplex(log_alpha) } else { Prior::Gaussian };
                let (mean, _) = linear_margins(&step, rows, &offsets, prior, 0.0).unwrap();
                // Of the mean alone: a variance is a constant as far as the solution goes.
                step.loss(&sigmoid(&mean).unwrap(), 0.02).unwrap()
            };
            let rows = Var::from_tensor(&data(values.clone(), &[6, 3]).unwrap()).unwrap();
            let gradients = loss(&rows, &log_alpha).backward().unwrap();
            let of_rows = vector(gradients.get(&rows).unwrap()).unwrap();
            let at = |values: Vec<f32>, alpha: &Tensor| {
                f64::from(loss(&data(values, &[6, 3]).unwrap(), alpha).to_scalar::<f32>().unwrap())
            };
            let near = |numeric: f64, analytic: f32, what: &str| {
                assert!((numeric - f64::from(analytic)).abs() < 2e-3, "{what}: {numeric} {analytic}");
            };
            for entry in 0..18 {
                let moved = |by: f32| {
                    let mut values = values.clone();
                    values[entry] += by;
                    at(values, &log_alpha)
                };
                near((moved(5e-3) - moved(-5e-3)) / 1e-2, of_rows[entry], "row");
            }
            if simplex {
                let of_alpha = vector(gradients.get(&log_alpha).unwrap()).unwrap();
                for entry in 0..3 {
                    let moved = |by: f32| {
                        let mut alpha = [0.3_f32, -0.5, 0.1];
                        alpha[entry] += by;
                        at(values.clone(), &Tensor::new(&alpha, &Device::Cpu).unwrap())
                    };
                    near((moved(5e-3) - moved(-5e-3)) / 1e-2, of_alpha[entry], "alpha");
                }
            }
        }
    }
}
