//! Kernels of a configuration file where there is no device: what is refused, with which words, and what tasks wait for.

use std::path::Path;

use serde_json::json;

use crate::command::{Ended, ergate, until};
use crate::service::Service;
use ergate::gpu::kernels::array::bytes_of;

const SOURCE: &str = r#"
extern "C" __global__ void scale(const float* x, float* y, float factor, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = factor * x[i];
}
"#;
const CONFIG: &str = r#"
[task.scale]
pool = "gpus"
executor = { gpu = { source = "scale.cu", entry = "scale", args = ["in x: f32[n]", "out y: f32[n]", "factor: f32 = 2.5", "n: u32 = n"], grid = "ceil(n / 256)", block = 256 } }
"#;
/// Hides every device, where there are any.
const NONE: (&str, &str) = ("CUDA_VISIBLE_DEVICES", "-1");

/// A directory with a kernel and a configuration, and the path of that.
fn home(source: &str, config: &str) -> (tempfile::TempDir, String) {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("scale.cu"), source).unwrap();
    let path = home.path().join("ergate.toml");
    std::fs::write(&path, config).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (home, path)
}

/// What a start says that is refused.
fn refused(source: &str, config: &str) -> Ended {
    let (home, path) = home(source, config);
    let data = home.path().join("data");
    let command = ["up", "--config", &path, "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let ended = Ended::of(&ergate(&command).env(NONE.0, NONE.1).output().unwrap()).expect(2);
    assert!(!data.exists(), "nothing is begun: {ended:?}");
    ended
}

fn why(service: &Service, id: &str) -> serde_json::Value {
    service.get(&format!("/v1/tasks/{id}/why")).expect(200).json()
}

#[test]
fn without_a_device_tasks_wait_and_why_says_what_for() {
    let (home, path) = home(SOURCE, CONFIG);
    let service = Service::start_with(home.path(), &["--config", &path], &[NONE]);
    let id = service.submit(r#"{"type":"scale","payload_base64":"AACAPw=="}"#);
    let mut told = json!(null);
    until("a process that ended is why it waits", || {
        told = why(&service, &id);
        let lasted = |cause: &str| told["by_cause_us"][cause].as_u64().unwrap_or(0);
        lasted("failing") > lasted("cold_start")
    });
    let part = told["parts"].as_array().unwrap().iter().find(|part| part["cause"] == "failing").unwrap().clone();
    let because = part["because"].as_str().unwrap();
    assert!(because.contains("exit code 21") && because.contains("no GPU") && because.contains("\"gpus\""), "{because}");
    assert_eq!((told["waiting"].as_bool(), &told["remedy"]), (Some(true), &json!(null)), "no setting avoids it: {told}");
    // Who asks what runs there is told the same, and a worker that is started by hand says it too.
    let engine = format!("http://{}", service.address);
    let worker =
        ergate(&["worker", "--engine", &engine, "--pool", "gpus", "--config", &path]).env(NONE.0, NONE.1).output().unwrap();
    let said = Ended::of(&worker).expect(21);
    assert!(said.err.contains("no GPU"), "{said:?}");
    // Other work goes on.
    let other = service.submit(r#"{"type":"noop"}"#);
    until("noop is done", || service.get(&format!("/v1/tasks/{other}")).expect(200).json()["outcome"] == "SUCCEEDED");
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    crate::command::verify(&home.path().join("data"));
}

#[test]
fn kernels_that_cannot_be_are_refused_before_anything_starts() {
    let with = |from: &str, to: &str| {
        assert!(CONFIG.contains(from), "{from}");
        CONFIG.replace(from, to)
    };
    for (config, words) in [
        (with("scale.cu", "none.cu"), "none.cu cannot be read"),
        (with("in x: f32[n]", "in x: float[n]"), "`float` is no type"),
        (with("\"out y: f32[n]\"", "\"in y: f32[n]\""), "no argument is an output"),
        (with("n: u32 = n", "n: u32 = m"), "nothing binds `m`"),
        (with("entry = \"scale\"", "entry = \"scalf\""), "entry `scalf` does not occur"),
        (with("ceil(n / 256)", "ceil(n / 256"), "formula `ceil(n / 256`"),
        (with("block = 256", "block = 256, options = [\"-arch=sm_70\"]"), "-arch is not taken"),
    ] {
        let said = refused(SOURCE, &config).err;
        assert!(said.contains(words) && said.contains("ergate.toml:4") && said.contains("task.scale.executor.gpu"), "{said}");
    }
    let gpus = format!("[pool.gpus]\ngpus = [\"H100\"]\n{CONFIG}");
    let said = refused(SOURCE, &gpus).err;
    assert!(said.contains("`gpus` of the pool \"gpus\"") && said.contains("no GPU"), "{said}");
}

#[test]
fn the_compiler_is_asked_at_the_start_where_there_is_one() {
    #[expect(clippy::print_stdout, reason = "a test that does not run says so")]
    if std::env::var_os("ERGATE_NVRTC").is_none() && !Path::new("/usr/local/cuda/lib64/libnvrtc.so").exists() {
        println!("note: no NVRTC (ERGATE_NVRTC), so what it says of a kernel was not tested");
        return;
    }
    let said = refused(&SOURCE.replace("factor *", "faktor *"), CONFIG).err;
    assert!(said.contains("scale.cu(4): error: identifier \"faktor\" is undefined"), "{said}");
    // Without `extern "C"` it has another name than it seems.
    let said = refused(&SOURCE.replace("extern \"C\" ", ""), CONFIG).err;
    assert!(said.contains("scale.cu") && said.contains("extern \"C\""), "{said}");
}

const BUILTINS: &str = r#"
[pool.gpus]
cpu_twins = true
[task."gpu.aggregate"]
pool = "gpus"
executor = { gpu = { builtin = "aggregate", values = ["price: f32 sum, count"] } }
[task."gpu.top_k"]
pool = "gpus"
executor = { gpu = { builtin = "top_k", matrix = "rows.f32", rows = 3, columns = 2, k = 2, metric = "dot" } }
"#;

/// Numbers one after the other, in base64 as a request has them.
fn base64(parts: &[&[u8]]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(parts.concat())
}

#[test]
fn built_in_kernels_run_as_their_twins_where_the_pool_allows_it() {
    let (home, path) = home(SOURCE, BUILTINS);
    std::fs::write(home.path().join("rows.f32"), bytes_of(&[1f32, 0.0, 0.0, 1.0, 2.0, 2.0])).unwrap();
    let service = Service::start_with(home.path(), &["--config", &path], &[NONE]);
    let ended = |task_type: &str, payload: &str| {
        let id = service.submit(&json!({"type": task_type, "payload_base64": payload}).to_string());
        let is_over = |told: &serde_json::Value| told["state"] == "ended" || told["state"] == "dead";
        until("it ends", || is_over(&service.get(&format!("/v1/tasks/{id}")).expect(200).json()));
        (service.get(&format!("/v1/tasks/{id}")).expect(200).json(), id)
    };
    let result = |id: &str| service.get(&format!("/v1/tasks/{id}/result")).expect(200).body;
    // As the documentation of both has them.
    let (_, id) = ended("gpu.aggregate", &base64(&[bytes_of(&[7i64, -1, 7]), bytes_of(&[1.5f32, 2.0, 0.25])]));
    let expected = [bytes_of(&[2u64]), bytes_of(&[-1i64, 7]), bytes_of(&[2f64, 1.75]), bytes_of(&[1u64, 2])].concat();
    assert_eq!(result(&id), expected);
    let (_, id) = ended("gpu.top_k", &base64(&[bytes_of(&[1f32, 2.0])]));
    assert_eq!(result(&id), [bytes_of(&[2i64, 1]), bytes_of(&[6f32, 2.0])].concat());
    // For the next program byte for byte, and as JSON in base64.
    let url = format!("http://{}", service.address);
    let printed = ergate(&["task", "result", &id, "--url", &url]).output().unwrap();
    assert_eq!(printed.stdout, result(&id));
    let printed = Ended::of(&ergate(&["task", "result", &id, "--url", &url, "-o", "json"]).output().unwrap()).expect(0).json();
    assert_eq!(printed["result_base64"], base64(&[&result(&id)]));
    let (told, _) = ended("gpu.top_k", &base64(&[bytes_of(&[1f32, f32::NAN])]));
    let (class, message) = (told["failure"]["class"].as_str(), told["failure"]["message"].as_str());
    assert!(class == Some("gpu_refused") && message.is_some_and(|text| text.contains("query 0, value 1")), "{told}");
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
}

#[test]
fn built_in_kernels_that_cannot_be_are_refused() {
    for (to, words) in [("k = 2, digest = \"abc\"", "64 hexadecimal digits"), ("k = 2", "rows.f32"), ("k = 200", "give 1 to 128")]
    {
        let said = refused(SOURCE, &BUILTINS.replace("k = 2", to)).err;
        assert!(said.contains(words) && said.contains("task.\"gpu.top_k\".executor.gpu"), "{said}");
    }
    let said = refused(SOURCE, &BUILTINS.replace("sum, count", "mean")).err;
    assert!(said.contains("operations are sum, min, max and count"), "{said}");
}
