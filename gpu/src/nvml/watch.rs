//! Reads on a thread of its own, when somebody asks and at most once a second. A driver that hangs holds that thread and nobody else.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Readings;

/// How old an answer may be that is told again.
pub const AGE_MAX: Duration = Duration::from_secs(1);
/// How long after a library that was not there, or failed, it is tried again: a driver may be installed or replaced meanwhile.
pub const RETRY_AFTER: Duration = Duration::from_secs(60);

type Answer = Result<Arc<Readings>, String>;
type Source = Box<dyn FnMut() -> Result<Readings, String> + Send>;

/// Whoever asks what the devices do asks here.
pub struct Watch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What to read, until the thread has it.
    source: Option<Source>,
    /// When the question was asked that has no answer yet.
    asked: Option<Instant>,
    /// The last answer, and when it came.
    last: Option<(Instant, Answer)>,
    closed: bool,
}

/// The watch of this process. The library is loaded by the first question.
pub fn watch() -> &'static Watch {
    static WATCH: OnceLock<Watch> = OnceLock::new();
    WATCH.get_or_init(|| Watch::new(source()))
}

#[cfg(feature = "nvml")]
fn source() -> impl FnMut() -> Result<Readings, String> + Send + 'static {
    kept(super::NvmlReader::open, super::NvmlReader::read, RETRY_AFTER)
}

#[cfg(not(feature = "nvml"))]
fn source() -> impl FnMut() -> Result<Readings, String> + Send + 'static {
    || Err("no NVML: this was built without the feature `nvml`".to_owned())
}

