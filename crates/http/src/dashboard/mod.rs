//! The dashboard: for which group is this reward wrong?
//!
//! Pages are made on the server and work without JavaScript. A handler in `routes` asks the service, a view in `view` makes
//! strings and places of the answer, a template puts them on the page.

mod assets;
mod controls;
mod html;
mod routes;
mod view;

pub(crate) use routes::{as_page, file, lost, pages};
