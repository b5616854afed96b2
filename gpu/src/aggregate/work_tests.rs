//! Aggregations through the owner of a device, on the host and with faults.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::aggregate::{Hints, Operation, ValueColumn};
use crate::array::{bytes_of, read};
use crate::backend::fault::{Call, Fault, Faults};
use crate::bench::{Bench, SETTINGS, bytes, get, hex};
use crate::owner::OwnerSettings;
use crate::quarantine::{Culprit, Death};
use crate::top_k::work::tests::searching;
use crate::work::{HostTwin, Work};
use crate::{Class, Dtype, GpuError, Sticky};

/// Sums of i64 and extremes of i32: exact, so that every answer is bit by bit the twin's.
fn exact() -> AggregateSettings {
    AggregateSettings::new([
        ValueColumn { name: "level".into(), dtype: Dtype::I32, operations: vec![Operation::Max, Operation::Min] },
        ValueColumn { name: "amount".into(), dtype: Dtype::I64, operations: vec![Operation::Sum, Operation::Count] },
    ])
}

fn aggregation() -> (Arc<dyn Work>, Arc<AggregateWork>) {
    let work = Arc::new(AggregateWork::new("rollup", exact()).unwrap());
    (Arc::clone(&work) as Arc<dyn Work>, work)
}

