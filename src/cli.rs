//! The command line: one file for each command.
//!
//! Flags override the configuration file. Exit status: 0 success, 1 failure (`check`: not usable),
//! 2 wrong command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{file, Config, LogFormat, LogLevel, Paths};
use crate::host::kernel_log;
use crate::host::roots::Roots;

mod catalog;
mod check;
#[cfg(feature = "demo")]
mod demo;
mod list;
mod log;
mod out;
pub mod pipeline;
mod pt;
mod push;
mod serve;
mod top;

const EXAMPLES: &str = "\
Examples:
  vcpu-exporter                              serve http://127.0.0.1:9752/, /metrics and /runbooks/
  vcpu-exporter check                        what works on this host, and how to fix the rest
  vcpu-exporter top                          the VMs of this host, the worst first
  vcpu-exporter demo --synthetic incident    a simulated host on which one VM disturbs another

Exit status: 0 success, 1 failure (check: not usable), 2 wrong command line.";

/// Prometheus exporter of per-vCPU scheduling and hardware counters for KVM hosts
#[derive(Debug, Parser)]
#[command(name = "vcpu-exporter", version = VERSION, infer_subcommands = false)]
#[command(after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: CommonArgs,
}

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (revision ",
    env!("VCPU_EXPORTER_REVISION"),
    ")"
);

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the metrics of all VMs (the default)
    Serve,
    /// Check whether each source works on this host, and how to fix what does not
    Check(check::CheckArgs),
    /// List all vCPUs with thread, CPU, core and NUMA node
    List(list::ListArgs),
    /// Show VMs and what slows them, live, the worst first
    Top(top::TopArgs),
    /// Print the description of every metric
    Catalog(catalog::CatalogArgs),
    /// Record, summarize or decode Intel Processor Trace
    Pt(pt::PtArgs),
    /// Try it out: three tiny KVM guests, or a simulated host (--synthetic)
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// One guest of the demo
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    MicroVm(crate::demo::micro_vm::MicroVmArgs),
}

const PATHS: &str = "Paths";

/// Flags of all commands, accepted before or after the command's name.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Common options")]
struct CommonArgs {
    /// Configuration file; docs/CONFIGURATION.md describes every key
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port of the exporter [default: 127.0.0.1:9752]
    #[arg(long = "web.listen-address", global = true, value_name = "ADDRESS:PORT", value_parser = listen_address)]
    listen_address: Option<SocketAddr>,
    /// Mount point of procfs [default: /proc]
    #[arg(long = "path.procfs", global = true, value_name = "DIR", help_heading = PATHS, hide_short_help = true)]
    procfs: Option<PathBuf>,
    /// Mount point of sysfs [default: /sys]
    #[arg(long = "path.sysfs", global = true, value_name = "DIR", help_heading = PATHS, hide_short_help = true)]
    sysfs: Option<PathBuf>,
    /// Mount point of cgroups [default: /sys/fs/cgroup]
    #[arg(long = "path.cgroupfs", global = true, value_name = "DIR", help_heading = PATHS, hide_short_help = true)]
    cgroupfs: Option<PathBuf>,
    /// Mount point of debugfs [default: /sys/kernel/debug]
    #[arg(long = "path.debugfs", global = true, value_name = "DIR", help_heading = PATHS, hide_short_help = true)]
    debugfs: Option<PathBuf>,
    /// Mount point of tracefs [default: /sys/kernel/tracing]
    #[arg(long = "path.tracefs", global = true, value_name = "DIR", help_heading = PATHS, hide_short_help = true)]
    tracefs: Option<PathBuf>,
    /// Directory with the run-time state of daemons [default: /run]
    #[arg(long = "path.runfs", global = true, value_name = "DIR", help_heading = PATHS, hide_short_help = true)]
    runfs: Option<PathBuf>,
    /// Device nodes [default: /dev]
    #[arg(long = "path.devfs", global = true, value_name = "DIR", help_heading = PATHS, hide_short_help = true)]
    devfs: Option<PathBuf>,
    /// Lowest level of messages to log [default: info; demo: warn; top: error]
    #[arg(long = "log.level", global = true, value_name = "LEVEL", value_enum)]
    log_level: Option<LogLevel>,
    /// Format of log messages [default: text]
    #[arg(long = "log.format", global = true, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

/// Parses the arguments and runs a command.
pub fn run() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            out::say(&explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The definition that clap parses, for tests of the documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    file::remember_caller()?;
    let common = cli.common;
    match cli.command {
        None | Some(Command::Serve) => serve::run(&common, |_| ())?,
        Some(Command::Check(args)) => return check::run(&common, &args),
        Some(Command::List(args)) => list::run(&common, &args)?,
        Some(Command::Top(args)) => top::run(&common, &args)?,
        Some(Command::Catalog(args)) => catalog::run(&args)?,
        Some(Command::Pt(args)) => return pt::run(&common, &args),
        #[cfg(feature = "demo")]
        Some(Command::Demo(args)) => {
            let common = common.quiet(LogLevel::Warn);
            return match args.scenario() {
                Some(scenario) => demo::synthetic::run(&common, &args, scenario),
                None => demo::run(|on_ready| serve::run(&common, on_ready)),
            };
        }
        #[cfg(feature = "demo")]
        Some(Command::MicroVm(args)) => return crate::demo::micro_vm::main(&args),
    }
    Ok(ExitCode::SUCCESS)
}

/// The error and its causes. A cause that the text already contains is omitted.
fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("expected {}", crate::config::values::LISTEN_ADDRESS))
}

