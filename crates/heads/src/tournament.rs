//! Which of some responses a group prefers, when the group may prefer in circles.
//!
//! `P[i, j]` is the share of the group's preference for `i` over `j`, with `P[j, i] = 1 - P[i, j]`. A mixture of people each of
//! whom has one reward can have a cycle, and the response with the best mean reward need not be the one that a majority
//! prefers to every other (pluralism specification section 10; golden check G10).

use clarabel::{
    algebra::CscMatrix,
    solver::{DefaultSettingsBuilder, DefaultSolver, IPSolver, SolverStatus, SupportedConeT},
};
use ndarray::{Array2, ArrayView1, ArrayView2};

use crate::calibration::sigmoid;

/// Why there is no lottery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TournamentError {
    /// No response, or shares that are no square matrix of numbers in `[0, 1]` with `P[j, i] = 1 - P[i, j]`.
    #[error("the shares are not those of a tournament")]
    NotATournament,
    /// The solver of the linear program gave up.
    #[error("the linear program was not solved ({0})")]
    Unsolved(String),
    /// The steps towards a regularised equilibrium did not come to rest.
    #[error("the equilibrium was not reached in {0} steps")]
    NotAtRest(usize),
}

/// How two shares of one pair may miss adding up to 1.
const ROUNDING: f64 = 1e-9;

/// The shares `[R, R]` of people with these rewards `[U, R]` and weights that sum to 1.
pub fn shares(rewards: ArrayView2<'_, f64>, weights: ArrayView1<'_, f64>) -> Array2<f64> {
    let responses = rewards.ncols();
    let mut shares = Array2::from_elem((responses, responses), 0.5);
    for i in 0..responses {
        for j in i + 1..responses {
            let column = rewards.column(i).into_iter().zip(rewards.column(j)).zip(weights);
            let share: f64 = column.map(|((a, b), weight)| weight * sigmoid(a - b)).sum();
            (shares[[i, j]], shares[[j, i]]) = (share, 1.0 - share);
        }
    }
    shares
}

/// A tournament between `R` responses.
#[derive(Debug, Clone, PartialEq)]
pub struct Tournament {
    shares: Array2<f64>,
}

impl Tournament {
    /// Of shares `[R, R]`.
    ///
    /// # Errors
    /// [`TournamentError::NotATournament`].
    pub fn new(shares: Array2<f64>) -> Result<Self, TournamentError> {
        let responses = shares.nrows();
        let is_tournament = responses > 0
            && shares.is_square()
            && shares.indexed_iter().all(|((i, j), share)| {
                (0.0..=1.0).contains(share) && (share + shares[[j, i]] - 1.0).abs() <= ROUNDING
            });
        if is_tournament { Ok(Self { shares }) } else { Err(TournamentError::NotATournament) }
    }

