//! Workers that find out for themselves how many attempts at a time do best.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::command::until;
use crate::ground::{Ground, Worker};

/// A server in this process that works on so many requests at a time; the others wait, and where too many do, they are turned away.
struct Server {
    address: SocketAddr,
    room: Arc<Room>,
}

struct Room {
    places: usize,
    latency: Duration,
    /// Requests that may be there at one time.
    most: usize,
    inside: Mutex<Inside>,
    left: Condvar,
}

#[derive(Default)]
struct Inside {
    busy: usize,
    present: usize,
    refused: usize,
    /// The requests that were there, summed over seconds, and the last moment at which that changed.
    area: f64,
    at: Option<Instant>,
    /// For each request that was served, when it was done, and the sum until then.
    served: Vec<(Instant, f64)>,
}

impl Inside {
    /// Adds what has been there until now.
    fn pass(&mut self) -> Instant {
        let now = Instant::now();
        self.area += self.at.map_or(0.0, |at| (now - at).as_secs_f64()) * self.present as f64;
        self.at = Some(now);
        now
    }
}

impl Server {
    fn start(places: usize, latency: Duration, most: usize) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let room = Arc::new(Room { places, latency, most, inside: Mutex::default(), left: Condvar::new() });
        let shared = Arc::clone(&room);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let room = Arc::clone(&shared);
                std::thread::spawn(move || drop(room.serve(stream)));
            }
        });
        Server { address, room }
    }

    /// How many requests were there on average from the one with this index to that with the other, and how many were served in a second.
    fn told(&self, from: usize, to: usize) -> (f64, f64) {
        let inside = self.room.inside.lock().unwrap();
        let ((begun, before), (ended, after)) = (inside.served[from], inside.served[to]);
        let seconds = (ended - begun).as_secs_f64();
        ((after - before) / seconds, (to - from) as f64 / seconds)
    }

    fn counts(&self) -> (usize, usize) {
        let inside = self.room.inside.lock().unwrap();
        (inside.served.len(), inside.refused)
    }
}

impl Room {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut text = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            text.extend_from_slice(&piece[..count]);
            // All payloads here are the same.
            if !text.ends_with(b"{\"a\":1}") {
                continue;
            }
            text.clear();
            let (status, body) = if self.work() { ("200 OK", "{}") } else { ("503 Service Unavailable", "\"\"") };
            let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes())?;
        }
    }

    /// Whether it was served.
    fn work(&self) -> bool {
        let mut inside = self.inside.lock().unwrap();
        if inside.present >= self.most {
            inside.refused += 1;
            return false;
        }
        inside.pass();
        inside.present += 1;
        let mut inside = self.left.wait_while(inside, |inside| inside.busy >= self.places).unwrap();
        inside.busy += 1;
        drop(inside);
        std::thread::sleep(self.latency);
        let mut inside = self.inside.lock().unwrap();
        let now = inside.pass();
        inside.busy -= 1;
        inside.present -= 1;
        let area = inside.area;
        inside.served.push((now, area));
        drop(inside);
        self.left.notify_one();
        true
    }
}

const CALL: &str = "[task.call]\npool = \"models\"\nretry = { attempts = 50, initial = \"50ms\", max = \"100ms\" }\n";

fn ground() -> Ground {
    Ground::new(&format!("{CALL}executor = \"worker\"\n"))
}

fn worker(ground: &Ground, server: &Server, slots: &str, concurrency: &str) -> Worker {
    let http = format!("executor = {{ http = \"http://{}/\", allow_networks = [\"127.0.0.0/8\"] }}\n", server.address);
    ground.worker_with(&format!("{CALL}{http}"), &["--pool", "models", "--slots", slots, "--concurrency", concurrency])
}

/// What the engine says of the only worker.
fn shown(ground: &Ground) -> Option<u64> {
    ground.ask("GET", "/v1/workers", "").expect(200).json()["workers"][0]["concurrency"].as_u64()
}

