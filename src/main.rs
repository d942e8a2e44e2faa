//! The command: parse arguments, run one subcommand.

fn main() -> std::process::ExitCode {
    vcpu_exporter::cli::run()
}
