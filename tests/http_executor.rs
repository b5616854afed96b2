//! The executor `http`: real calls to a small service in this process, which notes all that it is asked.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/process.rs"]
mod process;
#[path = "support/tasks.rs"]
mod tasks;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ergate::events::time::Micros;
use ergate::executor::http::{HttpFactory, HttpSettings, callbacks};
use ergate::executor::word::Word;
use ergate::{Outcome, Runtime, StartError, TaskEnd, Timeouts, TypeSettings};
use process::block_on;
use tasks::{LIMIT, TRACE, attempts, end, end_traced, start, until};

/// What a call brought.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    at: Instant,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

/// A service on a free port; it ends with the process of the test.
struct Service {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicU32>,
}

impl Service {
    /// Answers the call of this number, counted from 0, with these bytes.
    fn start(answer: impl Fn(usize, &Asked) -> String + Send + Sync + 'static) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, connections, answer) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(AtomicU32::new(0)), Arc::new(answer));
        let (notes, count) = (Arc::clone(&asked), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let (notes, answer) = (Arc::clone(&notes), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &notes, &*answer));
            }
        });
        Service { address, asked, connections }
    }

    fn url(&self) -> String {
        format!("http://{}/work?a=b", self.address)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The end of one task that calls it.
    fn task(&self, settings: TypeSettings, with: impl FnOnce(&mut HttpSettings)) -> TaskEnd {
        let mut http = HttpSettings::new("call", self.url());
        with(&mut http);
        one(HttpFactory { settings, http })
    }
}

fn serve(stream: TcpStream, notes: &Mutex<Vec<Asked>>, answer: &dyn Fn(usize, &Asked) -> String) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut line, mut headers) = (String::new(), BTreeMap::new());
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        let asked = Asked { line: line.trim_end().to_owned(), headers, body, at: Instant::now() };
        let number = {
            let mut notes = notes.lock().unwrap();
            notes.push(asked.clone());
            notes.len() - 1
        };
        let bytes = answer(number, &asked);
        if bytes.is_empty() || (&stream).write_all(bytes.as_bytes()).is_err() {
            return;
        }
    }
}

fn one(factory: HttpFactory) -> TaskEnd {
    block_on(LIMIT, async {
        let ergate = start(|builder| builder.executor(factory)).await;
        let end = end(&ergate, "call", "hello").await;
        ergate.shutdown().await.unwrap();
        end
    })
}

fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn failure(end: &TaskEnd) -> (&str, &str) {
    let failure = end.failure.as_ref().unwrap_or_else(|| panic!("it succeeded with {:?}", String::from_utf8_lossy(&end.result)));
    (&failure.class, &failure.message)
}

