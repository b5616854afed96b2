//! Memory that ends where no more may be touched.

use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

const PAGE: usize = 4096;
/// Closed memory behind a region.
const CLOSED: usize = 1 << 20;
/// What device memory is aligned to.
const ALIGNMENT: usize = 256;
const POISON: u8 = 0xa5;

/// Bytes that end, but for what alignment needs, before memory that is not accessible; the bytes between are watched.
pub(super) struct Region {
    map: NonNull<u8>,
    mapped: usize,
    start: usize,
    bytes: usize,
}

// SAFETY: the memory belongs to the region alone.
unsafe impl Send for Region {}

impl Region {
    pub(super) fn new(bytes: usize) -> Self {
        let room = bytes.next_multiple_of(ALIGNMENT).next_multiple_of(PAGE);
        let mapped = room + CLOSED;
        // SAFETY: new memory, of no address that is in use.
        let map = unsafe { mmap_anonymous(std::ptr::null_mut(), mapped, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
        let map = NonNull::new(map.expect("memory for a test").cast::<u8>()).expect("mapped memory is not at address 0");
        let mut region = Self { map, mapped, start: room - bytes.next_multiple_of(ALIGNMENT), bytes };
        // SAFETY: within the memory just mapped.
        unsafe { map.as_ptr().write_bytes(POISON, room) };
        // SAFETY: the end of the memory just mapped, which nothing is in.
        unsafe { mprotect(map.as_ptr().add(room).cast(), CLOSED, MprotectFlags::empty()) }.expect("memory can be closed");
        assert!(region.as_mut_slice().as_ptr().addr().is_multiple_of(ALIGNMENT));
        region
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `start` and `bytes` lie before the closed memory, all of it is initialized, and it is borrowed with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_ptr().add(self.start), self.bytes) }
    }

    /// Panics when somebody wrote outside of it.
    pub(super) fn check(&self) {
        // SAFETY: what lies before the closed memory, initialized, and borrowed with `self`.
        let all = unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.mapped - CLOSED) };
        let outside = all[..self.start].iter().chain(&all[self.start + self.bytes..]);
        assert!(outside.into_iter().all(|&byte| byte == POISON), "a kernel wrote outside of a buffer of {} bytes", self.bytes);
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` and not used any more.
        unsafe { munmap(self.map.as_ptr().cast(), self.mapped) }.expect("what was mapped can be unmapped");
    }
}
