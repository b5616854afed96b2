//! An engine that is none: it says what a test wants, and keeps what a worker says to it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::until;

/// How long a question waits.
const WAIT: Duration = Duration::from_secs(2);

/// What a stub says, and what it was told.
#[derive(Default)]
pub(crate) struct Said {
    /// The engines that it names.
    pub(crate) engines: Vec<String>,
    /// The same once more, in the next answer to a question.
    pub(crate) news: Option<Vec<String>>,
    /// What it refuses everything with.
    pub(crate) refuses: Option<u16>,
    /// Attempts to give, each of a task type; given at once when `gate` is open.
    pub(crate) gives: Vec<(String, &'static str)>,
    /// The same, but given once it hears that the worker drains: in the answer to the question that waits then.
    pub(crate) gives_when_told: Vec<(String, &'static str)>,
    pub(crate) is_shut: bool,
    /// Who is said to lead what is reported here.
    pub(crate) elsewhere: Option<String>,
    /// Whether it gives the worker nothing more.
    pub(crate) drains: bool,
    /// Attempts that are on their way since before the last question: given in the answers to questions for none, one each.
    pub(crate) on_their_way: Vec<(String, &'static str)>,
    pub(crate) registrations: Vec<Value>,
    /// For how many attempts the question asks that waits now.
    pub(crate) asked: Option<u64>,
    /// Outcomes that it has taken, and how many reports it has answered.
    pub(crate) outcomes: Vec<Value>,
    pub(crate) reports: usize,
    /// The limits that it was told of.
    pub(crate) limits: Vec<Value>,
    pub(crate) verbs: Vec<&'static str>,
    /// The number of the question that was answered last, and the answer.
    answered: Option<(Value, Value)>,
    questions: u64,
    is_dead: bool,
    streams: Vec<TcpStream>,
}

impl Said {
    fn is_draining(&self) -> bool {
        self.drains || self.verbs.contains(&"drain")
    }
}

/// An engine that is none.
#[derive(Clone)]
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    said: Arc<(Mutex<Said>, Condvar)>,
}

impl Stub {
    pub(crate) fn start() -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let stub = Stub { address: listener.local_addr().unwrap(), said: Arc::default() };
        let own = stub.clone();
        std::thread::spawn(move || {
            while !own.lock().is_dead {
                match listener.accept() {
                    Ok((stream, _)) => own.clone().serve(stream),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        stub
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.0.lock().unwrap()
    }

    /// Changes what it says.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.lock());
        self.said.1.notify_all();
    }

    #[track_caller]
    pub(crate) fn until(&self, what: &str, so: impl Fn(&Said) -> bool) {
        until(what, || so(&self.lock()));
    }

    /// Dies with its connections.
    pub(crate) fn kill(&self) {
        self.set(|said| {
            said.is_dead = true;
            said.streams.iter().for_each(|stream| drop(stream.shutdown(std::net::Shutdown::Both)));
        });
        // Whoever connects now is refused.
        until("nobody listens", || TcpStream::connect(self.address).is_err());
    }

    fn serve(self, stream: TcpStream) {
        stream.set_nonblocking(false).unwrap();
        self.set(|said| said.streams.push(stream.try_clone().unwrap()));
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut stream = stream;
            while let Some((method, path, body)) = read(&mut reader) {
                let (status, answer) = self.answer(&method, &path, &body);
                let text = answer.to_string();
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
                if self.lock().is_dead || stream.write_all((head + &text).as_bytes()).is_err() {
                    return;
                }
            }
        });
    }

    fn answer(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let problem = |status: u16, kind: &str| (status, json!({"type": format!("urn:ergate:problem:{kind}"), "detail": "no"}));
        let mut said = self.lock();
        if let Some(status) = said.refuses {
            return problem(status, "forbidden");
        }
        match (method, path.rsplit('/').next().unwrap()) {
            ("PUT", _) => {
                said.registrations.push(body.clone());
                said.answered = None;
                let mut answer = json!({"protocol": 1, "lease": "5s", "wait_max": "60s", "stop": [], "drain": false});
                answer["engines"] = json!(said.engines);
                (200, answer)
            }
            ("POST", "lease") => {
                drop(said);
                self.lease(body).map_or_else(|| problem(409, "superseded"), |answer| (200, answer))
            }
            ("POST", "report") => {
                said.reports += 1;
                said.limits.extend(body.get("concurrency").cloned());
                let outcomes = body["outcomes"].as_array().cloned().unwrap_or_default();
                let mut answer = json!({"taken": outcomes.len(), "refused": [], "stop": [], "drain": said.drains});
                match &said.elsewhere {
                    Some(url) => {
                        let each = outcomes.iter().map(|one| json!({"attempt": one["attempt"], "engine": url}));
                        answer["elsewhere"] = each.collect();
                    }
                    None => said.outcomes.extend(outcomes),
                }
                (200, answer)
            }
            ("POST", _) => {
                said.verbs.push("drain");
                let given = std::mem::take(&mut said.gives_when_told);
                said.gives.extend(given);
                (200, json!({"stop": [], "drain": true}))
            }
            _ => {
                said.verbs.push("leave");
                (200, json!({"stop": [], "drain": true}))
            }
        }
    }

    fn lease(&self, body: &Value) -> Option<Value> {
        let (slots, began) = (body["slots"].as_u64().unwrap(), Instant::now());
        let mut said = self.lock();
        said.questions += 1;
        if let Some((seq, answer)) = &said.answered
            && *seq == body["seq"]
        {
            return Some(answer.clone());
        }
        let question = said.questions;
        said.asked = Some(slots);
        loop {
            if said.questions != question || said.is_dead {
                return None;
            }
            let is_given = !said.is_shut && slots > 0 && !said.gives.is_empty();
            let is_late = slots == 0 && !said.on_their_way.is_empty();
            let is_last = said.is_draining() && said.on_their_way.is_empty();
            if is_given || is_late || is_last || said.news.is_some() || began.elapsed() > WAIT {
                break;
            }
            said = self.said.1.wait_timeout(said, Duration::from_millis(20)).unwrap().0;
        }
        said.asked = None;
        let count = if said.is_shut { 0 } else { said.gives.len().min(slots as usize) };
        let is_draining = said.is_draining();
        let late = if slots == 0 { said.on_their_way.pop() } else { None };
        let given = said.gives.drain(..count).chain(late);
        let attempts: Vec<Value> = given.map(|(id, task_type)| attempt(&id, task_type)).collect();
        let is_through = is_draining && said.on_their_way.is_empty();
        let mut answer = json!({"seq": body["seq"], "attempts": attempts, "stop": [], "drain": is_through});
        if let Some(engines) = said.news.take() {
            answer["engines"] = json!(engines);
        }
        said.answered = Some((body["seq"].clone(), answer.clone()));
        Some(answer)
    }
}

fn attempt(id: &str, task_type: &str) -> Value {
    json!({"attempt": id, "task": id.split('.').next(), "number": 1, "fence": "1.1", "type": task_type, "payload": null,
           "deadline": "2126-01-01T00:00:00Z", "timeout_ms": 600_000})
}

fn read(reader: &mut impl BufRead) -> Option<(String, String, Value)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", count)) => length = count.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method, path, serde_json::from_slice(&body).unwrap_or_default()))
}