#[test]
fn the_concurrency_of_a_server_with_eight_places_is_found_and_every_change_is_in_the_log() {
    let mut ground = ground();
    let server = Server::start(8, Duration::from_millis(100), usize::MAX);
    let adaptive = worker(&ground, &server, "64", "adaptive");
    until("the engine knows what it begins with", || shown(&ground) == Some(1));
    ground.submit_many(2_000, r#"{"type":"call","payload":{"a":1}}"#);
    until("it grows", || shown(&ground) > Some(2));
    ground.until_done();
    let (present, throughput) = server.told(600, 1_900);
    // Changes are told at most once a second.
    std::thread::sleep(Duration::from_millis(1_500));
    let last = shown(&ground);
    assert!(last >= Some(6) && last <= Some(24), "{last:?}");
    // A new engine is told anew.
    ground.stop();
    ground.start();
    until("the new engine knows it", || shown(&ground) == last);
    adaptive.end();
    // The same with fixed numbers: on a busy machine a server is not what it is meant to be.
    let fixed = |slots: f64| {
        let (worker, from) = (worker(&ground, &server, &format!("{slots:.0}"), "fixed"), server.counts().0);
        ground.submit_many(400, r#"{"type":"call","payload":{"a":1}}"#);
        ground.until_done();
        worker.end();
        server.told(from + 100, from + 300).1
    };
    let (most, half) = (fixed(64.0), fixed(present / 2.0));
    let told = ground.end();
    told.all_succeeded(2_800);
    assert_eq!((told.count("started"), told.count("failed"), told.count("lost")), (2_800, 0, 0), "{told:?}");
    let limits = &told.limits;
    let found = format!("{present:.1} at a time did {throughput:.1} a second, 64 {most:.1}, half as many {half:.1}");
    eprintln!("{found}");
    assert!((7.0..=16.0).contains(&present) && throughput > 0.8 * most, "{found}: {limits:?}");
    assert!(half < 0.8 * throughput, "{found}: {limits:?}");
    assert_eq!(limits.first().map(|(before, ..)| *before), Some(1), "{limits:?}");
    assert!(limits.windows(2).all(|pair| pair[0].1 == pair[1].0), "each begins where the one before ended: {limits:?}");
    assert_eq!(limits.last().map(|(_, limit, _)| u64::from(*limit)), last, "{limits:?}");
    assert!(limits.iter().all(|(before, limit, reason)| before != limit && !reason.is_empty()), "{limits:?}");
    assert!(
        limits.iter().any(|(.., reason)| reason.contains("a second at most, times ") && reason.ends_with(" at a time")),
        "{limits:?}"
    );
}

#[test]
fn a_server_that_turns_requests_away_is_asked_for_less() {
    let ground = ground();
    let server = Server::start(2, Duration::from_millis(20), 6);
    let worker = worker(&ground, &server, "64", "adaptive");
    ground.submit_many(800, r#"{"type":"call","payload":{"a":1}}"#);
    ground.until_done();
    let (served, refused) = server.counts();
    eprintln!("{refused} turned away of {served}");
    assert!(served == 800 && refused < 100, "{refused} of {served}");
    worker.end();
    ground.end().all_succeeded(800);
}

#[test]
fn a_worker_in_any_language_may_say_with_how_many_it_does_best() {
    let ground = ground();
    let path = "/v1/workers/0123456789abcdef0123456789abcdef";
    ground.ask("PUT", path, r#"{"protocol":1,"pool":"models","slots":8}"#).expect(200);
    let report = |body: &str| ground.ask("POST", &format!("{path}/report"), body);
    assert!(ground.ask("GET", path, "").expect(200).json().get("concurrency").is_none());
    // No shard knows it yet, so nothing is recorded.
    report(r#"{"concurrency":{"limit":2,"was":1}}"#).expect(200);
    assert_eq!(ground.ask("GET", path, "").expect(200).json()["concurrency"], 2);
    let id = ground.submit(r#"{"type":"call","payload":{"a":1}}"#);
    let leased = ground.ask("POST", &format!("{path}/lease"), r#"{"seq":1,"slots":1,"wait":"10s"}"#).expect(200).json();
    let attempt = leased["attempts"][0]["attempt"].as_str().unwrap();
    let change = r#""concurrency":{"limit":4,"was":2,"reason":"because"}"#;
    let body = format!(r#"{{"outcomes":[{{"attempt":"{attempt}","result":1}}],{change}}}"#);
    assert_eq!(report(&body).expect(200).json()["taken"], 1);
    // The answer may have been lost: the same again is recorded once.
    report(&format!("{{{change}}}")).expect(200);
    assert_eq!(ground.ask("GET", path, "").expect(200).json()["concurrency"], 4);
    // It registers anew and says what it was.
    ground.ask("PUT", path, r#"{"protocol":1,"pool":"models","slots":8}"#).expect(200);
    report(r#"{"concurrency":{"limit":4,"was":4,"reason":"as before"}}"#).expect(200);
    for wrong in [r#"{"limit":9,"was":4}"#, r#"{"limit":0,"was":4}"#, r#"{"limit":4}"#, r#"{"limit":4,"was":2,"x":1}"#] {
        report(&format!(r#"{{"concurrency":{wrong}}}"#)).expect(422);
    }
    ground.ask("DELETE", path, "").expect(200);
    assert_eq!(ground.outcome(&id), "SUCCEEDED");
    report(&format!("{{{change}}}")).expect(404);
    let told = ground.end();
    assert_eq!(told.limits, [(2, 4, "because".to_owned())], "{told:?}");
}
