//! Every way in which an attempt can end, on the host with faults.

use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::array::{bytes_of, read};
use crate::backend::fault::{Call, Fault, Faults, Faulty};
use crate::backend::{Host, TwinArgs};
use crate::kernel::tests::scale;
use crate::kernel::{Batching, KernelSpec};
use crate::kernel_work::KernelWork;
use crate::quarantine::{Culprit, Death};
use crate::work::Answer;
use crate::{Class, Launch, Sticky};

/// The twin of `scale`; fails for an input that begins with -1.
fn twin(_: &Launch, args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
    let (x, y, factor, n) = (args.input::<f32>(0)?, args.output::<f32>(1)?, args.f32(2)?, args.u32(3)?);
    assert!(x.len() == n as usize && y.iter().all(|&y| y == 0.0), "outputs come zeroed");
    if x.contains(&-1.0) {
        return Err(GpuError::failed("-1 is not liked"));
    }
    y.iter_mut().zip(x).for_each(|(y, x)| *y = x * factor);
    Ok(())
}

struct Bench {
    owner: Owner,
    faults: Faults,
    work: Arc<dyn Work>,
    deaths: Arc<Mutex<Vec<Death>>>,
    batching: Settings,
}

const SETTINGS: OwnerSettings = OwnerSettings {
    memory_max: 1 << 20,
    staging_max: 1 << 20,
    open_max: 1000,
    timeout: Duration::from_millis(400),
    load_timeout: Duration::from_secs(60),
};

impl Bench {
    fn new(faults: Faults) -> Self {
        Self::with(faults, SETTINGS, scale())
    }

    fn with(faults: Faults, settings: OwnerSettings, spec: KernelSpec) -> Self {
        let (planned, deaths) = (faults.clone(), Arc::new(Mutex::new(Vec::new())));
        let told = Arc::clone(&deaths);
        let open = move || Ok(Box::new(Faulty::new(Host::new(1 << 30).twin("scale", twin), planned)) as Box<dyn Backend>);
        let on_death = Box::new(move |death| told.lock().unwrap_or_else(PoisonError::into_inner).push(death));
        let owner = Owner::start(settings, open, on_death).unwrap();
        let batching = Settings { size_max: 4, bytes_max: 1 << 20, delay_us: 20_000, weight: 1 };
        Self { owner, faults, work: Arc::new(KernelWork::new(spec).unwrap()), deaths, batching }
    }

    fn try_submit(&self, x: &[f32], factor: f32, alone: bool) -> Result<(u64, Receiver<Answer>), GpuError> {
        let (send, receive) = channel();
        let payload: Payload = Arc::new([bytes_of(x), &factor.to_le_bytes()].concat());
        let answer: OnAnswer = Box::new(move |answer| drop(send.send(answer)));
        let (work, batching) = (Arc::clone(&self.work), self.batching);
        self.owner.submit(Submission { kind: 0, batching, work, payload, alone, answer }).map(|id| (id, receive))
    }

    fn submit(&self, x: &[f32], factor: f32) -> Receiver<Answer> {
        self.try_submit(x, factor, false).unwrap().1
    }

    /// One that waits for others of its kind, longer than any test takes.
    fn waits(&self) -> Receiver<Answer> {
        let (send, receive) = channel();
        let payload: Payload = Arc::new([bytes_of(&[1f32]), &2f32.to_le_bytes()].concat());
        let answer: OnAnswer = Box::new(move |answer| drop(send.send(answer)));
        let (work, batching) = (Arc::clone(&self.work), Settings { delay_us: 600_000_000, ..self.batching });
        self.owner.submit(Submission { kind: 9, batching, work, payload, alone: false, answer }).unwrap();
        receive
    }

    fn deaths(&self) -> Vec<Death> {
        self.deaths.lock().unwrap().clone()
    }
}

fn get(answer: &Receiver<Answer>) -> Answer {
    answer.recv_timeout(Duration::from_secs(20)).expect("everybody is answered")
}

fn class(answer: &Receiver<Answer>) -> Class {
    get(answer).result.unwrap_err().class()
}

fn values(answer: &Receiver<Answer>) -> Vec<f32> {
    read(&get(answer).result.unwrap()).unwrap()
}

