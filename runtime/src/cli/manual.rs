//! `ergate completions` and `ergate man`: what shells and `man` know of the command, made from the command itself.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::exit::Trouble;
use super::{Cli, Exit, output};

/// Which shell.
#[derive(clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to complete `ergate`
    #[arg(value_enum)]
    shell: Shell,
}

/// Where the pages go.
#[derive(clap::Args)]
pub(crate) struct ManArgs {
    /// Write a page for each verb into this directory, such as ~/.local/share/man/man1, instead of printing all as one
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the completions for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ergate", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}

/// Prints the manual, or writes its pages.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<Exit> {
    let pages = pages();
    match &args.dir {
        None => pages.iter().try_for_each(|(_, page)| io::stdout().write_all(page))?,
        Some(dir) => {
            write_all(dir, &pages)?;
            output::note(&output::escape(&format!("{} pages are in {}", pages.len(), dir.display())));
        }
    }
    Ok(Exit::Done)
}

fn write_all(dir: &Path, pages: &[(String, Vec<u8>)]) -> Result<(), Trouble> {
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |source| Trouble::Unwritable { path, source }
    };
    std::fs::create_dir_all(dir).map_err(unwritable(dir))?;
    for (name, page) in pages {
        let path = dir.join(name);
        std::fs::write(&path, page).map_err(unwritable(&path))?;
    }
    Ok(())
}

/// The page of every verb with the name of its file, the command itself first.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, "ergate", &mut pages);
    pages
}

fn add(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) {
    let mut page = Vec::new();
    // Writing into memory cannot fail.
    let _ = Man::new(command.clone()).render(&mut page);
    pages.push((format!("{name}.1"), page));
    for verb in command.get_subcommands() {
        add(verb, &format!("{name}-{}", verb.get_name()), pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    /// Every verb, as it is typed.
    fn verbs() -> Vec<String> {
        fn walk(command: &Command, before: &str, verbs: &mut Vec<String>) {
            // What is hidden is for this program alone.
            for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
                let name = format!("{before} {}", verb.get_name());
                walk(verb, &name, verbs);
                verbs.push(name);
            }
        }
        let mut verbs = Vec::new();
        walk(&Cli::command(), "ergate", &mut verbs);
        assert!(verbs.len() > 40, "{verbs:?}");
        verbs
    }

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_page_for_people_names_every_verb() {
        let page = include_str!("../../../docs/cli.md");
        let missing: Vec<_> = verbs().into_iter().filter(|verb| !page.contains(verb.as_str())).collect();
        assert_eq!(missing, [""; 0], "docs/cli.md does not name them");
    }

    #[test]
    fn the_manual_has_a_page_for_every_verb() {
        let pages = pages();
        for verb in verbs() {
            let name = format!("{}.1", verb.replace(' ', "-"));
            let page = pages.iter().find(|(known, _)| *known == name).map(|(_, page)| String::from_utf8_lossy(page));
            let page = page.unwrap_or_else(|| panic!("{name} is missing"));
            assert!(page.contains(".TH") && page.contains("SYNOPSIS"), "{name}: {page}");
        }
    }

    #[test]
    fn every_shell_completes_every_verb() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "ergate", &mut script);
            let script = String::from_utf8_lossy(&script).into_owned();
            for verb in verbs() {
                let last = verb.rsplit(' ').next().unwrap_or_default();
                assert!(script.contains(last), "{shell}: {verb}");
            }
        }
    }
}
