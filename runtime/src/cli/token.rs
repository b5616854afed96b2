//! `ergate token`: tokens for the HTTP service.

use std::collections::BTreeSet;

use ergate::http::{NewToken, Right};
use serde_json::json;

use super::exit::Trouble;
use super::{Exit, Format, Globals, output};

/// Printed below the help of the verb.
const HELP: &str = "The token is printed once and kept nowhere: give it to its user, and put the line into the file that `http.tokens` names. The \
line holds only a hash, which lets nobody in. A line that is taken out locks its token out within a second; ` until=2030-01-31T12:00:00Z` at its end \
does so at that moment.";

/// What to do with tokens.
#[derive(clap::Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token, and the line for the file of tokens
    #[command(after_help = HELP)]
    New {
        /// Whose it is; the log names it with everything that is asked for with the token
        #[arg(long, default_value = "token")]
        name: String,
        /// What it allows: read, submit, operate (read and change), work (be a worker; work:POOL and work:POOL/TYPE only there) or admin
        /// (everything); several with commas between them
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',')]
        scopes: Vec<Right>,
    },
}

pub(crate) fn run(verb: TokenVerb, globals: &Globals) -> anyhow::Result<Exit> {
    let TokenVerb::New { name, scopes } = verb;
    let scopes: BTreeSet<Right> = scopes.into_iter().collect();
    let NewToken { token, line } = NewToken::make(&name, &scopes).map_err(Trouble::Usage)?;
    match globals.output {
        Format::Json => output::json(&json!({ "token": token, "line": line }))?,
        Format::Table => {
            output::note("the token, which is not shown again, and the line for the file of tokens:");
            output::line(&token)?;
            output::line(&line)?;
        }
    }
    Ok(Exit::Done)
}
