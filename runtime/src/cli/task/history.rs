//! `ergate task history`: the events of one task.

use ergate::events::id::TaskId;

use super::{each_event, unknown};
use crate::cli::logs::LogArgs;
use crate::cli::record::COLUMNS;
use crate::cli::table::Table;
use crate::cli::{Exit, Format, Globals, output};

/// Which task.
#[derive(clap::Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Its id, such as `0-42`
    id: TaskId,
}

pub(crate) fn run(args: &HistoryArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let place = args.log.of_task(args.id).open_one(globals)?;
    let index = place.index(globals)?;
    let mut table = Table::new(&COLUMNS);
    let found = each_event(&place, &index, args.id, &mut |record| match globals.output {
        Format::Json => output::json(&record.json()?),
        Format::Table => {
            table.row(record.cells()?);
            Ok(())
        }
    })?;
    if found == 0 {
        return Err(unknown(&place, args.id)?.into());
    }
    if globals.output == Format::Table {
        table.print()?;
    }
    Ok(Exit::Done)
}
