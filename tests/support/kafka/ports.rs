//! Ports that stay free for a broker that is killed and started again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that the system gives to outgoing connections (32768 and up on Linux): one of those could sit on a port while
/// its broker is down, and the broker could not come back.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;
/// How far apart test processes with neighbouring ids begin to look.
const STRIDE: u32 = 61;

/// A port on which nobody listens now, and which this process gives to nobody else.
pub(crate) fn free() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(STRIDE);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(step < COUNT, "no port is free");
        let port = u16::try_from(FIRST + begin.wrapping_add(step) % COUNT).expect("the range is one of ports");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
