//! Transactions that nothing ever ends: written past the client, to a broker with `transaction.partition.verification.enable=false`, in a
//! partition that the coordinator is not told of.
//!
//! Needs `support/kafka_log.rs` beside it, as `kafka_log`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::command;
use super::kafka_log::Record;

const INIT_PRODUCER_ID: i16 = 22;
const PRODUCE: i16 = 0;
/// Bits of a batch that belongs to a transaction.
const TRANSACTIONAL: i16 = 0x10;
/// How long the broker may take.
const WITHIN: Duration = Duration::from_secs(30);

/// Writes a message in a transaction of this id and leaves it there.
pub(crate) fn write(bootstrap: &str, transactional_id: &str, topic: &str, partition: i32, record: &Record) {
    let mut broker = TcpStream::connect(bootstrap).unwrap();
    broker.set_read_timeout(Some(WITHIN)).unwrap();
    let mut producer = (0, 0);
    command::until("the coordinator knows the id", || {
        let answer = ask(&mut broker, INIT_PRODUCER_ID, 0, &[&text(transactional_id)[..], &60_000_i32.to_be_bytes()].concat());
        // Behind the time that the client is to wait.
        let (error, id) = (i16::from_be_bytes(answer[4..6].try_into().unwrap()), &answer[6..16]);
        producer = (i64::from_be_bytes(id[..8].try_into().unwrap()), i16::from_be_bytes(id[8..].try_into().unwrap()));
        error == 0
    });
    let batch = batch(producer, record);
    let one = 1_i32.to_be_bytes();
    let body = [
        &text(transactional_id)[..],
        &(-1_i16).to_be_bytes(),
        &30_000_i32.to_be_bytes(),
        &one,
        &text(topic),
        &one,
        &partition.to_be_bytes(),
        &(batch.len() as i32).to_be_bytes(),
        &batch,
    ];
    let answer = ask(&mut broker, PRODUCE, 3, &body.concat());
    // Behind the number of topics, the name of this one, the number of partitions, and this one.
    let at = 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[at..at + 2], [0, 0], "the broker takes the message");
}

/// Sends a request and waits for the answer.
fn ask(broker: &mut TcpStream, api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let head = [&api.to_be_bytes()[..], &version.to_be_bytes(), &7_i32.to_be_bytes(), &text("test")].concat();
    let length = (head.len() + body.len()) as i32;
    broker.write_all(&[&length.to_be_bytes()[..], &head, body].concat()).unwrap();
    let mut length = [0; 4];
    broker.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    broker.read_exact(&mut answer).unwrap();
    answer.split_off(4)
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// A batch of one message, version 2.
fn batch((id, epoch): (i64, i16), record: &Record) -> Vec<u8> {
    // Attributes, time and offset count from those of the batch.
    let mut message = vec![0, 0, 0];
    sized(&mut message, record.key.as_deref());
    sized(&mut message, Some(&record.value));
    number(&mut message, record.headers.len() as i64);
    for (name, value) in &record.headers {
        sized(&mut message, Some(name.as_bytes()));
        sized(&mut message, Some(value));
    }
    let mut checked =
        [&TRANSACTIONAL.to_be_bytes()[..], &0_i32.to_be_bytes(), &1_i64.to_be_bytes(), &1_i64.to_be_bytes()].concat();
    checked.extend([&id.to_be_bytes()[..], &epoch.to_be_bytes(), &0_i32.to_be_bytes(), &1_i32.to_be_bytes()].concat());
    number(&mut checked, message.len() as i64);
    checked.extend(message);
    // Behind the length: the leader's epoch, the version, and the checksum of the rest.
    let length = (4 + 1 + 4 + checked.len()) as i32;
    let head = [&0_i64.to_be_bytes()[..], &length.to_be_bytes(), &(-1_i32).to_be_bytes(), &[2]].concat();
    [&head[..], &crc32c::crc32c(&checked).to_be_bytes(), &checked].concat()
}

fn sized(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    number(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend(bytes.unwrap_or_default());
}

/// A number as the protocol has it in messages: the sign last, seven bits a byte.
fn number(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
