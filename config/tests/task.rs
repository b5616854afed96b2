//! `[task."NAME"]`: what runs it, what is refused, and that nothing secret is shown.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use ergate_config::{Batch, Builtin, DEFAULT_TOML, Executor, Fleet, Kernel, OptionValue, PayloadBy};
use support::{read, refuses};

const THUMB: &str = r#"
[task.thumbnail]
pool = "models"
executor = { process = ["./thumb.sh", "--fast"], stdin = "file", env = ["PATH", "LANG"], set = { MODE = "x", API_TOKEN = { file = "token" } } }
timeout = "30s"
heartbeat = "5s"
retry = { attempts = 3, initial = "100ms", max = "30s", coefficient = 1.5, jitter = 0 }
non_retryable = ["exit-3"]
[task."image.embed"]
executor.http = "http://127.0.0.1:9000/embed"
executor.concurrency = 8
executor.headers = { Authorization = { env = "TOKEN" } }
"#;

#[test]
fn commands_and_calls_are_read_with_their_settings() {
    let config = read(THUMB, &[("ERGATE_TASK__THUMBNAIL__PRIORITY", "7")]).unwrap();
    let tasks = config.task_executors().unwrap();
    let [(embed, _, Executor::Http(http)), (thumb, task, Executor::Process(process))] = tasks.as_slice() else {
        panic!("{tasks:?}")
    };
    assert_eq!((*embed, *thumb), ("image.embed", "thumbnail"));
    assert_eq!((http.url.as_str(), http.concurrency), ("http://127.0.0.1:9000/embed", 8));
    assert_eq!(http.headers["Authorization"], OptionValue::Env("TOKEN".to_owned()));
    // Beside the file, wherever the command runs.
    assert!(process.program.is_absolute() && process.program.ends_with("thumb.sh"), "{}", process.program.display());
    assert_eq!((process.arguments.as_slice(), process.stdin), (["--fast".to_owned()].as_slice(), PayloadBy::File));
    assert!(matches!(&process.set["API_TOKEN"], OptionValue::File(path) if path.is_absolute()));
    let settings = &task.settings;
    assert_eq!((settings.pool.as_str(), settings.priority), ("models", 7));
    assert_eq!(settings.timeouts.start_to_close.to_std(), Duration::from_secs(30));
    assert_eq!((settings.retry.attempts, settings.retry.coefficient_milli, settings.retry.jitter_milli), (3, 1_500, 0));
    assert_eq!(settings.non_retryable, ["exit-3"]);
}

