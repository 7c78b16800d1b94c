//! Which keys were met, until one comes again. Made for many keys and one question at the end: a key costs its own
//! bytes and little more, goes to its part by its high bits without being compared, and each part is then looked
//! through with a table that fits into a cache.

use std::mem;

use super::key::Key;

/// While there are this few, they are kept in one piece: a query by groups makes one of these for every group.
const FEW: usize = 4096;
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 8;
/// First looked through at this many keys, so that values which repeat a lot are not kept for long.
const FIRST_LOOK: usize = 1024;
/// Looked through again when there are this many times more, which keeps the sum of all looks small.
const NEXT_LOOK: usize = 8;

/// Keys met so far, or that one was met twice; then none are kept.
#[derive(Debug)]
pub(super) struct Seen<K> {
    repeated: bool,
    few: Vec<K>,
    /// None while `few` holds the keys.
    parts: Vec<Part<K>>,
    next_look: usize,
}

/// Keys with the same high bits, in pieces that are never moved: growing in place would need twice the memory.
#[derive(Debug, Default)]
struct Part<K> {
    full: Vec<Vec<K>>,
    last: Vec<K>,
    /// Keys that fit into all pieces.
    room: usize,
    /// Keys among which none repeats, as far as was looked.
    looked: usize,
}

impl<K: Key> Seen<K> {
    pub(super) fn new() -> Self {
        Self {
            repeated: false,
            few: Vec::new(),
            parts: Vec::new(),
            next_look: FIRST_LOOK,
        }
    }

    /// Whether a key is known to have been met twice. More may be found by [`Self::repeats`].
    pub(super) fn repeated(&self) -> bool {
        self.repeated
    }

    /// Notes that a key was met twice. Nothing that comes changes that, so the keys are dropped.
    pub(super) fn repeat(&mut self) {
        *self = Self::new();
        self.repeated = true;
    }

    pub(super) fn len(&self) -> usize {
        self.few.len() + self.parts.iter().map(Part::len).sum::<usize>()
    }

    pub(super) fn extend(&mut self, keys: impl Iterator<Item = K>) {
        if self.repeated {
            return;
        }
        for key in keys {
            if self.parts.is_empty() {
                self.few.push(key);
                if self.few.len() == FEW {
                    self.split();
                }
            } else {
                self.part(key).push(key);
            }
        }
        let len = self.len();
        if len >= self.next_look {
            self.next_look = len.saturating_mul(NEXT_LOOK);
            self.repeats();
        }
    }

    fn split(&mut self) {
        self.parts.resize_with(PARTS, Part::default);
        for key in mem::take(&mut self.few) {
            self.part(key).push(key);
        }
    }

    fn part(&mut self, key: K) -> &mut Part<K> {
        &mut self.parts[(key.word() >> (u64::BITS - PART_BITS)) as usize]
    }

    /// Whether any key was met twice. What was looked through before is not looked through again.
    pub(super) fn repeats(&mut self) -> bool {
        let mut table = Table { slots: Vec::new() };
        let mut found = !self.repeated && table.repeats(&[], &self.few);
        for part in &mut self.parts {
            if found {
                break;
            }
            let len = part.len();
            if part.looked < len {
                found = table.repeats(&part.full, &part.last);
                part.looked = len;
            }
        }
        if found {
            self.repeat();
        }
        self.repeated
    }

    /// The keys as words, [`Key::WORDS`] each. They are gone from here, piece by piece: both at once would be twice
    /// the memory.
    pub(super) fn drain(&mut self) -> Vec<u64> {
        let mut words = Vec::with_capacity(self.len() * K::WORDS);
        let Self { few, parts, .. } = mem::replace(self, Self::new());
        let pieces = parts.into_iter().flat_map(|part| {
            let Part { full, last, .. } = part;
            full.into_iter().chain([last])
        });
        for piece in [few].into_iter().chain(pieces) {
            for key in piece {
                key.write(&mut words);
            }
        }
        words
    }

    /// Bytes on the heap.
    pub(super) fn size(&self) -> usize {
        let parts = self.parts.iter().map(Part::size).sum::<usize>();
        self.few.capacity() * size_of::<K>() + self.parts.capacity() * size_of::<Part<K>>() + parts
    }
}

impl<K: Key> Part<K> {
    fn len(&self) -> usize {
        self.room - (self.last.capacity() - self.last.len())
    }

    fn push(&mut self, key: K) {
        if self.last.len() == self.last.capacity() {
            // A quarter more each time: little is reserved in vain, and pieces stay few.
            let room = (self.room / 4).clamp(16, 2048);
            let last = mem::replace(&mut self.last, Vec::with_capacity(room));
            self.room += self.last.capacity();
            if !last.is_empty() {
                self.full.push(last);
            }
        }
        self.last.push(key);
    }

    fn size(&self) -> usize {
        self.room * size_of::<K>() + self.full.capacity() * size_of::<Vec<K>>()
    }
}

/// Open addressing; the key that is zero stands for an empty slot and is remembered apart.
struct Table<K> {
    slots: Vec<K>,
}

impl<K: Key> Table<K> {
    fn repeats(&mut self, full: &[Vec<K>], last: &[K]) -> bool {
        let pieces = || full.iter().map(Vec::as_slice).chain([last]).flatten();
        let len = full.iter().map(Vec::len).sum::<usize>() + last.len();
        let zero = K::default();
        self.slots.clear();
        self.slots.resize((2 * len).next_power_of_two(), zero);
        let mask = self.slots.len() - 1;
        // A table half full needs about one step for each key. Keys that were made to collide would need as many
        // steps as there are keys, each.
        let mut steps = 16 * len;
        let mut zero_met = false;
        for &key in pieces() {
            if key == zero {
                if zero_met {
                    return true;
                }
                zero_met = true;
                continue;
            }
            let mut slot = key.word() as usize & mask;
            while self.slots[slot] != zero {
                if self.slots[slot] == key {
                    return true;
                }
                if steps == 0 {
                    let mut keys: Vec<K> = pieces().copied().collect();
                    keys.sort_unstable();
                    return keys.windows(2).any(|pair| pair[0] == pair[1]);
                }
                steps -= 1;
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = key;
        }
        false
    }
}