#[test]
fn a_batch_is_one_launch_and_each_member_gets_its_own() {
    for batching in [Batching::Concat, Batching::Each] {
        let bench = Bench::with(Faults::default(), SETTINGS, KernelSpec { batching, ..scale() });
        let answers = [
            bench.submit(&[1.0, 2.0], 3.0),
            bench.submit(&[4.0], 3.0),
            bench.submit(&[5.0, 6.0, 7.0], 3.0),
            bench.submit(&[8.0], 3.0),
        ];
        let first = get(&answers[0]);
        assert_eq!(read::<f32>(&first.result.unwrap()).unwrap(), [3.0, 6.0]);
        assert_eq!(
            (values(&answers[1]), values(&answers[2]), values(&answers[3])),
            (vec![12.0], vec![15.0, 18.0, 21.0], vec![24.0])
        );
        assert_eq!(bench.faults.calls(Call::Launch), if batching == Batching::Concat { 1 } else { 4 });
        assert_eq!((bench.faults.calls(Call::CopyIn), bench.faults.calls(Call::CopyOut)), (1, 1));
        let provenance = first.provenance;
        assert_eq!((provenance.batch_size, provenance.device.as_str(), provenance.digest), (4, "HOST", bench.work.digest()));
        assert!(provenance.memory_high_bytes > 0 && provenance.queue_us < 20_000_000);
    }
}

#[test]
fn what_differs_in_a_scalar_shares_no_launch() {
    let bench = Bench::new(Faults::default());
    let answers = [bench.submit(&[1.0], 2.0), bench.submit(&[1.0], 3.0)];
    assert_eq!((values(&answers[0]), values(&answers[1])), (vec![2.0], vec![3.0]));
    assert_eq!(bench.faults.calls(Call::Launch), 2);
}

#[test]
fn one_failing_member_does_not_fail_its_neighbours() {
    let bench = Bench::new(Faults::default());
    let answers = [bench.submit(&[1.0], 2.0), bench.submit(&[-1.0], 2.0), bench.submit(&[3.0], 2.0), bench.submit(&[4.0], 2.0)];
    assert_eq!(get(&answers[1]).result, Err(GpuError::failed("-1 is not liked")));
    assert_eq!((values(&answers[0]), values(&answers[2]), values(&answers[3])), (vec![2.0], vec![6.0], vec![8.0]));
    assert!(bench.deaths().is_empty());
    assert_eq!(values(&bench.submit(&[5.0], 2.0)), [10.0], "memory is accounted for after failures");
}

#[test]
fn without_memory_a_batch_is_tried_alone_and_then_fails_with_the_numbers() {
    // The batch, and the second of its members when it is alone.
    let faults = Faults::default().at(Call::Alloc, 1, Fault::OutOfMemory).at(Call::Alloc, 3, Fault::OutOfMemory);
    let bench = Bench::new(faults);
    let big: Vec<f32> = vec![1.0; 1000];
    let answers = [bench.submit(&[1.0], 2.0), bench.submit(&big, 2.0), bench.submit(&[3.0], 2.0), bench.submit(&[4.0], 2.0)];
    assert_eq!((values(&answers[0]), values(&answers[2]), values(&answers[3])), (vec![2.0], vec![6.0], vec![8.0]));
    let error = get(&answers[1]).result.unwrap_err();
    let GpuError::OutOfMemory { what, asked, free: 0, limit } = &error else { panic!("{error}") };
    assert!(what == "a batch of 1 of scale.cu" && *asked >= 8000 && *limit == 1 << 30, "{error}");
    assert_eq!(values(&bench.submit(&big, 2.0)).len(), 1000);
}

#[test]
fn a_batch_that_does_not_fit_beside_another_waits_for_it() {
    let slow = Faults::default().at(Call::Launch, 1, Fault::Slow(Duration::from_millis(100)));
    let bench = Bench::with(slow, OwnerSettings { memory_max: 10 << 10, ..SETTINGS }, scale());
    let x: Vec<f32> = vec![1.0; 200];
    let answers: Vec<_> = (0..8).map(|_| bench.submit(&x, 2.0)).collect();
    for answer in &answers {
        assert_eq!(get(answer).provenance.batch_size, 4);
    }
    assert_eq!(bench.faults.calls(Call::Launch), 2);
}

#[test]
fn what_never_fits_is_refused_at_once() {
    let bench = Bench::with(Faults::default(), OwnerSettings { memory_max: 4096, ..SETTINGS }, scale());
    assert_eq!(bench.try_submit(&[0.0; 1000], 1.0, false).err().map(|error| error.class()), Some(Class::OutOfMemory));
    assert_eq!(bench.try_submit(&[], 1.0, false).err().map(|error| error.class()), Some(Class::Refused));
}

