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
//!                                                       │
//!  Generator ──Submission──▶ LogWriter                  └──Notice──▶ observers
//! ```
//! The Scheduler looks which slots of schedules are due and proposes their firings. LogWriter and Dispatcher share the shard's arbiter; every executor
//! has a thread of its own; the log thread has the disk to itself. Generators and observers are plug-ins, each on a thread of its own that nobody waits for.

pub mod autoscaler;
pub mod calendar;
pub mod clock;
pub mod dispatcher;
pub mod effects;
pub mod executor;
pub mod generate;
pub mod lane;
pub mod log_thread;
pub mod log_writer;
pub mod observe;
pub mod projector;
pub mod proposal;
pub mod recent;
pub mod records;
pub mod report;
pub mod results;
pub mod scheduler;
pub mod snapshot;
pub mod submission;
pub mod timings;
pub mod usage;
mod waiters;
pub mod workers;
