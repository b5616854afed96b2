//! Reads lines for a service on a thread of its own, which may wait for its input without holding up the rest.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use tokio::sync::mpsc;

use super::lines::{Found, LINE_BYTES_MAX, Lines};
use super::window::Sent;

/// Batches that wait to be sent; reading waits while there are so many.
const BATCHES_AHEAD: usize = 2;
/// Bytes of a batch: a write of the connection.
const BATCH_BYTES: usize = 64 << 10;

/// Lines that travel together.
#[derive(Default)]
pub(super) struct Batch {
    /// Those that are sent.
    pub(super) lines: Vec<Sent>,
    /// Those that are longer than any service takes.
    pub(super) refused: Vec<(u64, String)>,
    bytes: usize,
}

/// What comes next: lines, or why the input cannot be read on.
pub(super) type Next = anyhow::Result<Batch>;

/// Starts to read.
pub(super) fn start(path: &Path) -> anyhow::Result<mpsc::Receiver<Next>> {
    let input = super::intake::open(path)?;
    let name = path.display().to_string();
    let (batches, source) = mpsc::channel(BATCHES_AHEAD);
    std::thread::Builder::new().name("ergate-feed".to_owned()).spawn(move || read(Lines::new(input), &name, &batches))?;
    Ok(source)
}

fn read(mut lines: Lines<impl Read>, name: &str, batches: &mpsc::Sender<Next>) {
    let mut batch = Batch::default();
    loop {
        match lines.next_line().with_context(|| format!("failed to read {name}")) {
            Ok(Some((number, found))) => batch.add(number, &found),
            Ok(None) => break,
            Err(error) => {
                // Without a receiver the run is over.
                let _ = batches.blocking_send(Ok(batch));
                let _ = batches.blocking_send(Err(error));
                return;
            }
        }
        // What is here goes on its way before the thread waits for more.
        let is_ready = batch.bytes >= BATCH_BYTES || !lines.is_ready();
        if is_ready && !batch.is_empty() && batches.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
            return;
        }
    }
    let _ = batches.blocking_send(Ok(batch));
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.refused.is_empty()
    }

    fn add(&mut self, line: u64, found: &Found<'_>) {
        match found {
            Found::Text(text) => {
                self.bytes += text.len();
                self.lines.push(Sent { line, text: text.to_vec() });
            }
            Found::TooLong => self.refused.push((line, format!("it is longer than {LINE_BYTES_MAX} bytes"))),
            Found::Blank => {}
        }
    }
}