#[test]
fn the_payload_is_posted_with_all_that_a_service_should_know() {
    let service = Service::start(|_, _| response("200 OK", "Content-Type: application/json\r\n", "{\"a\":1}"));
    let end = service.task(attempts(1), |http| http.headers = vec![("Authorization".to_owned(), "Bearer x".to_owned())]);
    assert_eq!((end.outcome, &*end.result), (Outcome::Succeeded, &b"{\"a\":1}"[..]));
    let asked = &service.asked()[0];
    assert_eq!((asked.line.as_str(), asked.body.as_slice()), ("POST /work?a=b HTTP/1.1", &b"\"hello\""[..]));
    for (name, value) in [
        ("content-type", "application/json"),
        ("authorization", "Bearer x"),
        ("idempotency-key", "0-0-1.1"),
        ("ergate-task", "0-0"),
        ("ergate-attempt", "1"),
        ("ergate-fence", "1.1"),
        ("ergate-type", "call"),
        ("host", &service.address.to_string()),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    assert!(asked.header("ergate-deadline").starts_with("20"), "{asked:?}");
    assert_eq!(asked.header("ergate-report").len(), 16 + 1 + 64);
}

#[test]
fn the_trace_of_the_request_goes_with_the_call() {
    let service = Service::start(|_, _| response("200 OK", "", ""));
    block_on(LIMIT, async {
        let ergate = start(|builder| {
            builder.executor(HttpFactory { settings: attempts(1), http: HttpSettings::new("call", service.url()) })
        })
        .await;
        end(&ergate, "call", "untraced").await;
        end_traced(&ergate, "call", "traced").await;
        ergate.shutdown().await.unwrap();
    });
    let asked = service.asked();
    assert!(!asked[0].headers.contains_key("traceparent"));
    assert_eq!(asked[1].header("traceparent"), TRACE);
}

#[test]
fn a_busy_service_is_asked_again_when_it_says_and_with_the_next_fence() {
    let answer = |number, _: &Asked| match number {
        0 => response("429 Too Many Requests", "Retry-After: 1\r\n", "slow down"),
        1 => response("503 Service Unavailable", "Retry-After: 3600\r\n", ""),
        2 => response("500 Internal Server Error", "Retry-After: 3600\r\n", ""),
        _ => response("200 OK", "", "done"),
    };
    let service = Service::start(answer);
    let end = service.task(attempts(4), |http| http.retry_after_max = Duration::from_millis(1_500));
    assert_eq!((end.outcome, &*end.result), (Outcome::Succeeded, &b"done"[..]));
    let asked = service.asked();
    let pauses: Vec<Duration> = asked.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(pauses[0] >= Duration::from_millis(950), "{pauses:?}");
    // An hour is more than it may ask for; and after a 500 nobody is asked to wait.
    assert!((1_450..20_000).contains(&pauses[1].as_millis()), "{pauses:?}");
    assert!(pauses[2] < Duration::from_millis(900), "{pauses:?}");
    let keys: Vec<&str> = asked.iter().map(|asked| asked.header("idempotency-key")).collect();
    assert_eq!(keys, ["0-0-1.1", "0-0-1.2", "0-0-1.3", "0-0-1.4"]);
}

#[test]
fn what_is_no_success_is_told_and_retried_only_where_that_may_help() {
    let problem = "Content-Type: application/problem+json\r\n";
    for (status, headers, body, tries, message) in [
        ("400 Bad Request", "", "no such model", 1, "the service answered 400: no such model"),
        ("409 Conflict", problem, "{\"title\":\"No\",\"detail\":\"twice\"}", 1, "the service answered 409: No: twice"),
        ("408 Request Timeout", "", "", 2, "the service answered 408"),
        ("502 Bad Gateway", "", "<html>", 2, "the service answered 502: <html>"),
    ] {
        let service = Service::start(move |_, _| response(status, headers, body));
        let end = service.task(attempts(2), |_| {});
        assert_eq!(failure(&end), (format!("http-{}", &status[..3]).as_str(), message));
        assert_eq!(service.asked().len(), tries, "{status}");
    }
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = Service::start(|_, _| response("200 OK", "", "stolen"));
    let location = format!("Location: {}\r\n", elsewhere.url());
    for status in ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = location.clone();
        let service = Service::start(move |_, _| response(status, &location, ""));
        let end = service.task(attempts(3), |_| {});
        assert_eq!(failure(&end).0, format!("http-{}", &status[..3]));
        assert_eq!(service.asked().len(), 1);
    }
    assert!(elsewhere.asked().is_empty());
}

#[test]
fn addresses_that_give_credentials_out_are_not_called() {
    for host in ["169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]", "0.0.0.0", "[::]"] {
        let http = HttpSettings::new("call", format!("http://{host}/latest/meta-data"));
        let end = one(HttpFactory { settings: attempts(3), http });
        let (class, message) = failure(&end);
        assert_eq!(class, "address", "{message}");
        assert!(message.contains("which is not called"), "{message}");
    }
    // Nothing but the rule stood in the way: 0.0.0.0 is this machine.
    let service = Service::start(|_, _| response("200 OK", "", "here"));
    let mut http = HttpSettings::new("call", format!("http://0.0.0.0:{}/", service.address.port()));
    http.allow_networks = vec!["0.0.0.0/32".to_owned()];
    assert_eq!(&*one(HttpFactory { settings: attempts(1), http }).result, b"here");
}

#[test]
fn bodies_are_bounded_and_json_is_json() {
    let large = "x".repeat(2_000);
    for (headers, body, word) in [
        ("", large.as_str(), "more than 1000 bytes"),
        ("Content-Type: application/json\r\n", "{\"a\":", "says that it is JSON and is not"),
        ("Content-Encoding: gzip\r\n", "x", "encoded as gzip"),
    ] {
        let body = body.to_owned();
        let service = Service::start(move |_, _| response("200 OK", headers, &body));
        let end = service.task(attempts(3), |http| http.response_max = 1_000);
        assert_eq!(failure(&end).0, "result");
        assert!(failure(&end).1.contains(word), "{}", failure(&end).1);
        assert_eq!(service.asked().len(), 1);
    }
    // A body without end is cut off too.
    let service = Service::start(|_, _| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", "400\r\n".to_owned() + &"y".repeat(1_024) + "\r\n")
    });
    assert_eq!(failure(&service.task(attempts(1), |http| http.response_max = 1_000)).0, "result");
}

#[test]
fn a_service_that_is_not_there_or_hangs_up_is_asked_again() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let end = one(HttpFactory { settings: attempts(2), http: HttpSettings::new("call", format!("http://{gone}/")) });
    assert_eq!(failure(&end).0, "connect");
    let service = Service::start(|number, _| if number == 0 { String::new() } else { response("200 OK", "", "done") });
    assert_eq!(&*service.task(attempts(2), |_| {}).result, b"done");
    assert_eq!(service.asked().len(), 2);
}

