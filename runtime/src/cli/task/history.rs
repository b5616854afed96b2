//! `ergate task history`: the events of one task.

use ergate::events::id::TaskId;
use ergate::look::named::{name_others, name_type, needs_state};
use ergate::look::record::cells;
use serde_json::{Map, Value};

use super::{each_event, unknown};
use crate::cli::choice::{self, Side};
use crate::cli::logs::LogArgs;
use crate::cli::record::COLUMNS;
use crate::cli::remote::{Path, Remote};
use crate::cli::table::Table;
use crate::cli::{Exit, Format, Globals, output};

/// Events that a service is asked for at once; each may have a payload.
const PAGE: usize = 1_000;

/// Which task.
#[derive(clap::Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Its id, such as `0-42`
    id: TaskId,
}

pub(crate) fn run(args: &HistoryArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let mut table = Table::new(&COLUMNS);
    let mut each = |event: &Map<String, Value>| match globals.output {
        Format::Json => output::json(event),
        Format::Table => {
            table.row(cells(event));
            Ok(())
        }
    };
    match choice::side(globals, args.log.flag())? {
        Side::Service(remote) => online(&remote, args.id, &mut each)?,
        Side::Directory => offline(args, globals, &mut each)?,
    }
    if globals.output == Format::Table {
        table.print()?;
    }
    Ok(Exit::Done)
}

type Each<'a> = dyn FnMut(&Map<String, Value>) -> anyhow::Result<()> + 'a;

fn online(remote: &Remote, id: TaskId, each: &mut Each<'_>) -> anyhow::Result<()> {
    let path = Path::new("/v1/tasks").below(&id.to_string()).then("/history").with("limit", Some(PAGE));
    let mut cursor: Option<String> = None;
    loop {
        let page: Value = remote.get(path.clone().with("cursor", cursor.as_ref()))?;
        page["events"].as_array().into_iter().flatten().filter_map(Value::as_object).try_for_each(&mut *each)?;
        cursor = page["cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(());
        }
    }
}

fn offline(args: &HistoryArgs, globals: &Globals, each: &mut Each<'_>) -> anyhow::Result<()> {
    let place = args.log.of_task(args.id).open_one(globals)?;
    let index = place.index(globals)?;
    let (names, mut events) = (index.type_names()?, Vec::new());
    each_event(&place, &index, args.id, &mut |record| {
        let mut event = record.json()?;
        name_type(&mut event, &names);
        events.push(event);
        Ok(())
    })?;
    if events.is_empty() {
        return Err(unknown(&place, args.id)?.into());
    }
    // No index knows limits and schedules, and most tasks have to do with none.
    if events.iter().any(needs_state) {
        let state = place.fold_all(globals)?;
        events.iter_mut().for_each(|event| name_others(event, &state));
    }
    events.iter().try_for_each(each)
}
