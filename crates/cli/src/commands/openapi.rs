//! `polyreward openapi`: the document that `openapi/openapi.json` keeps.

use std::io::Write;

/// Prints it.
pub fn run() -> anyhow::Result<()> {
    std::io::stdout().write_all(polyreward_http::openapi_json().as_bytes())?;
    Ok(())
}