#[test]
fn a_sticky_error_stops_everything_and_returns_the_others() {
    let bench = Bench::new(Faults::default().at(Call::Launch, 1, Fault::Sticky(Sticky::IllegalAddress)));
    let waiting = bench.waits();
    let culprit = bench.try_submit(&[1.0], 2.0, true).unwrap().1;
    assert_eq!(class(&culprit), Class::Sticky);
    assert_eq!(class(&waiting), Class::Returned);
    assert_eq!(bench.try_submit(&[1.0], 2.0, false).err().map(|error| error.class()), Some(Class::Returned));
    let death =
        Death { culprit: Culprit::Kernel(bench.work.digest()), device: "HOST".to_owned(), sticky: Sticky::IllegalAddress };
    assert_eq!(bench.deaths(), [death]);
}

#[test]
fn a_batch_that_kills_the_device_makes_its_members_suspects() {
    let bench = Bench::new(Faults::default().at(Call::Launch, 1, Fault::Sticky(Sticky::Assert)));
    let answers: Vec<_> = (0..4).map(|_| bench.submit(&[1.0], 2.0)).collect();
    for answer in &answers {
        let (sticky, digest) = (Sticky::Assert, bench.work.digest());
        assert_eq!(get(answer).result, Err(GpuError::Suspect { sticky, digest, batch_size: 4 }));
    }
    assert_eq!(bench.deaths().len(), 1);
}

#[test]
fn a_kernel_that_never_ends_is_hung() {
    let bench = Bench::new(Faults::default().at(Call::Launch, 1, Fault::Hang));
    let waiting = bench.waits();
    let culprit = bench.try_submit(&[1.0], 2.0, true).unwrap().1;
    let error = get(&culprit).result.unwrap_err();
    assert!(matches!(error, GpuError::Sticky { sticky: Sticky::Hung { limit_ms: 400 }, .. }), "{error}");
    assert_eq!(class(&waiting), Class::Returned);
    assert_eq!(bench.deaths()[0].culprit, Culprit::Kernel(bench.work.digest()));
}

#[test]
fn a_batch_that_is_only_being_copied_out_has_not_killed_the_device() {
    let slow = Fault::Slow(Duration::from_millis(300));
    let faults = Faults::default().at(Call::CopyOut, 1, slow).at(Call::Launch, 2, Fault::Sticky(Sticky::Assert));
    let bench = Bench::new(faults);
    let computed = bench.try_submit(&[1.0], 2.0, false).unwrap().1;
    // Its kernels are long done, and the owner has seen so, when the next one comes.
    figures(&bench, |figures| figures.waiting == 0);
    std::thread::sleep(Duration::from_millis(50));
    let culprit = bench.try_submit(&[1.0], 2.0, false).unwrap().1;
    assert_eq!((class(&culprit), class(&computed)), (Class::Sticky, Class::Returned));
}

#[test]
fn a_call_that_never_returns_is_hung_and_everybody_is_answered() {
    let bench = Bench::new(Faults::default().at(Call::Launch, 1, Fault::Block));
    let waiting = bench.waits();
    let culprit = bench.try_submit(&[1.0], 2.0, true).unwrap().1;
    assert_eq!(class(&culprit), Class::Sticky);
    assert_eq!(class(&waiting), Class::Returned);
    assert_eq!(bench.deaths().len(), 1);
    bench.faults.release();
}

#[test]
fn slow_is_not_hung() {
    let bench = Bench::new(Faults::default().at(Call::Launch, 1, Fault::Slow(Duration::from_millis(150))));
    assert_eq!(values(&bench.submit(&[1.0], 2.0)), [2.0]);
    assert!(bench.deaths().is_empty());
}

#[test]
fn who_cancels_while_queued_is_returned_and_never_runs() {
    let bench = Bench::new(Faults::default());
    let (id, cancelled) = bench.try_submit(&[1.0], 2.0, false).unwrap();
    let other = bench.submit(&[3.0], 2.0);
    bench.owner.cancel(id);
    bench.owner.cancel(id + 100);
    assert_eq!(class(&cancelled), Class::Returned);
    let answer = get(&other);
    assert_eq!((answer.provenance.batch_size, answer.result.is_ok()), (1, true));
}

#[test]
fn too_many_are_returned_at_once() {
    let bench = Bench::with(Faults::default(), OwnerSettings { open_max: 2, ..SETTINGS }, scale());
    let _kept = [bench.submit(&[1.0], 2.0), bench.submit(&[1.0], 2.0)];
    let error = bench.try_submit(&[1.0], 2.0, false).unwrap_err();
    assert!(error.class() == Class::Returned && error.to_string().contains("its limit"), "{error}");
}

#[test]
fn a_device_that_is_absent_is_said_at_the_start() {
    let absent = || Err(GpuError::refused("no GPU: none here"));
    let error = Owner::start(SETTINGS, absent, Box::new(|_| ())).err().unwrap();
    assert_eq!(error, GpuError::refused("no GPU: none here"));
}

