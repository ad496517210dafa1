//! Puts together what benches left: `bench-report FOLDER BENCH...`, or into a document: `bench-report FOLDER --into FILE`.
//!
//! Reads `FOLDER/parts` and `FOLDER/criterion`, writes `report.md`, `report.svg` and `report.json` beside them, and ends with 1
//! where something of the benches named was not measured. A budget that is not met is no failure: the machine may not be quiet.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use polyreward_bench::{Machine, Report, Revision, inner_pieces, parts};
use time::OffsetDateTime;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().context("usage: bench-report FOLDER BENCH...")?);
    let arguments: Vec<String> = arguments.map(|name| name.to_string_lossy().into_owned()).collect();
    match arguments.as_slice() {
        [into, document] if into == "--into" => fill(&folder, Path::new(document)),
        benches => gather(&folder, benches.to_vec()),
    }
}

fn gather(folder: &Path, expected: Vec<String>) -> anyhow::Result<()> {
    let report = Report::of(
        parts(&folder.join("parts"))?,
        inner_pieces(&folder.join("criterion"))?,
        expected,
        Machine::here(),
        Revision::of(folder),
        OffsetDateTime::now_utc(),
    )?;
    let markdown = report.to_markdown();
    print!("{markdown}");
    write(&folder.join("report.json"), serde_json::to_string_pretty(&report)?)?;
    write(&folder.join("report.svg"), report.to_svg())?;
    write(&folder.join("report.md"), markdown)?;
    ensure!(
        report.is_whole(),
        "not everything was measured; {} says what",
        folder.join("report.md").display()
    );
    Ok(())
}

/// Puts the report's parts where the document has marks for them.
fn fill(folder: &Path, document: &Path) -> anyhow::Result<()> {
    let report: Report = serde_json::from_str(&read(&folder.join("report.json"))?)?;
    write(document, report.fill(&read(document)?)?)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn write(path: &Path, text: String) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
