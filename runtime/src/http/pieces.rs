//! An answer that is told in pieces, as they come.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::Error;
use actix_web::web::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;

/// One of them; an error ends the connection, so that nobody takes what came for all of it.
pub(super) type Piece = Result<Bytes, Error>;

/// The pieces, until the other end of the channel is dropped.
pub(super) struct Pieces(pub(super) mpsc::Receiver<Piece>);

impl Stream for Pieces {
    type Item = Piece;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.0.poll_recv(context)
    }
}
