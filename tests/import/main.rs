//! `ergate import` as people and scripts use it: manifests as they are in the world beside what should come out, files that are written, and what is
//! refused.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/command.rs"]
mod command;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use command::{Ended, ergate, run, run_with};

/// What is imported, and the file that has what should come out. Paths are those that people see, from the root of the repository.
const CASES: [(&str, &[&str]); 14] = [
    ("hpa/models", &["hpa", "hpa/models.yaml"]),
    ("hpa/engine", &["hpa", "hpa/engine.yaml"]),
    ("hpa/every-metric", &["hpa", "hpa/every-metric.yaml"]),
    ("hpa/older", &["hpa", "hpa/older.yaml"]),
    ("hpa/anchors", &["hpa", "hpa/anchors.yaml"]),
    ("keda/ollama", &["keda", "keda/ollama.yaml"]),
    ("keda/engine", &["keda", "keda/engine.yaml"]),
    ("keda/full", &["keda", "keda/full.yaml"]),
    ("keda/formulas", &["keda", "keda/formulas.yaml"]),
    ("keda/resources", &["keda", "keda/resources.yaml"]),
    ("keda/job", &["keda", "keda/job.yaml"]),
    ("aws/engine", &["aws", "aws/engine.json", "--min", "2", "--max", "10"]),
    ("aws/worker", &["aws", "aws/worker-target.json", "aws/worker-backlog.json"]),
    ("aws/template", &["aws", "aws/template.yaml"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs an import from the root of the repository, so that the paths in it are the same everywhere.
fn import(args: &[&str]) -> Ended {
    let is_manifest = |arg: &str| arg.ends_with(".yaml") || arg.ends_with(".json");
    let args: Vec<String> =
        args.iter().map(|arg| if is_manifest(arg) { format!("tests/import/{arg}") } else { (*arg).to_owned() }).collect();
    let mut all = vec!["import"];
    all.extend(args.iter().map(String::as_str));
    Ended::of(&ergate(&all).current_dir(root()).output().unwrap())
}

/// With `ERGATE_WRITE_EXPECTED=1` what comes out is written as what should; whoever does that reads it.
#[test]
fn every_manifest_becomes_what_is_written_beside_it() {
    for (name, args) in CASES {
        let out = import(args).expect(0).out;
        let path = root().join("tests/import").join(format!("{name}.expected.toml"));
        if std::env::var_os("ERGATE_WRITE_EXPECTED").is_some() {
            std::fs::write(&path, &out).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        assert!(out == expected, "{name} differs from {}:\n{out}", path.display());
    }
}

#[test]
fn what_is_written_is_a_configuration_with_policies_that_run() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace.csv");
    std::fs::write(&trace, "arrival_s,service_s\n0,30\n5,30\n200,30\n").unwrap();
    for (name, args) in CASES {
        let into = dir.path().join(name);
        let mut all = args.to_vec();
        all.extend(["--into", into.to_str().unwrap(), "-o", "json"]);
        let told = import(&all).expect(0).json();
        let config = into.join("pools.toml");
        run(&["config", "show", "--config", config.to_str().unwrap()]).expect(0);
        for pool in told["pools"].as_array().unwrap() {
            let file = into.join(pool["policy_file"].as_str().unwrap());
            assert!(std::fs::read_to_string(&file).unwrap().ends_with(pool["policy_toml"].as_str().unwrap()));
            let bounds = [&pool["min"], &pool["max"]].map(ToString::to_string);
            let args = ["whatif", "--trace", trace.to_str().unwrap(), "--policy", file.to_str().unwrap(), "--min", &bounds[0]];
            run(&[&args[..], &["--max", &bounds[1]]].concat()).expect(0);
        }
    }
}

#[test]
fn files_that_are_there_are_not_overwritten_unless_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("new/pools");
    let at = |name: &str| into.join(name);
    let args = ["keda", "keda/engine.yaml", "--into", into.to_str().unwrap()];
    let out = import(&args).expect(0).out;
    for part in ["wrote ", "pools.toml", "embedder-module.toml", "pool pipestream-engine, 2 to 10 replicas", "became `ready`"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    std::fs::remove_file(at("pools.toml")).unwrap();
    std::fs::write(at("embedder-module.toml"), "mine").unwrap();
    let error = import(&args).expect(2).err;
    assert!(error.contains(".toml is there already; nothing was written") && error.contains("--force"), "{error}");
    assert!(!at("pools.toml").exists());
    assert_eq!(std::fs::read_to_string(at("embedder-module.toml")).unwrap(), "mine");
    import(&[&args[..], &["--force"]].concat()).expect(0);
    assert!(at("pools.toml").exists());
    assert!(std::fs::read_to_string(at("embedder-module.toml")).unwrap().contains("policy = \"keda\""));
    // A directory that is a file.
    let error = import(&["keda", "keda/engine.yaml", "--into", at("pools.toml").to_str().unwrap()]).expect(8).err;
    assert!(error.contains("failed to write"), "{error}");
    import(&["keda", "keda/engine.yaml", "--force"]).expect(2);
}

#[test]
fn standard_input_is_read_and_lists_and_json_are_too() {
    let text = std::fs::read(root().join("tests/import/keda/ollama.yaml")).unwrap();
    let out = run_with(&["import", "keda", "-"], &text).expect(0).out;
    assert!(out.contains("ScaledObject ollama (standard input, line 1)"), "{out}");
    run_with(&["import", "keda", "-", "-"], &text).expect(2);
    let json = r#"{"kind": "ScaledObjectList", "items": [
	{"kind": "ScaledObject", "apiVersion": "keda.sh/v1alpha1", "metadata": {"name": "a/../b\u0007"},
	 "spec": {"scaleTargetRef": {"name": "../../etc/pools\n[x]"}, "triggers": [{"type": "redis", "metadata": {"listLength": 3}}]}}]}"#;
    let dir = tempfile::tempdir().unwrap();
    let told = run_with(&["import", "keda", "-", "--into", dir.path().to_str().unwrap(), "-o", "json"], json.as_bytes());
    let told = told.expect(0).json();
    assert_eq!(told["pools"][0]["name"], "etc-pools--x");
    assert_eq!(told["pools"][0]["policy"]["triggers"][0]["target"]["average_value_milli"], 3_000);
    assert_eq!(told["written"].as_array().unwrap().len(), 2);
    run(&["config", "show", "--config", dir.path().join("pools.toml").to_str().unwrap()]).expect(0);
}

#[test]
fn an_invalid_manifest_is_refused_with_its_place() {
    let refused = |kind: &str, text: &str, part: &str| {
        let ended = run_with(&["import", kind, "-"], text.as_bytes()).expect(2);
        assert!(ended.err.contains(part) && ended.out.is_empty(), "{part}: {ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    };
    let hpa =
        "kind: HorizontalPodAutoscaler\napiVersion: autoscaling/v2\nmetadata: {name: x}\nspec:\n  scaleTargetRef: {name: x}\n";
    let with = |rest: &str| format!("{hpa}{rest}");
    refused(
        "hpa",
        &with("  maxReplicas: 2\n  minReplicas: 3\n"),
        "document 1, line 6: `spec.maxReplicas` is 2, and should be at least 1",
    );
    refused(
        "hpa",
        &with("  maxReplicas: 2\n  minReplicas: 0\n"),
        "`spec.minReplicas` is 0, which needs a metric of type Object or External",
    );
    refused("hpa", &with("  maxReplicas: many\n"), "line 6: `spec.maxReplicas` is \"many\", and should be a whole number");
    refused("hpa", &format!("a: 1\nkind: b\n---\n{hpa}"), "document 2, line 8: `spec.maxReplicas` is missing");
    refused("hpa", &with("  maxReplicas: 2\n").replace("/v2", "/v2beta1"), "\"autoscaling/v2beta1\"");
    refused("hpa", &with("  maxReplicas: 2\n  metrics: [{type: Magic}]\n"), "`spec.metrics[0].type` is \"Magic\"");
    refused(
        "hpa",
        &with("  maxReplicas: 2\n  behavior: {scaleUp: {stabilizationWindowSeconds: 9999}}\n"),
        "makes no policy: `behavior.scale_up.stabilization`",
    );
    refused("hpa", &format!("{0}  maxReplicas: 2\n---\n{0}  maxReplicas: 2\n", hpa), "two objects size the workload x");
    let keda = "kind: ScaledObject\napiVersion: keda.sh/v1alpha1\nmetadata: {name: x}\nspec:\n  scaleTargetRef: {name: x}\n";
    let with = |rest: &str| format!("{keda}{rest}");
    refused("keda", &with(""), "`spec.triggers` has no trigger");
    refused(
        "keda",
        &with("  triggers: [{type: kafka, metadata: {lagThreshold: x}}]\n"),
        "`spec.triggers[0].metadata.lagThreshold` is \"x\", and should be a number",
    );
    refused("keda", &with("  triggers: [{type: kafka, metadata: {lagThreshold: \"0\"}}]\n"), "should be at least 0.001");
    refused(
        "keda",
        &with("  idleReplicaCount: 2\n  minReplicaCount: 2\n  triggers: [{type: kafka, metadata: {}}]\n"),
        "should be below minReplicaCount",
    );
    let formula =
        "  advanced: {scalingModifiers: {formula: a + b, target: 2}}\n  triggers: [{type: kafka, name: a, metadata: {}}]\n";
    refused("keda", &with(formula), "is about \"b\", and no trigger has that name");
    let aws = r#"{"PolicyName": "p", "PolicyType": "TargetTrackingScaling", "ResourceId": "service/c/s", "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 5, "CustomizedMetricSpecification": {"MetricName": "QueueDepth"}}}"#;
    refused("aws", aws, "policy \"p\" says nothing of how many replicas s may have");
    refused("aws", &aws.replace("5, ", "0, "), "says nothing");
    refused(
        "aws",
        &format!("[{aws}, {}]", r#"{"ResourceId": "service/c/s", "MinCapacity": 4, "MaxCapacity": 3}"#),
        "at least 4 and at most 3",
    );
    let parameter = "Parameters: {Max: {Type: Number}}\nResources: {T: {Type: 'AWS::ApplicationAutoScaling::ScalableTarget', Properties: {MaxCapacity: !Ref Max}}}\n";
    refused("aws", parameter, "`Max` is a parameter without a default");
}

#[test]
fn where_there_is_nothing_to_import_it_says_what_there_is() {
    let error = import(&["hpa", "keda/ollama.yaml"]).expect(6).err;
    assert!(
        error.contains("no HorizontalPodAutoscaler in the files; found ScaledObject ollama; `ergate import keda` reads it"),
        "{error}"
    );
    assert!(import(&["aws", "hpa/engine.yaml"]).expect(6).err.contains("`ergate import hpa`"));
    run_with(&["import", "hpa", "-"], b"").expect(6);
    run_with(&["import", "hpa", "-"], b"# only words\n---\n").expect(6);
    import(&["helm", "hpa/engine.yaml"]).expect(2);
    import(&["hpa", "hpa/engine.yaml", "--max", "4"]).expect(2);
    import(&["hpa"]).expect(2);
}

#[test]
fn what_is_no_manifest_is_refused_soon() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path, reason: &str| {
        let began = Instant::now();
        let ended = run(&["import", "hpa", path.to_str().unwrap()]).expect(2);
        assert!(began.elapsed() < Duration::from_secs(5), "{reason}: {:?}", began.elapsed());
        assert!(ended.err.contains(reason) && ended.out.is_empty() && ended.err.lines().count() == 1, "{reason}: {ended:?}");
    };
    let written = |text: &[u8]| -> PathBuf {
        let path = dir.path().join("manifest.yaml");
        std::fs::write(&path, text).unwrap();
        path
    };
    refused(&dir.path().join("none.yaml"), "No such file");
    refused(dir.path(), "directory");
    refused(&written(b"a: 1\nb: \0\n"), "line 2 has a NUL byte");
    refused(&written(b"a: 1\n\xff\xfe"), "line 2 is no text in UTF-8");
    refused(&written("a: 1".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>().as_slice()), "NUL byte");
    refused(&written(b"a:\n\t- b\n"), "line 2");
    refused(&written("a".repeat(100 << 20).as_bytes()), "larger than 4 MiB");
    refused(Path::new("/dev/zero"), "larger than 4 MiB");
    refused(&written("[".repeat(10_000).as_bytes()), "nested deeper than 64 levels");
    refused(&written("<!DOCTYPE html><p>no".as_bytes()), "should be an object");
}
