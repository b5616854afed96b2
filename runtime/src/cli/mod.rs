//! The command line: a verb a file.

mod bar;
mod bench;
mod choice;
mod config;
mod confirm;
mod dead;
mod demo;
mod dlq;
mod doctor;
mod embedded;
mod executors;
mod exit;
mod gpu;
mod import;
mod kafka;
mod launch;
mod log;
mod logs;
mod manual;
mod offline;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod policy;
mod pool;
mod progress;
mod pump;
mod remote;
mod replay;
mod schedule;
mod signals;
mod space;
mod status;
mod submit;
mod table;
mod task;
mod token;
mod up;
mod whatif;
mod why;
mod worker;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use ergate::look::{moment, record};
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
    /// The service to ask instead of looking at a data directory, such as http://127.0.0.1:7420; ERGATE_URL says it too
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// File with the token for the service; ERGATE_TOKEN_FILE names it too, and ERGATE_TOKEN holds a token itself
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// File with the certificates of services to trust, in PEM; ERGATE_CA names it too. Without it, those that this machine trusts
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// How long a service may be silent
    #[arg(long, global = true, value_name = "SPAN", default_value = "30s", value_parser = embedded::parse_span)]
    pub(crate) answer_within: std::time::Duration,
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
    /// Ask an engine, here or elsewhere, for work, and do it in this process
    Worker(worker::WorkerArgs),
    /// Look at workers, and let them end
    #[command(subcommand)]
    Workers(workers::WorkersVerb),
    /// Become another program, which ends with the process that started it
    #[command(hide = true)]
    Launch(launch::LaunchArgs),
    /// Submit one task, or one for each line of NDJSON, and run until they are done
    Submit(submit::SubmitArgs),
    /// Look at tasks, stop them, try them again
    #[command(subcommand)]
    Task(task::TaskVerb),
    /// Look at tasks that failed for good, and try many of them again
    #[command(subcommand)]
    DeadLetters(dead::DeadVerb),
    /// Look at pools, and set their sizes
    #[command(subcommand)]
    Pool(pool::PoolVerb),
    /// Look at scaling policies without a pool
    #[command(subcommand)]
    Policy(policy::PolicyVerb),
    /// Make pools with policies of the manifests of other autoscalers: HPA, KEDA, AWS
    Import(import::ImportArgs),
    /// Say why a pool has the size that it has
    Why(why::WhyArgs),
    /// Run a recorded day again under other scaling policies: what each would have cost, and how long tasks would have waited
    Whatif(whatif::WhatifArgs),
    /// Look at schedules, and pause, resume or trigger them
    #[command(subcommand)]
    Schedule(schedule::ScheduleVerb),
    /// Ask a service which version it is and whether it gets on
    Status,
    /// Look at records on Kafka that were refused as no requests, and send them again
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
    /// Make tokens for the HTTP service
    #[command(subcommand)]
    Token(token::TokenVerb),
    /// Show the configuration in force
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Print completions for a shell
    Completions(manual::CompletionsArgs),
    /// Print the manual, or write a page for each verb
    Man(manual::ManArgs),
}

impl Verb {
    /// Whether it can ask a service, so that `--url` means something to it.
    const fn asks_a_service(&self) -> bool {
        match self {
            Verb::Submit(_)
            | Verb::Task(_)
            | Verb::DeadLetters(_)
            | Verb::Pool(_)
            | Verb::Schedule(_)
            | Verb::Workers(_)
            | Verb::Why(_)
            | Verb::Status
            | Verb::Policy(_)
            | Verb::Whatif(_)
            | Verb::Replay(_) => true,
            Verb::Log(verb) => !matches!(verb, log::LogVerb::Repair(_)),
            Verb::Demo(_)
            | Verb::Up(_)
            | Verb::Worker(_)
            | Verb::Launch(_)
            | Verb::Dlq(_)
            | Verb::Import(_)
            | Verb::Bench(_)
            | Verb::Doctor(_)
            | Verb::Kafka(_)
            | Verb::Token(_)
            | Verb::Config(_)
            | Verb::Completions(_)
            | Verb::Man(_) => false,
        }
    }
}

/// Runs the command line and says how it went.
pub(crate) fn main() -> ExitCode {
    output::init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let globals = &cli.globals;
    if let Err(trouble) = output::start_logging(globals, matches!(cli.verb, Verb::Up(_) | Verb::Worker(_))) {
        return exit::report(Err(trouble.into()));
    }
    let code = exit::report(run(cli.verb, globals).map_err(|error| choice::explain(error, globals)));
    #[cfg(feature = "otlp")]
    otlp::end();
    code
}

fn run(verb: Verb, globals: &Globals) -> anyhow::Result<Exit> {
    if globals.url.is_some() && !verb.asks_a_service() {
        return Err(exit::Trouble::Usage("this verb works where it runs and asks no service; leave --url out".to_owned()).into());
    }
    match verb {
        Verb::Demo(args) => demo::run(args, globals),
        Verb::Up(args) => up::run(&args, globals),
        Verb::Worker(args) => worker::run(&args, globals),
        Verb::Launch(args) => launch::run(&args),
        Verb::Workers(verb) => workers::run(verb, globals),
        Verb::Why(args) => why::run(&args, globals),
        Verb::Submit(args) => submit::run(args, globals),
        Verb::Task(verb) => task::run(verb, globals),
        Verb::DeadLetters(verb) => dead::run(verb, globals),
        Verb::Pool(verb) => pool::run(verb, globals),
        Verb::Policy(verb) => policy::run(verb, globals),
        Verb::Import(args) => import::run(&args, globals),
        Verb::Whatif(args) => whatif::run(&args, globals),
        Verb::Schedule(verb) => schedule::run(verb, globals),
        Verb::Status => status::run(globals),
        Verb::Dlq(verb) => dlq::run(verb, globals),
        Verb::Log(verb) => log::run(verb, globals),
        Verb::Replay(args) => replay::run(&args, globals),
        Verb::Bench(args) => bench::run(args, globals),
        Verb::Doctor(args) => doctor::run(&args, globals),
        Verb::Kafka(verb) => kafka::run(verb, globals),
        Verb::Token(verb) => token::run(verb, globals),
        Verb::Config(verb) => config::run(verb, globals),
        Verb::Completions(args) => manual::completions(&args),
        Verb::Man(args) => manual::man(&args),
    }
}
