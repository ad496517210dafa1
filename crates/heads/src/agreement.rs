//! Whether people agree with each other: Krippendorff's alpha.
//!
//! `alpha = 1 - D_o / D_e`: the disagreement observed between people who judged the same, against that of labels dealt out
//! at random (pluralism specification section 14).

use crate::evaluation::{Bootstrap, Interval};

/// How far two labels are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Alike or not.
    Nominal,
    /// By the labels in between.
    Ordinal,
    /// By the square of their difference.
    Interval,
}

/// Krippendorff's alpha of units, each the labels that people gave to it; none where nobody shares a unit with anybody, or
/// where all labels are alike.
pub fn alpha(units: &[Vec<f64>], level: Level) -> Option<f64> {
    let _ = (units, level);
    todo!()
}

/// How many people of one group took each side of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Votes {
    /// Which pair: a number below the number of pairs, in ascending order.
    pub pair: usize,
    /// Which group.
    pub group: usize,
    /// People who took one side.
    pub first: u64,
    /// People who took the other.
    pub second: u64,
}

/// An alpha with its interval over pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alpha {
    /// 1 where all agree, 0 where they agree as often as chance has it, below where less.
    pub value: f64,
    /// Its 95 % interval, from draws of pairs.
    pub ci: Option<Interval>,
}

/// Agreement on pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Pairs that at least two people judged.
    pub pairs: usize,
    /// Judgements of those.
    pub judgements: u64,
    /// Between all who judged the same pair; none where every label is alike.
    pub overall: Option<Alpha>,
    /// Between people of one group; none where none of them share a pair.
    pub within_groups: Option<Alpha>,
    /// Between people of different groups; none where none of them share a pair.
    pub between_groups: Option<Alpha>,
}

/// Agreement on pairs, overall, within groups and between them; none where nobody judged the same pair as another.
///
/// The disagreement expected is everybody's in all three, so that `within_groups` far above `overall` says that groups
/// disagree with each other, and are not noisy (pluralism specification section 14). Observed disagreement of a subset of
/// the pairs of people in a unit weighs each unit as the whole does, by `1 / (m - 1)`.
pub fn agreement(votes: &[Votes], bootstrap: Bootstrap) -> Option<Agreement> {
    let _ = (votes, bootstrap);
    todo!()
}
