//! Completions and the manual, as shells and `man` take them.

use std::process::Command;

use crate::support::{refuses, run};

/// Every verb that the help names, and those below them.
fn verbs() -> Vec<String> {
    let below = |args: &[&str]| {
        let help = run(&[args, &["--help"]].concat()).expect(0).out;
        let list = help.split_once("Commands:\n").map_or(String::new(), |(_, rest)| rest.to_owned());
        let lines = list.lines().take_while(|line| line.starts_with("  "));
        let names =
            lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next().map(str::to_owned));
        names.filter(|name| name != "help").collect::<Vec<_>>()
    };
    let mut verbs = Vec::new();
    for verb in below(&[]) {
        verbs.extend(below(&[&verb]).into_iter().map(|inner| format!("{verb} {inner}")));
        verbs.push(verb);
    }
    assert!(verbs.len() > 40, "{verbs:?}");
    verbs
}

#[test]
fn shells_take_their_completions_and_find_every_verb_there() {
    for (shell, check) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish"), ("elvish", ""), ("powershell", "")] {
        let script = run(&["completions", shell]).expect(0).out;
        for verb in verbs() {
            assert!(script.contains(verb.rsplit(' ').next().unwrap()), "{shell}: {verb}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &script).unwrap();
        match Command::new(check).arg("-n").arg(file.path()).output() {
            Ok(checked) => assert!(checked.status.success(), "{shell}: {checked:?}"),
            Err(_) => crate::packages::say(&format!("SKIPPED the syntax of the completions for {shell}: it is not installed")),
        }
    }
    refuses(&run(&["completions", "tcsh"]), 2, &["bash"]);
}

#[test]
fn bash_completes_a_verb() {
    let script = run(&["completions", "bash"]).expect(0).out;
    let ask = "COMP_WORDS=(ergate task ca); COMP_CWORD=2; _ergate ergate ca task; echo \"${COMPREPLY[@]}\"";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{script}\n{ask}\n")).unwrap();
    match Command::new("bash").arg("--norc").arg(file.path()).output() {
        Ok(told) => assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), "cancel", "{told:?}"),
        Err(_) => crate::packages::say("SKIPPED bash_completes_a_verb: bash is missing"),
    }
}

#[test]
fn the_manual_has_a_page_for_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    run(&["man", "--dir", dir.path().to_str().unwrap()]).expect(0);
    for verb in verbs() {
        let name = format!("ergate-{}.1", verb.replace(' ', "-"));
        let page = std::fs::read_to_string(dir.path().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            page.contains(&format!("ergate {verb}")) || page.contains(&format!("ergate {}", verb).replace('-', "\\-")),
            "{name}: {page}"
        );
    }
    let all = run(&["man"]).expect(0).out;
    assert_eq!(all.matches("\n.SH SYNOPSIS").count(), std::fs::read_dir(dir.path()).unwrap().count());
    refuses(&run(&["man", "--dir", "/proc/nowhere"]), 8, &["/proc/nowhere"]);
}
