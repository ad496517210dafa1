//! What pages show: from outcomes to strings and places in a drawing. Nothing here asks anybody anything, and templates
//! decide nothing.

pub(crate) mod calibration;
pub(crate) mod form;
pub(crate) mod groups;
pub(crate) mod headline;
pub(crate) mod intersections;
#[cfg(test)]
pub(crate) mod made_up;
pub(crate) mod mistakes;
pub(crate) mod models;
pub(crate) mod overview;
pub(crate) mod person;
pub(crate) mod refusal;
pub(crate) mod scene;
pub(crate) mod shots;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod timeline;
