//! `[pool.NAME]` with processes and servers.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::time::Duration;

use ergate_config::Fleet;
use support::{read, refuses};

const SERVER: &str = "command = [\"./server\", \"--port\", \"{port}\"]\nready = \"http://127.0.0.1:{port}/health\"\n";

#[test]
fn a_pool_with_a_server_has_processes_that_adapt() {
    let config = read(&format!("[pool.models]\n{SERVER}slots = 16\nset.MODE = \"fast\"\n"), &[]).unwrap();
    let pool = config.pool("models");
    assert_eq!((pool.fleet(), pool.is_adaptive(), pool.slots), (Fleet::Process, true, 16));
    let server = pool.server.unwrap();
    assert_eq!((server.program.file_name(), server.arguments.len()), (Path::new("server").file_name(), 2));
    assert!(server.program.parent().is_some_and(|parent| !parent.as_os_str().is_empty()), "it is beside its file");
    assert_eq!((server.ready.as_str(), server.ready_within), ("http://127.0.0.1:{port}/health", Duration::from_secs(300)));
    assert_eq!((server.env, server.set.len()), (vec!["PATH".to_owned()], 1));
    let shown: Vec<_> = config.settings().into_iter().filter(|one| one.key.starts_with("pool.models.")).collect();
    let value = |key: &str| shown.iter().find(|one| one.key == format!("pool.models.{key}")).map(|one| one.value.as_str());
    assert_eq!((value("fleet"), value("concurrency"), value("health_every")), (Some("process"), Some("adaptive"), Some("10s")));
    assert_eq!((value("set.MODE"), value("memory_max"), value("gpus")), (Some("fast"), Some("none"), Some("[]")));
    // Others show nothing of it.
    assert!(config.settings().iter().all(|one| one.key != "pool.default.command"));
}

#[test]
fn an_external_pool_may_have_a_server_too() {
    let config =
        read(&format!("[pool.models]\nfleet = \"external\"\nconcurrency = \"fixed\"\nhealth_every = \"never\"\n{SERVER}"), &[]);
    let pool = config.unwrap().pool("models");
    assert_eq!((pool.fleet(), pool.is_adaptive()), (Fleet::External, false));
    assert_eq!(pool.server.unwrap().health_every, None);
}

#[test]
fn processes_have_gpus_and_a_bound_on_memory() {
    let config = read("[pool.p]\nfleet = \"process\"\ngpus = [0, 1]\nmemory_max = \"2GiB\"\n", &[]).unwrap();
    let pool = config.pool("p");
    assert_eq!(
        (pool.gpus.as_slice(), pool.memory_max, pool.is_adaptive()),
        (&["0".to_owned(), "1".to_owned()][..], Some(2 << 30), false)
    );
}

#[test]
fn what_cannot_be_together_is_refused_with_its_place() {
    let of_pool = |text: &str| format!("[pool.p]\n{text}");
    refuses(&of_pool("command = [\"x\"]\n"), &[], &["my.toml:2", "URL"]);
    refuses(&of_pool("ready = \"http://x\"\n"), &[], &["my.toml:2"]);
    refuses(&of_pool("ready_within = \"5s\"\n"), &[], &["my.toml:2", "pool.p.ready_within", "for its server"]);
    refuses(&of_pool(&format!("fleet = \"local\"\n{SERVER}")), &[], &["my.toml:2", "process"]);
    refuses(&of_pool("concurrency = \"adaptive\"\n"), &[], &["my.toml:2", "only workers adapt"]);
    refuses(&of_pool("gpus = [0]\n"), &[], &["my.toml:2", "ergate worker --gpu"]);
    refuses(&of_pool("memory_max = \"1GiB\"\n"), &[], &["my.toml:2", "--memory-max"]);
    for (wrong, expected) in [
        ("fleet = \"docker\"", "external"),
        ("command = \"x\"", "a program and its arguments"),
        ("command = []", "a program and its arguments"),
        ("ready = \"ftp://x\"", "health"),
        ("health_every = \"0s\"", "never"),
        ("env = [\"A B\"]", "names of variables"),
        ("set.API_KEY = \"secret\"", "what is secret"),
        ("gpus = [\"\"]", "indices"),
        ("memory_max = \"1MiB\"", "64MiB"),
        ("concurrency = 4", "adaptive"),
        ("comand = [\"x\"]", "pool.p.command"),
    ] {
        refuses(&of_pool(&format!("{wrong}\n")), &[], &["my.toml:2", expected]);
    }
}

#[test]
fn a_new_version_of_workers_gets_a_share() {
    let config = read("[pool.p]\nfleet = \"external\"\ncanary = { label = \"version=2\", share = 0.125 }\n", &[]).unwrap();
    assert_eq!(config.pool("p").canary(), Some(("version", "2", 125)));
    let shown = |key: &str| config.settings().into_iter().find(|one| one.key == key).map(|one| one.value);
    assert_eq!(
        (shown("pool.p.canary.label").as_deref(), shown("pool.p.canary.share").as_deref()),
        (Some("version=2"), Some("0.125"))
    );
    refuses("[pool.p]\ncanary = { label = \"version=2\" }\n", &[], &["my.toml:2", "share"]);
    refuses("[pool.p]\ncanary = { share = 0.5 }\n", &[], &["my.toml:2", "label"]);
    refuses("[pool.p]\ncanary = { label = \"2\", share = 0.5 }\n", &[], &["version=2"]);
    refuses("[pool.p]\ncanary = { label = \"a=b\", share = 1.5 }\n", &[], &["0 to 1"]);
}

