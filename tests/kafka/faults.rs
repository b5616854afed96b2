//! What goes wrong.

use std::time::Duration;

use rustix::process::Signal;

use crate::ground::{ENGINES, Ground, Kind, SESSION};
use crate::kafka::proxy::Proxy;
use crate::process::Chance;

/// A kind of round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Engines get SIGKILL and are started again.
    Kill,
    /// An engine's time stands still for longer than its session, and it goes on as if nothing had been.
    Stop,
    /// The broker gets SIGKILL and is started again.
    Broker,
    /// One of three brokers gets SIGKILL, whatever it led goes to the others, and it comes back.
    Leader,
    /// The network between an engine and the brokers is cut, or swallows what is sent, or only the answers.
    Cut,
    /// Engines come and go without a break.
    Storm,
    /// An engine's time stands still for longer than its transactions may take, and shorter than its session.
    Transaction,
    /// The producer's connections break again and again after its requests went through.
    Producer,
    /// The broker's disk is full, which ends it, until there is room again.
    Disk,
    /// Engines whose clocks are off, and jump.
    Clock,
}

const ALL: [(&str, Fault); 10] = [
    ("kill", Fault::Kill),
    ("stop", Fault::Stop),
    ("broker", Fault::Broker),
    ("leader", Fault::Leader),
    ("cut", Fault::Cut),
    ("storm", Fault::Storm),
    ("transaction", Fault::Transaction),
    ("producer", Fault::Producer),
    ("disk", Fault::Disk),
    ("clock", Fault::Clock),
];

/// A transaction of this length is longer than any usual one and much shorter than a session.
const TRANSACTION_SHORT_MS: u64 = 1_500;
/// A session that outlives it.
const SESSION_LONG_MS: u64 = 8_000;
/// How far a clock that is off jumps; a task may have to wait as long, since time never goes back.
const SKEW_MS: u64 = 4_000;

fn sleep(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

impl Fault {
    pub(crate) fn named(name: &str) -> Option<Fault> {
        ALL.into_iter().find(|(known, _)| *known == name).map(|(_, fault)| fault)
    }

    pub(crate) fn name(self) -> &'static str {
        ALL.into_iter().find(|(_, fault)| *fault == self).map_or("", |(name, _)| name)
    }

    /// The brokers on which it happens.
    pub(crate) fn needs(self) -> Kind {
        match self {
            Fault::Leader => Kind::Three,
            Fault::Disk => Kind::SmallDisk,
            _ => Kind::Single,
        }
    }

    /// Before the engines start.
    pub(crate) fn prepare(self, ground: &mut Ground<'_>, chance: &mut Chance) {
        for engine in &mut ground.engines {
            let orders = &mut engine.orders;
            (orders.session_ms, orders.transaction_ms, orders.skew_ms) = (SESSION.as_millis() as u64, 10_000, 0);
            match self {
                Fault::Transaction => (orders.session_ms, orders.transaction_ms) = (SESSION_LONG_MS, TRANSACTION_SHORT_MS),
                Fault::Clock => orders.skew_ms = chance.below(2 * SKEW_MS) as i64 - SKEW_MS as i64,
                _ => {}
            }
        }
    }

    /// Under load. Afterwards at least one engine runs and nothing is broken any more.
    pub(crate) fn strike(self, ground: &mut Ground<'_>, chance: &mut Chance) {
        match self {
            Fault::Kill => kill(ground, chance),
            Fault::Stop => stop(ground, chance, SESSION.as_millis() as u64 + 500),
            Fault::Broker => broker(ground, 0, chance.below(1_500)),
            Fault::Leader => (0..2).for_each(|_| broker(ground, chance.below(3) as u32, 1_000 + chance.below(3_000))),
            Fault::Cut => cut(ground, chance),
            Fault::Storm => storm(ground, chance),
            Fault::Transaction => (0..2).for_each(|_| stop(ground, chance, TRANSACTION_SHORT_MS + 500)),
            Fault::Producer => producer(ground, chance),
            Fault::Disk => disk(ground),
            Fault::Clock => clock(ground, chance),
        }
    }

    /// After the engines have ended.
    pub(crate) fn clean_up(self, ground: &Ground<'_>) {
        (0..=ENGINES).for_each(|route| ground.brokers.cluster.route(route).each(Proxy::restore));
    }
}