    /// The shares.
    pub fn shares(&self) -> ArrayView2<'_, f64> {
        self.shares.view()
    }

    fn responses(&self) -> usize {
        self.shares.nrows()
    }

    fn others(&self, of: usize) -> impl Iterator<Item = f64> {
        (0..self.responses()).filter(move |other| *other != of).map(move |other| self.shares[[of, other]])
    }

    /// The response that more than half prefer to each other one, if there is any.
    pub fn condorcet_winner(&self) -> Option<usize> {
        (0..self.responses()).find(|response| self.others(*response).all(|share| share > 0.5))
    }

    /// Each response's mean share against the others; one half where it is alone.
    pub fn borda(&self) -> Vec<f64> {
        let others = self.responses() as f64 - 1.0;
        let mean = |response| self.others(response).sum::<f64>() / others;
        (0..self.responses()).map(|response| if others > 0.0 { mean(response) } else { 0.5 }).collect()
    }

    /// How many others each response beats; a tie counts one half.
    pub fn copeland(&self) -> Vec<f64> {
        let beats = |share: f64| match share.total_cmp(&0.5) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        (0..self.responses()).map(|response| self.others(response).map(beats).sum()).collect()
    }

    /// The maximal lottery: probabilities of the responses such that, on average, no response is preferred to a draw from
    /// them (von Neumann's winner, Fishburn 1984). All on the Condorcet winner where there is one. Of several, one in the
    /// middle of them, as an interior-point method finds it.
    ///
    /// Solved as `max v` over `x >= 0`, `sum x = 1`, `(P - P^T)^T x >= v`.
    ///
    /// # Errors
    /// [`TournamentError::Unsolved`].
    pub fn maximal_lottery(&self) -> Result<Vec<f64>, TournamentError> {
        let n = self.responses();
        if let Some(winner) = self.condorcet_winner() {
            return Ok((0..n).map(|response| if response == winner { 1.0 } else { 0.0 }).collect());
        }
        // Variables x_1..x_n, v. Rows: sum x = 1; v - (M^T x)_j <= 0 for each j; -x_i <= 0.
        let margin = |i: usize, j: usize| self.shares[[i, j]] - self.shares[[j, i]];
        let mut dense = vec![vec![0.0; n + 1]; 1 + 2 * n];
        for i in 0..n {
            dense[0][i] = 1.0;
            dense[1 + n + i][i] = -1.0;
            for j in 0..n {
                dense[1 + j][i] = -margin(i, j);
            }
            dense[1 + i][n] = 1.0;
        }
        let constraints = CscMatrix::from(&dense);
        let objective: Vec<f64> = (0..=n).map(|at| if at == n { -1.0 } else { 0.0 }).collect();
        let bounds: Vec<f64> = (0..=2 * n).map(|at| if at == 0 { 1.0 } else { 0.0 }).collect();
        let cones = [SupportedConeT::ZeroConeT(1), SupportedConeT::NonnegativeConeT(2 * n)];
        let settings = DefaultSettingsBuilder::default()
            .verbose(false)
            .build()
            .map_err(|error| TournamentError::Unsolved(error.to_string()))?;
        let zero = CscMatrix::zeros((n + 1, n + 1));
        let mut solver = DefaultSolver::new(&zero, &objective, &constraints, &bounds, &cones, settings)
            .map_err(|error| TournamentError::Unsolved(error.to_string()))?;
        solver.solve();
        if solver.solution.status != SolverStatus::Solved {
            return Err(TournamentError::Unsolved(format!("{:?}", solver.solution.status)));
        }
        // What is left of the barrier is not part of the lottery.
        let lottery: Vec<f64> =
            solver.solution.x[..n].iter().map(|x| if *x < BARRIER { 0.0 } else { *x }).collect();
        let total: f64 = lottery.iter().sum();
        Ok(lottery.into_iter().map(|x| x / total).collect())
    }

    /// The equilibrium of the game regularised towards the uniform lottery `u`: the one `x` that is its own regularised best
    /// answer, `x ∝ u exp(P x / beta)`. Between the uniform lottery, for a large `beta`, and a maximal one as it falls; unlike
    /// that, never torn between several. It is what NLHF (Munos et al., arXiv:2312.00886) and EGPO (Zhou et al., arXiv:2503.08942) train
    /// policies towards, found by the latter's extragradient steps over logits.
    ///
    /// # Errors
    /// [`TournamentError::NotAtRest`], for a `beta` far below 0.01.
    ///
    /// # Panics
    /// If `beta` is not above 0.
    pub fn regularized_lottery(&self, beta: f64) -> Result<Vec<f64>, TournamentError> {
        assert!(beta > 0.0, "a regularised game has a regularisation");
        // No step is longer than half, and none longer than the regularisation alone would go.
        let step = 1.0 / (2.0 + beta);
        let most = MIN_STEPS + (CONTRACTION / (step * beta)).ceil() as usize;
        let mut logits = vec![0.0; self.responses()];
        for _ in 0..most {
            let lottery = softmax(&logits);
            let answer =
                softmax(&self.against(&lottery).iter().map(|share| share / beta).collect::<Vec<_>>());
            if lottery.iter().zip(&answer).all(|(x, y)| (x - y).abs() < AT_REST) {
                return Ok(lottery);
            }
            logits = self.extragradient(&logits, beta, step);
        }
        Err(TournamentError::NotAtRest(most))
    }

    /// One step of EGPO: where the game pulls at a first step's end is where the whole step goes.
    fn extragradient(&self, logits: &[f64], beta: f64, step: f64) -> Vec<f64> {
        // The uniform lottery's logits are all one number, which a softmax does not see: 0.
        let towards = |lottery: &[f64]| -> Vec<f64> {
            let pull = self.against(lottery);
            logits.iter().zip(pull).map(|(logit, pull)| (1.0 - step * beta) * logit + step * pull).collect()
        };
        let half = towards(&softmax(logits));
        towards(&softmax(&half))
    }

    /// The share of the preference for each response over a draw from a lottery.
    fn against(&self, lottery: &[f64]) -> Vec<f64> {
        let row = |row: ArrayView1<'_, f64>| row.iter().zip(lottery).map(|(share, x)| share * x).sum();
        self.shares.rows().into_iter().map(row).collect()
    }

    /// By how much the group's best answer to a lottery beats it: 0 for a maximal lottery.
    pub fn exploitability(&self, lottery: &[f64]) -> f64 {
        self.against(lottery).into_iter().fold(f64::NEG_INFINITY, f64::max) - 0.5
    }
}

