//! Progress: a bar on a terminal, plain lines elsewhere.

use std::{
    io::IsTerminal,
    sync::LazyLock,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a log without a terminal gets a line.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// All bars on the terminal, one below another: several pieces of work may run at once.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A line on stderr that stays, above any bars.
pub fn say(line: &str) {
    BARS.suspend(|| eprintln!("{line}"));
}

/// Progress of one piece of work.
pub struct Progress {
    bar: ProgressBar,
    label: String,
    terminal: bool,
    last_line: Instant,
}

impl Progress {
    /// Begins to show progress under a label.
    pub fn start(label: &str, total: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::hidden());
        let bar = if terminal { BARS.add(bar) } else { bar };
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg} {eta}")
            .expect("the template is a constant");
        bar.set_style(style);
        bar.set_prefix(label.to_owned());
        Self { bar, label: label.to_owned(), terminal, last_line: Instant::now() }
    }

    /// Says how far the work is.
    pub fn set(&mut self, done: usize, total: usize, message: &str) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(message.to_owned());
        if !self.terminal && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{}: {done}/{total} {message}", self.label);
        }
    }

    /// Says what share of the work is done, where its parts cannot be counted beforehand, and how much longer it takes.
    pub fn set_share(&mut self, share: f64, began: Instant, message: &str) {
        let elapsed = began.elapsed().as_secs_f64();
        let left = if share > 0.0 {
            format!(", {:.0} s left", elapsed * (1.0 / share - 1.0))
        } else {
            String::new()
        };
        self.set((100.0 * share) as usize, 100, &format!("% {message}{left}"));
    }

    /// A line that stays, above the bar.
    pub fn note(&self, line: &str) {
        say(&format!("{}: {line}", self.label));
    }

    /// Ends with a line that stays.
    pub fn finish(self, message: &str) {
        self.bar.finish_and_clear();
        if self.terminal {
            BARS.remove(&self.bar);
            BARS.suspend(|| eprintln!("{}: {message}", self.label));
        } else {
            eprintln!("{}: {message}", self.label);
        }
    }
}