fn kill(ground: &mut Ground<'_>, chance: &mut Chance) {
    for _ in 0..1 + chance.below(3) {
        let victims = [ground.victim(chance), ground.victim(chance)];
        let count = 1 + usize::from(chance.below(3) == 0);
        victims[..count].iter().for_each(|victim| ground.engines[*victim].kill());
        sleep(chance.below(2_500));
        for victim in &victims[..count] {
            if !ground.engines[*victim].is_running() {
                ground.engines[*victim].start();
            }
        }
        sleep(chance.below(2_000));
    }
}

/// Stops an engine's time for at least so long.
fn stop(ground: &Ground<'_>, chance: &mut Chance, millis: u64) {
    let victim = ground.victim(chance);
    ground.engines[victim].signal(Signal::STOP);
    sleep(millis + chance.below(2_000));
    ground.engines[victim].signal(Signal::CONT);
    sleep(chance.below(500));
}

fn broker(ground: &Ground<'_>, id: u32, millis: u64) {
    ground.brokers.cluster.kill(id);
    sleep(millis);
    ground.brokers.cluster.start_again(id);
    sleep(500);
}

fn cut(ground: &Ground<'_>, chance: &mut Chance) {
    let route = ground.brokers.cluster.route(ground.victim(chance));
    let ways: [fn(&Proxy); 4] = [Proxy::cut, Proxy::black_hole, Proxy::hold_answers, Proxy::drop_connections];
    route.each(ways[chance.below(4) as usize]);
    // Shorter than a session as often as longer.
    sleep(300 + chance.below(2 * SESSION.as_millis() as u64));
    if chance.below(2) == 0 {
        // What was held back is gone.
        route.each(Proxy::cut);
        sleep(50);
    }
    route.each(Proxy::restore);
}

fn storm(ground: &mut Ground<'_>, chance: &mut Chance) {
    for _ in 0..8 {
        let index = chance.below(ENGINES as u64) as usize;
        let others = ground.engines.iter().filter(|engine| engine.is_running()).count();
        let engine = &mut ground.engines[index];
        match engine.is_running() {
            false => engine.start(),
            true if others > 1 => engine.stop().unwrap_or_else(|error| panic!("{error}")),
            true => {}
        }
        sleep(chance.below(1_200));
    }
}

fn producer(ground: &Ground<'_>, chance: &mut Chance) {
    let route = ground.brokers.cluster.route(ENGINES);
    for _ in 0..20 {
        route.each(Proxy::hold_answers);
        sleep(chance.below(120));
        route.each(Proxy::cut);
        route.each(Proxy::restore);
        sleep(chance.below(200));
    }
}

fn disk(ground: &Ground<'_>) {
    let disk = ground.brokers.disk.as_ref().expect("this kind of brokers has one");
    disk.fill();
    // It takes a while until something needs a new page; the broker then gives its one log directory up, and ends.
    sleep(4_000);
    disk.free();
    if ground.brokers.cluster.has_ended(0) {
        ground.brokers.cluster.kill(0);
        ground.brokers.cluster.start_again(0);
    } else {
        eprintln!("kafka: the broker lived through its full disk");
    }
}

fn clock(ground: &mut Ground<'_>, chance: &mut Chance) {
    for _ in 0..3 {
        let victim = ground.victim(chance);
        if ground.engines[victim].is_running() {
            ground.engines[victim].say("jump");
        }
        sleep(chance.below(800));
        let victim = ground.victim(chance);
        ground.engines[victim].kill();
        sleep(chance.below(800));
        ground.engines[victim].start();
    }
}
