//! A list that is looked at again and again: drawn anew on a terminal, elsewhere a line for every change.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;

use super::list::{cells, table};
use crate::cli::{Exit, Format, output};

/// Takes the cursor to the top and clears what is there (ECMA-48 CUP and ED).
const CLEAR: &str = "\x1b[H\x1b[2J";
/// How often a list may be looked at; a look costs the service a copy of its state.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// Shows what `fetch` gives until somebody interrupts it or reads no more.
pub(super) fn run(every: Duration, format: Format, fetch: impl Fn() -> anyhow::Result<Vec<Value>>) -> anyhow::Result<Exit> {
    let mut known = Known::default();
    let draws = format == Format::Table && io::stdout().is_terminal();
    loop {
        let rows = fetch()?;
        if draws {
            write!(io::stdout(), "{CLEAR}")?;
            table(&rows).print()?;
        } else {
            known.changes(&rows).into_iter().try_for_each(|row| line(row, format))?;
        }
        io::stdout().flush()?;
        std::thread::sleep(every.max(EVERY_MIN));
    }
}

/// What was told of each task.
#[derive(Default)]
struct Known(BTreeMap<String, Value>);

impl Known {
    /// Rows that say something new, the oldest first. What is no longer on the list is forgotten.
    fn changes<'a>(&mut self, rows: &'a [Value]) -> Vec<&'a Value> {
        let id = |row: &Value| row["task"].as_str().unwrap_or_default().to_owned();
        let news = rows.iter().rev().filter(|row| self.0.get(&id(row)) != Some(*row)).collect();
        self.0 = rows.iter().map(|row| (id(row), row.clone())).collect();
        news
    }
}

fn line(row: &Value, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(row),
        Format::Table => {
            let [task, task_type, state, outcome, starts, since] = cells(row);
            output::line(&output::escape(&format!("{since}  {task:<8} {task_type:<16} {state:<10} {outcome:<10} {starts}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_new_is_told() {
        let row = |task: &str, state: &str| json!({ "task": task, "state": state });
        let mut known = Known::default();
        let first = [row("0-1", "running"), row("0-0", "ended")];
        assert_eq!(known.changes(&first), [&first[1], &first[0]]);
        assert!(known.changes(&first).is_empty());
        let second = [row("0-2", "ready"), row("0-1", "ended"), row("0-0", "ended")];
        assert_eq!(known.changes(&second), [&second[1], &second[0]]);
    }
}
