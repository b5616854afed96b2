//! Asks before much is changed at once.

use std::io::{self, IsTerminal, Write};

use super::exit::Trouble;

/// Refuses where nobody could answer.
pub(crate) fn require_terminal() -> Result<(), Trouble> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Trouble::Usage(
        "nobody is there to confirm it; add --yes to go on without asking, or --dry-run to see what would be done".to_owned(),
    ))
}

/// Asks, and says whether the answer is yes.
pub(crate) fn confirm(question: &str) -> anyhow::Result<bool> {
    require_terminal()?;
    write!(io::stderr(), "{question} [y/N] ")?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
