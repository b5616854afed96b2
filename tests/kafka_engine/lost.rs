//! What an engine makes of a topic whose brokers have lost something.

use ergate::events::block::OpenBlock;
use ergate::events::event::Event;
use ergate::events::id::{Epoch, Ordinal, ShardId};
use ergate::events::log::directory;
use ergate::events::time::Timestamp;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use crate::command::until;
use crate::kafka::{Cluster, Options, shared};
use crate::kafka_log::{Namespace, Record};
use crate::{hung, run, told, verify};

/// A copy that is ahead of its topic, as after a broker that lost what it had called committed, stopped its shard for good.
#[test]
fn a_copy_ahead_of_its_topic_is_kept_aside_and_the_shard_goes_on() {
    let Some(kafka) = shared() else { return };
    let namespace = Namespace::init("ahead", kafka.bootstrap(), 1);
    let work = || {
        let engine = namespace.start(&["--log", &namespace.log()], "one", &[]);
        namespace.publish(0, "k", br#"{"type":"noop","payload":"new"}"#);
        namespace.until_done();
        engine.stop();
    };
    work();
    let dir = namespace.data.path().join("one").join(&namespace.name).join("0");
    let (mut copy, _) = directory::open(&dir, &directory::Options::default()).unwrap();
    let head = copy.head();
    let mut open = OpenBlock::new(ShardId(0), Epoch(1), head.next, Ordinal(1));
    open.push(Timestamp(u64::MAX >> 1), &Event::ClockStepped { from: Timestamp(1), to: Timestamp(2) });
    copy.append(&open.seal(head.hash)).unwrap();
    copy.sync().unwrap();
    copy.close().unwrap();
    work();
    assert!(namespace.said().contains("kept aside and made anew"), "{}", namespace.said());
    let done = told(&namespace).tasks.iter().filter(|task| task.ends == ["SUCCEEDED"]).count();
    assert_eq!(done, 2);
    let kept = directory::open(&dir.with_extension("aside"), &directory::Options::default()).unwrap().0.head();
    assert_eq!(kept.next.0, head.next.0 + 1, "nothing of what was ahead is thrown away");
}

/// Writes a message to another namespace as it is.
fn copy(to: &Namespace, topic: &str, partition: i32, record: &Record) {
    let topic = format!("{}.{topic}", to.name);
    let header = |headers: OwnedHeaders, (key, value): &(String, Vec<u8>)| headers.insert(Header { key, value: Some(value) });
    let headers = record.headers.iter().fold(OwnedHeaders::new(), header);
    let mut message = BaseRecord::<[u8], [u8]>::to(&topic).partition(partition).payload(&record.value).headers(headers);
    message.key = record.key.as_deref();
    to.send(message);
}

/// A broker that had called a commit done started again without its marker, and nothing ever ended that transaction. The next owner ended it by
/// giving it up, and acknowledged work was gone.
#[test]
fn blocks_are_kept_whose_transaction_brokers_forgot_to_end_and_only_those_that_go_on_from_the_log() {
    const TASKS: usize = 20;
    let properties = vec![("transaction.partition.verification.enable", "false".to_owned())];
    let Some(kafka) = Cluster::start(Options { properties, ..Options::default() }) else { return };
    let whole = Namespace::init("whole", kafka.bootstrap(), 2);
    let engine = whole.engine();
    for shard in 0..2 {
        (0..TASKS).for_each(|_| whole.publish(shard, "k", br#"{"type":"noop"}"#));
    }
    whole.until_done();
    engine.stop();

    // The last block of shard 0 lies in a transaction that never ends; so does that of shard 1, whose predecessor is missing.
    let cut = Namespace::init("cut", kafka.bootstrap(), 2);
    let mut lengths = Vec::new();
    for (shard, missing) in [(0, 1), (1, 2)] {
        whole.records("requests", shard).iter().for_each(|record| copy(&cut, "requests", shard, record));
        let mut blocks = whole.records("events", shard);
        let last = blocks.pop().unwrap();
        blocks.truncate(blocks.len() + 1 - missing);
        blocks.iter().for_each(|record| copy(&cut, "events", shard, record));
        cut.flush();
        hung::write(kafka.bootstrap(), &format!("{}-{shard}", cut.name), &format!("{}.events", cut.name), shard, &last);
        assert_eq!(cut.records("events", shard).len(), blocks.len(), "nobody sees what is undecided");
        lengths.push((blocks.len(), last.value));
    }

    let engine = cut.engine();
    (0..2).for_each(|shard| cut.publish(shard, "k", br#"{"type":"noop"}"#));
    cut.until_done();
    engine.stop();
    let said = cut.said();
    assert_eq!(said.matches("its blocks are kept").count(), 1, "{said}");
    assert_eq!(said.matches("does not go on from the log and is given up").count(), 1, "{said}");
    for (shard, (length, last)) in (0..).zip(lengths) {
        assert_eq!(cut.records("events", shard)[length].value == last, shard == 0, "shard {shard}");
    }
    let told = told(&cut);
    told.all_succeeded();
    assert_eq!(told.tasks.len(), 2 * (TASKS + 1));
    verify(&cut);
}

/// A transaction that was given up had lost its end among the dead letters only. The next owner refused the record anew, and the commit of that
/// letter made the first one valid, too.
#[test]
fn letters_and_results_are_there_once_whatever_brokers_forgot_to_end() {
    let properties = vec![("transaction.partition.verification.enable", "false".to_owned())];
    let Some(kafka) = Cluster::start(Options { properties, ..Options::default() }) else { return };
    let told_all = [("ERGATE_KAFKA__RESULTS", "true")];
    let whole = Namespace::init("told", kafka.bootstrap(), 2);
    let engine = whole.start(&["--log", &whole.log()], "", &told_all);
    for record in [&b"{"[..], br#"{"type":"noop"}"#] {
        (0..2).for_each(|shard| whole.publish(shard, "k", record));
        whole.until_done();
    }
    engine.stop();

    // Letter and result of each shard lie in transactions that never end. The log of shard 1 has what they tell of, that of shard 0 has not.
    let again = Namespace::init("again", kafka.bootstrap(), 2);
    for shard in 0..2 {
        whole.records("requests", shard).iter().for_each(|record| copy(&again, "requests", shard, record));
        let blocks = whole.records("events", shard);
        let is_refusal = |block: &Record| String::from_utf8_lossy(&block.value).contains("request_refused");
        let kept = if shard == 0 { blocks.iter().position(is_refusal).unwrap() } else { blocks.len() };
        blocks[..kept].iter().for_each(|record| copy(&again, "events", shard, record));
        again.flush();
        for topic in ["dlq", "results"] {
            let mut told = whole.records(topic, shard);
            assert_eq!(told.len(), 1, "{topic}");
            let mut told = told.remove(0);
            let moved = told.headers.iter_mut().filter(|(name, _)| name == "ergate-topic");
            moved.for_each(|(_, value)| *value = format!("{}.requests", again.name).into_bytes());
            hung::write(kafka.bootstrap(), &format!("{}-{shard}", again.name), &format!("{}.{topic}", again.name), shard, &told);
            assert!(again.records(topic, shard).is_empty(), "nobody sees what is undecided");
        }
    }

    let engine = again.start(&["--log", &again.log()], "", &told_all);
    let seen = || ["dlq", "results"].iter().all(|topic| again.records(topic, 1).iter().any(|record| !record.headers.is_empty()));
    until("what is kept is seen before anything else is written", seen);
    (0..2).for_each(|shard| again.publish(shard, "k", br#"{"type":"noop"}"#));
    again.until_done();
    engine.stop();
    let said = again.said();
    assert_eq!(said.matches("brokers lost the end of a transaction beside the log").count(), 4, "{said}");
    for shard in 0..2 {
        // One letter, and the results of the two tasks.
        for (topic, expected) in [("dlq", 1), ("results", 2)] {
            let records = again.records(topic, shard);
            let told = records.iter().filter(|record| !record.headers.is_empty()).count();
            // Those that the log told of are seen with the empty message that ended their transaction, those that it did not are gone.
            assert_eq!((told, records.len() - told), (expected, usize::from(shard == 1)), "{topic} of shard {shard}");
        }
    }
    let letters = run(&["dlq", "list", "-o", "json", "--log", &again.log()]).expect(0).json_lines();
    assert_eq!(letters.len(), 2, "{letters:?}");
    told(&again).all_succeeded();
    verify(&again);
}

/// A broker that was killed between its promise and the end of the transaction may forget that end, and what it promised is gone with the next
/// transaction that is given up. A task that had run by it was unknown to the log then.
#[test]
fn nothing_follows_from_a_commit_that_readers_do_not_see() {
    let properties = vec![("transaction.partition.verification.enable", "false".to_owned())];
    let Some(kafka) = Cluster::start(Options { properties, ..Options::default() }) else { return };
    let namespace = Namespace::init("unseen", kafka.bootstrap(), 1);
    let engine = namespace.start(&["--log", &namespace.log()], "", &[("ERGATE_KAFKA__RESULTS", "true")]);
    let told = || namespace.records("results", 0).len();
    namespace.publish(0, "k", br#"{"type":"noop"}"#);
    until("the first task has ended", || told() == 1);
    // From here on the partition is undecided: a stranger's transaction lies in it and never ends.
    let stranger = Record { offset: 0, key: None, headers: Vec::new(), value: b"{}".to_vec() };
    hung::write(kafka.bootstrap(), "stranger", &format!("{}.events", namespace.name), 0, &stranger);
    let events = namespace.records("events", 0).len();
    namespace.publish(0, "k", br#"{"type":"noop"}"#);
    until("the engine says what it waits for", || namespace.said().contains("and show readers what is before"));
    assert_eq!((namespace.records("events", 0).len(), told()), (events, 1), "{}", namespace.said());
    drop(engine);
}
