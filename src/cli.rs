//! The command line: one file for each command.
//!
//! Flags override the configuration file. Exit status: 0 done, 1 failed (or `check`: not usable),
//! 2 the command line is wrong.

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

/// What every vCPU of every KVM virtual machine on this host is doing, for Prometheus.
#[derive(Debug, Parser)]
#[command(name = "vcpu-exporter", version = VERSION, infer_subcommands = false)]
#[command(after_help = "Exit status: 0 done, 1 failed (check: not usable), 2 wrong command line.")]
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
    /// Watch all VMs and serve their metrics (the default)
    Serve,
    /// Say what each source needs, whether it is there, and how to get it
    Check(check::CheckArgs),
    /// List the VMs and their vCPUs, and where each runs now
    List(list::ListArgs),
    /// Show what every vCPU does now, as top shows processes
    Top(top::TopArgs),
    /// Describe every metric
    Catalog(catalog::CatalogArgs),
    /// Use Intel Processor Trace by hand
    Pt(pt::PtArgs),
    /// Start three tiny KVM guests and watch them, or a host that does not exist
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// One guest of the demo
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    MicroVm(crate::demo::micro_vm::MicroVmArgs),
}

/// Flags that all commands take, before or after the command's name.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonArgs {
    /// Configuration file; deploy/vcpu-exporter.yml describes every key
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port to serve on [default: 127.0.0.1:9752]
    #[arg(long = "web.listen-address", global = true, value_name = "ADDRESS:PORT", value_parser = listen_address)]
    listen_address: Option<SocketAddr>,
    /// Where procfs is mounted [default: /proc]
    #[arg(long = "path.procfs", global = true, value_name = "DIR")]
    procfs: Option<PathBuf>,
    /// Where sysfs is mounted [default: /sys]
    #[arg(long = "path.sysfs", global = true, value_name = "DIR")]
    sysfs: Option<PathBuf>,
    /// Where cgroups are mounted [default: /sys/fs/cgroup]
    #[arg(long = "path.cgroupfs", global = true, value_name = "DIR")]
    cgroupfs: Option<PathBuf>,
    /// Where debugfs is mounted [default: /sys/kernel/debug]
    #[arg(long = "path.debugfs", global = true, value_name = "DIR")]
    debugfs: Option<PathBuf>,
    /// Where tracefs is mounted [default: /sys/kernel/tracing]
    #[arg(long = "path.tracefs", global = true, value_name = "DIR")]
    tracefs: Option<PathBuf>,
    /// Where daemons keep their run-time state [default: /run]
    #[arg(long = "path.runfs", global = true, value_name = "DIR")]
    runfs: Option<PathBuf>,
    /// Where device nodes are [default: /dev]
    #[arg(long = "path.devfs", global = true, value_name = "DIR")]
    devfs: Option<PathBuf>,
    /// Least important message to log [default: info, in the demo warn, in top error]
    #[arg(long = "log.level", global = true, value_name = "LEVEL", value_enum)]
    log_level: Option<LogLevel>,
    /// How messages are logged [default: text]
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

/// The command line as clap sees it, for tests of the documentation.
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
        Some(Command::MicroVm(args)) => return Ok(crate::demo::micro_vm::main(&args)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// The error and its causes; a cause that the error before it already told is left out.
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
    /// The configuration file, or the defaults, with the flags laid over it.
    ///
    /// # Errors
    /// When the file cannot be read or is wrong.
    pub fn config(&self) -> anyhow::Result<Config> {
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
        // What looks like the host's files may be links to whatever the caller wants to read.
        if config.paths != Paths::default() && file::exceeds_caller() {
            anyhow::bail!(
                "paths (--path.*) cannot be set in a program with file capabilities: \
                 setcap -r on it, and run it as root or by a service with AmbientCapabilities="
            );
        }
        Ok(config)
    }

    /// Logs nothing less important, unless told otherwise: messages would tear a table.
    fn quiet(mut self, level: LogLevel) -> Self {
        if self.config.is_none() {
            self.log_level.get_or_insert(level);
        }
        self
    }

    /// The configuration, with logs set up as it says.
    ///
    /// # Errors
    /// As [`CommonArgs::config`].
    pub fn start(&self) -> anyhow::Result<Config> {
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

/// The roots at these paths. Here, because `host` and `config` do not know each other.
pub fn roots(paths: &Paths) -> Arc<Roots> {
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

/// Opens the kernel's log while this process may: it gives up `CAP_SYSLOG` after.
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
    fn causes_are_told_once() {
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
