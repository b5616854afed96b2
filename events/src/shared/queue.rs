//! A row that grows at its end and shrinks at its front. What lies in the middle is frozen, so clones share it and nobody copies it again.

use std::collections::VecDeque;
use std::sync::Arc;

/// Items in a frozen chunk: at 16 bytes each, a million of them are a thousand pointers and a copy of the open end is 16 KiB at most.
const CHUNK: usize = 1_024;

/// A queue whose clones share all but its end.
#[derive(Clone, Debug)]
pub struct SharedQueue<T> {
    /// Full chunks, each of [`CHUNK`] items.
    frozen: VecDeque<Arc<Vec<T>>>,
    /// The newest items, fewer than [`CHUNK`].
    open: Vec<T>,
    /// How many items at the front are gone already; fewer than the first chunk has.
    gone: usize,
}

impl<T> Default for SharedQueue<T> {
    fn default() -> Self {
        SharedQueue { frozen: VecDeque::new(), open: Vec::new(), gone: 0 }
    }
}

impl<T> SharedQueue<T> {
    /// Number of items.
    pub fn len(&self) -> usize {
        self.frozen.len() * CHUNK + self.open.len() - self.gone
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at this place from the front.
    pub fn get(&self, index: usize) -> Option<&T> {
        let index = index + self.gone;
        match self.frozen.get(index / CHUNK) {
            Some(chunk) => chunk.get(index % CHUNK),
            None => self.open.get(index - self.frozen.len() * CHUNK),
        }
    }

    /// The oldest item.
    pub fn front(&self) -> Option<&T> {
        self.get(0)
    }

    /// Appends an item.
    pub fn push_back(&mut self, item: T) {
        self.open.push(item);
        if self.open.len() == CHUNK {
            self.make_room();
        }
    }

    /// Closes the gap at the front of a short queue, which so never needs memory again, and freezes a long one.
    fn make_room(&mut self) {
        if self.frozen.is_empty() && self.gone >= CHUNK / 2 {
            self.open.drain(..self.gone);
            self.gone = 0;
        } else {
            self.frozen.push_back(Arc::new(std::mem::replace(&mut self.open, Vec::with_capacity(CHUNK))));
        }
    }

    /// Drops the oldest item, if there is one.
    pub fn drop_front(&mut self) {
        if self.is_empty() {
            return;
        }
        self.gone += 1;
        if self.frozen.is_empty() && self.gone == self.open.len() {
            self.open.clear();
            self.gone = 0;
        } else if self.gone == CHUNK {
            self.frozen.pop_front();
            self.gone = 0;
        }
    }

    /// All items, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.frozen.iter().flat_map(|chunk| chunk.iter()).chain(&self.open).skip(self.gone)
    }
}

impl<T> FromIterator<T> for SharedQueue<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut queue = SharedQueue::default();
        items.into_iter().for_each(|item| queue.push_back(item));
        queue
    }
}

#[cfg(test)]
impl<T> SharedQueue<T> {
    /// How many pointers and items a clone copies.
    pub(crate) fn clone_work(&self) -> usize {
        self.frozen.len() + self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(queue: &SharedQueue<u32>, model: &VecDeque<u32>) {
        assert_eq!((queue.len(), queue.is_empty(), queue.front()), (model.len(), model.is_empty(), model.front()));
        assert!(queue.iter().eq(model.iter()));
        for index in [0, 1, model.len() / 2, model.len().saturating_sub(1), model.len()] {
            assert_eq!(queue.get(index), model.get(index), "at {index} of {}", model.len());
        }
    }

    #[test]
    fn it_is_a_queue_whether_short_or_long_and_its_copies_keep_what_they_saw() {
        let (mut queue, mut model, mut copies) = (SharedQueue::default(), VecDeque::new(), Vec::new());
        // Growing, flowing at a depth, shrinking until nothing is left, again and again with other sizes.
        for round in 0..40_u32 {
            let (pushes, pops) = [(1_500, 1_100), (3, 3), (700, 690), (5, 2_400), (1_024, 1_024), (1, 4_000)][round as usize % 6];
            for item in 0..pushes {
                queue.push_back(item);
                model.push_back(item);
                if item % 97 == 0 {
                    check(&queue, &model);
                }
            }
            copies.push((queue.clone(), model.clone()));
            for step in 0..pops {
                queue.drop_front();
                model.pop_front();
                if step % 97 == 0 {
                    check(&queue, &model);
                }
            }
            check(&queue, &model);
        }
        copies.iter().for_each(|(queue, model)| check(queue, model));
    }

    #[test]
    fn a_short_queue_keeps_its_memory_and_a_long_one_shares_it() {
        let mut queue: SharedQueue<u32> = (0..300).collect();
        for item in 0..100_000 {
            queue.push_back(item);
            queue.drop_front();
        }
        assert!(queue.frozen.is_empty() && queue.open.capacity() == CHUNK, "{} bytes", queue.open.capacity());
        let queue: SharedQueue<u32> = (0..1_000_000).collect();
        assert!(queue.clone_work() < 1_000_000 / CHUNK + CHUNK);
    }
}
