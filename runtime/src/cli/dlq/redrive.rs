//! `ergate dlq redrive`: sends refused records again, as they were or mended.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ergate::kafka::refused::{DeadLetters, Entry, Letter, LetterId, Source};
use serde_json::json;

use super::Topics;
use crate::cli::exit::Trouble;
use crate::cli::{Exit, Format, Globals, confirm, output, progress};

/// Records in one transaction: enough that the transaction costs little.
const BATCH: usize = 500;
/// Bytes in one transaction beyond which another one begins.
const BATCH_BYTES: usize = 4 << 20;

/// Which records, and how.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("which").args(["ids", "all", "reason"]).required(true)))]
pub(crate) struct RedriveArgs {
    #[command(flatten)]
    topics: Topics,
    /// Their places, as `ergate dlq list` shows them; one that was sent again already goes once more
    #[arg(value_name = "ID")]
    ids: Vec<LetterId>,
    /// All that were not sent again yet
    #[arg(long)]
    all: bool,
    /// Those not sent again yet whose reason has this text in it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Send nothing, but write the value of the one record to this file, to be mended
    #[arg(long, value_name = "FILE", conflicts_with_all = ["edit", "all", "reason", "dry_run", "yes"])]
    to_file: Option<PathBuf>,
    /// Send the one record with the value that is in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "reason"])]
    edit: Option<PathBuf>,
    /// Only say what would be sent
    #[arg(long)]
    dry_run: bool,
    /// Send without asking
    #[arg(short, long)]
    yes: bool,
}

pub(crate) fn run(args: &RedriveArgs, globals: &Globals) -> anyhow::Result<Exit> {
    if (args.to_file.is_some() || args.edit.is_some()) && args.ids.len() != 1 {
        return Err(Trouble::Usage("--to-file and --edit take one record; name one".to_owned()).into());
    }
    let letters = args.topics.open(globals)?;
    if let Some(path) = &args.to_file {
        return to_file(&one(&letters, args.ids[0])?, path);
    }
    let ids = if args.ids.is_empty() { open(&letters, args.reason.as_deref())? } else { args.ids.clone() };
    let mended = args.edit.as_ref().map(|path| std::fs::read(path).map_err(|source| unreadable(path, &source))).transpose()?;
    if ids.is_empty() {
        return finish(0, args, globals);
    }
    if args.dry_run {
        for id in &ids {
            tell(&one(&letters, *id)?, globals)?;
        }
        return finish(ids.len(), args, globals);
    }
    if !args.ids.is_empty() {
        // All are looked for before any is sent.
        ids.iter().try_for_each(|id| one(&letters, *id).map(drop))?;
    }
    if !args.yes
        && !confirm::confirm(&format!("send {} again?", progress::count(ids.len() as u64, "refused record", "refused records")))?
    {
        return Ok(Exit::Interrupted);
    }
    let sent = send(&letters, &ids, mended.as_deref())?;
    finish(sent, args, globals)
}

/// The records that were not sent again, of all or of some reasons.
fn open(letters: &DeadLetters, reason: Option<&str>) -> anyhow::Result<Vec<LetterId>> {
    let mut found = BTreeSet::new();
    letters.each(&mut |entry| {
        match entry {
            // It lies behind the record that it marks.
            Entry::Mark(of) => drop(found.remove(&of)),
            Entry::Nothing => {}
            Entry::Letter(letter) if letters.can_redrive(&letter) && reason.is_none_or(|text| letter.reason.contains(text)) => {
                found.insert(letter.id);
            }
            Entry::Letter(_) => {}
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(found.into_iter().collect())
}

fn one(letters: &DeadLetters, id: LetterId) -> anyhow::Result<Letter> {
    let missing = || Trouble::NotFound(format!("no refused record lies at {id}; `ergate dlq list` shows those that are there"));
    let letter = letters.get(id)?.ok_or_else(missing)?;
    if let (Some(bytes), Some(Source { topic, partition, offset })) = (letter.cut_from, &letter.source) {
        return Err(Trouble::Usage(format!(
            "{id} cannot be sent again: only the beginning of its {bytes} bytes was kept; all of it is at offset {offset} of {topic}-{partition}"
        ))
        .into());
    }
    if !letters.can_redrive(&letter) {
        let from = letter.source.map_or_else(|| "nobody knows where".to_owned(), |source| source.topic);
        return Err(Trouble::Usage(format!(
            "{id} cannot be sent again: it came from {from}, which is not this namespace's requests"
        ))
        .into());
    }
    Ok(letter)
}

/// Sends them in the order in which they lie there.
fn send(letters: &DeadLetters, ids: &[LetterId], mended: Option<&[u8]>) -> anyhow::Result<usize> {
    let wanted: BTreeSet<LetterId> = ids.iter().copied().collect();
    let redriver = letters.redriver()?;
    let (mut batch, mut bytes, mut sent) = (Vec::new(), 0, 0);
    letters.each(&mut |entry| {
        let Entry::Letter(mut letter) = entry else { return Ok(()) };
        if wanted.contains(&letter.id) {
            letter.value = mended.map(<[u8]>::to_vec).or(letter.value);
            bytes += letter.value.as_ref().map_or(0, Vec::len);
            batch.push(*letter);
        }
        if batch.len() >= BATCH || bytes >= BATCH_BYTES {
            sent += redriver.send(&batch)?;
            batch.clear();
            bytes = 0;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    if !batch.is_empty() {
        sent += redriver.send(&batch)?;
    }
    Ok(sent)
}

fn to_file(letter: &Letter, path: &Path) -> anyhow::Result<Exit> {
    let unwritable = |source| Trouble::Unwritable { path: path.to_owned(), source };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(unwritable)?;
    file.write_all(letter.value.as_deref().unwrap_or_default()).map_err(unwritable)?;
    output::note(&output::escape(&format!(
        "refused because: {}; mend {} and send it with --edit",
        letter.reason,
        output::quoted(&path.display().to_string())
    )));
    Ok(Exit::Done)
}

fn unreadable(path: &Path, source: &io::Error) -> Trouble {
    Trouble::Usage(format!("{} cannot be read: {source}", path.display()))
}

fn tell(letter: &Letter, globals: &Globals) -> anyhow::Result<()> {
    let Some(source) = &letter.source else { return Ok(()) };
    match globals.output {
        Format::Json => output::json(
            &json!({ "id": letter.id.to_string(), "topic": source.topic, "partition": source.partition, "reason": letter.reason }),
        ),
        Format::Table => {
            let line = format!(
                "{} would go to {}-{}; it was refused because: {}",
                letter.id, source.topic, source.partition, letter.reason
            );
            output::line(&output::escape(&line))
        }
    }
}

fn finish(count: usize, args: &RedriveArgs, globals: &Globals) -> anyhow::Result<Exit> {
    match globals.output {
        Format::Json => output::json(&json!({ "redriven": if args.dry_run { 0 } else { count }, "dry_run": args.dry_run }))?,
        Format::Table if args.dry_run => output::line(&format!("{count} would be sent again"))?,
        Format::Table => output::line(&format!("{count} sent again"))?,
    }
    Ok(Exit::Done)
}