/// How near a lottery is to its own best answer, in each probability, to be an equilibrium.
const AT_REST: f64 = 1e-9;
/// Steps enough for any game where the regularisation is strong.
const MIN_STEPS: usize = 1000;
/// Each step leaves `1 - step beta` of the distance; after this many inverses of `step beta`, `exp(-40)`.
const CONTRACTION: f64 = 40.0;

fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

/// Probabilities below this are an interior point's distance from the boundary.
const BARRIER: f64 = 1e-7;

#[cfg(test)]
mod tests {
    use ndarray::{Array1, array};

    use super::*;

    /// A tournament of the shares above the diagonal that are given.
    fn of(responses: usize, given: &[(usize, usize, f64)]) -> Tournament {
        let mut shares = Array2::from_elem((responses, responses), 0.5);
        for (i, j, share) in given {
            (shares[[*i, *j]], shares[[*j, *i]]) = (*share, 1.0 - share);
        }
        Tournament::new(shares).unwrap()
    }

    fn near(actual: &[f64], expected: &[f64]) {
        assert_eq!(actual.len(), expected.len());
        for (a, b) in actual.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{actual:?} {expected:?}");
        }
    }

    #[test]
    fn people_who_each_have_one_reward_can_prefer_in_a_circle_as_in_g10_1() {
        let rewards = array![[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 2.0]];
        let tournament =
            Tournament::new(shares(rewards.view(), Array1::from_elem(3, 1.0 / 3.0).view())).unwrap();
        near(
            &[tournament.shares()[[0, 1]], tournament.shares()[[1, 2]], tournament.shares()[[2, 0]]],
            &[0.527_107; 3],
        );
        assert_eq!(tournament.condorcet_winner(), None);
        near(&tournament.maximal_lottery().unwrap(), &[1.0 / 3.0; 3]);
    }

    #[test]
    fn the_majoritys_winner_need_not_have_the_best_mean_reward_as_in_g10_2() {
        let rewards = array![[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 2.0]];
        let weights = array![0.4, 0.35, 0.25];
        let tournament = Tournament::new(shares(rewards.view(), weights.view())).unwrap();
        let share = tournament.shares();
        near(&[share[[0, 1]], share[[0, 2]], share[[1, 2]]], &[0.516_909, 0.513_684, 0.578_095]);
        assert_eq!(tournament.condorcet_winner(), Some(0));
        near(&tournament.maximal_lottery().unwrap(), &[1.0, 0.0, 0.0]);
        near(weights.dot(&rewards).as_slice().unwrap(), &[1.05, 1.1, 0.85]);
    }

    #[test]
    fn in_a_circle_each_is_drawn_by_the_margin_of_the_two_others_as_in_g10_3() {
        let lottery = of(3, &[(0, 1, 0.6), (1, 2, 0.7), (2, 0, 0.8)]).maximal_lottery().unwrap();
        near(&lottery, &[1.0 / 3.0, 0.5, 1.0 / 6.0]);
        let lottery = of(3, &[(0, 1, 0.8), (1, 2, 0.8), (2, 0, 0.8)]).maximal_lottery().unwrap();
        near(&lottery, &[1.0 / 3.0; 3]);
    }

    #[test]
    fn rules_disagree_as_in_g10_4() {
        let tournament =
            of(4, &[(0, 1, 0.7), (1, 2, 0.65), (2, 0, 0.6), (0, 3, 0.55), (1, 3, 0.8), (3, 2, 0.58)]);
        let lottery = tournament.maximal_lottery().unwrap();
        near(&lottery, &[1.0 / 3.0, 2.0 / 9.0, 4.0 / 9.0, 0.0]);
        near(&tournament.borda(), &[0.55, 0.583_333, 0.456_667, 0.41]);
        near(&tournament.copeland(), &[2.0, 2.0, 1.0, 1.0]);
        near(&[tournament.exploitability(&lottery), tournament.exploitability(&[0.25; 4])], &[0.0, 0.0625]);
    }

    #[test]
    fn regularised_equilibria_and_their_steps_are_those_of_g10_4() {
        let tournament =
            of(4, &[(0, 1, 0.7), (1, 2, 0.65), (2, 0, 0.6), (0, 3, 0.55), (1, 3, 0.8), (3, 2, 0.58)]);
        near(&tournament.regularized_lottery(0.1).unwrap(), &[0.377_258, 0.260_550, 0.239_345, 0.122_848]);
        near(&tournament.regularized_lottery(0.01).unwrap(), &[0.350_112, 0.216_160, 0.430_894, 0.002_834]);
        let mut logits: Vec<f64> = (1..5).map(|n| f64::from(n).ln()).collect();
        logits = tournament.extragradient(&logits, 0.1, 0.5);
        near(&softmax(&logits), &[0.107_096, 0.217_913, 0.291_227, 0.383_764]);
        for _ in 1..10 {
            logits = tournament.extragradient(&logits, 0.1, 0.5);
        }
        near(&softmax(&logits), &[0.179_641, 0.337_587, 0.230_428, 0.252_344]);
    }

    #[test]
    fn a_regularised_equilibrium_is_reached_for_every_game_and_lies_between_the_uniform_lottery_and_the_winner()
     {
        let sure = of(3, &[(0, 1, 1.0), (0, 2, 1.0), (1, 2, 1.0)]);
        let mut chance = 1.0 / 3.0;
        for beta in [10.0, 1.0, 0.1, 0.01] {
            let lottery = sure.regularized_lottery(beta).unwrap();
            assert!((lottery.iter().sum::<f64>() - 1.0).abs() < 1e-12 && lottery[0] > chance, "{lottery:?}");
            chance = lottery[0];
        }
        near(&[chance], &[1.0]);
        near(&of(2, &[]).regularized_lottery(0.01).unwrap(), &[0.5, 0.5]);
        near(&of(1, &[]).regularized_lottery(0.01).unwrap(), &[1.0]);
        // Everybody beats the next one for sure, in a circle of nine.
        let circle: Vec<_> = (0..9).map(|i| (i, (i + 1) % 9, 1.0)).collect();
        near(&of(9, &circle).regularized_lottery(0.01).unwrap(), &[1.0 / 9.0; 9]);
    }

    #[test]
    fn whom_all_prefer_is_drawn_for_sure_as_in_g10_5() {
        let tournament =
            of(4, &[(0, 1, 0.6), (0, 2, 0.55), (0, 3, 0.7), (1, 2, 0.9), (2, 3, 0.8), (3, 1, 0.6)]);
        assert_eq!(tournament.condorcet_winner(), Some(0));
        near(&tournament.maximal_lottery().unwrap(), &[1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_lottery_of_many_responses_cannot_be_beaten() {
        // A tournament without a pattern: digits of the golden ratio.
        let mut given = Vec::new();
        let mut x = 0.5_f64;
        for i in 0..64 {
            for j in i + 1..64 {
                x = (x + 0.618_033_988_749_895).fract();
                given.push((i, j, 0.05 + 0.9 * x));
            }
        }
        let tournament = of(64, &given);
        let lottery = tournament.maximal_lottery().unwrap();
        assert!((lottery.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(tournament.exploitability(&lottery) < 1e-6, "{}", tournament.exploitability(&lottery));
    }

    #[test]
    fn what_is_no_tournament_is_refused_and_one_response_wins_alone() {
        for bad in
            [array![[0.5, 0.7], [0.7, 0.5]], array![[0.5, f64::NAN], [0.2, 0.5]], Array2::zeros((0, 0))]
        {
            assert_eq!(Tournament::new(bad), Err(TournamentError::NotATournament));
        }
        let alone = of(1, &[]);
        assert_eq!(
            (alone.condorcet_winner(), alone.borda(), alone.copeland()),
            (Some(0), vec![0.5], vec![0.0])
        );
        assert_eq!(alone.maximal_lottery().unwrap(), [1.0]);
    }
}