#[test]
fn what_is_shown_is_what_a_file_would_have() {
    let config = read(THUMB, &[]).unwrap();
    let shown: Vec<_> = config.settings().into_iter().filter(|setting| setting.key.starts_with("task.")).collect();
    let value =
        |key: &str| shown.iter().find(|setting| setting.key == key).unwrap_or_else(|| panic!("{key}: {shown:#?}")).value.clone();
    assert_eq!(value("task.thumbnail.timeout"), "30s");
    assert_eq!(value("task.thumbnail.retry.coefficient"), "1.5");
    assert_eq!(value("task.thumbnail.executor.non_retryable_exits"), r#"["64-74", "76-78", "126-127"]"#);
    assert_eq!(value("task.\"image.embed\".executor.headers.Authorization"), r#"{ env = "TOKEN" }"#);
    assert_eq!(value("task.\"image.embed\".timeout"), "1h");
    assert!(!shown.iter().any(|setting| setting.key == "task.\"image.embed\".executor.stdin"));
}

#[test]
fn a_task_type_has_one_executor() {
    refuses("[task.a]\n", &[], &["my.toml:1", "task.a.executor", "needs what runs it"]);
    refuses("\n[task.a]\ntimeout = \"1s\"\n", &[], &["my.toml:2", "task.a.executor"]);
    refuses("[task.a.executor]\nprocess = [\"x\"]\nhttp = \"http://x\"\n", &[], &["my.toml", "it has two"]);
    refuses("[task.a.executor]\nprocess = [\"x\"]\nheaders = { A = \"b\" }\n", &[], &["`headers` is for the executor `http`"]);
    refuses(
        "[task.a.executor]\nhttp = \"http://x\"\nkill_after = \"1s\"\n",
        &[],
        &["`kill_after` is for the executor `process`"],
    );
}

#[test]
fn slips_are_named_with_the_nearest_key_and_what_it_takes() {
    let with = |line: &str| format!("[task.a]\nexecutor = {{ process = [\"x\"] }}\n{line}\n");
    refuses(&with("timout = \"1s\""), &[], &["my.toml:3", "no key `task.a.timout`", "nearest is `task.a.timeout`"]);
    refuses(&with("retry = { attempt = 3 }"), &[], &["no key `task.a.retry.attempt`", "nearest is `task.a.retry.attempts`"]);
    refuses("[task.a.executor]\nproces = [\"x\"]\n", &[], &["nearest is `task.a.executor.process`"]);
    refuses(&with("timeout = 30"), &[], &["`task.a.timeout` takes a duration such as \"30s\", and found the number 30"]);
    refuses(&with("timeout = \"0s\""), &[], &["takes a duration"]);
    refuses(&with("priority = 10"), &[], &["from 0 to 9"]);
    refuses(&with("retry.jitter = 1.5"), &[], &["from 0.0 to 1.0"]);
    refuses(&with("retry.initial = \"1h\""), &[], &["`task.a.retry.initial` is refused", "at most `retry.max`"]);
    refuses("[task.a.executor]\nprocess = \"x | y\"\n", &[], &["takes a program and its arguments"]);
    refuses("[task.a.executor]\nprocess = []\n", &[], &["takes a program and its arguments"]);
    refuses("[task.a.executor]\nprocess = [\"x\"]\nnon_retryable_exits = [0]\n", &[], &["exit codes from 1 to 255"]);
    refuses("[task.a.executor]\nhttp = \"ftp://x\"\n", &[], &["takes a URL"]);
    refuses(
        "[task.a.executor]\nhttp = \"http://x\"\nheaders = { Host = \"b\" }\n",
        &[],
        &["no key `task.a.executor.headers.Host`"],
    );
    refuses("[task.\"../etc\"]\ntimeout = \"1s\"\n", &[], &["my.toml:1", "names of task types"]);
    refuses("task = 3\n", &[], &["no key `task`"]);
    refuses("[task]\na = 3\n", &[], &["no key `task.a`"]);
}

#[test]
fn secrets_are_references_and_shown_nowhere() {
    for text in [
        "[task.a.executor]\nhttp = \"http://x\"\nheaders = { Authorization = \"hunter2\" }\n",
        "[task.a.executor]\nhttp = \"http://x\"\nheaders = { X-Api-Key = \"hunter2\" }\n",
        "[task.a.executor]\nprocess = [\"x\"]\nset = { DB_PASSWORD = \"hunter2\" }\n",
        "[task.a.executor]\nprocess = [\"x\"]\nset = { PLAIN = [\"hunter2\"] }\n",
    ] {
        refuses(text, &[], &["what is secret only as one of the last two"]);
    }
}

#[test]
fn every_key_is_explained_in_the_defaults() {
    let config = read(THUMB, &[]).unwrap();
    for setting in config.settings().into_iter().filter(|setting| setting.key.starts_with("task.")) {
        let (_, key) = setting
            .key
            .rsplit_once("retry.")
            .or_else(|| setting.key.rsplit_once("executor."))
            .unwrap_or_else(|| setting.key.rsplit_once('.').unwrap());
        let key = key.split_once('.').map_or_else(|| format!("# {key} = "), |(map, _)| format!("# {map}."));
        assert!(DEFAULT_TOML.lines().any(|line| line.starts_with(&key)), "{key} is not in default.toml");
    }
    // What is shown there is what is taken where a file says nothing.
    let shown = DEFAULT_TOML.split_once("# [task.thumbnail]").unwrap().1;
    let lines: Vec<&str> =
        shown.lines().map(|line| line.strip_prefix("# ").unwrap_or("")).filter(|line| !line.starts_with('#')).collect();
    let documented = read(&format!("[task.thumbnail]\n{}", lines.join("\n")), &[]).unwrap();
    let kernel = "source = \"scale.cu\"\nentry = \"scale\"\nargs = []\n";
    let bare =
        "[task.thumbnail]\nexecutor.process = [\"x\"]\n[task.embed]\nexecutor.http = \"http://x\"\n[task.scale.executor.gpu]\n"
            .to_owned()
            + kernel;
    for setting in read(&bare, &[]).unwrap().settings() {
        let own = ["executor.process", "executor.http", "executor.directory", "gpu.source", "gpu.args", "gpu.grid", "gpu.block"];
        let same = documented.settings().into_iter().find(|other| other.key == setting.key).unwrap();
        assert!(own.iter().any(|key| setting.key.ends_with(key)) || same.value == setting.value, "{setting:?} {same:?}");
    }
}

const SCALE: &str = r#"
[task.scale]
pool = "gpus"
executor = { gpu = { source = "kernels/scale.cu", entry = "scale", args = ["in x: f32[n]", "out y: f32[n]", "n: u32 = n"], grid = "ceil(n / 256)", block = 256, constants = { TILE = 32 }, batch = "concat", batch_max = 100, batch_delay = "5ms" } }
"#;

#[test]
fn a_kernel_is_a_task_type_in_a_process_of_its_own() {
    let config = read(SCALE, &[]).unwrap();
    let [("scale", _, Executor::Gpu(kernel))] = &config.task_executors().unwrap()[..] else { panic!("no kernel") };
    let Kernel::Own(own) = &kernel.kernel else { panic!("no kernel of its own") };
    let (batch_max, batch_delay, weight) = (kernel.batch_max, kernel.batch_delay, kernel.weight);
    let kernel = own;
    assert_eq!((kernel.source.file_name().unwrap(), kernel.entry.as_str()), ("scale.cu".as_ref(), "scale"));
    assert!(kernel.source.is_absolute(), "beside the file that names it: {:?}", kernel.source);
    assert_eq!((kernel.args.len(), kernel.args[2].as_str(), kernel.constants["TILE"]), (3, "n: u32 = n", 32));
    assert_eq!((kernel.grid.as_slice(), kernel.block.as_slice()), (&["ceil(n / 256)".to_owned()][..], &["256".to_owned()][..]));
    assert_eq!((kernel.batch, batch_max, batch_delay.as_millis()), (Batch::Concat, 100, 5));
    assert_eq!((kernel.payload_max, weight), (1 << 20, 1));
    // A kernel can kill the process that launches it.
    assert_eq!((config.pool("gpus").fleet(), config.pool("default").fleet()), (Fleet::Process, Fleet::Local));
    assert_eq!(config.all_pools().into_keys().collect::<Vec<_>>(), ["gpus"]);
    let said = read(&format!("[pool.gpus]\nfleet = \"local\"\ncpu_twins = true\n{SCALE}"), &[]).unwrap();
    assert_eq!((said.pool("gpus").fleet(), said.pool("gpus").cpu_twins), (Fleet::Local, true));
    let shown = |key: &str| {
        config.settings().into_iter().find(|setting| setting.key == format!("task.scale.executor.gpu.{key}")).unwrap()
    };
    assert_eq!((shown("grid").value.as_str(), shown("constants.TILE").value.as_str()), (r#"["ceil(n / 256)"]"#, "32"));
}

#[test]
fn kernels_that_cannot_be_are_refused_with_their_place() {
    let with =
        |line: &str| format!("[task.a.executor.gpu]\nsource = \"a.cu\"\nentry = \"a\"\nargs = [\"out y: f32[4]\"]\n{line}\n");
    assert!(read(&with(""), &[]).is_ok());
    for (line, expected) in [
        ("grid = []", "a list of up to three"),
        ("grid = [\"1\", \"1\", \"1\", \"1\"]", "a list of up to three"),
        ("block = true", "a list of up to three"),
        ("batch = \"all\"", "\"each\", \"concat\" or \"stack\""),
        ("batch_max = 0", "from 1 to 65536"),
        ("batch_delay = \"1h\"", "at most"),
        ("payload_max = \"2GiB\"", "\"1GiB\""),
        ("constants.TILE = \"x\"", "a whole number"),
        ("constants.0x = 1", "no key `task.a.executor.gpu.constants.0x`"),
        ("gird = 1", "nearest is `task.a.executor.gpu.grid`"),
    ] {
        let expected = if expected == "at most" { "\"10s\"" } else { expected };
        refuses(&with(line), &[], &[expected]);
    }
    refuses("[task.a.executor.gpu]\nentry = \"a\"\n", &[], &["task.a.executor.gpu.source", "the file of the kernel"]);
    refuses("[task.a.executor.gpu]\nsource = \"a.cu\"\nentry = \"a\"\n", &[], &["task.a.executor.gpu.args"]);
    refuses("[task.a.executor]\ngpu.source = \"a.cu\"\nprocess = [\"x\"]\n", &[], &["keep `gpu` alone"]);
    refuses("[gpu]\nmemory_max = \"1KiB\"\n", &[], &["gpu.memory_max", "at least"]);
}

const BUILTINS: &str = r#"
[task."gpu.aggregate"]
pool = "gpus"
executor = { gpu = { builtin = "aggregate", values = ["price: f64 sum, max"], groups_max = 1000, batch_max = 4 } }
[task."gpu.top_k"]
pool = "gpus"
executor.gpu = { builtin = "top_k", matrix = "e.f32", rows = 1000, columns = 64, kept = "bf16" }
"#;

#[test]
fn built_in_kernels_are_task_types_with_settings_of_their_own() {
    let config = read(BUILTINS, &[]).unwrap();
    let [(_, _, Executor::Gpu(aggregate)), (_, _, Executor::Gpu(top_k))] = &config.task_executors().unwrap()[..] else {
        panic!("two kernels")
    };
    let values = vec!["price: f64 sum, max".to_owned()];
    assert_eq!(aggregate.kernel, Kernel::Builtin(Builtin::Aggregate { values, groups_max: Some(1000) }));
    assert_eq!((aggregate.batch_max, top_k.batch_max), (4, 256));
    let Kernel::Builtin(Builtin::TopK { matrix, digest, rows, columns, dtype, metric, k, queries_max }) = &top_k.kernel else {
        panic!("a search")
    };
    assert!(matrix.is_absolute() && matrix.ends_with("e.f32"), "{matrix:?}");
    assert_eq!((digest, rows, columns, dtype), (&None, &1000, &64, &["f32".to_owned(), "bf16".to_owned()]));
    assert_eq!((metric.as_str(), k, queries_max), ("cosine", &10, &64));
    for setting in config.settings().into_iter().filter(|setting| setting.key.contains("executor.gpu.")) {
        let key = format!("# {} = ", setting.key.rsplit_once('.').unwrap().1);
        assert!(DEFAULT_TOML.lines().any(|line| line.starts_with(&key)), "{key} is not in default.toml");
    }
    let shown: Vec<_> = config.settings().into_iter().filter(|setting| setting.key.contains("top_k")).collect();
    let value = |key: &str| shown.iter().find(|setting| setting.key.ends_with(key)).map(|setting| setting.value.as_str());
    assert_eq!((value(".gpu.metric"), value(".gpu.k"), value(".gpu.values")), (Some("cosine"), Some("10"), None));
    for (line, words) in [
        ("builtin = \"mean\"", "\"aggregate\" or \"top_k\""),
        ("values = [\"x: f32 sum\"]", "say which it is"),
        ("builtin = \"aggregate\"\nmatrix = \"x\"", "`gpu.matrix` is not for \"aggregate\""),
        ("builtin = \"aggregate\"\nsource = \"x.cu\"", "keep one of both"),
        ("builtin = \"aggregate\"\ngrid = 1", "keep one of both"),
        ("builtin = \"top_k\"\nmatrix = \"x\"\ncolumns = 3", "how many rows it has"),
        ("builtin = \"top_k\"\nmetric = \"l2\"", "\"cosine\" or \"dot\""),
        ("builtin = \"top_k\"\nk = 0", "at least 1"),
    ] {
        refuses(&format!("[task.a.executor.gpu]\n{line}\n"), &[], &[words]);
    }
}
