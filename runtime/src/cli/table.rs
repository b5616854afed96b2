//! Aligned columns for people.

use super::output::{self, escape};

/// Widest cell that others are aligned to; a longer one pushes only its own line.
const WIDTH_MAX: usize = 48;

/// Rows under a heading, printed when all of them are known.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub(crate) fn new(heads: &[&str]) -> Table {
        Table { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| escape(&cell).replace('\n', "\\n")).collect());
    }

    /// Prints the heading and all rows.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| self.rows.iter().filter_map(move |row| row.get(column)).map(|cell| cell.chars().count());
        let widths: Vec<usize> =
            (0..columns).map(|column| width(column).filter(|w| *w <= WIDTH_MAX).max().unwrap_or(0)).collect();
        self.rows.iter().try_for_each(|row| output::line(&line(row, &widths)))
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// Prints facts with their names before them, aligned; facts without a value are left out.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn facts(facts: &[(&str, Option<String>)]) -> anyhow::Result<()> {
    let known = || facts.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?)));
    let width = known().map(|(name, _)| name.len()).max().unwrap_or(0);
    known().try_for_each(|(name, value)| output::line(&format!("{name:width$}  {}", escape(value))))
}
