//! Where and what was measured: figures without that are nobody's.

use std::{fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};

/// Instructions that decide how fast int8 and fp32 products are.
const TELLING_FLAGS: [&str; 12] = [
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "sve",
];

/// The machine, as far as it tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Those of its instructions that matter here.
    pub flags: Vec<String>,
    /// Memory in GiB.
    pub memory_gib: Option<f64>,
    /// System and its version.
    pub system: String,
    /// Runnable processes, averaged over a minute: above zero before a bench begins, the machine is not quiet.
    pub load: Option<f64>,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut machine = Self::of(&read("/proc/cpuinfo"), &read("/proc/meminfo"));
        machine.cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let release = read("/proc/sys/kernel/osrelease");
        machine.system = format!("{} {} {}", std::env::consts::OS, release.trim(), std::env::consts::ARCH);
        machine.load = read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse().ok());
        machine
    }

    fn of(cpuinfo: &str, meminfo: &str) -> Self {
        let value = |text: &str, keys: &[&str]| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| keys.contains(&key.trim()))
                .map(|(_, value)| value.trim().to_owned())
        };
        let flags = value(cpuinfo, &["flags", "Features"]).unwrap_or_default();
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let kib = value(meminfo, &["MemTotal"])
            .and_then(|total| total.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()));
        Self {
            cpu: value(cpuinfo, &["model name", "CPU part"]).unwrap_or_else(|| "unknown".to_owned()),
            flags: TELLING_FLAGS
                .iter()
                .filter(|flag| flags.contains(flag))
                .map(|flag| (*flag).to_owned())
                .collect(),
            memory_gib: kib.map(|kib| kib / f64::from(1 << 20)),
            ..Self::default()
        }
    }
}

/// Which state of the repository was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The commit.
    pub commit: String,
    /// Whether files differed from it.
    pub changed: bool,
}

impl Revision {
    /// Of the repository around a folder; nothing where git knows none.
    pub fn of(folder: &Path) -> Option<Self> {
        let git = |arguments: &[&str]| {
            let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
        let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        Some(Self { commit, changed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_its_processor_flags_and_memory() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A Processor 9\nflags\t\t: fpu avx2 avx512f avx512_vnni\n\n\
                       processor\t: 1\nmodel name\t: A Processor 9\n";
        let machine = Machine::of(cpuinfo, "MemTotal:        8388608 kB\nMemFree: 1 kB\n");
        assert_eq!(machine.cpu, "A Processor 9");
        assert_eq!(machine.flags, ["avx2", "avx512f", "avx512_vnni"]);
        assert_eq!(machine.memory_gib, Some(8.0));
    }

    #[test]
    fn what_a_machine_does_not_tell_is_left_open() {
        let machine = Machine::of("", "");
        assert_eq!((machine.cpu.as_str(), machine.memory_gib), ("unknown", None));
        assert!(machine.flags.is_empty());
    }
}
