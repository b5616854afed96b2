//! `ergate log tail` of a service: its stream of events, taken up again where it broke.

use std::time::Duration;

use ergate::kafka::logs::shard_name;
use serde_json::{Map, Value};

use super::tail::{LINES, TailArgs};
use crate::cli::record;
use crate::cli::remote::sse::{Event, Events};
use crate::cli::remote::{Path, Remote, RemoteError};
use crate::cli::{Exit, Format, output};

/// How often the stream is opened anew without any event in between: about forty seconds, in which a service starts again.
const TRIES_MAX: u32 = 10;
/// Longest pause between two of them.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Shows the newest events, and those to come where that is asked for.
pub(super) fn tail(remote: &Remote, args: &TailArgs, format: Format) -> anyhow::Result<Exit> {
    // Whoever follows wants what comes, however many that are; the count only says where to begin.
    let left = if args.follow || args.from.is_none() { u64::MAX } else { args.lines.unwrap_or(u64::MAX) };
    let mut tail = Tail { remote, format, left, last: None };
    if left == 0 {
        return Ok(Exit::Done);
    }
    let mut tries = 0;
    loop {
        let before = tail.last;
        match tail.stream(args) {
            Ok(()) if !args.follow || tail.left == 0 => return Ok(Exit::Done),
            Ok(()) => {}
            Err(error) if args.follow && tail.may_go_on(&error) && tries < TRIES_MAX => {}
            Err(error) => return Err(error),
        }
        tries = if tail.last == before { tries + 1 } else { 1 };
        anyhow::ensure!(tries < TRIES_MAX, "the stream of {} ends again and again", remote.url());
        std::thread::sleep((Duration::from_millis(100) * 2_u32.saturating_pow(tries)).min(PAUSE_MAX));
    }
}

struct Tail<'a> {
    remote: &'a Remote,
    format: Format,
    /// Events that are still to be shown.
    left: u64,
    /// The last one that was shown.
    last: Option<u64>,
}

impl Tail<'_> {
    /// Shows one stream to its end.
    fn stream(&mut self, args: &TailArgs) -> anyhow::Result<()> {
        let (newest, from) = match args.from {
            Some(from) => (None, Some(from)),
            None => (Some(args.lines.unwrap_or(LINES)), None),
        };
        let path = Path::new("/v1/log").with("last", newest).with("from", from).with("last_event_id", self.last);
        let path = path.with("follow", (!args.follow).then_some(false)).with("shard", args.log.shard.map(shard_name));
        let mut events = Events::default();
        self.remote.stream(path, |bytes| {
            for event in events.take(bytes) {
                self.show(&event)?;
                if self.left == 0 {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    fn show(&mut self, event: &Event) -> anyhow::Result<()> {
        let object: Map<String, Value> = self.remote.parse(event.data.as_bytes())?;
        if event.name == "error" {
            anyhow::bail!("{}", object.get("detail").map(record::plain).unwrap_or_default());
        }
        match self.format {
            Format::Json => output::json(&object)?,
            Format::Table => output::line(&record::line(&object))?,
        }
        self.last = event.id.or(self.last);
        self.left -= 1;
        Ok(())
    }

    /// Whether the stream may be opened anew: it broke, or the service that was there is starting again.
    fn may_go_on(&self, error: &anyhow::Error) -> bool {
        match error.downcast_ref::<RemoteError>() {
            Some(RemoteError::Broken { .. } | RemoteError::Late { .. }) => true,
            Some(RemoteError::Unreachable { .. }) => self.last.is_some(),
            Some(RemoteError::Problem(problem)) => self.last.is_some() && matches!(problem.status, 429 | 503),
            Some(RemoteError::Tls { .. } | RemoteError::Foreign { .. } | RemoteError::Credential(_)) | None => false,
        }
    }
}
