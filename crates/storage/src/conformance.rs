//! One function for each rule that every backend keeps.