#[test]
fn a_replica_asks_for_resources_and_all_of_them_have_a_ceiling() {
    let text = "[pool.p]\nreplicas = { min = 1, max = 40 }\nslots = 4\ncpu = 0.5\nmemory = \"4GiB\"\nceiling = { slots = 64, cpu = 7.5, memory = \"128GiB\" }\n";
    let config = read(text, &[]).unwrap();
    let (name, said) = config.resources().unwrap()[0];
    assert_eq!((name, said.asked.cpu_milli, said.asked.memory_bytes), ("p", Some(500), Some(4 << 30)));
    assert_eq!((said.ceiling.slots, said.ceiling.cpu_milli, said.ceiling.memory_bytes), (Some(64), Some(7_500), Some(128 << 30)));
    assert_eq!(said.fit(4).map(|fit| (fit.replicas(), fit.to_string())), Some((15, "7.5 cores at 0.5 cores each".to_owned())));
    let shown = |key: &str| config.settings().into_iter().find(|one| one.key == key).map(|one| one.value);
    for (key, value) in
        [("cpu", "0.5"), ("memory", "4GiB"), ("ceiling.slots", "64"), ("ceiling.cpu", "7.5"), ("ceiling.memory", "128GiB")]
    {
        assert_eq!(shown(&format!("pool.p.{key}")).as_deref(), Some(value), "{key}");
    }
    // Thousandths as Kubernetes writes them, and nothing at all.
    assert_eq!(read("[pool.p]\ncpu = \"250m\"\n", &[]).unwrap().pool("p").resources().asked.cpu_milli, Some(250));
    assert!(read("[pool.p]\nslots = 2\n", &[]).unwrap().resources().unwrap().is_empty());
}

#[test]
fn a_ceiling_that_makes_no_sense_or_is_below_the_floor_is_refused() {
    for (wrong, expected) in [
        ("cpu = 0", "number of cores"),
        ("cpu = \"2 cores\"", "500m"),
        ("cpu = \"0m\"", "number of cores"),
        ("memory = 4", "4GiB"),
        ("ceiling = { slots = 0 }", "at least 1"),
        ("ceiling = { cpu = 4 }", "set `cpu` beside it"),
        ("ceiling = { memory = \"4GiB\" }", "set `memory` beside it"),
        ("ceiling = { gpus = 4 }", "pool.p.ceiling.gpus"),
    ] {
        refuses(&format!("[pool.p]\n{wrong}\n"), &[], &["my.toml:2", expected]);
    }
    for (pool, reason) in [
        (
            "replicas = { min = 5, max = 40 }\ncpu = 2\nceiling = { cpu = 8 }",
            "the pool has 5 replicas at least, and 4 fit: 8 cores at 2 cores each; lower `replicas.min`, or raise the ceiling to 10 cores",
        ),
        // Without a policy its size is its floor.
        (
            "replicas = 3\nslots = 4\nceiling = { slots = 8 }",
            "the pool has 3 replicas at least, and 2 fit: 8 slots at 4 slots each",
        ),
    ] {
        let error = read(&format!("[pool.p]\n{pool}\n"), &[]).unwrap().resources().unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("pool.p.ceiling."), "{error}");
    }
    let sleeps = "[pool.p]\npreset = \"scale-to-zero\"\nreplicas = 40\nslots = 4\nceiling = { slots = 2 }\n";
    assert!(read(sleeps, &[]).unwrap().resources().is_ok(), "a pool of none fits under anything");
}

#[test]
fn shadows_are_policies_beside_the_one_of_their_pool() {
    let text = |more: &str| format!("[pool.p]\npreset = \"scale-to-zero\"\nreplicas = {{ min = 0, max = 4 }}\n{more}");
    let config =
        read(&text("[pool.p.shadow.cautious]\npolicy = \"low-cost\"\n[pool.p.shadow.b]\npolicy = \"kpa\"\n"), &[]).unwrap();
    let shadows = config.shadows().unwrap();
    let names: Vec<_> = shadows.iter().map(|(pool, name, _)| (*pool, *name)).collect();
    assert_eq!(names, [("p", "b"), ("p", "cautious")]);
    let shown = config.settings().into_iter().find(|one| one.key == "pool.p.shadow.cautious.policy").unwrap();
    assert_eq!(shown.value, "low-cost");
    let set = read(&text(""), &[("ERGATE_POOL__P__SHADOW__B__POLICY", "kpa")]).unwrap();
    assert_eq!(set.shadows().unwrap().len(), 1);
    refuses(&text("shadow.a.policy = 3\n"), &[], &["my.toml:4", "the file of a policy"]);
    refuses(&text("shadow.a.police = \"x\"\n"), &[], &["pool.p.shadow.a.police"]);
    refuses(&text("shadow.\"a b\".policy = \"kpa\"\n"), &[], &["shadow.a b.policy"]);
    let refused = |text: &str| read(text, &[]).unwrap().shadows().unwrap_err().to_string();
    assert!(refused("[pool.p]\nshadow.a.policy = \"kpa\"\n").contains("beside the policy of its pool"));
    assert!(refused(&text("shadow.a.policy = \"nowhere.toml\"\n")).contains("pool.p.shadow.a.policy"));
    let many: String = (0..17).map(|number| format!("shadow.s{number}.policy = \"kpa\"\n")).collect();
    assert!(refused(&text(&many)).contains("at most 16 shadows"));
}
