//! A TCP proxy on the loopback interface that does what networks do: delays, black holes, cuts.
#![allow(dead_code, reason = "each test file uses its part of this")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
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
    /// Both ends of every connection that is there.
    streams: BTreeMap<u64, [TcpStream; 2]>,
    /// How many connections there were.
    connections: u64,
    /// The proxy goes.
    is_over: bool,
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

    /// Lets everything pass again, what was held back too.
    pub(crate) fn restore(&self) {
        self.network.change(|weather| {
            let (streams, connections) = (std::mem::take(&mut weather.streams), weather.connections);
            *weather = Weather { streams, connections, ..Weather::default() };
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
            std::thread::spawn(move || network.connect(&client));
        }
    }

    /// Passes one connection on until either end closes it; an error on the way is the end of it.
    fn connect(&self, client: &TcpStream) {
        let Ok(target) = TcpStream::connect(self.target) else { return };
        let (Ok(one), Ok(other)) = (client.try_clone(), target.try_clone()) else { return };
        if [client, &target].iter().any(|stream| stream.set_nodelay(true).is_err()) {
            return;
        }
        let mut weather = self.weather();
        if weather.is_cut {
            return;
        }
        weather.connections += 1;
        let number = weather.connections;
        weather.streams.insert(number, [one, other]);
        drop(weather);
        std::thread::scope(|scope| {
            scope.spawn(|| self.pass(client, &target, Way::Requests));
            self.pass(&target, client, Way::Answers);
        });
        self.weather().streams.remove(&number);
    }

    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream, way: Way) {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            if !self.may_pass(way) || to.write_all(&chunk[..count]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    /// Waits as long as the weather says; false when the connection is cut.
    fn may_pass(&self, way: Way) -> bool {
        let mut weather = self.weather();
        let held = |weather: &Weather| match way {
            Way::Requests => weather.hold_requests,
            Way::Answers => weather.hold_answers,
        };
        while held(&weather) && !weather.is_cut {
            weather = self.changed.wait(weather).unwrap_or_else(PoisonError::into_inner);
        }
        let (delay, is_cut) = (weather.delay, weather.is_cut);
        drop(weather);
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        !is_cut
    }
}
