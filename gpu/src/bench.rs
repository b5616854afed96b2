//! A bench for the built-in kinds of work: an owner of a device on the host, with faults.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::backend::Host;
use crate::backend::fault::{Faults, Faulty};
use crate::backend::lazy::Lazy;
use crate::batch::Settings;
use crate::desk::OnAnswer;
use crate::figures::Figures;
use crate::owner::{Owner, OwnerSettings, Submission};
use crate::quarantine::Death;
use crate::work::{Answer, Payload, Work};
use crate::{Backend, GpuError};

pub(crate) const SETTINGS: OwnerSettings = OwnerSettings {
    memory_max: 64 << 20,
    staging_max: 64 << 20,
    open_max: 1000,
    timeout: Duration::from_millis(400),
    load_timeout: Duration::from_secs(60),
};
pub(crate) const BATCHING: Settings = Settings { size_max: 4, bytes_max: 64 << 20, delay_us: 10_000, weight: 1 };

pub(crate) struct Bench {
    pub(crate) owner: Owner,
    pub(crate) faults: Faults,
    pub(crate) deaths: Arc<Mutex<Vec<Death>>>,
}

impl Bench {
    pub(crate) fn new(faults: Faults) -> Self {
        Self::with(faults, SETTINGS)
    }

    pub(crate) fn with(faults: Faults, settings: OwnerSettings) -> Self {
        Self::over(faults, settings, |planned| Box::new(Faulty::new(Host::new(1 << 30).builtins(), planned)))
    }

    /// One that does everything as late as it may.
    pub(crate) fn lazy(seed: u64) -> Self {
        Self::lazy_with(seed, OwnerSettings { timeout: Duration::from_secs(20), ..SETTINGS })
    }

    pub(crate) fn lazy_with(seed: u64, settings: OwnerSettings) -> Self {
        Self::over(Faults::default(), settings, move |planned| {
            Box::new(Faulty::new(Lazy::new(Host::new(1 << 30).builtins(), seed), planned))
        })
    }

    fn over(faults: Faults, settings: OwnerSettings, open: impl FnOnce(Faults) -> Box<dyn Backend> + Send + 'static) -> Self {
        let (planned, deaths) = (faults.clone(), Arc::new(Mutex::new(Vec::new())));
        let told = Arc::clone(&deaths);
        let open = move || Ok(open(planned));
        let owner = Owner::start(settings, open, Box::new(move |death| told.lock().unwrap().push(death))).unwrap();
        Self { owner, faults, deaths }
    }

    pub(crate) fn try_submit(
        &self,
        kind: u32,
        work: &Arc<dyn Work>,
        payload: Vec<u8>,
        alone: bool,
    ) -> Result<(u64, Receiver<Answer>), GpuError> {
        let (send, receive) = channel();
        let answer: OnAnswer = Box::new(move |answer| drop(send.send(answer)));
        let payload: Payload = Arc::new(payload);
        let submission = Submission { kind, batching: BATCHING, work: Arc::clone(work), payload, alone, answer };
        self.owner.submit(submission).map(|id| (id, receive))
    }

    /// One that waits for others of its kind, longer than any test takes.
    pub(crate) fn waits(&self, work: &Arc<dyn Work>, payload: &[u8]) -> Receiver<Answer> {
        let (send, receive) = channel();
        let answer: OnAnswer = Box::new(move |answer| drop(send.send(answer)));
        let (batching, payload): (_, Payload) = (Settings { delay_us: 600_000_000, ..BATCHING }, Arc::new(payload.to_vec()));
        let submission = Submission { kind: 9, batching, work: Arc::clone(work), payload, alone: false, answer };
        self.owner.submit(submission).unwrap();
        receive
    }

    pub(crate) fn submit(&self, work: &Arc<dyn Work>, payload: &[u8]) -> Receiver<Answer> {
        self.try_submit(0, work, payload.to_vec(), false).unwrap().1
    }

    pub(crate) fn figures(&self) -> Figures {
        self.owner.figures()
    }
}

pub(crate) fn get(answer: &Receiver<Answer>) -> Answer {
    answer.recv_timeout(Duration::from_secs(30)).expect("everybody is answered")
}

pub(crate) fn bytes(answer: &Receiver<Answer>) -> Vec<u8> {
    get(answer).result.unwrap()
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
