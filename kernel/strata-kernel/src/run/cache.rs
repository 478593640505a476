//! The block cache: frames of all runs that were read, within one budget of bytes.
//!
//! Frames are spread over shards by their place, and each shard is a ring with a hand (CLOCK with counts): a hit adds to a
//! frame's count, the hand takes one off as it passes, and a frame at 0 goes. Index and filter frames start and count
//! higher, as each of them saves reads of many blocks.
//!
//! Invariant: `bytes` is what all entries weigh, with what the cache itself needs for each, and room is taken from the
//! budget before a frame is put in; so it is never above the budget, also while many threads put frames in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashTable;
use parking_lot::RwLock;

use super::block::Block;
use super::frame::Payload;
use super::index::Index;
use crate::sabotage;

const SHARDS: usize = 16;
/// What an entry takes beside its frame: slot and table with the slack of their growth, and what the allocator adds.
const ENTRY_BYTES: usize = 208;
/// A frame of more than so much of the budget is not kept.
const LARGEST_PART: usize = 8;

/// A frame as it is used.
#[derive(Clone)]
pub enum Cached {
    Block(Arc<Block>),
    Index(Arc<Index>),
    Filter(Arc<Payload>),
    Value(Arc<Payload>),
}

impl Cached {
    fn memory_bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Cached::Block(block) => block.memory_bytes(),
                Cached::Index(index) => index.memory_bytes(),
                Cached::Filter(payload) | Cached::Value(payload) => payload.memory_bytes(),
            }
    }

    /// The count at first, and the highest that hits make of it.
    fn uses(&self) -> (u8, u8) {
        match self {
            Cached::Block(_) | Cached::Value(_) => (0, 1),
            Cached::Index(_) | Cached::Filter(_) => (1, 3),
        }
    }
}

/// Which frame: a run's number, and where in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    run: u64,
    offset: u64,
}

impl Key {
    #[inline]
    fn hash(self) -> u64 {
        let mixed = (self.offset ^ self.run.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    }
}

struct Slot {
    key: Key,
    cached: Cached,
    weight: usize,
    uses: AtomicU8,
}

#[derive(Default)]
struct Shard {
    index: HashTable<u32>,
    slots: Vec<Slot>,
    hand: usize,
}

impl Shard {
    #[inline]
    fn find(&self, key: Key) -> Option<&Slot> {
        let number = self.index.find(key.hash(), |number| self.slots[*number as usize].key == key)?;
        Some(&self.slots[*number as usize])
    }

    fn insert(&mut self, slot: Slot) {
        let Shard { index, slots, .. } = self;
        index.insert_unique(slot.key.hash(), slots.len() as u32, |number| slots[*number as usize].key.hash());
        self.slots.push(slot);
    }

    /// Take a slot out; the last one takes its place.
    fn remove(&mut self, number: usize) -> Slot {
        let last = self.slots.len() - 1;
        let key = self.slots[number].key;
        if let Ok(entry) = self.index.find_entry(key.hash(), |other| *other as usize == number) {
            entry.remove();
        }
        if number != last {
            let moved = self.slots[last].key.hash();
            *self.index.find_mut(moved, |other| *other as usize == last).expect("each slot has its entry") =
                number as u32;
        }
        self.slots.swap_remove(number)
    }

    /// Move the hand to the next frame that goes, and take it out.
    fn evict(&mut self) -> Option<Slot> {
        // A frame at 3 goes when the hand has passed it three times: so this ends.
        while !self.slots.is_empty() {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let uses = self.slots[self.hand].uses.get_mut();
            if *uses == 0 {
                return Some(self.remove(self.hand));
            }
            *uses -= 1;
            self.hand += 1;
        }
        None
    }
}

/// How the cache did, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheCounts {
    pub hits: u64,
    pub misses: u64,
}

pub struct BlockCache {
    shards: Box<[RwLock<Shard>]>,
    budget: AtomicUsize,
    bytes: AtomicUsize,
    misses: AtomicU64,
    /// Beside the shards, so that threads that hit do not share a line.
    hits: Box<[Counter]>,
}

#[derive(Default)]
#[repr(align(64))]
struct Counter(AtomicU64);

