//! What names a user state without holding it.

/// Names what a state was derived from: it changes when the person's examples do, and says nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct StateVersion(u64);

impl StateVersion {
    /// Of somebody without examples.
    pub const POPULATION: Self = Self(0);

    /// The version as a number; 0 is the population.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The version that a number names.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}
