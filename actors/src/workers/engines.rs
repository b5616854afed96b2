//! Where workers find the engines of the group.

use std::sync::{Arc, Mutex};

use super::lock;

/// The addresses of engines, and how often they have changed.
#[derive(Default)]
pub(super) struct Engines(Mutex<(u64, Arc<[String]>)>);

impl Engines {
    /// Notes them; says whether they are others than before.
    pub(super) fn set(&self, urls: Vec<String>) -> bool {
        let mut known = lock(&self.0);
        if *known.1 == urls[..] {
            return false;
        }
        *known = (known.0 + 1, urls.into());
        true
    }

    /// How often they have changed, and what they are.
    pub(super) fn now(&self) -> (u64, Arc<[String]>) {
        lock(&self.0).clone()
    }
}
