//! `[limit.NAME]`, `limit` of a task type, and the presets of pools.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use ergate_config::Preset;
use ergate_events::limit::{LimitSettings, Rate};
use ergate_events::time::Micros;
use support::{read, refuses};

const RUN: &str = "executor = { process = [\"x\"] }\n";

#[test]
fn shared_limits_and_those_of_a_type_are_read() {
    let text = format!(
        "[limit.tenants]\nkey = \"tenant\"\nconcurrency = 5\nrate = \"100/s\"\n[limit.all]\nrate = \"5/10s\"\nburst = 2\n\
         [task.a]\n{RUN}limits = [\"tenants\", \"all\"]\nlimit = {{ ready = 1 }}\n[task.\"b.c\"]\n{RUN}[task.d]\n{RUN}limit.rate = \"20/min\"\n"
    );
    let config = read(&text, &[("ERGATE_LIMIT__TENANTS__CONCURRENCY", "7")]).unwrap();
    let rate = |permits, per, burst| Some(Rate { permits, per: Micros::from_secs(per), burst });
    let expected = [
        ("all", LimitSettings { rate: rate(5, 10, 2), ..LimitSettings::default() }),
        ("tenants", LimitSettings { key: Some("tenant".to_owned()), concurrency: Some(7), rate: rate(100, 1, 100), ready: None }),
        ("task:a", LimitSettings { ready: Some(1), ..LimitSettings::default() }),
        ("task:d", LimitSettings { rate: rate(20, 60, 1), ..LimitSettings::default() }),
    ];
    assert_eq!(config.limits().unwrap(), expected.map(|(name, limit)| (name.to_owned(), limit)));
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(config.limits_of_tasks().unwrap(), [("a", own(&["tenants", "all", "task:a"])), ("d", own(&["task:d"]))]);
    let shown = config.settings();
    let value = |key: &str| shown.iter().find(|setting| setting.key == key).unwrap().value.clone();
    assert_eq!((value("limit.tenants.rate"), value("limit.all.rate")), ("100/s".to_owned(), "5/10s".to_owned()));
    assert_eq!((value("limit.tenants.burst"), value("limit.tenants.ready")), ("100".to_owned(), "none".to_owned()));
    assert_eq!((value("task.a.limits"), value("task.d.limit.rate")), ("[\"tenants\", \"all\"]".to_owned(), "20/min".to_owned()));
}

#[test]
fn what_limits_nothing_or_is_nowhere_is_refused_with_its_place() {
    refuses("\n[limit.a]\nkey = \"tenant\"\n", &[], &["my.toml:3", "at least one of `concurrency`, `rate` and `ready`"]);
    refuses("[limit.a]\nconcurrency = 1\nburst = 2\n", &[], &["my.toml:3", "limit.a.burst", "there is none"]);
    refuses("[limit.a]\nconcurency = 1\n", &[], &["my.toml:2", "limit.a.concurrency"]);
    for rate in ["100", "0/s", "1/week", "5/s/s", "-1/s", "1/0s", "1/2d"] {
        refuses(&format!("[limit.a]\nrate = \"{rate}\"\n"), &[], &["my.toml:2", "100/s"]);
    }
    refuses(
        &format!("[task.a]\n{RUN}limits = [\"tenant\"]\n[limit.tenants]\nready = 1\n"),
        &[],
        &["task.a.limits", "did you mean"],
    );
    let five: String = (0..5).map(|n| format!("[limit.l{n}]\nready = 1\n")).collect();
    refuses(&format!("{five}[task.a]\n{RUN}limits = [\"l0\", \"l1\", \"l2\", \"l3\", \"l4\"]\n"), &[], &["at most 4 limits"]);
}

#[test]
fn presets_say_how_small_a_pool_may_become() {
    let least = |text: &str| {
        let config = read(&format!("[pool.p]\n{text}\n"), &[]).unwrap();
        (config.pool("p").least(), config.pool("p").replicas)
    };
    assert_eq!(least("replicas = 3"), (3, 3));
    assert_eq!(least("replicas = 3\npreset = \"on-demand\""), (1, 3));
    assert_eq!(least("replicas = 3\npreset = \"scale-to-zero\""), (0, 3));
    assert_eq!(least("replicas = { min = 2, max = 4 }\npreset = \"on-demand\""), (2, 4));
    let config = read("[pool.p]\npreset = \"on-demand\"\nreplicas = { min = 1, max = 4 }\nslots = 2\n", &[]).unwrap();
    assert_eq!((config.pool("p").preset, config.pool("p").slots), (Preset::OnDemand, 2));
    let shown = config.settings().into_iter().find(|setting| setting.key == "pool.p.replicas").unwrap();
    assert_eq!((shown.value.as_str(), shown.origin.to_string().ends_with("my.toml:3")), ("{ min = 1, max = 4 }", true));
    refuses("[pool.p]\nreplicas = { min = 5, max = 4 }\n", &[], &["my.toml:2", "more than the most"]);
    refuses("[pool.p]\npreset = \"always\"\n", &[], &["always-on"]);
    refuses("[pool.p]\nreplicas = { least = 1 }\n", &[], &["pool.p."]);
}