impl CommonArgs {
    /// The configuration: flags override the file, the file overrides the defaults.
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(file) => Config::load(file)?,
            None => Config::default(),
        };
        lay(&mut config.web.listen_address, &self.listen_address);
        lay(&mut config.paths.procfs, &self.procfs);
        lay(&mut config.paths.sysfs, &self.sysfs);
        lay(&mut config.paths.cgroupfs, &self.cgroupfs);
        lay(&mut config.paths.debugfs, &self.debugfs);
        lay(&mut config.paths.tracefs, &self.tracefs);
        lay(&mut config.paths.runfs, &self.runfs);
        lay(&mut config.paths.devfs, &self.devfs);
        lay(&mut config.log.level, &self.log_level);
        lay(&mut config.log.format, &self.log_format);
        // With file capabilities, this process may read files that its caller may not. A caller's
        // directory of symlinks in place of /proc would expose them.
        if config.paths != Paths::default() && file::exceeds_caller() {
            anyhow::bail!(
                "--path.* is refused, because the program file has capabilities: \
                 remove them (setcap -r) and run it as root, or as a service with AmbientCapabilities="
            );
        }
        Ok(config)
    }

    /// Raises the default log level, because messages would break up a table. A configuration file
    /// keeps its own level.
    fn quiet(mut self, level: LogLevel) -> Self {
        if self.config.is_none() {
            self.log_level.get_or_insert(level);
        }
        self
    }

    /// The configuration, with logging set up from it.
    fn start(&self) -> anyhow::Result<Config> {
        let config = self.config()?;
        log::init(config.log);
        Ok(config)
    }
}

fn lay<T: Clone>(value: &mut T, flag: &Option<T>) {
    if let Some(flag) = flag {
        value.clone_from(flag);
    }
}

/// Converts configured paths to roots. It is here because `host` and `config` do not import each
/// other.
fn roots(paths: &Paths) -> Arc<Roots> {
    let mut roots = Roots::default();
    roots.proc.clone_from(&paths.procfs);
    roots.sys.clone_from(&paths.sysfs);
    roots.cgroup.clone_from(&paths.cgroupfs);
    roots.debug.clone_from(&paths.debugfs);
    roots.tracing.clone_from(&paths.tracefs);
    roots.run.clone_from(&paths.runfs);
    roots.dev.clone_from(&paths.devfs);
    Arc::new(roots)
}

/// Opens the kernel log before the process drops `CAP_SYSLOG`, which opening it requires.
fn hold_kernel_log(config: &Config, roots: &Roots) {
    if config.sources.kernel_log.enabled {
        roots.hold_device(&kernel_log::path(roots));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Config {
        let args = std::iter::once("vcpu-exporter").chain(args.iter().copied());
        Cli::try_parse_from(args).unwrap().common.config().unwrap()
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    /// A command's own flags come before the common ones.
    #[test]
    fn help_begins_with_the_commands_own_flags() {
        let mut command = command();
        command.build();
        for (name, own) in [("top", "--url"), ("list", "--url"), ("check", "--json")] {
            let command = command.find_subcommand_mut(name).unwrap();
            let help = command.render_help().to_string();
            let at = |text: &str| help.find(text).unwrap_or(usize::MAX);
            assert!(at(own) < at("--config"), "{help}");
            assert!(at("Common options:") < at("--config"), "{help}");
            assert!(!help.contains("--path.procfs"), "{help}");
            let long = command.render_long_help().to_string();
            assert!(long.find("--path.procfs") > long.find("--config"), "{long}");
        }
    }

    #[test]
    fn no_flags_are_the_defaults() {
        assert_eq!(config(&[]), Config::default());
    }

    #[test]
    fn flags_override_the_file_before_and_after_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yml");
        let text =
            "web: {listen_address: '127.0.0.1:1'}\nlog: {level: warn}\nlimits: {max_series: 7}";
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        for args in [
            [
                "--config",
                file,
                "--web.listen-address=[::1]:2",
                "--path.procfs=p",
                "--log.level=debug",
                "list",
            ],
            [
                "list",
                "--web.listen-address=[::1]:2",
                "--path.procfs=p",
                "--log.level=debug",
                "--config",
                file,
            ],
        ] {
            let config = config(&args);
            assert_eq!(config.web.listen_address.to_string(), "[::1]:2");
            assert_eq!(config.paths.procfs, PathBuf::from("p"));
            assert_eq!(config.log.level, LogLevel::Debug);
            assert_eq!(config.limits.max_series, 7);
        }
    }

    #[test]
    fn every_path_flag_reaches_its_root() {
        let config = config(&[
            "--path.procfs=a",
            "--path.sysfs=b",
            "--path.cgroupfs=c",
            "--path.debugfs=d",
            "--path.tracefs=e",
            "--path.runfs=f",
            "--path.devfs=g",
        ]);
        let roots = roots(&config.paths);
        let all = [
            &roots.proc,
            &roots.sys,
            &roots.cgroup,
            &roots.debug,
            &roots.tracing,
            &roots.run,
            &roots.dev,
        ];
        assert_eq!(
            all.map(|p| p.to_str().unwrap()),
            ["a", "b", "c", "d", "e", "f", "g"]
        );
    }

    #[test]
    fn a_repeated_cause_is_printed_once() {
        let error = anyhow::anyhow!("gone")
            .context("cannot read x: gone")
            .context("list");
        assert_eq!(explain(&error), "list: cannot read x: gone");
    }

    #[test]
    fn a_wrong_command_line_is_status_2_and_says_what_was_expected() {
        let error =
            Cli::try_parse_from(["vcpu-exporter", "--web.listen-address", "nine"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("127.0.0.1:9752"), "{error}");
    }
}