#[test]
fn no_more_calls_go_out_at_one_time_than_are_allowed_and_connections_are_used_again() {
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (inside, peak) = (Arc::clone(&now), Arc::clone(&most));
    let service = Service::start(move |_, _| {
        peak.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(40));
        inside.fetch_sub(1, Ordering::SeqCst);
        response("200 OK", "", "")
    });
    let mut http = HttpSettings::new("call", service.url());
    http.concurrency = 3;
    // Whoever waits for its turn is not silent: all of them take longer than this.
    let timeouts = Timeouts { heartbeat: Some(Micros::from_millis(600)), ..Timeouts::default() };
    let settings = TypeSettings { timeouts, ..attempts(1) };
    block_on(LIMIT, async {
        let ergate = start(|builder| builder.executor(HttpFactory { settings, http }).pool("default", 1, 64)).await;
        let mut tasks = Vec::new();
        for _ in 0..60 {
            tasks.push(ergate.submit("call", &()).await.unwrap());
        }
        for task in tasks {
            let end = task.end().await.unwrap();
            assert_eq!(end.outcome, Outcome::Succeeded, "{:?}", end.failure);
        }
        ergate.shutdown().await.unwrap();
    });
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert!(service.connections.load(Ordering::SeqCst) <= 6, "{}", service.connections.load(Ordering::SeqCst));
}

#[test]
fn a_service_reports_with_its_token_and_the_next_attempt_gets_the_checkpoint() {
    let service = Service::start(|number, asked| {
        let token = asked.header("ergate-report").to_owned();
        if number == 0 {
            // Twice as long as it may be silent.
            for _ in 0..12 {
                std::thread::sleep(Duration::from_millis(100));
                callbacks().report(&token, &Word::parse(b"{\"heartbeat\":true}").unwrap()).unwrap();
            }
            callbacks().report(&token, &Word::parse(b"{\"percent\":50,\"checkpoint\":\"page 7\"}").unwrap()).unwrap();
            return response("500 Internal Server Error", "", "");
        }
        assert_eq!(callbacks().checkpoint(&token).unwrap().unwrap(), b"page 7");
        response("200 OK", "", asked.header("ergate-checkpoint"))
    });
    let timeouts = Timeouts { heartbeat: Some(Micros::from_millis(600)), ..Timeouts::default() };
    let end = service.task(TypeSettings { timeouts, ..attempts(2) }, |_| {});
    // As base64, for a checkpoint may be any bytes.
    assert_eq!(&*end.result, b"cGFnZSA3", "{:?}", end.failure);
    let word = Word::parse(b"{\"heartbeat\":true}").unwrap();
    for asked in service.asked() {
        assert!(callbacks().report(asked.header("ergate-report"), &word).is_err(), "the token outlived its attempt");
    }
}

#[test]
fn a_cancelled_call_is_given_up_and_its_connection_closed() {
    let (hung_up, seen) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (hang, see) = (Arc::clone(&hung_up), Arc::clone(&seen));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 4_096];
            while stream.read(&mut bytes).is_ok_and(|read| read > 0) {
                see.store(1, Ordering::SeqCst);
            }
            hang.store(1, Ordering::SeqCst);
        }
    });
    let http = HttpSettings::new("call", url);
    block_on(LIMIT, async {
        let ergate = start(|builder| builder.executor(HttpFactory { settings: attempts(1), http })).await;
        let task = ergate.submit("call", &()).await.unwrap();
        until("the call came", || seen.load(Ordering::SeqCst) == 1);
        ergate.cancel(task.id, "test", "enough").await.unwrap();
        assert_eq!(task.end().await.unwrap().outcome, Outcome::Cancelled);
        until("the connection is closed", || hung_up.load(Ordering::SeqCst) == 1);
        ergate.shutdown().await.unwrap();
    });
}

#[test]
fn what_cannot_be_called_is_named_at_the_start_and_no_secret_is() {
    let refused = |with: &dyn Fn(&mut HttpSettings)| {
        let mut http = HttpSettings::new("call", "http://127.0.0.1:1/");
        with(&mut http);
        let factory = HttpFactory { settings: attempts(1), http };
        let started = block_on(LIMIT, async { Runtime::builder().memory().executor(factory).start().await.err() });
        let Some(StartError::Executor { source, .. }) = started else { panic!("{started:?}") };
        assert!(!source.to_string().contains("hunter2"), "{source}");
        source.to_string()
    };
    assert!(refused(&|http| http.url = "http://me:hunter2@x/".to_owned()).contains("a user or a password"));
    assert!(
        refused(&|http| http.headers = vec![("A".to_owned(), "hunter2\n".to_owned())]).contains("the header a cannot be sent")
    );
    assert!(refused(&|http| http.allow_networks = vec!["169.254/16".to_owned()]).contains("no network"));
}
