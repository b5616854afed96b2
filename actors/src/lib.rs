//! The actors of Ergate: they receive, ask the core, do the IO and report.
//!
//! ```text
//!  clients ──Submission──▶ LogWriter ──OpenBlock──▶ log thread ──▶ disk
//!     ▲                     │  ▲  ▲                   │
//!     └──answers, ends──────┘  │  └──────Durable──────┘
//!         (durable first)      │
//!             Dispatcher ◀─Carry (attempts, instructions; durable first)
//!               │              │
//!              Run             │
//!               ▼              │
//!             Executors ──Report─▶ LogWriter        Projector ◀── tail, blocks ── log
//! ```
//! LogWriter and Dispatcher share the shard's arbiter; every executor has a thread of its own; the log thread has the disk to itself.

pub mod clock;
pub mod dispatcher;
pub mod effects;
pub mod executor;
pub mod lane;
pub mod log_thread;
pub mod log_writer;
pub mod projector;
pub mod proposal;
pub mod recent;
pub mod records;
pub mod report;
pub mod results;
pub mod snapshot;
pub mod submission;
mod waiters;
