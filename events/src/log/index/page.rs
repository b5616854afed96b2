//! Pages: sorted entries, each stored as its difference from the one before it, compressed and checked a page at a time.
//!
//! A page begins afresh, so any one can be read alone. The directory of a file has 28 bytes a page and says where each lies, the
//! key of its first entry, and which kinds of entries it may hold.

/// A page ends with the entry that makes it this long: one read and some microseconds of decoding.
pub(super) const PAGE_BYTES: usize = 16 << 10;
/// Longest page that is read: no entry has more bytes than five integers of 10.
const PAGE_BYTES_MAX: usize = PAGE_BYTES + 50;
/// Bytes of the directory for one page.
pub(super) const SLOT_BYTES: usize = 28;

/// Why an index file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("the index cannot be read")]
    Io(#[from] std::io::Error),
    /// It is not what was written.
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
    /// Another build wrote it.
    #[error("the index has format {0} and this build reads another one")]
    OtherFormat(u16),
    /// It was built of another log.
    #[error("the index belongs to another log")]
    OtherStore,
    /// The log has other blocks in its range.
    #[error("the index does not fit the log: {0}")]
    Stale(&'static str),
}

/// What pages are made of.
pub(super) trait Entry: Copy + Default {
    /// What the directory is searched by; never decreases from one entry to the next.
    fn key(&self) -> u64;
    /// Bits that tell its kind; the directory has the union of a page's.
    fn mask(&self) -> u32;
    /// Appends the difference from the entry before.
    fn write(&self, before: &Self, out: &mut Vec<u8>);
    /// Takes the next entry off `input`; `None` when the bytes are none.
    fn read(before: &Self, input: &mut &[u8]) -> Option<Self>;
}

/// Appends an integer in groups of seven bits, lowest first.
pub(super) fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes an integer off `input`.
pub(super) fn take(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The way from `from` to `to`, forwards or backwards, as a small number for a short way.
pub(super) const fn step(from: u64, to: u64) -> u64 {
    let way = to.wrapping_sub(from);
    (way << 1) ^ if way >> 63 == 1 { u64::MAX } else { 0 }
}

/// Where a [`step`] leads.
pub(super) const fn walk(from: u64, step: u64) -> u64 {
    let way = (step >> 1) ^ if step & 1 == 1 { u64::MAX } else { 0 };
    from.wrapping_add(way)
}

/// A page in memory.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) key: u64,
    pub(super) mask: u32,
    raw_len: u32,
    pub(super) stored: Vec<u8>,
}

impl Page {
    fn unpack(&self) -> Result<Vec<u8>, Unusable> {
        unpack(&self.stored, self.raw_len)
    }
}

fn unpack(stored: &[u8], raw_len: u32) -> Result<Vec<u8>, Unusable> {
    let raw_len = raw_len as usize;
    if raw_len > PAGE_BYTES_MAX {
        return Err(Unusable::Damaged("a page is larger than pages are"));
    }
    if stored.len() == raw_len {
        return Ok(stored.to_vec());
    }
    let raw = lz4_flex::block::decompress(stored, raw_len).map_err(|_| Unusable::Damaged("lz4 refuses a page"))?;
    if raw.len() != raw_len {
        return Err(Unusable::Damaged("a page has another length than the directory says"));
    }
    Ok(raw)
}

/// Where a page lies in its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) key: u64,
    pub(super) mask: u32,
    raw_len: u32,
    pub(super) stored_len: u32,
    pub(super) offset: u32,
    crc: u32,
}

impl Slot {
    /// The slot of a page that is written at `offset`.
    pub(super) fn of(page: &Page, offset: u32) -> Slot {
        let stored_len = page.stored.len() as u32;
        let crc = crc32c::crc32c(&page.stored);
        Slot { key: page.key, mask: page.mask, raw_len: page.raw_len, stored_len, offset, crc }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.to_le_bytes());
        for part in [self.mask, self.raw_len, self.stored_len, self.offset, self.crc] {
            out.extend_from_slice(&part.to_le_bytes());
        }
    }

    pub(super) fn read(bytes: &[u8; SLOT_BYTES]) -> Slot {
        let part = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("every part ends within the slot"));
        let key = u64::from(part(0)) | u64::from(part(4)) << 32;
        Slot { key, mask: part(8), raw_len: part(12), stored_len: part(16), offset: part(20), crc: part(24) }
    }

    /// Checks what was read from the slot's place and unpacks it.
    pub(super) fn unpack(&self, stored: &[u8]) -> Result<Vec<u8>, Unusable> {
        if crc32c::crc32c(stored) != self.crc {
            return Err(Unusable::Damaged("a page has another checksum than the directory says"));
        }
        unpack(stored, self.raw_len)
    }
}

