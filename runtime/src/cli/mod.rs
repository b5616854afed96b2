//! The command line: a verb a file.

mod bar;
mod bench;
mod config;
mod demo;
mod dlq;
mod doctor;
mod embedded;
mod exit;
mod kafka;
mod log;
mod logs;
mod moment;
mod offline;
mod output;
mod progress;
mod pump;
mod record;
mod replay;
mod signals;
mod space;
mod submit;
mod table;
mod task;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use exit::Exit;

/// An event-sourced task runtime with an autoscaler you can audit.
#[derive(Parser)]
#[command(name = "ergate", version, propagate_version = true, arg_required_else_help = true, after_help = exit::HELP)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb understands.
#[derive(Args, Clone, Debug)]
pub(crate) struct Globals {
    /// Directory of the log; the default is `./ergate-data`, or what the configuration says
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Configuration file; the default is `./ergate.toml` where there is one
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How answers are printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// No progress on the way, only results and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs: one JSON object, or one a line
    Json,
}

#[derive(Subcommand)]
enum Verb {
    /// Digest every file under a directory as tasks, then replay and verify the log
    Demo(demo::DemoArgs),
    /// Run until a signal comes: the engine that takes requests, does them and keeps the record
    Up(up::UpArgs),
    /// Submit one task, or one for each line of NDJSON, and run until they are done
    Submit(submit::SubmitArgs),
    /// Look at tasks
    #[command(subcommand)]
    Task(task::TaskVerb),
    /// Look at what was refused, and send it again
    #[command(subcommand)]
    Dlq(dlq::DlqVerb),
    /// Look at the log, check it, export it, repair it
    #[command(subcommand)]
    Log(log::LogVerb),
    /// Fold the log to a moment and show the state, or the difference between two moments
    Replay(replay::ReplayArgs),
    /// Measure the whole path, beside a bare append-only file
    Bench(bench::BenchArgs),
    /// Say what this machine and this data directory are fit for
    Doctor(doctor::DoctorArgs),
    /// Prepare Apache Kafka for a log, check that it is fit for one, and show how it is doing
    #[command(subcommand)]
    Kafka(kafka::KafkaVerb),
    /// Show the configuration in force
    #[command(subcommand)]
    Config(config::ConfigVerb),
}

/// Runs the command line and says how it went.
pub(crate) fn main() -> ExitCode {
    output::init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    output::start_logging(&cli.globals);
    let globals = &cli.globals;
    let outcome = match cli.verb {
        Verb::Demo(args) => demo::run(args, globals),
        Verb::Up(args) => up::run(&args, globals),
        Verb::Submit(args) => submit::run(args, globals),
        Verb::Task(verb) => task::run(verb, globals),
        Verb::Dlq(verb) => dlq::run(verb, globals),
        Verb::Log(verb) => log::run(verb, globals),
        Verb::Replay(args) => replay::run(&args, globals),
        Verb::Bench(args) => bench::run(args, globals),
        Verb::Doctor(args) => doctor::run(&args, globals),
        Verb::Kafka(verb) => kafka::run(verb, globals),
        Verb::Config(verb) => config::run(verb, globals),
    };
    exit::report(outcome)
}
