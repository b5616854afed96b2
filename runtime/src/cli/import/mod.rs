//! `ergate import`: manifests of other autoscalers become pools with policies.
//!
//! Files are read within bounds (`source`, `yaml`), their objects translated without looking anywhere else (`hpa`, `keda`, `aws`), and what comes out
//! is checked as an engine would check it before anything is shown or written (`show`).

mod aws;
mod behavior;
mod fields;
mod hpa;
mod keda;
mod object;
mod plan;
mod quantity;
mod refusal;
mod show;
mod signal;
mod source;
#[cfg(test)]
mod tests;
mod trigger;
mod workload;
mod yaml;

use std::path::PathBuf;

use clap::ValueEnum;

use self::plan::{Outcome, PassedOver};
use self::refusal::Refusal;
use self::workload::Workloads;
use super::exit::Trouble;
use super::{Exit, Format, Globals};

/// Printed below the help of the verb.
const HELP: &str = "Manifests are YAML or JSON, with several documents or lists in a file. What has no equivalent is named in a note. docs/importing.md \
says what becomes of what. Exit codes: 0 done · 2 a manifest is invalid, cannot be read, or a file would be overwritten · 6 nothing to import in the \
files.";

/// Which manifests, and where to.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct ImportArgs {
    /// What the manifests are made for
    #[arg(value_enum)]
    from: From,
    /// The manifests; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Write pools.toml and a file for each policy into this directory instead of printing them
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Overwrite files that are there
    #[arg(long, requires = "into")]
    force: bool,
    /// For `aws`: the fewest replicas of a pool whose scalable target is not among the files; 1 without this
    #[arg(long, value_name = "N")]
    min: Option<u32>,
    /// For `aws`: the most replicas of such a pool
    #[arg(long, value_name = "N")]
    max: Option<u32>,
}

/// Whose manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// HorizontalPodAutoscalers of Kubernetes
    Hpa,
    /// ScaledObjects and ScaledJobs of KEDA
    Keda,
    /// Scalable targets and scaling policies of AWS Application Auto Scaling
    Aws,
}

pub(crate) fn run(args: &ImportArgs, globals: &Globals) -> anyhow::Result<Exit> {
    if args.from != From::Aws && (args.min.is_some() || args.max.is_some()) {
        return Err(Trouble::Usage(
            "--min and --max are for `aws`; objects of Kubernetes say themselves how many there may be".into(),
        )
        .into());
    }
    let files = source::read(&args.files).map_err(Trouble::Usage)?;
    let outcome = import(args.from, &files, (args.min, args.max)).map_err(|refusal| Trouble::Usage(refusal.to_string()))?;
    if outcome.pools.is_empty() {
        return Err(Trouble::NotFound(show::nothing(args.from, &outcome)).into());
    }
    match (&args.into, globals.output) {
        (Some(dir), format) => show::write(&outcome, dir, args.force, format)?,
        (None, Format::Json) => show::json(&outcome, &[])?,
        (None, Format::Table) => show::print(&outcome)?,
    }
    Ok(Exit::Done)
}

/// What becomes of texts with the names of their files.
fn import(from: From, files: &[(String, String)], bounds: (Option<u32>, Option<u32>)) -> Result<Outcome, Refusal> {
    let mut outcome = Outcome::default();
    let mut all = Vec::new();
    for (file, text) in files {
        all.push((file.clone(), yaml::read(text).map_err(|refusal| refusal.in_file(file))?));
    }
    if from == From::Aws {
        (outcome.pools, outcome.passed_over) = aws::read(&all, bounds)?;
    } else {
        let mut workloads = Workloads::default();
        for (file, documents) in all.iter().filter(|_| from == From::Hpa) {
            let noted = object::all(documents).and_then(|all| all.iter().try_for_each(|object| workloads.note(object)));
            noted.map_err(|refusal| refusal.in_file(file))?;
        }
        for (file, documents) in &all {
            objects(from, file, documents, &workloads, &mut outcome).map_err(|refusal| refusal.in_file(file))?;
        }
    }
    outcome.name_apart()?;
    Ok(outcome)
}

/// Translates the objects of Kubernetes in a file.
fn objects(
    from: From,
    file: &str,
    documents: &[yaml::Document],
    workloads: &Workloads,
    outcome: &mut Outcome,
) -> Result<(), Refusal> {
    for object in object::all(documents)? {
        let pool = match (from, object.kind) {
            (From::Hpa, "HorizontalPodAutoscaler") => hpa::read(&object, workloads),
            (From::Keda, "ScaledObject") => keda::object(&object),
            (From::Keda, "ScaledJob") => keda::job(&object),
            _ => {
                let hint = match object.kind {
                    "HorizontalPodAutoscaler" => Some("`ergate import hpa` reads it".to_owned()),
                    "ScaledObject" | "ScaledJob" => Some("`ergate import keda` reads it".to_owned()),
                    _ => None,
                };
                let (line, file) = (object.fields.line, file.to_owned());
                outcome.passed_over.push(PassedOver { object: object.title(), file, line, hint });
                continue;
            }
        };
        let mut pool = pool.map_err(|refusal| refusal.in_document(object.document))?;
        pool.made_of = format!("{} ({file}, line {})", pool.made_of, object.fields.line);
        outcome.pools.push(pool);
        if outcome.pools.len() > plan::WORKLOADS_MAX {
            break;
        }
    }
    Ok(())
}
