//! A TCP proxy on the loopback interface that does what networks do: delays, black holes, cuts, resets, a trickle.
#![allow(dead_code, reason = "each test file uses its part of this")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that are read at a time; with a delay this is what passes in that time, so it is more than a client has under way.
const CHUNK_BYTES: usize = 256 << 10;

/// How long a proxy rests that cannot accept a connection, since there are too many.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Passes connections on to one address, as long as it is let.
pub(crate) struct Proxy {
    address: SocketAddr,
    network: Arc<Network>,
    listening: Option<JoinHandle<()>>,
}

/// What the connections of a proxy share.
struct Network {
    target: SocketAddr,
    weather: Mutex<Weather>,
    changed: Condvar,
}

#[derive(Default)]
struct Weather {
    /// Nothing passes to the target; it is kept and passes later.
    hold_requests: bool,
    /// Nothing passes to the client; it is kept and passes later.
    hold_answers: bool,
    /// Connections are closed, and new ones too.
    is_cut: bool,
    /// How long everything waits, in each direction.
    delay: Duration,
    /// No report of a worker passes to the target; it is kept and passes later.
    hold_reports: bool,
    /// How long each report of a worker waits.
    delay_reports: Duration,
    /// So many bytes pass at a time, and then none for so long.
    trickle: Option<(usize, Duration)>,
    /// A new connection is reset once it has passed some bytes, fewer than this.
    reset_within: Option<u64>,
    /// How many connections were reset.
    resets: u64,
    /// Both ends of every connection that is there.
    streams: BTreeMap<u64, [TcpStream; 2]>,
    /// How many connections there were.
    connections: u64,
    /// The proxy goes.
    is_over: bool,
}

/// One connection: what becomes of it, for both of its directions.
struct Link {
    client: TcpStream,
    target: TcpStream,
    /// How many bytes it may still pass until it is reset.
    left: AtomicU64,
    is_reset: AtomicBool,
    /// Whether its first bytes have waited already.
    has_waited: AtomicBool,
}

/// Which way bytes go.
#[derive(Clone, Copy)]
enum Way {
    Requests,
    Answers,
}

impl Proxy {
    /// Begins to pass connections on to this address; nobody needs to listen there yet.
    pub(crate) fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let network = Arc::new(Network { target, weather: Mutex::default(), changed: Condvar::new() });
        let shared = Arc::clone(&network);
        let listening = Some(std::thread::spawn(move || shared.listen(&listener)));
        Proxy { address, network, listening }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection, and every new one as soon as it is made.
    pub(crate) fn cut(&self) {
        self.network.change(|weather| weather.is_cut = true);
    }

    /// Closes every connection once; new ones work.
    pub(crate) fn drop_connections(&self) {
        self.network.change(|weather| weather.is_cut = true);
        self.network.change(|weather| weather.is_cut = false);
    }

    /// Lets nothing pass any more while connections stay open, as where a cable is pulled.
    pub(crate) fn black_hole(&self) {
        self.network.change(|weather| (weather.hold_requests, weather.hold_answers) = (true, true));
    }

    /// Lets requests pass and no answer: what was asked for is done, and nobody hears of it.
    pub(crate) fn hold_answers(&self) {
        self.network.change(|weather| weather.hold_answers = true);
    }

    /// Delays everything by this, in each direction.
    pub(crate) fn delay(&self, by: Duration) {
        self.network.change(|weather| weather.delay = by);
    }

    /// Keeps reports of workers back, and nothing else: their questions are answered.
    pub(crate) fn hold_reports(&self) {
        self.network.change(|weather| weather.hold_reports = true);
    }

    /// Delays each report of a worker by this, and nothing else; none is lost, also where the worker has given it up.
    pub(crate) fn delay_reports(&self, by: Duration) {
        self.network.change(|weather| weather.delay_reports = by);
    }

    /// Passes so many bytes at a time, each way, and rests for so long after them.
    pub(crate) fn trickle(&self, bytes: usize, rest: Duration) {
        self.network.change(|weather| weather.trickle = Some((bytes, rest)));
    }

    /// Resets every connection that is made from now on after fewer bytes than this, wherever in a request or an answer that is.
    pub(crate) fn reset_within(&self, bytes: u64) {
        self.network.change(|weather| weather.reset_within = Some(bytes));
    }

    /// How many connections it has reset.
    pub(crate) fn resets(&self) -> u64 {
        self.network.weather().resets
    }

