//! The command line: one file for each command.

/// Parses the arguments and runs a command.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
