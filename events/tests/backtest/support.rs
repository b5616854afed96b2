//! Work of all kinds, and lots that fall alike every time.

use std::path::{Path, PathBuf};

use ergate_events::backtest::trace::{self, ServiceModel};
use ergate_events::backtest::{Arrival, Arrivals, Setup};
use ergate_events::scaling::real::Real;
use ergate_events::scaling::signal::Bounds;
use ergate_events::scaling::threshold::Threshold;
use ergate_events::scaling::{AnyPolicy, threshold};
use ergate_events::time::{Micros, Timestamp};

pub(crate) const BEGAN: Timestamp = Timestamp(1_772_366_400_000_000);

/// Numbers that only look random: SplitMix64.
pub(crate) struct Lots(pub(crate) u64);

impl Lots {
    /// Above 0, at most 1.
    pub(crate) fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 + f64::EPSILON
    }

    /// With a mean of 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -self.share().ln()
    }
}

pub(crate) fn micros(seconds: f64) -> Micros {
    Micros((seconds * 1e6).round() as u64)
}

/// Tasks that arrive by chance, `rate(second)` a second, at most `most`, and take `service()` seconds.
pub(crate) fn work(seed: u64, until: f64, most: f64, rate: impl Fn(f64) -> f64, service: impl Fn(&mut Lots) -> f64) -> Arrivals {
    let mut lots = Lots(seed);
    let (mut at, mut tasks) = (0.0, Vec::new());
    loop {
        // Thinning: of arrivals at the highest rate, each is kept with the share that is right at its moment.
        at += lots.exponential() / most;
        if at >= until {
            return Arrivals::new(BEGAN, tasks).unwrap();
        }
        if lots.share() * most <= rate(at) {
            tasks.push(Arrival::new(micros(at), micros(service(&mut lots))));
        }
    }
}

/// A pool whose size nobody changes.
pub(crate) fn fixed(replicas: u32, slots: u32) -> Setup {
    let idle = threshold::Idle { replicas, ..threshold::Idle::default() };
    let policy = AnyPolicy::Threshold(Threshold { idle: Some(idle), ..Threshold::default() });
    Setup { slots, start: Micros(0), ..Setup::new(policy, Bounds { min: replicas, max: replicas }) }
}

pub(crate) fn real(number: f64) -> Real {
    Real::new(number).unwrap()
}

/// A published trace: in the folder that `ERGATE_SHARED_DATA` names, or beside the repository.
pub(crate) fn published(name: &str) -> Option<Arrivals> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("ERGATE_SHARED_DATA").map_or_else(beside, PathBuf::from);
    let path = folder.join("azure-llm-2023").join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} is not there; ERGATE_SHARED_DATA names the folder that has it", path.display());
        return None;
    };
    Some(trace::read(&text, ServiceModel::AZURE).unwrap().arrivals)
}
