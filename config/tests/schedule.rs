//! `[schedule.NAME]`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use ergate_config::{Config, ConfigError, DEFAULT_TOML, load};
use ergate_events::schedule::{CatchUp, Label, Overlap, ScheduleSettings, When};
use ergate_events::time::{Micros, Timestamp};

fn read(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.toml");
    std::fs::write(&file, text).unwrap();
    load(Some(&file), env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn refused(text: &str) -> String {
    let said = read(text, &[]).unwrap_err().to_string();
    said[said.find("my.toml").unwrap()..].to_owned()
}

#[test]
fn a_schedule_is_read_with_all_its_keys() {
    let text = "[schedule.\"nightly\"]\ncron = \"0 3 * * *\"\ntimezone = \"Europe/Berlin\"\ntask = \"thumbnail\"\ncatch_up = \"run-once\"\n\
                overlap = \"cancel-previous\"\npayload = '{\"full\": true}'\nlabels = [\"team=blue\"]\npriority = 7\n\
                [schedule.often]\nevery = \"10m\"\ntask = \"t\"\n[schedule.once]\nat = 2030-01-31T12:00:00Z\ntask = \"t\"\n";
    let config = read(text, &[("ERGATE_SCHEDULE__OFTEN__CATCH_UP", "run-all")]).unwrap();
    let read_at = |at: &str, timezone: &str| {
        assert_eq!((at, timezone), ("2030-01-31T12:00:00Z", "UTC"));
        Ok::<_, String>(When::At(Timestamp(7)))
    };
    let all: Vec<_> = config.schedules_with(read_at).unwrap().into_iter().collect();
    let nightly = ScheduleSettings {
        timezone: "Europe/Berlin".to_owned(),
        payload: "{\"full\": true}".to_owned(),
        labels: vec![Label { name: "team".to_owned(), value: "blue".to_owned() }],
        priority: Some(7),
        catch_up: CatchUp::RunOnce,
        overlap: Overlap::CancelPrevious,
        ..ScheduleSettings::new(When::Cron("0 3 * * *".to_owned()), "thumbnail")
    };
    let often = ScheduleSettings { catch_up: CatchUp::RunAll, ..ScheduleSettings::new(When::Every(Micros::from_secs(600)), "t") };
    let once = ScheduleSettings::new(When::At(Timestamp(7)), "t");
    assert_eq!(all, [("nightly", nightly), ("often", often), ("once", once)].map(|(name, settings)| (name.to_owned(), settings)));
    let shown = config.settings();
    let value = |key: &str| shown.iter().find(|setting| setting.key == key).unwrap().value.clone();
    assert_eq!(
        (value("schedule.nightly.labels"), value("schedule.often.every")),
        ("[\"team=blue\"]".to_owned(), "10m".to_owned())
    );
    assert_eq!((value("schedule.often.timezone"), value("schedule.nightly.catch_up")), ("UTC".to_owned(), "run-once".to_owned()));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let cron = refused("\n[schedule.a]\ncron = \"0 25 * * *\"\ntask = \"t\"\n");
    let expected = "my.toml:3: `schedule.a.cron` is refused: \"25\" is no hour; 0 to 23 are\n  0 25 * * *\n    ^^";
    assert_eq!(cron, expected);
    let key = refused("[schedule.a]\ncorn = \"0 3 * * *\"\n");
    assert!(key.starts_with("my.toml:2: there is no key `schedule.a.corn`; the nearest is `schedule.a.cron`"), "{key}");
    for (text, words) in [
        ("[schedule.a]\ntask = \"t\"\n", "needs one of `cron`, `every` and `at`"),
        ("[schedule.a]\ntask = \"t\"\ncron = \"@daily\"\nevery = \"1h\"\n", "has no use for two"),
        ("[schedule.a]\ncron = \"@daily\"\n", "`schedule.a.task` is refused"),
        ("[schedule.a]\nevery = \"500ms\"\n", "a duration from \"1s\" to \"366d\""),
        ("[schedule.a]\ncatch_up = \"run_once\"\n", "\"skip\", \"run-once\" or \"run-all\""),
        ("[schedule.a]\noverlap = \"never\"\n", "\"allow\", \"skip\" or \"cancel-previous\""),
        ("[schedule.a]\nlabels = [\"blue\"]\n", "\"team=blue\""),
        ("[schedule.a]\n", "there is no key `schedule.a`"),
    ] {
        let said = refused(text);
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}

#[test]
fn every_key_is_explained_in_the_defaults_and_what_they_show_can_be_used() {
    let (_, shown) = DEFAULT_TOML.split_once("# [schedule.nightly]").unwrap();
    let (shown, _) = shown.split_once("\n\n").unwrap();
    let text: String = shown.lines().map(|line| line.strip_prefix("# ").unwrap_or_default().to_owned() + "\n").collect();
    let config = read(&format!("[schedule.nightly]\n{text}"), &[]).unwrap();
    assert_eq!(config.schedules_with(|_, _| Ok::<_, String>(When::At(Timestamp(7)))).unwrap().len(), 3);
    for setting in config.settings().iter().filter(|setting| setting.key.starts_with("schedule.nightly.")) {
        let key = setting.key.rsplit_once('.').unwrap().1;
        assert!(shown.contains(&format!("\n# {key} = ")), "{key} is not in default.toml");
    }
}
