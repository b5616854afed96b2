//! The pure core of Ergate: what can happen, what it means, what should happen next, and the log it is kept in.

pub mod block;
pub mod codec;
pub mod command;
pub mod event;
pub mod id;
pub mod log;
pub mod task;
pub mod time;
