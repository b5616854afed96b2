//! `ergate log show --causal`: the events of all shards and of the log of pools in one order, see [`ergate::events::causal`].

use std::collections::{BTreeMap, VecDeque};

use ergate::events::block::Block;
use ergate::events::causal::{self, Head};
use ergate::events::event::Event;
use ergate::events::id::{Position, ShardId};
use ergate::events::log::{Cursor, LogError};

use crate::cli::exit::Trouble;
use crate::cli::moment::Moment;
use crate::cli::offline::Place;
use crate::cli::record::{self, Record};
use crate::cli::{Exit, Format, output};

/// Which part of the order.
pub(super) struct Part {
    pub(super) from: Option<Moment>,
    pub(super) until: Option<Moment>,
    pub(super) count: u64,
}

/// Prints the events of these logs in one order.
///
/// # Errors
/// What reading meets; when standard output is closed or full.
pub(super) fn show(places: &[Place], part: &Part, format: Format) -> anyhow::Result<Exit> {
    let positions = [part.from, part.until].into_iter().flatten().any(|moment| matches!(moment, Moment::Position(_)));
    if positions && places.len() > 1 {
        return Err(
            Trouble::Usage("every shard has its own positions; give a time, or choose a shard with --shard".to_owned()).into()
        );
    }
    let mut lines = places
        .iter()
        .map(|place| Ok((place.shard, Lines::begin(place, part, format)?)))
        .collect::<Result<BTreeMap<_, _>, LogError>>()?;
    let mut heads = BTreeMap::new();
    for (shard, lines) in &mut lines {
        heads.extend(lines.head()?.map(|head| (*shard, head)));
    }
    for _ in 0..part.count {
        let Some(shard) = causal::next(&heads) else { break };
        let Some(lines) = lines.get_mut(&shard) else { break };
        output::line(&lines.take().unwrap_or_default())?;
        match lines.head()? {
            Some(head) => drop(heads.insert(shard, head)),
            None => drop(heads.remove(&shard)),
        }
    }
    Ok(Exit::Done)
}

/// The events of one log as they are printed, a block at a time.
struct Lines<'a> {
    cursor: Box<dyn Cursor>,
    ready: VecDeque<(Head, String)>,
    part: &'a Part,
    format: Format,
    /// Where the log ended when it was opened.
    end: Position,
    is_over: bool,
}

impl<'a> Lines<'a> {
    fn begin(place: &Place, part: &'a Part, format: Format) -> Result<Lines<'a>, LogError> {
        let span = place.span();
        let from = match part.from {
            None => span.first,
            Some(Moment::Position(at)) => at,
            Some(Moment::Time(at)) => place.reader.seek_time(at)?,
        };
        let cursor = place.reader.cursor(from.min(span.next))?;
        Ok(Lines { cursor, ready: VecDeque::new(), part, format, end: span.next, is_over: false })
    }

    /// The place of the next event.
    fn head(&mut self) -> anyhow::Result<Option<Head>> {
        while self.ready.is_empty() && !self.is_over {
            match self.cursor.next_block()? {
                Some(block) if block.header.first_position < self.end => self.read(&block)?,
                Some(_) | None => self.is_over = true,
            }
        }
        Ok(self.ready.front().map(|(head, _)| head.clone()))
    }

    fn take(&mut self) -> Option<String> {
        self.ready.pop_front().map(|(_, line)| line)
    }

    fn read(&mut self, block: &Block) -> anyhow::Result<()> {
        for record in record::of(block) {
            let record = record?;
            let (position, at) = (record.envelope.position, record.envelope.recorded_at);
            let is_before = match self.part.from {
                Some(Moment::Position(from)) => position < from,
                Some(Moment::Time(from)) => at < from,
                None => false,
            };
            let is_behind = match self.part.until {
                Some(Moment::Position(until)) => position >= until,
                Some(Moment::Time(until)) => at > until,
                None => false,
            };
            if is_behind {
                self.is_over = true;
                break;
            }
            if !is_before {
                let head = Head { position, at, saw: saw(&record) };
                self.ready.push_back((head, line(&record, self.format)?));
            }
        }
        Ok(())
    }
}

fn line(record: &Record<'_>, format: Format) -> Result<String, serde_json::Error> {
    match format {
        Format::Json => serde_json::to_string(&super::json_with_shard(record)?),
        Format::Table => super::line_with_shard(record),
    }
}

/// How far an event had seen the shards. What the log of pools observed is all that one log says of another.
fn saw(record: &Record<'_>) -> Vec<(ShardId, Position)> {
    let Event::ShardsObserved { shards } = &record.envelope.event else { return Vec::new() };
    shards.iter().map(|reading| (reading.shard, reading.position)).collect()
}
