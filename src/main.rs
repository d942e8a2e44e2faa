//! Entry point of the command; [`vcpu_exporter::cli`] parses the arguments.

fn main() -> std::process::ExitCode {
    vcpu_exporter::cli::run()
}
