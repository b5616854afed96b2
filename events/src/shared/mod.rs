//! Collections whose copies share what neither has changed since: a copy of millions of entries costs a few pointers, and whoever changes
//! his copy pays for the small part that he touches. So a snapshot can be written elsewhere while the shard goes on.

mod map;
mod queue;
mod set;

pub use map::SharedMap;
pub use queue::SharedQueue;
pub use set::SharedSet;