#[test]
fn one_that_is_dropped_finishes_what_it_has() {
    let bench = Bench::new(Faults::default());
    let answers: Vec<_> = (0..10).map(|_| bench.submit(&[1.0], 2.0)).collect();
    drop(bench);
    for answer in &answers {
        assert_eq!(values(answer), [2.0]);
    }
}

#[test]
fn many_at_once_all_get_their_own() {
    let bench = Bench::with(Faults::default(), OwnerSettings { open_max: 100_000, ..SETTINGS }, scale());
    std::thread::scope(|scope| {
        for caller in 0..4u16 {
            let bench = &bench;
            scope.spawn(move || {
                let answers: Vec<_> = (0..500u16).map(|n| (n, bench.submit(&[f32::from(n), f32::from(caller)], 2.0))).collect();
                for (n, answer) in answers {
                    assert_eq!(values(&answer), [2.0 * f32::from(n), 2.0 * f32::from(caller)]);
                }
            });
        }
    });
    assert!(bench.faults.calls(Call::Launch) < 2000);
}

/// Figures once they are so; they are told by another thread.
fn figures(bench: &Bench, wanted: impl Fn(&Figures) -> bool) -> Figures {
    for _ in 0..2000 {
        if wanted(&bench.owner.figures()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bench.owner.figures()
}

#[test]
fn figures_tell_what_was_done_and_what_waits() {
    let bench = Bench::new(Faults::default());
    let answers = [bench.submit(&[1.0], 2.0), bench.submit(&[-1.0], 2.0)];
    assert_eq!((bench.owner.figures().waiting, bench.owner.figures().open), (2, 2));
    assert!(get(&answers[0]).result.is_ok() && get(&answers[1]).result.is_err());
    let done = figures(&bench, |figures| figures.open == 0);
    // The batch, and its members singly.
    assert_eq!((done.batches, done.attempts, done.failed, done.waiting, done.open, done.modules), (3, 1, 1, 0, 0, 1));
    assert!(done.memory_bytes == 0 && done.memory_high_bytes >= 512 && done.memory_kept_bytes >= 512, "{done:?}");
    let (id, _answer) = bench.try_submit(&[1.0], 2.0, false).unwrap();
    bench.owner.cancel(id);
    assert_eq!(figures(&bench, |figures| figures.open == 0), done, "who is cancelled neither succeeds nor fails");
}

#[test]
fn figures_are_told_while_the_device_hangs_and_after_its_death() {
    let bench = Bench::new(Faults::default().at(Call::Launch, 1, Fault::Block));
    let waiting = bench.waits();
    let culprit = bench.try_submit(&[1.0], 2.0, true).unwrap().1;
    let running = figures(&bench, |figures| figures.waiting == 1);
    assert_eq!((running.open, running.waiting, running.failed), (2, 1, 0));
    assert_eq!((class(&culprit), class(&waiting)), (Class::Sticky, Class::Returned));
    let dead = figures(&bench, |figures| figures.failed == 1);
    assert_eq!((dead.open, dead.waiting, dead.failed, dead.attempts), (0, 0, 1, 0));
    bench.faults.release();
}

#[test]
fn what_is_in_quarantine_is_refused_from_then_on() {
    let quarantine = Arc::new(Mutex::new(Quarantine::new(2, 2)));
    let mut bench = Bench::new(Faults::default());
    bench.owner = bench.owner.with_quarantine(Arc::clone(&quarantine));
    let death = Death { culprit: Culprit::Kernel(bench.work.digest()), device: "HOST".to_owned(), sticky: Sticky::Assert };
    let record = |death: &Death| quarantine.lock().unwrap().record(death);
    record(&death);
    assert_eq!(values(&bench.submit(&[1.0], 2.0)), [2.0]);
    record(&death);
    let refused = bench.try_submit(&[1.0], 2.0, false).unwrap_err();
    assert!(
        refused.class() == Class::Refused && refused.to_string().contains("killed the device's context 2 times"),
        "{refused}"
    );
    // Another kernel is not meant, until the device is.
    let other = KernelSpec { source: format!("{} // another", scale().source), ..scale() };
    bench.work = Arc::new(KernelWork::new(other).unwrap());
    assert_eq!(values(&bench.submit(&[1.0], 2.0)), [2.0]);
    let hardware = Death { sticky: Sticky::Hardware, ..death };
    record(&hardware);
    record(&hardware);
    let refused = bench.try_submit(&[1.0], 2.0, false).unwrap_err();
    assert!(refused.class() == Class::Refused && refused.to_string().contains("device HOST is in quarantine"), "{refused}");
}
