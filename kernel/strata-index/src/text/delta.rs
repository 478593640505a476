//! An index that grows, in memory.
//!
//! A word that was seen before costs one look into a table of words (which says its term, or that it is a stop word) and an
//! append to that term's postings: stop words and stems are looked up once for each word of the vocabulary.

use std::collections::BTreeMap;
use std::hash::Hasher;

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::analyzer::Analyzer;
use super::build::{Origin, build};
use super::part::TextPart;
use super::postings::{List, Mark, TextIndex};
use super::varint;

/// Between two texts of one field, so that no phrase reaches from one into the other.
const GAP: u32 = 1_000;
const STOP: u32 = u32::MAX;

#[derive(Default)]
pub struct TextDelta {
    pub(super) lengths: Vec<u32>,
    pub(super) plain: bool,
    /// Whether slots were added in ascending order.
    pub(super) ordered: bool,
    words: Words,
    terms: BTreeMap<Box<[u8]>, u32>,
    postings: Vec<Postings>,
    /// What the positions and marks take.
    posting_bytes: usize,
}

#[derive(Default)]
struct Postings {
    slots: Vec<u32>,
    marks: Vec<Mark>,
    positions: Vec<u8>,
    last_position: u32,
}

impl TextDelta {
    pub fn new() -> TextDelta {
        TextDelta { plain: true, ordered: true, ..TextDelta::default() }
    }

    /// Index a document: texts with the number of their field, of which one may have several. Once for each slot, in any
    /// order of slots, and with the same analyzer always. A document without terms is none.
    pub fn add(&mut self, slot: u32, texts: &[(u8, &str)], analyzer: &Analyzer) {
        debug_assert_eq!(self.length(slot), 0, "a slot is added once");
        // Before its first posting, so that there is a place for each slot whatever becomes of this.
        let index = slot as usize;
        if index >= self.lengths.len() {
            self.lengths.resize(index + 1, 0);
        } else {
            self.ordered = false;
        }
        let mut length = 0;
        for (nth, &(field, text)) in texts.iter().enumerate() {
            let before = texts[..nth].iter().filter(|(other, _)| *other == field);
            let mut position = before.fold(0, |sum: u32, (_, text)| sum.saturating_add(text.len() as u32 + GAP));
            analyzer.words(text, |word, _| {
                let term = self.term(word, analyzer);
                if term != STOP {
                    self.append(term, slot, field, position);
                    length += 1;
                }
                position = position.saturating_add(1);
            });
        }
        self.lengths[index] = length;
    }

    /// How many terms the slot's document has; 0: it is none of this index.
    pub fn length(&self, slot: u32) -> u32 {
        TextIndex::Delta(self).length(slot)
    }

    /// One more than the highest slot that was added.
    pub fn slots(&self) -> u32 {
        self.lengths.len() as u32
    }

    /// About what it holds in memory.
    pub fn memory_bytes(&self) -> usize {
        // A third of what grows is not used yet; a term has four small blocks of the allocator and its place in the tree.
        let terms = self.postings.len() * (size_of::<Postings>() + 4 * 32 + 32);
        self.posting_bytes * 3 / 2 + terms + self.words.memory_bytes() + self.lengths.len() * 6
    }

    /// The same, immutable: smaller, and as bytes if wished.
    pub fn freeze(self) -> TextPart {
        build(&[Origin { index: TextIndex::Delta(&self), slots: None }])
    }

    pub(super) fn list(&self, term: &[u8]) -> Option<List<'_>> {
        self.terms.get(term).map(|number| self.postings[*number as usize].list())
    }

    pub(super) fn lists_from(&self, prefix: &[u8]) -> Vec<List<'_>> {
        let from = self.terms.range::<[u8], _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.take_while(|(term, _)| term.starts_with(prefix))
            .map(|(_, number)| self.postings[*number as usize].list())
            .collect()
    }

    /// Every term in order, with its postings.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], List<'_>)> {
        self.terms.iter().map(|(term, number)| (&**term, self.postings[*number as usize].list()))
    }

    #[inline]
    fn term(&mut self, word: &str, analyzer: &Analyzer) -> u32 {
        self.words.get(word).unwrap_or_else(|| self.new_word(word, analyzer))
    }

    #[cold]
    fn new_word(&mut self, word: &str, analyzer: &Analyzer) -> u32 {
        let number = match analyzer.term(word) {
            None => STOP,
            Some(term) => *self.terms.entry(term.as_bytes().into()).or_insert_with(|| {
                self.postings.push(Postings::default());
                self.postings.len() as u32 - 1
            }),
        };
        self.words.insert(word, number);
        number
    }

    #[inline]
    fn append(&mut self, term: u32, slot: u32, field: u8, position: u32) {
        let Postings { slots, marks, positions, last_position } = &mut self.postings[term as usize];
        let before = positions.len();
        let again = match (slots.last(), marks.last()) {
            (Some(last), Some(mark)) if *last == slot => Some(*mark),
            _ => None,
        };
        match again {
            Some(mark) if mark.field() == field && mark.count() < u8::MAX => {
                marks[slots.len() - 1] = Mark::new(field, mark.count() + 1);
                varint::write(positions, position - *last_position);
            }
            _ => {
                self.plain &= field == 0 && again.is_none();
                slots.push(slot);
                marks.push(Mark::new(field, 1));
                varint::write(positions, position);
                self.posting_bytes += 6;
            }
        }
        *last_position = position;
        self.posting_bytes += positions.len() - before;
    }
}

impl Postings {
    fn list(&self) -> List<'_> {
        List { slots: &self.slots, marks: &self.marks, positions: &self.positions }
    }
}

/// Which term a word has. The words stand behind each other in one string.
#[derive(Default)]
struct Words {
    text: String,
    table: HashTable<Word>,
}

struct Word {
    start: usize,
    length: u32,
    term: u32,
}

impl Words {
    #[inline]
    fn get(&self, word: &str) -> Option<u32> {
        self.table.find(hash(word.as_bytes()), |known| known.bytes(&self.text) == word.as_bytes()).map(|word| word.term)
    }

    fn insert(&mut self, word: &str, term: u32) {
        let new = Word { start: self.text.len(), length: word.len() as u32, term };
        self.text.push_str(word);
        self.table.insert_unique(hash(word.as_bytes()), new, |known| hash(known.bytes(&self.text)));
    }

    fn memory_bytes(&self) -> usize {
        self.text.len() + self.table.len() * (size_of::<Word>() + 1) * 8 / 6
    }
}

impl Word {
    #[inline]
    fn bytes<'a>(&self, text: &'a str) -> &'a [u8] {
        &text.as_bytes()[self.start..self.start + self.length as usize]
    }
}

#[inline]
fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}
