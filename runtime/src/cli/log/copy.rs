//! `ergate log copy`: keeps a copy of a running service's log, and brings it up to date when it is asked again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ergate::events::block::{Block, Hash};
use ergate::events::id::{Position, ShardId};
use ergate::events::log::directory::{self, Engine, Options, StoreId, identity};
use ergate::events::log::snapshot::{SnapshotInfo, SnapshotStore};
use ergate::events::log::{EventLog, Head, LogError};
use ergate::kafka::logs::shard_name;
use ergate::look::copy::{Begin, Piece, Pieces};
use serde_json::json;

use crate::cli::bar::Bar;
use crate::cli::exit::Trouble;
use crate::cli::remote::{self, Remote};
use crate::cli::{Exit, Format, Globals, choice, output};

/// Bytes of blocks that are written before the disk is waited for.
const SYNC_BYTES: usize = 32 << 20;
/// A file of the copy is never longer, so that retention and repair have something to hold on to.
const LOW_WATER_BYTES: u64 = 16 << 20;

#[derive(clap::Args)]
pub(crate) struct CopyArgs {
    /// Where the copy is kept: a new or empty directory, or one with an earlier copy, which goes on where it ended
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Which shard, of a log on Kafka: its number, or `capacity` for the log of pools
    #[arg(long, value_name = "SHARD", value_parser = super::super::logs::parse_shard)]
    shard: Option<ShardId>,
}

pub(super) fn run(args: &CopyArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let remote = choice::service(globals, "log copy")?;
    let copied = copy(&remote, args.shard, &args.dir, globals)?;
    let (from, next) = (copied.from, copied.head.next);
    match globals.output {
        Format::Json => output::json(&json!({
            "directory": args.dir, "store": copied.store.to_string(), "from": from, "next": next, "hash": copied.head.hash.to_string(),
        }))?,
        Format::Table => {
            let count = next.0 - from.0;
            let what = if count == 0 { "nothing new".to_owned() } else { format!("{count} events, {from} to {}", next.0 - 1) };
            output::line(&format!("copied {what}; {} ends at {next} after block {}", args.dir.display(), copied.head.hash))?;
        }
    }
    Ok(Exit::Done)
}

/// A copy that is whole.
pub(crate) struct Copied {
    store: StoreId,
    from: Position,
    head: Head,
}

/// Copies the log of a service into a directory, or what has come since the copy there was made.
///
/// # Errors
/// Where the directory holds anything else, and where the service or the disk fails; what came until then is kept, and asked for no more.
pub(crate) fn copy(remote: &Remote, shard: Option<ShardId>, dir: &Path, globals: &Globals) -> anyhow::Result<Copied> {
    let known = known(dir)?;
    let from = known.as_ref().map(|(_, log)| log.head().next);
    let path = remote::Path::new("/v1/log/copy").with("from", from).with("shard", shard.map(shard_name));
    let mut taking = Taking { dir, known, bar: None, globals, begin: None, snapshot: None, unsynced: 0, end: None };
    let mut pieces = Pieces::default();
    let outcome = remote.stream(path, |bytes| {
        for piece in pieces.take(bytes)? {
            taking.take(piece)?;
        }
        Ok(taking.end.is_none())
    });
    let kept = taking.close();
    outcome?;
    kept
}

