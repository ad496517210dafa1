//! The polyreward binary: configuration, wiring, one file per subcommand.

fn main() {}