    /// Lets everything pass again, what was held back too.
    pub(crate) fn restore(&self) {
        self.network.change(|weather| {
            let (streams, connections, resets) = (std::mem::take(&mut weather.streams), weather.connections, weather.resets);
            *weather = Weather { streams, connections, resets, ..Weather::default() };
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.change(|weather| (weather.is_over, weather.is_cut) = (true, true));
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

impl Network {
    fn weather(&self) -> MutexGuard<'_, Weather> {
        // Every change is one assignment, so a panic leaves nothing halfway.
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        let mut weather = self.weather();
        change(&mut weather);
        if weather.is_cut {
            let streams = std::mem::take(&mut weather.streams);
            streams.into_values().flatten().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        }
        drop(weather);
        self.changed.notify_all();
    }

    fn listen(self: &Arc<Network>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            if self.weather().is_over {
                return;
            }
            let Ok((client, _)) = accepted else {
                std::thread::sleep(ACCEPT_AGAIN_AFTER);
                continue;
            };
            let network = Arc::clone(self);
            std::thread::spawn(move || network.connect(client));
        }
    }

    /// Passes one connection on until either end closes it; an error on the way is the end of it.
    fn connect(&self, client: TcpStream) {
        let Some(has_waited) = self.await_report(&client) else { return };
        let Ok(target) = TcpStream::connect(self.target) else { return };
        let (Ok(one), Ok(other)) = (client.try_clone(), target.try_clone()) else { return };
        if [&client, &target].iter().any(|stream| stream.set_nodelay(true).is_err()) {
            return;
        }
        let mut weather = self.weather();
        if weather.is_cut {
            return;
        }
        weather.connections += 1;
        let number = weather.connections;
        let left = AtomicU64::new(weather.reset_within.map_or(u64::MAX, |bytes| spread(number) % bytes.max(1)));
        weather.streams.insert(number, [one, other]);
        drop(weather);
        let link = Link { client, target, left, is_reset: AtomicBool::new(false), has_waited: AtomicBool::new(has_waited) };
        std::thread::scope(|scope| {
            scope.spawn(|| self.pass(&link, Way::Requests));
            self.pass(&link, Way::Answers);
        });
        let mut weather = self.weather();
        weather.streams.remove(&number);
        weather.resets += u64::from(link.is_reset.load(Ordering::Relaxed));
    }

    /// Where reports wait, a connection that begins with one waits before the target hears of it, for services close those on which nothing comes. Says
    /// whether it did; `None` when it is cut.
    fn await_report(&self, client: &TcpStream) -> Option<bool> {
        let weather = self.weather();
        let do_reports_wait = weather.hold_reports || !weather.delay_reports.is_zero();
        drop(weather);
        let mut first = [0; 1024];
        if !do_reports_wait || !client.peek(&mut first).is_ok_and(|count| is_report(&first[..count])) {
            return Some(false);
        }
        self.may_pass(Way::Requests, true).map(|_| true)
    }

    fn pass(&self, link: &Link, way: Way) {
        let (mut from, to) = match way {
            Way::Requests => (&link.client, &link.target),
            Way::Answers => (&link.target, &link.client),
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            if !self.pass_on(link, to, way, &chunk[..count]) {
                break;
            }
        }
        if !link.is_reset.load(Ordering::Relaxed) {
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        }
    }

    /// Passes bytes on as the weather says; false when that is the end of the connection.
    fn pass_on(&self, link: &Link, mut to: &TcpStream, way: Way, mut bytes: &[u8]) -> bool {
        let is_report = matches!(way, Way::Requests) && is_report(bytes) && !link.has_waited.swap(false, Ordering::Relaxed);
        while !bytes.is_empty() {
            let Some((most, rest)) = self.may_pass(way, is_report) else { return false };
            let (piece, others) = bytes.split_at(most.min(bytes.len()));
            let passes = link.spend(piece.len());
            if to.write_all(&piece[..passes]).is_err() {
                return false;
            }
            if passes < piece.len() {
                link.reset();
                return false;
            }
            std::thread::sleep(rest);
            bytes = others;
        }
        true
    }

    /// Waits as long as the weather says: how many bytes pass, and how long to rest after them. `None` when the connection is cut.
    fn may_pass(&self, way: Way, is_report: bool) -> Option<(usize, Duration)> {
        let mut weather = self.weather();
        let held = |weather: &Weather| match way {
            Way::Requests => weather.hold_requests || (is_report && weather.hold_reports),
            Way::Answers => weather.hold_answers,
        };
        while held(&weather) && !weather.is_cut {
            weather = self.changed.wait(weather).unwrap_or_else(PoisonError::into_inner);
        }
        let delay = weather.delay + if is_report { weather.delay_reports } else { Duration::ZERO };
        let (is_cut, trickle) = (weather.is_cut, weather.trickle);
        drop(weather);
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        (!is_cut).then(|| trickle.unwrap_or((usize::MAX, Duration::ZERO)))
    }
}

impl Link {
    /// How many of so many bytes pass before it is reset.
    fn spend(&self, bytes: usize) -> usize {
        let take = |left: u64| Some(left.saturating_sub(bytes as u64));
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or_else(|left| left);
        bytes.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Ends it with an RST to both ends, which is what closing does without lingering.
    fn reset(&self) {
        self.is_reset.store(true, Ordering::Relaxed);
        for stream in [&self.client, &self.target] {
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
            // Wakes whoever reads, and sends nothing.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

/// Whether these are the first bytes of a report of a worker.
fn is_report(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.starts_with(b"POST ") && line.ends_with(b"/report HTTP/1.1")
}

/// A number that looks like chance and is the same each time.
const fn spread(number: u64) -> u64 {
    // The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 31)
}