/// Pages wherever they are, oldest first.
pub(super) trait PageList {
    /// How many there are.
    fn count(&self) -> usize;
    /// Key and mask of a page.
    fn key_and_mask(&self, page: usize) -> (u64, u32);
    /// The entries' bytes of a page.
    fn raw(&self, page: usize) -> Result<Vec<u8>, Unusable>;

    /// How many pages begin with a key that `holds`; it must hold for the first so many.
    fn count_while(&self, holds: impl Fn(u64) -> bool) -> usize
    where
        Self: Sized,
    {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            match holds(self.key_and_mask(middle).0) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}

/// Entries on their way into pages.
#[derive(Clone, Debug)]
pub(super) struct Pages<E> {
    full: Vec<Page>,
    stored_len: usize,
    open: Vec<u8>,
    open_key: u64,
    open_mask: u32,
    before: E,
}

impl<E: Entry> Default for Pages<E> {
    fn default() -> Self {
        Pages { full: Vec::new(), stored_len: 0, open: Vec::new(), open_key: 0, open_mask: 0, before: E::default() }
    }
}

impl<E: Entry> Pages<E> {
    /// All entries in pages.
    pub(super) fn of(entries: impl Iterator<Item = E>) -> Vec<Page> {
        let mut pages = Pages::default();
        entries.for_each(|entry| pages.push(entry));
        pages.to_pages()
    }

    pub(super) fn push(&mut self, entry: E) {
        if self.open.is_empty() {
            self.open_key = entry.key();
            self.open_mask = 0;
            self.before = E::default();
        }
        entry.write(&self.before, &mut self.open);
        self.open_mask |= entry.mask();
        self.before = entry;
        if self.open.len() >= PAGE_BYTES {
            let page = self.open_page();
            self.stored_len += page.stored.len();
            self.full.push(page);
            self.open.clear();
        }
    }

    /// What is in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.stored_len + self.open.len()
    }

    /// The pages, oldest first, the one that is still being filled included.
    pub(super) fn to_pages(&self) -> Vec<Page> {
        let mut pages = self.full.clone();
        pages.extend((!self.open.is_empty()).then(|| self.open_page()));
        pages
    }

    fn open_page(&self) -> Page {
        let packed = lz4_flex::block::compress(&self.open);
        let stored = if packed.len() < self.open.len() { packed } else { self.open.clone() };
        Page { key: self.open_key, mask: self.open_mask, raw_len: self.open.len() as u32, stored }
    }
}

impl<E: Entry> PageList for Pages<E> {
    fn count(&self) -> usize {
        self.full.len() + usize::from(!self.open.is_empty())
    }

    fn key_and_mask(&self, page: usize) -> (u64, u32) {
        self.full.get(page).map_or((self.open_key, self.open_mask), |page| (page.key, page.mask))
    }

    fn raw(&self, page: usize) -> Result<Vec<u8>, Unusable> {
        self.full.get(page).map_or_else(|| Ok(self.open.clone()), Page::unpack)
    }
}

/// The entries of an unpacked page in order; ends after the first that cannot be read.
pub(super) struct Entries<'a, E> {
    rest: &'a [u8],
    before: E,
}

impl<'a, E: Entry> Entries<'a, E> {
    pub(super) fn of(raw: &'a [u8]) -> Self {
        Entries { rest: raw, before: E::default() }
    }
}

impl<E: Entry> Iterator for Entries<'_, E> {
    type Item = Result<E, Unusable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(entry) = E::read(&self.before, &mut self.rest) else {
            self.rest = &[];
            return Some(Err(Unusable::Damaged("a page holds bytes that are no entry")));
        };
        self.before = entry;
        Some(Ok(entry))
    }
}
