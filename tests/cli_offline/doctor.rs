use crate::support::{builder, json, log, run, segments, with_runtime};

#[test]
fn a_healthy_directory_passes_and_its_disk_is_measured() {
    let (_holder, dir) = log();
    let ran = run(&dir, &["doctor"]);
    assert!(ran.code == 0 || ran.out.contains("space"), "{}{}", ran.out, ran.err);
    for check in [
        "directory",
        "lock",
        "space",
        "store",
        "log",
        "anchor",
        "snapshots",
        "indexes",
        "disk",
        "cores",
        "memory",
        "clock",
        "open files",
        "gpu",
    ] {
        assert!(ran.out.contains(check), "{check} is not in {}", ran.out);
    }
    assert!(ran.out.contains("fdatasync of 4 KiB takes"), "{}", ran.out);
    assert_eq!(
        dir.read_dir().unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("doctor")).count(),
        0
    );
    with_runtime(builder(&dir), async |_| {
        let rows = json(&dir, &["doctor"]);
        let lock = rows.iter().find(|row| row["check"] == "lock").unwrap();
        assert!(lock["found"].as_str().unwrap().contains(&format!("held by process {}", std::process::id())), "{lock}");
    });
}

#[test]
fn what_fails_is_named_with_what_to_do() {
    let (holder, dir) = log();
    let missing = run(&holder.path().join("nothing"), &["doctor"]);
    missing.refuses(1, &["1 of 6 checks failed"]);
    assert!(missing.out.contains("FAIL  directory") && missing.out.contains("does not exist"), "{}", missing.out);
    let segment = segments(&dir).pop().unwrap();
    std::fs::write(&segment, b"").unwrap();
    let ran = run(&dir, &["doctor"]);
    ran.refuses(1, &["checks failed"]);
    assert!(ran.out.contains("acknowledged events are missing") && ran.out.contains("ergate log repair"), "{}", ran.out);
}
