//! Read models: each a fold of the same envelopes, rebuilt from position zero at any time, and true up to a position that it names.

pub mod histogram;
pub mod progress;

pub use histogram::Histogram;
pub use progress::Progress;
