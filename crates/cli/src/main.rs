//! The polyreward binary: configuration, wiring, one file per subcommand.

mod commands;
mod config;
mod database;
mod dataset;
mod progress;
mod remote;
mod retry;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A reward model server that keeps people apart.
#[derive(Debug, Parser)]
#[command(name = "polyreward", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer HTTP requests for rewards
    Serve(commands::serve::Arguments),
    /// Train heads on comparisons
    Train(commands::train::Arguments),
    /// Measure models on people they have not seen
    Eval(commands::eval::Arguments),
    /// Store files of comparisons as examples
    Import(commands::import::Arguments),
    /// Write stored comparisons to a file
    Export(commands::export::Arguments),
    /// Embed texts in bulk
    Embed(commands::embed::Arguments),
    /// Inspect backbones
    #[command(subcommand)]
    Backbone(commands::backbone::Command),
    /// Manage API keys
    #[command(subcommand)]
    Keys(commands::keys::Command),
    /// Bring the database up to date
    Migrate(commands::keys::Where),
    /// Derive what every model believes of every person, as after training a new model
    Rebuild(commands::rebuild::Arguments),
    /// Start a server and play held-out people against it
    Demo(commands::demo::Arguments),
    /// Print the OpenAPI document
    Openapi,
}

/// A panic's message can quote what it stumbled over, such as a prompt: only its place is told.
fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("polyreward: internal error at {place}; please report it");
    }));
}

fn main() -> ExitCode {
    keep_panics_quiet();
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Serve(arguments) => commands::serve::run(arguments),
        Command::Train(arguments) => commands::train::run(&arguments),
        Command::Eval(arguments) => commands::eval::run(&arguments),
        Command::Import(arguments) => commands::import::run(&arguments),
        Command::Export(arguments) => commands::export::run(&arguments),
        Command::Embed(arguments) => commands::embed::run(&arguments),
        Command::Backbone(command) => commands::backbone::run(&command),
        Command::Keys(command) => commands::keys::run(&command),
        Command::Migrate(place) => commands::migrate::run(&place),
        Command::Rebuild(arguments) => commands::rebuild::run(&arguments),
        Command::Demo(arguments) => commands::demo::run(&arguments),
        Command::Openapi => commands::openapi::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: what failed, then why.
            eprintln!("polyreward: {}", format!("{error:#}").replace('\n', " "));
            if error.is::<config::UsageError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// `polyreward openapi | head` is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
