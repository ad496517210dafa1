//! What Criterion left of the inner pieces.

use std::{fs, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// One piece, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// As Criterion names it.
    pub name: String,
    /// The median's estimate.
    pub median_ns: f64,
    /// Its 95 % interval.
    pub interval_ns: [f64; 2],
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

#[derive(Deserialize)]
struct Named {
    full_id: String,
}

/// Every piece below a folder of Criterion's, by name.
///
/// # Errors
/// A file that is not Criterion's.
pub fn inner_pieces(folder: &Path) -> anyhow::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    if folder.is_dir() {
        gather(folder, &mut pieces)?;
    }
    pieces.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pieces)
}

fn gather(folder: &Path, pieces: &mut Vec<Piece>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let (estimates, named) = (path.join("estimates.json"), path.join("benchmark.json"));
        if path.ends_with("new") && estimates.is_file() {
            let read =
                |path: &Path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
            let Estimates { median } = serde_json::from_str(&read(&estimates)?)
                .with_context(|| format!("reading {}", estimates.display()))?;
            let Named { full_id } = serde_json::from_str(&read(&named)?)
                .with_context(|| format!("reading {}", named.display()))?;
            let Interval { lower_bound, upper_bound } = median.confidence_interval;
            pieces.push(Piece {
                name: full_id,
                median_ns: median.point_estimate,
                interval_ns: [lower_bound, upper_bound],
            });
        } else {
            gather(&path, pieces)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_found_wherever_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let write = |at: &str, name: &str, text: &str| {
            let at = folder.path().join(at);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join(name), text).unwrap();
        };
        let estimates = r#"{"mean": {}, "median": {"confidence_interval": {"confidence_level": 0.95, "lower_bound": 1.5,
            "upper_bound": 2.5}, "point_estimate": 2.0, "standard_error": 0.1}}"#;
        for (at, name) in [("cuts/64/new", "cuts/64"), ("alone/new", "alone")] {
            write(at, "estimates.json", estimates);
            write(at, "benchmark.json", &format!(r#"{{"group_id": "x", "full_id": "{name}"}}"#));
        }
        // What an earlier run measured is not what this one did.
        write("cuts/64/base", "estimates.json", "{}");
        let pieces = inner_pieces(folder.path()).unwrap();
        assert_eq!(pieces.iter().map(|piece| piece.name.as_str()).collect::<Vec<_>>(), ["alone", "cuts/64"]);
        assert_eq!((pieces[0].median_ns, pieces[0].interval_ns), (2.0, [1.5, 2.5]));
    }
}
