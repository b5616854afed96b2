//! What an engine makes of a topic whose brokers have lost something.

use ergate::events::block::OpenBlock;
use ergate::events::event::Event;
use ergate::events::id::{Epoch, Ordinal, ShardId};
use ergate::events::log::directory;
use ergate::events::time::Timestamp;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use crate::kafka::{Cluster, Options, shared};
use crate::kafka_log::{Namespace, Record};
use crate::{hung, told, verify};

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