impl BlockCache {
    pub fn new(budget_bytes: usize) -> Arc<BlockCache> {
        Arc::new(BlockCache {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            budget: AtomicUsize::new(budget_bytes),
            bytes: AtomicUsize::new(0),
            misses: AtomicU64::new(0),
            hits: (0..SHARDS).map(|_| Counter::default()).collect(),
        })
    }

    /// What is held, with the cache's own needs.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    pub fn set_budget(&self, budget_bytes: usize) {
        self.budget.store(budget_bytes, Ordering::Relaxed);
        let mut shard = 0;
        while self.bytes() > budget_bytes && self.evict_from(shard) {
            shard += 1;
        }
        self.shards.iter().for_each(shrink);
    }

    pub fn counts(&self) -> CacheCounts {
        let hits = self.hits.iter().map(|count| count.0.load(Ordering::Relaxed)).sum();
        CacheCounts { hits, misses: self.misses.load(Ordering::Relaxed) }
    }

    /// Drop the frames of a run that is no more.
    pub fn forget(&self, run: u64) {
        for shard in &self.shards {
            let mut dropped = Vec::new();
            {
                let mut shard = shard.write();
                for number in (0..shard.slots.len()).rev() {
                    if shard.slots[number].key.run == run {
                        dropped.push(shard.remove(number));
                    }
                }
            }
            self.give_back(dropped.iter().map(|slot| slot.weight).sum());
            shrink(shard);
        }
    }

    /// Look at a frame, without taking hold of it.
    #[inline]
    pub fn look<R>(&self, run: u64, offset: u64, look: impl FnOnce(&Cached) -> R) -> Option<R> {
        let key = Key { run, offset };
        let number = shard_of(key);
        let shard = self.shards[number].read();
        let Some(slot) = shard.find(key) else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        // Written only while it changes: threads that read one frame share its line. One of two that add may be lost.
        let uses = slot.uses.load(Ordering::Relaxed);
        if uses < slot.cached.uses().1 {
            slot.uses.store(uses + 1, Ordering::Relaxed);
        }
        let hits = &self.hits[number].0;
        hits.store(hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Some(look(&slot.cached))
    }

    #[inline]
    pub fn get(&self, run: u64, offset: u64) -> Option<Cached> {
        self.look(run, offset, Cached::clone)
    }

    /// Keep a frame, if there is room for it when others go.
    pub fn put(&self, run: u64, offset: u64, cached: &Cached) {
        let key = Key { run, offset };
        let weight = cached.memory_bytes();
        let number = shard_of(key);
        if weight > self.budget() / LARGEST_PART || !self.take_room(weight, number) {
            return;
        }
        let mut shard = self.shards[number].write();
        if shard.find(key).is_some() {
            // Another thread read it at the same time.
            drop(shard);
            return self.give_back(weight);
        }
        shard.insert(Slot { key, cached: cached.clone(), weight, uses: AtomicU8::new(cached.uses().0) });
    }

    /// Take `weight` from the budget; false when that cannot be.
    fn take_room(&self, weight: usize, mut shard: usize) -> bool {
        loop {
            let held = self.bytes();
            if held + weight <= self.budget() || sabotage::on("T24") {
                if self.bytes.compare_exchange_weak(held, held + weight, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    return true;
                }
            } else if !self.evict_from(shard) {
                return false;
            } else {
                shard += 1;
            }
        }
    }

    /// Let one frame go, of `shard` or the next one that has any; false when there is none.
    fn evict_from(&self, shard: usize) -> bool {
        // What was taken out is freed when the lock is given back.
        let gone = (0..SHARDS).find_map(|step| self.shards[(shard + step) % SHARDS].write().evict());
        let weight = gone.as_ref().map_or(0, |slot| slot.weight);
        self.give_back(weight);
        gone.is_some()
    }

    fn give_back(&self, weight: usize) {
        self.bytes.fetch_sub(weight, Ordering::Relaxed);
    }
}

#[inline]
fn shard_of(key: Key) -> usize {
    // Not the bits that the table takes.
    (key.hash() >> 40) as usize % SHARDS
}

/// Give back what a shard that became small has too much.
fn shrink(shard: &RwLock<Shard>) {
    let mut shard = shard.write();
    if shard.slots.capacity() > 2 * shard.slots.len() {
        let Shard { index, slots, .. } = &mut *shard;
        slots.shrink_to_fit();
        index.shrink_to_fit(|number| slots[*number as usize].key.hash());
    }
}
