//! The keys of one table in byte order: a list of sorted blocks, and above it their first keys, sorted the same way.
//!
//! A key is its place in the arena, so the order of a million keys takes about 15 MB. Point reads do not come here (the
//! hash index answers them); scans, and inserts of new keys, do. Looking a key up in the arena is a cache miss, so each
//! node keeps, beside the places, the first eight bytes that tell its keys apart: a search compares these and looks up
//! a whole key only where they are equal. It makes an insert of a random key three times as fast.
//!
//! Invariants: no block is empty; keys strictly ascend within and across blocks; `firsts` holds the first key of each
//! block; all keys of a node begin with its prefix.

use super::arena::Place;

/// Splits keep the heads of a block within 4 KiB; a miss costs one binary search of nine steps.
const BLOCK_KEYS_MAX: usize = 512;

#[derive(Default)]
pub struct Order {
    blocks: Vec<Node>,
    firsts: Node,
}

/// A position between keys: the key after it is `blocks[block].places[index]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    block: usize,
    index: usize,
}

/// Keys in order.
#[derive(Default)]
struct Node {
    /// What all keys of this node begin with.
    prefix: Vec<u8>,
    /// Of each key the eight bytes after the prefix, as a number that compares as they do.
    heads: Vec<u64>,
    places: Vec<Place>,
}

impl Order {
    /// The position before the first key that is not below `key`.
    pub fn seek<'a>(&self, key: &[u8], key_at: impl Fn(Place) -> &'a [u8]) -> Cursor {
        let Some(block) = self.block_for(key, &key_at) else { return Cursor { block: 0, index: 0 } };
        let (index, _) = self.blocks[block].search(key, &key_at);
        self.normal(Cursor { block, index })
    }

    /// Memory taken, nearly: blocks are mostly three quarters full.
    pub fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK_KEYS_MAX * (size_of::<u64>() + size_of::<Place>())
    }

    pub fn end(&self) -> Cursor {
        Cursor { block: self.blocks.len(), index: 0 }
    }

    /// The last block that begins at or below `key`.
    fn block_for<'a>(&self, key: &[u8], key_at: &impl Fn(Place) -> &'a [u8]) -> Option<usize> {
        let (below, is_there) = self.firsts.search(key, key_at);
        (below + usize::from(is_there)).checked_sub(1)
    }

    /// A position past the end of a block is the start of the next.
    fn normal(&self, cursor: Cursor) -> Cursor {
        if self.blocks.get(cursor.block).is_some_and(|block| cursor.index == block.places.len()) {
            return Cursor { block: cursor.block + 1, index: 0 };
        }
        cursor
    }

    /// The key after the cursor, which moves past it.
    pub fn next(&self, cursor: &mut Cursor) -> Option<Place> {
        let block = self.blocks.get(cursor.block)?;
        let place = block.places[cursor.index];
        *cursor = self.normal(Cursor { block: cursor.block, index: cursor.index + 1 });
        Some(place)
    }

    /// The key before the cursor, which moves before it.
    pub fn previous(&self, cursor: &mut Cursor) -> Option<Place> {
        if cursor.index == 0 {
            cursor.block = cursor.block.checked_sub(1)?;
            cursor.index = self.blocks[cursor.block].places.len();
        }
        cursor.index -= 1;
        Some(self.blocks[cursor.block].places[cursor.index])
    }

    /// Add a key that is not there yet.
    pub fn insert<'a>(&mut self, place: Place, key_at: impl Fn(Place) -> &'a [u8]) {
        let key = key_at(place);
        // Keys that arrive in order (events, counters, dates) are a common case: look at the end first.
        if self.blocks.last().is_none_or(|block| key_at(block.last()) < key) {
            return self.push_last(place, &key_at);
        }
        let found = self.block_for(key, &key_at);
        let block = found.unwrap_or(0);
        let (index, _) = self.blocks[block].search(key, &key_at);
        self.blocks[block].insert(index, place, &key_at);
        if found.is_none() {
            self.firsts.remove(0);
            self.firsts.insert(0, place, &key_at);
        }
        if self.blocks[block].places.len() == BLOCK_KEYS_MAX {
            let upper = self.blocks[block].split(&key_at);
            self.firsts.insert(block + 1, upper.places[0], &key_at);
            self.blocks.insert(block + 1, upper);
        }
    }

    fn push_last<'a>(&mut self, place: Place, key_at: &impl Fn(Place) -> &'a [u8]) {
        let count = self.blocks.len();
        match self.blocks.last_mut() {
            // Full blocks stay full when keys ascend: no split leaves half of each empty.
            Some(block) if block.places.len() < BLOCK_KEYS_MAX - 1 => block.insert(block.places.len(), place, key_at),
            _ => {
                let mut block = Node::default();
                block.insert(0, place, key_at);
                self.blocks.push(block);
                self.firsts.insert(count, place, key_at);
            }
        }
    }
}

impl Node {
    fn last(&self) -> Place {
        self.places[self.places.len() - 1]
    }

    /// How many keys are below `key`, and whether the next one equals it.
    fn search<'a>(&self, key: &[u8], key_at: &impl Fn(Place) -> &'a [u8]) -> (usize, bool) {
        let shared = self.prefix.len().min(key.len());
        match key[..shared].cmp(&self.prefix) {
            std::cmp::Ordering::Less => return (0, false),
            std::cmp::Ordering::Greater => return (self.places.len(), false),
            std::cmp::Ordering::Equal => {}
        }
        let head = head_of(&key[shared..]);
        let start = self.heads.partition_point(|&other| other < head);
        let same = self.heads[start..].partition_point(|&other| other == head);
        let below = self.places[start..start + same].partition_point(|&place| key_at(place) < key);
        let index = start + below;
        (index, below < same && key_at(self.places[index]) == key)
    }

    fn insert<'a>(&mut self, index: usize, place: Place, key_at: &impl Fn(Place) -> &'a [u8]) {
        let key = key_at(place);
        if self.places.is_empty() {
            self.prefix = key.to_vec();
        } else if !key.starts_with(&self.prefix) {
            let shared = common(&self.prefix, key);
            self.prefix.truncate(shared);
            self.make_heads(key_at);
        }
        self.heads.insert(index, head_of(&key[self.prefix.len()..]));
        self.places.insert(index, place);
    }

    fn remove(&mut self, index: usize) {
        self.heads.remove(index);
        self.places.remove(index);
    }

    /// Give the upper half away.
    fn split<'a>(&mut self, key_at: &impl Fn(Place) -> &'a [u8]) -> Node {
        let half = self.places.len() / 2;
        let mut upper = Node { places: self.places.split_off(half), ..Node::default() };
        self.places.shrink_to(BLOCK_KEYS_MAX * 3 / 4);
        self.heads.shrink_to(BLOCK_KEYS_MAX * 3 / 4);
        // Fewer keys have more in common.
        for node in [self, &mut upper] {
            let (first, last) = (key_at(node.places[0]), key_at(node.last()));
            node.prefix = first[..common(first, last)].to_vec();
            node.make_heads(key_at);
        }
        upper
    }

    fn make_heads<'a>(&mut self, key_at: &impl Fn(Place) -> &'a [u8]) {
        let shared = self.prefix.len();
        self.heads.clear();
        self.heads.extend(self.places.iter().map(|&place| head_of(&key_at(place)[shared..])));
    }
}

/// How many bytes `a` and `b` begin with alike.
fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first eight bytes as a number. Shorter keys are padded with zeros, so equal heads decide nothing.
fn head_of(rest: &[u8]) -> u64 {
    match rest.first_chunk() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; 8];
            head[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(head)
        }
    }
}