impl Watch {
    /// Watches what this reads; it is called on the watch's own thread and may take as long as it likes.
    pub fn new(source: impl FnMut() -> Result<Readings, String> + Send + 'static) -> Self {
        let state = State { source: Some(Box::new(source)), ..State::default() };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// What the devices do, at most [`AGE_MAX`] old. An answer is waited for until `wait` after it was asked for, by whomever: while the driver hangs,
    /// only the first question waits.
    ///
    /// # Errors
    ///
    /// In one line why there are no figures.
    pub fn readings(&self, wait: Duration) -> Answer {
        let mut state = self.0.lock();
        if let Some((at, answer)) = &state.last
            && at.elapsed() < AGE_MAX
        {
            return answer.clone();
        }
        if let Some(source) = state.source.take() {
            let shared = Arc::clone(&self.0);
            let started = thread::Builder::new().name("ergate-nvml".to_owned()).spawn(move || shared.work(source));
            if let Err(error) = started {
                let why = format!("no NVML: its thread does not start ({error})");
                state.last = Some((Instant::now(), Err(why.clone())));
                return Err(why);
            }
        }
        let asked = *state.asked.get_or_insert_with(Instant::now);
        self.0.changed.notify_all();
        while state.asked.is_some() {
            let left = wait.saturating_sub(asked.elapsed());
            if left.is_zero() {
                return Err(format!("NVML has not answered within {} ms: look at `nvidia-smi`", wait.as_millis()));
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let answer = state.last.as_ref().map(|(_, answer)| answer.clone());
        answer.unwrap_or_else(|| Err("no NVML: its thread has ended".to_owned()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers until the watch is gone.
    fn work(&self, mut source: Source) {
        let mut state = self.lock();
        while !state.closed {
            if state.asked.is_none() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            let answer = source().map(Arc::new);
            state = self.lock();
            state.last = Some((Instant::now(), answer));
            state.asked = None;
            self.changed.notify_all();
        }
    }
}

/// Reads from what was opened once; what cannot be opened, or does not read, is opened anew after a while.
#[cfg_attr(not(any(feature = "nvml", test)), expect(dead_code, reason = "kept where there is NVML"))]
fn kept<R>(
    open: impl Fn() -> Result<R, String>,
    read: impl Fn(&R) -> Result<Readings, String>,
    retry_after: Duration,
) -> impl FnMut() -> Result<Readings, String> {
    let mut opened: Option<R> = None;
    let mut failed: Option<(Instant, String)> = None;
    move || {
        if let Some((_, why)) = failed.as_ref().filter(|(at, _)| at.elapsed() < retry_after) {
            return Err(why.clone());
        }
        let answer = match opened.take().map_or_else(&open, Ok) {
            Ok(reader) => read(&reader).inspect(|_| opened = Some(reader)),
            Err(why) => Err(why),
        };
        failed = answer.as_ref().err().map(|why| (Instant::now(), why.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc;

    use super::super::DeviceReading;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn reading(index: u32) -> Readings {
        Readings { devices: vec![DeviceReading { index, ..DeviceReading::default() }], unreadable: Vec::new() }
    }

    #[test]
    fn questions_within_a_second_have_one_answer() {
        let mut count = 0;
        let watch = Watch::new(move || {
            count += 1;
            Ok(reading(count))
        });
        let begun = Instant::now();
        let index = || watch.readings(LONG).map(|readings| readings.devices[0].index);
        assert_eq!(index(), Ok(1));
        let again = index();
        assert!(again == Ok(1) || begun.elapsed() >= AGE_MAX, "{again:?}");
        thread::sleep(AGE_MAX);
        assert_eq!(index(), Ok(2));
    }

    #[test]
    fn a_source_that_hangs_is_waited_for_once() {
        let (go, wait_for) = mpsc::channel::<()>();
        let watch = Watch::new(move || {
            let _ = wait_for.recv();
            Ok(reading(7))
        });
        let short = Duration::from_millis(300);
        let begun = Instant::now();
        assert!(watch.readings(short).unwrap_err().contains("within 300 ms"));
        assert!(begun.elapsed() >= short);
        // By now it is known to hang.
        let begun = Instant::now();
        for _ in 0..100 {
            assert!(watch.readings(short).is_err());
        }
        assert!(begun.elapsed() < short, "{:?}", begun.elapsed());
        go.send(()).unwrap();
        // Who has more time waits for the same answer.
        assert_eq!(watch.readings(LONG).map(|readings| readings.devices[0].index), Ok(7));
    }

    #[test]
    fn a_source_that_panics_holds_nobody() {
        let watch = Watch::new(|| panic!("as the test wants it"));
        assert!(watch.readings(Duration::from_millis(50)).is_err());
        assert!(watch.readings(Duration::from_millis(50)).is_err());
    }

    #[test]
    fn the_thread_ends_with_its_watch() {
        let (told, ended) = mpsc::channel::<()>();
        let watch = Watch::new(move || {
            let _ = told.send(());
            Err("nothing".to_owned())
        });
        assert_eq!(watch.readings(LONG), Err("nothing".to_owned()));
        assert_eq!(ended.recv(), Ok(()));
        drop(watch);
        // The sender goes with the thread.
        assert!(ended.recv_timeout(LONG).is_err_and(|error| error == mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn what_fails_is_opened_anew_after_a_while() {
        let (opened, works, reads) = (Cell::new(0), Cell::new(false), Cell::new(true));
        let open = || {
            opened.set(opened.get() + 1);
            if works.get() { Ok(opened.get()) } else { Err("not there".to_owned()) }
        };
        let read = |reader: &u32| if reads.get() { Ok(reading(*reader)) } else { Err("gone".to_owned()) };
        let pause = Duration::from_millis(200);
        let mut ask = kept(open, read, pause);
        let begun = Instant::now();
        assert_eq!(ask(), Err("not there".to_owned()));
        works.set(true);
        let soon = ask();
        assert!(soon == Err("not there".to_owned()) || begun.elapsed() >= pause, "{soon:?}");
        thread::sleep(pause);
        assert_eq!(ask(), Ok(reading(opened.get())));
        let count = opened.get();
        assert_eq!(ask(), Ok(reading(count)), "it is opened once");
        reads.set(false);
        assert_eq!(ask(), Err("gone".to_owned()));
        reads.set(true);
        thread::sleep(pause);
        assert_eq!(ask(), Ok(reading(count + 1)), "what failed is not used again");
    }
}