/// Rows with keys of a few groups, some of them far apart.
fn rows(seed: u64, rows: usize, groups: u64) -> Vec<u8> {
    let draw = |index: usize, salt: u64| {
        let x = (index as u64 ^ salt << 40 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    let keys: Vec<i64> = (0..rows).map(|row| draw(0, (draw(row, 1) >> 8) % groups.max(1)) as i64).collect();
    let amounts: Vec<i64> = (0..rows).map(|row| draw(row, 2) as i64 >> 20).collect();
    let levels: Vec<i32> = (0..rows).map(|row| draw(row, 3) as i32).collect();
    [bytes_of(&keys), bytes_of(&levels), bytes_of(&amounts)].concat()
}

/// The example of the module's documentation.
#[test]
fn an_aggregation_is_as_documented_in_bytes() {
    let price = ValueColumn { name: "price".into(), dtype: Dtype::F32, operations: vec![Operation::Sum, Operation::Count] };
    let work = Arc::new(AggregateWork::new("rollup", AggregateSettings::new([price])).unwrap());
    let payload =
        hex("07 00 00 00 00 00 00 00  ff ff ff ff ff ff ff ff  07 00 00 00 00 00 00 00  00 00 c0 3f  00 00 00 40  00 00 80 3e");
    let result = hex("02 00 00 00 00 00 00 00  ff ff ff ff ff ff ff ff  07 00 00 00 00 00 00 00
         00 00 00 00 00 00 00 40  00 00 00 00 00 00 fc 3f  01 00 00 00 00 00 00 00  02 00 00 00 00 00 00 00");
    assert_eq!(work.twin(&payload), Ok(result.clone()));
    assert_eq!(bytes(&Bench::new(Faults::default()).submit(&(work as Arc<dyn Work>), &payload)), result);
}

#[test]
fn members_of_a_batch_of_aggregations_get_their_own_groups() {
    let bench = Bench::new(Faults::default());
    let (work, twin) = aggregation();
    let payloads = [rows(1, 5000, 3), Vec::new(), rows(2, 1, 1), rows(3, 4099, 4099)];
    let answers: Vec<_> = payloads.iter().map(|payload| bench.submit(&work, payload)).collect();
    for (payload, answer) in payloads.iter().zip(&answers) {
        let answer = get(answer);
        assert_eq!(answer.provenance.batch_size, 4);
        assert_eq!(answer.result, twin.twin(payload));
    }
    // A sample, the tables and the lists go in, between and out: the steps of all members are read together.
    assert_eq!((bench.faults.calls(Call::CopyIn), bench.faults.calls(Call::Alloc)), (1, 1));
    let figures = bench.figures();
    assert_eq!((figures.batches, figures.attempts, figures.memory_bytes), (1, 4, 0));
    let nobody = [bench.submit(&work, &[]), bench.submit(&work, &[])];
    assert!(nobody.iter().all(|answer| bytes(answer) == [0; 8]), "a batch of nothing but no rows");
}

#[test]
fn a_table_that_is_too_small_grows_within_what_was_reserved() {
    const ROWS: usize = 60_013;
    // Nothing dense and the smallest table; as many dense slots as there may be, and keys that are elsewhere.
    for hints in [Hints { groups: Some(1), keys: Some((1, 0)) }, Hints { groups: Some(1), keys: Some((0, 4 * ROWS as i64 - 1)) }]
    {
        let work = Arc::new(AggregateWork::new("rollup", AggregateSettings { hints, ..exact() }).unwrap());
        let bench = Bench::new(Faults::default());
        // All of them different and far apart, so that every part of what was reserved is used.
        let keys: Vec<i64> = (0..ROWS as i64).map(|row| row.wrapping_mul(0x1234_5678_9abc_def1)).collect();
        let payload = [bytes_of(&keys), &rows(9, ROWS, 1)[ROWS * 8..]].concat();
        let answer = bytes(&bench.submit(&(Arc::clone(&work) as Arc<dyn Work>), &payload));
        assert_eq!(Ok(answer), work.twin(&payload));
        assert_eq!(bench.faults.calls(Call::Alloc), 1);
        // Reset, rows, count and places, twice at least; then the list, its sort and the result.
        assert!(bench.faults.calls(Call::Launch) >= 2 * 4 + 3, "{}", bench.faults.calls(Call::Launch));
    }
}

#[test]
fn more_groups_than_were_said_fail_and_as_many_do_not() {
    // As many as a table takes that is meant for fewer, and more than any; next to each other and far apart.
    for (groups, most, next) in
        [(3000i64, 3000u64, true), (3000, 2999, true), (3000, 2999, false), (9000, 700, false), (4, 3, true), (1, 1, false)]
    {
        let settings = AggregateSettings { groups_max: Some(most), ..AggregateSettings::new([]) };
        let work = Arc::new(AggregateWork::new("counts", settings).unwrap());
        let keys: Vec<i64> =
            (0..20_000).map(|row| row % groups * if next { 1 } else { 0x9e37_79b9_7f4a_7c15_u64 as i64 >> 20 }).collect();
        let payload = bytes_of(&keys).to_vec();
        let answer = get(&Bench::new(Faults::default()).submit(&(Arc::clone(&work) as Arc<dyn Work>), &payload)).result;
        assert_eq!(answer, work.twin(&payload));
        assert_eq!(
            answer.err().map(|error| error.to_string().contains(&format!("more than {most} groups"))),
            (groups as u64 > most).then_some(true)
        );
    }
}

#[test]
fn a_member_whose_sum_overflows_fails_alone() {
    let bench = Bench::new(Faults::default());
    let (work, twin) = aggregation();
    let full = [bytes_of(&[5i64, 5]), bytes_of(&[0i32, 0]), bytes_of(&[i64::MAX, 1])].concat();
    let payloads = [rows(1, 100, 3), full, rows(2, 7, 2)];
    let answers: Vec<_> = payloads.iter().map(|payload| bench.submit(&work, payload)).collect();
    assert_eq!((get(&answers[0]).result, get(&answers[2]).result), (twin.twin(&payloads[0]), twin.twin(&payloads[2])));
    let error = get(&answers[1]).result.unwrap_err();
    assert!(error.class() == Class::Failed && error.to_string().contains("the sum of group 5"), "{error}");
    assert_eq!(twin.twin(&payloads[1]), Err(error));
}

#[test]
fn who_finds_no_memory_beside_another_waits_instead_of_evicting() {
    let (work, twin) = aggregation();
    let (other, _) = searching(|_| ());
    let payload = rows(1, 1000, 3);
    let probe = Bench::new(Faults::default());
    bytes(&probe.submit(&work, &payload));
    let one = probe.figures().memory_high_bytes;
    let bench = Bench::with(Faults::default(), OwnerSettings { memory_max: one * 3 / 2, ..SETTINGS });
    bytes(&bench.submit(&other, bytes_of(&[1f32, 2.0, 3.0])));
    let resident = bench.figures().resident;
    assert!(resident.bytes + one <= one * 3 / 2 && resident.bytes > 0, "{resident:?}");
    let slow = Fault::Slow(Duration::from_millis(100));
    let _shared = bench.faults.clone().at(Call::Launch, bench.faults.calls(Call::Launch) + 1, slow);
    // Of three kinds, so that each has a batch of its own.
    let answers = [0, 1, 2].map(|kind| bench.try_submit(kind, &work, payload.clone(), false).unwrap().1);
    answers.iter().for_each(|answer| assert_eq!(get(answer).result, twin.twin(&payload)));
    assert_eq!((bench.figures().resident, bench.figures().memory_high_bytes), (resident, resident.bytes + one));
}

#[test]
fn what_is_no_whole_number_of_rows_is_refused_with_the_numbers() {
    let bench = Bench::new(Faults::default());
    let few = Arc::new(AggregateWork::new("rollup", AggregateSettings { rows_max: 3, ..exact() }).unwrap());
    for (bytes, says) in [
        (19, "payload of rollup: 19 bytes are no whole number of rows of 20 bytes (key i64, level i32, amount i64)"),
        (80, "payload of rollup: 4 rows, of which it takes at most 3"),
    ] {
        let refused = bench.try_submit(0, &(Arc::clone(&few) as Arc<dyn Work>), vec![0; bytes], false).unwrap_err();
        assert!(refused.class() == Class::Refused && refused.to_string().contains(says), "{refused}");
        assert_eq!(few.twin(&vec![0; bytes]), Err(refused));
    }
    assert_eq!(bench.faults.calls(Call::Alloc), 0);
}

#[test]
fn memory_for_the_worst_keys_is_asked_for_before_anything_runs() {
    let bench = Bench::with(Faults::default(), OwnerSettings { memory_max: 1 << 20, ..SETTINGS });
    let (work, twin) = aggregation();
    let error = bench.try_submit(0, &work, rows(1, 20_000, 1), false).unwrap_err();
    let GpuError::OutOfMemory { asked, limit, .. } = error else { panic!("{error}") };
    assert!(asked > 20_000 * 20 && limit == 1 << 20, "{asked}");
    let payload = rows(1, 1000, 1000);
    assert_eq!(get(&bench.submit(&work, &payload)).result, twin.twin(&payload));
    assert_eq!(bench.faults.calls(Call::Alloc), 1);
}

#[test]
fn without_memory_between_two_steps_members_are_tried_alone_and_then_fail() {
    // Staging memory is asked for by a batch, for its first status (which is used again for the second), and for its results.
    let (work, twin) = aggregation();
    let payloads = [rows(1, 500, 30), rows(2, 300, 30)];
    let counted = Bench::new(Faults::default());
    counted.submit(&work, &payloads[0]);
    let answers: Vec<_> = payloads.iter().map(|payload| counted.submit(&work, payload)).collect();
    answers.iter().for_each(|answer| drop(get(answer)));
    for nth in 2..=3 {
        let bench =
            Bench::with(Faults::default().at(Call::Stage, nth, Fault::OutOfMemory), OwnerSettings { staging_max: 0, ..SETTINGS });
        let answers: Vec<_> = payloads.iter().map(|payload| bench.submit(&work, payload)).collect();
        for (payload, answer) in payloads.iter().zip(&answers) {
            let answer = get(answer);
            assert_eq!((answer.provenance.batch_size, answer.result), (1, twin.twin(payload)), "staging {nth}");
        }
        let figures = bench.figures();
        assert_eq!((figures.memory_bytes, figures.batches), (0, 3), "staging {nth}");
    }
    // One that is alone and finds none even so.
    let faults = Faults::default().at(Call::Stage, 2, Fault::OutOfMemory).at(Call::Stage, 4, Fault::OutOfMemory);
    let bench = Bench::with(faults, OwnerSettings { staging_max: 0, ..SETTINGS });
    assert_eq!(get(&bench.submit(&work, &payloads[0])).result.unwrap_err().class(), Class::OutOfMemory);
    assert_eq!(get(&bench.submit(&work, &payloads[0])).result, twin.twin(&payloads[0]));
    assert!(bench.deaths.lock().unwrap().is_empty());
}

#[test]
fn a_launch_that_fails_between_two_steps_is_tried_again_singly() {
    let bench = Bench::new(Faults::default().at(Call::Launch, 4, Fault::Failed));
    let (work, twin) = aggregation();
    let payloads = [rows(1, 500, 30), rows(2, 300, 30)];
    let answers: Vec<_> = payloads.iter().map(|payload| bench.submit(&work, payload)).collect();
    for (payload, answer) in payloads.iter().zip(&answers) {
        let answer = get(answer);
        assert_eq!((answer.provenance.batch_size, answer.result), (1, twin.twin(payload)));
    }
    let bench = Bench::new(Faults::default().at(Call::Launch, 2, Fault::Failed));
    assert_eq!(get(&bench.submit(&work, &payloads[0])).result.unwrap_err().class(), Class::Failed);
    assert_eq!(bench.figures().memory_bytes, 0);
}

#[test]
fn a_sticky_error_in_the_second_step_is_its_own_doing() {
    // One launch is the sample; the second is of the second step.
    let bench = Bench::new(Faults::default().at(Call::Launch, 2, Fault::Sticky(Sticky::IllegalAddress)));
    let (work, _) = aggregation();
    let waiting = bench.waits(&work, &rows(1, 100, 3));
    let culprit = bench.try_submit(0, &work, rows(1, 100, 3), true).unwrap().1;
    assert_eq!(get(&culprit).result.unwrap_err().class(), Class::Sticky);
    assert_eq!(get(&waiting).result.unwrap_err().class(), Class::Returned);
    let death = Death { culprit: Culprit::Kernel(work.digest()), device: "HOST".to_owned(), sticky: Sticky::IllegalAddress };
    assert_eq!(*bench.deaths.lock().unwrap(), [death]);
}

#[test]
fn a_second_step_that_never_ends_is_hung() {
    for (fault, nth) in [(Fault::Hang, 2), (Fault::Block, 2), (Fault::Hang, 6)] {
        let bench = Bench::hasty(Faults::default().at(Call::Launch, nth, fault.clone()));
        let (work, _) = aggregation();
        let culprit = bench.try_submit(0, &work, rows(1, 100, 3), true).unwrap().1;
        let error = get(&culprit).result.unwrap_err();
        assert!(matches!(error, GpuError::Sticky { sticky: Sticky::Hung { .. }, .. }), "{fault:?}: {error}");
        assert_eq!(bench.deaths.lock().unwrap()[0].culprit, Culprit::Kernel(work.digest()), "{fault:?}");
        bench.faults.release();
    }
}

#[test]
fn each_step_has_the_whole_time() {
    // The sample and the filling of the table take 300 ms each, of a limit of 400.
    let slow = Fault::Slow(Duration::from_millis(300));
    let bench = Bench::hasty(Faults::default().at(Call::Launch, 1, slow.clone()).at(Call::Launch, 2, slow));
    let (work, twin) = aggregation();
    let payload = rows(1, 100, 3);
    assert_eq!(get(&bench.submit(&work, &payload)).result, twin.twin(&payload));
    assert!(bench.deaths.lock().unwrap().is_empty());
}

#[test]
fn another_batch_goes_by_between_two_steps() {
    let bench = Bench::new(Faults::default());
    let (work, twin) = aggregation();
    let (other, other_twin) = searching(|_| ());
    let query = bytes_of(&[1f32, 2.0, 3.0]).to_vec();
    bytes(&bench.submit(&other, &query));
    // The sample, then the first launch after the four of a search.
    let (before, slow) = (bench.faults.calls(Call::Launch), Fault::Slow(Duration::from_millis(300)));
    let _shared = bench.faults.clone().at(Call::Launch, before + 1, slow.clone()).at(Call::Launch, before + 6, slow);
    let payload = rows(1, 100, 3);
    let steps = bench.try_submit(0, &work, payload.clone(), false).unwrap().1;
    let beside = bench.try_submit(1, &other, query.clone(), false).unwrap().1;
    assert_eq!(get(&beside).result, other_twin.twin(&query));
    assert!(steps.try_recv().is_err(), "the other one lands first");
    assert_eq!(get(&steps).result, twin.twin(&payload));
    assert!(bench.deaths.lock().unwrap().is_empty());
}

#[test]
fn a_batch_that_hangs_between_the_steps_of_another_is_the_guilty_one() {
    // The first waits for its sample when the second hangs; its own next step is queued behind that.
    let faults = Faults::default().at(Call::Launch, 1, Fault::Slow(Duration::from_millis(200))).at(Call::Launch, 2, Fault::Hang);
    let bench = Bench::hasty(faults);
    let (work, _) = aggregation();
    let hangs: Arc<dyn Work> = Arc::new(AggregateWork::new("counts", AggregateSettings::new([])).unwrap());
    let first = bench.try_submit(0, &work, rows(1, 100, 3), false).unwrap().1;
    let second = bench.try_submit(1, &hangs, vec![0; 80], false).unwrap().1;
    assert!(matches!(get(&second).result, Err(GpuError::Sticky { sticky: Sticky::Hung { .. }, .. })));
    assert_eq!(get(&first).result.unwrap_err().class(), Class::Returned);
    assert_eq!(bench.deaths.lock().unwrap()[0].culprit, Culprit::Kernel(hangs.digest()));
    // Reset, rows, count and places of the first came after the sample of the second.
    assert_eq!(bench.faults.calls(Call::Launch), 2 + 4);
}

/// A device that died, how its two attempts ended, and their kernels.
type Killed = (Bench, [Result<Vec<u8>, GpuError>; 2], [Digest; 2]);

/// The first is slow, and its launch or that of the second kills the context: `first` and `second` run in flights of their own.
fn killed(alone: bool) -> Killed {
    let dead = Fault::Sticky(Sticky::IllegalAddress);
    let faults = Faults::default().at(Call::Launch, 1, Fault::Slow(Duration::from_millis(50))).at(Call::Launch, 2, dead);
    let bench = Bench::new(faults);
    let counts = |name| -> Arc<dyn Work> { Arc::new(AggregateWork::new(name, AggregateSettings::new([])).unwrap()) };
    let (first, second) = (aggregation().0, counts("counts"));
    let answers = [bench.try_submit(0, &first, rows(1, 100, 3), alone), bench.try_submit(1, &second, vec![0; 80], alone)];
    let results = answers.map(|answer| get(&answer.unwrap().1).result);
    (bench, results, [first.digest(), second.digest()])
}

#[test]
fn of_two_on_the_device_nobody_knows_who_killed_it_and_none_is_blamed() {
    let (bench, results, _) = killed(false);
    for result in results {
        assert!(matches!(result, Err(GpuError::Suspect { batch_size: 2, .. })), "{result:?}");
    }
    assert_eq!(bench.deaths.lock().unwrap()[0].culprit, Culprit::Unknown);
}

#[test]
fn one_that_is_to_be_alone_has_the_device_for_itself_and_is_known() {
    let (bench, [first, second], digests) = killed(true);
    // The second launch is one of the first again: nothing else runs until it has landed.
    assert!(matches!(first, Err(GpuError::Sticky { .. })), "{first:?}");
    assert_eq!(second.unwrap_err().class(), Class::Returned);
    assert_eq!(bench.deaths.lock().unwrap()[0].culprit, Culprit::Kernel(digests[0]));
}

#[test]
fn staging_memory_is_given_back_after_every_step() {
    let bench = Bench::new(Faults::default());
    let (work, twin) = aggregation();
    let payload = rows(1, 3000, 500);
    for _ in 0..5 {
        assert_eq!(get(&bench.submit(&work, &payload)).result, twin.twin(&payload));
    }
    assert_eq!(bench.faults.calls(Call::Stage), 3, "for the rows, for what is read between steps, for the result");
}

#[test]
fn who_cancels_between_two_steps_is_answered_with_the_result() {
    let bench = Bench::new(Faults::default().at(Call::Launch, 1, Fault::Slow(Duration::from_millis(100))));
    let (work, twin) = aggregation();
    let payload = rows(1, 100, 3);
    let (running, answer) = bench.try_submit(0, &work, payload.clone(), true).unwrap();
    let waiting: Vec<_> = (0..3).map(|_| bench.try_submit(0, &work, payload.clone(), true).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(30));
    bench.owner.cancel(running);
    bench.owner.cancel(waiting[2].0);
    assert_eq!(get(&waiting[2].1).result.unwrap_err().class(), Class::Returned);
    assert_eq!(get(&answer).result, twin.twin(&payload));
    assert_eq!(get(&waiting[1].1).result, twin.twin(&payload));
    let figures = bench.figures();
    assert_eq!((figures.attempts, figures.failed, figures.open), (3, 0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn aggregations_of_any_shape_are_those_of_the_twin(
        sizes in prop::collection::vec(prop_oneof![Just(0usize), Just(1), Just(2), Just(4099), 0..3000usize], 1..6),
        groups in prop_oneof![Just(1u64), Just(2), 1..10_000u64],
        lazy: bool,
        tight: bool,
        seed: u64,
    ) {
        let bench = if lazy { Bench::lazy(seed) } else { Bench::new(Faults::default()) };
        let payloads: Vec<Vec<u8>> = sizes.iter().zip(seed..).map(|(&size, seed)| rows(seed, size, groups)).collect();
        // Memory for exactly as many groups as there are, or for the worst.
        let groups = payloads.iter().zip(&sizes).map(|(payload, &rows)| {
            let keys = read::<i64>(&payload[..rows * 8]).unwrap();
            keys.into_iter().collect::<BTreeSet<i64>>().len() as u64
        });
        let groups_max = tight.then(|| groups.max().unwrap_or(0).max(1));
        let twin = Arc::new(AggregateWork::new("rollup", AggregateSettings { groups_max, ..exact() }).unwrap());
        let work = Arc::clone(&twin) as Arc<dyn Work>;
        let answers: Vec<_> = payloads.iter().map(|payload| bench.submit(&work, payload)).collect();
        for (payload, answer) in payloads.iter().zip(&answers) {
            prop_assert_eq!(get(answer).result, twin.twin(payload));
        }
    }
}
