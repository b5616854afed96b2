//! The pure core of Ergate: what can happen, what it means, what should happen next, and the log it is kept in.

pub mod audit;
pub mod block;
pub mod causal;
pub mod codec;
pub mod command;
pub mod decide;
pub mod dispatch;
pub mod due;
pub mod event;
pub mod id;
pub mod invariant;
#[cfg(feature = "json")]
pub mod json;
pub mod log;
pub mod planted;
pub mod retry;
pub mod shard;
pub mod shared;
pub mod slab;
pub mod state;
pub mod task;
pub mod time;
pub mod view;
