//! Lines to a service and an answer for each back, at the same time on one connection.

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;

use super::body::Outgoing;
use super::{Ask, Path, Remote, RemoteError};

/// Pieces that wait for the connection; what is sent and not answered is bounded by whoever sends.
const PIECES_AHEAD: usize = 2;

/// An open exchange.
pub(crate) struct Exchange {
    pieces: Option<mpsc::Sender<Bytes>>,
    incoming: Incoming,
    /// The beginning of an answer of which the rest has not come.
    rest: Vec<u8>,
}

impl Exchange {
    /// Begins to submit lines; nothing is sent yet but the head.
    pub(crate) async fn open(remote: &Remote) -> Result<Exchange, RemoteError> {
        let (pieces, outgoing) = mpsc::channel(PIECES_AHEAD);
        let ndjson = || HeaderValue::from_static("application/x-ndjson");
        let mut ask = Ask::get(Path::new("/v1/tasks")).header(ACCEPT, ndjson()).header(CONTENT_TYPE, ndjson());
        ask.method = hyper::Method::POST;
        let response = remote.begin(&ask, Outgoing::Pieces(outgoing)).await?;
        Ok(Exchange { pieces: Some(pieces), incoming: response.into_body(), rest: Vec::new() })
    }

    /// What sends; `None` behind the end. It fails once nobody reads any more, which the answers explain.
    pub(crate) fn sender(&self) -> Option<mpsc::Sender<Bytes>> {
        self.pieces.clone()
    }

    /// Says that no line follows.
    pub(crate) fn end(&mut self) {
        self.pieces = None;
    }

    /// The next answers, each a line; `None` at their end. Nothing is lost when this is dropped and called again.
    pub(crate) async fn answers(&mut self, remote: &Remote) -> Result<Option<Vec<Vec<u8>>>, RemoteError> {
        loop {
            let frame = match self.incoming.frame().await {
                None => return Ok(None),
                Some(frame) => frame.map_err(|error| remote.broken(&error, ""))?,
            };
            let Ok(bytes) = frame.into_data() else { continue };
            self.rest.extend_from_slice(&bytes);
            let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let rest = self.rest.split_off(whole);
            let lines = std::mem::replace(&mut self.rest, rest);
            let lines: Vec<_> = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
        }
    }
}