/// The copy that is in a directory; nothing where there is none and one can be made.
fn known(dir: &Path) -> anyhow::Result<Option<(StoreId, Box<dyn EventLog>)>> {
    let is_empty =
        std::fs::read_dir(dir).map_or(true, |mut entries| entries.all(|entry| entry.is_ok_and(|entry| is_begun(&entry.path()))));
    match identity(dir) {
        Ok(found) => {
            let options = Options { low_water_bytes: LOW_WATER_BYTES, ..Options::default() };
            Ok(Some((found.id, directory::open(dir, &options)?.0)))
        }
        Err(LogError::NotFound { .. }) if is_empty && (dir.is_dir() || !dir.exists()) => Ok(None),
        Err(LogError::NotFound { .. }) => {
            let text = format!("{} is no empty directory and no log; name a directory for the copy alone", dir.display());
            Err(Trouble::Usage(text).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether this is what a copy leaves that ended before its first block.
fn is_begun(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "snapshots")
}

/// What has come of a copy.
struct Taking<'a> {
    dir: &'a Path,
    known: Option<(StoreId, Box<dyn EventLog>)>,
    bar: Option<Bar>,
    globals: &'a Globals,
    begin: Option<Begin>,
    /// The snapshot that the log goes on from, while it comes.
    snapshot: Option<File>,
    unsynced: usize,
    end: Option<Hash>,
}

impl Taking<'_> {
    fn take(&mut self, piece: Piece) -> anyhow::Result<()> {
        match piece {
            Piece::Begin(begin) => self.begin(begin),
            Piece::Snapshot(part) => self.keep(&part),
            Piece::Block(bytes) => self.append(&bytes),
            Piece::End(hash) => {
                self.log()?;
                self.end = Some(hash);
                Ok(())
            }
        }
    }

    fn begin(&mut self, begin: Begin) -> anyhow::Result<()> {
        if let Some((known, _)) = self.known.as_ref().filter(|(known, _)| known.0 != begin.store) {
            let (dir, other) = (self.dir.display(), StoreId(begin.store));
            let text = format!("{dir} is a copy of log {known}, and the service has log {other}; name another directory");
            return Err(Trouble::Usage(text).into());
        }
        self.bar = Some(Bar::new(self.globals, "copying", begin.first.0, begin.next.0));
        self.begin = Some(begin);
        Ok(())
    }

    fn beginning(&self) -> anyhow::Result<Begin> {
        self.begin.ok_or_else(|| anyhow::anyhow!("the service sent blocks of no log"))
    }

    fn keep(&mut self, part: &[u8]) -> anyhow::Result<()> {
        let begin = self.beginning()?;
        let path = SnapshotStore::open(self.dir, begin.store).path(begin.first);
        let unwritable = |source| Trouble::Unwritable { path: path.clone(), source };
        let file = match &mut self.snapshot {
            Some(file) => file,
            None => {
                path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(unwritable)?;
                self.snapshot.insert(File::create(&path).map_err(unwritable)?)
            }
        };
        Ok(file.write_all(part).map_err(unwritable)?)
    }

    /// The log that is written, made when its first block comes.
    fn log(&mut self) -> anyhow::Result<&mut dyn EventLog> {
        if self.known.is_none() {
            let begin = self.beginning()?;
            let store_id = Some(StoreId(begin.store));
            let options =
                Options { create: true, engine: Some(Engine::File), store_id, begin: self.base(begin)?, ..Options::default() };
            let (log, recovery) = directory::open(self.dir, &Options { low_water_bytes: LOW_WATER_BYTES, ..options })?;
            self.known = Some((recovery.store, log));
        }
        let (_, log) = self.known.as_mut().expect("it was made above");
        Ok(log.as_mut())
    }

    /// Where the log begins: where the snapshot was taken that came, verified.
    fn base(&mut self, begin: Begin) -> anyhow::Result<Head> {
        let Some(file) = self.snapshot.take() else { return Ok(Head::default()) };
        let snapshots = SnapshotStore::open(self.dir, begin.store);
        let path = snapshots.path(begin.first);
        file.sync_all().map_err(|source| Trouble::Unwritable { path: path.clone(), source })?;
        Ok(snapshots.load(&SnapshotInfo { path, position: begin.first })?.head)
    }

    fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        // Read and sealed anew: a block that is not what it says never gets in.
        let block = Block::parse(bytes).map_err(|error| anyhow::anyhow!("a block did not come as it was sent: {error}"))?;
        let sealed = block.seal_again().map_err(|error| anyhow::anyhow!("a block cannot be read: {error}"))?;
        let log = self.log()?;
        log.append(&sealed)?;
        self.unsynced += bytes.len();
        if let Some(bar) = &self.bar {
            bar.at(sealed.header.next_position().0);
        }
        if self.unsynced >= SYNC_BYTES {
            self.log()?.sync()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Makes what came durable, and says whether it is all.
    fn close(mut self) -> anyhow::Result<Copied> {
        let Some((store, mut log)) = self.known.take() else { anyhow::bail!("the service sent no log") };
        log.sync()?;
        let head = log.head();
        log.close()?;
        match self.end {
            Some(hash) if hash == head.hash => {
                Ok(Copied { store, from: self.begin.map_or(head.next, |begin| begin.first), head })
            }
            Some(hash) => {
                let dir = self.dir.display();
                anyhow::bail!(
                    "the log of the service has another history than {dir}: at {} it has block {hash}, not {}",
                    head.next,
                    head.hash
                )
            }
            None => anyhow::bail!(
                "the copy in {} ends at {} and is not whole; ask again, and it goes on from there",
                self.dir.display(),
                head.next
            ),
        }
    }
}
