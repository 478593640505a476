//! Parts as bytes: what is written is read, and nothing else is believed, or does harm.

use proptest::prelude::*;
use strata_index::bytes::{Reader, Writer};
use strata_index::text::{
    Analyzer, Options, Query, Scoring, Scratch, Source, TextDelta, TextIndex, TextPart, search, stats,
};
use strata_index::{Keys, Sight};

struct NoKeys;

impl Keys for NoKeys {
    fn key(&self, _slot: u32) -> &[u8] {
        b""
    }
}

fn part(documents: &[(u8, String)], analyzer: &Analyzer) -> TextPart {
    let mut delta = TextDelta::new();
    for (slot, (field, text)) in documents.iter().enumerate() {
        delta.add(slot as u32 * 2, &[(0, text), (*field, "more of it")], analyzer);
    }
    delta.freeze()
}

fn encoded(part: &TextPart) -> Vec<u8> {
    let mut writer = Writer::default();
    part.encode(&mut writer);
    writer.bytes
}

/// Whatever was read answers every query, with what sense it has.
fn ask(part: &TextPart, analyzer: &Analyzer) {
    let (from, to) = (vec![0; part.slots() as usize], vec![1; part.slots() as usize]);
    let sight = Sight { at: 0, from: &from, to: &to, hidden: None, only: None };
    let sources = [Source { index: TextIndex::Part(part), sight, blocks: None, keys: &NoKeys }];
    for text in ["red fox", "\"red fox\"", "f* -red", "+more title:red", "\"of i\"*"] {
        let query = Query::parse(text, &["title"], analyzer);
        search(&query, &sources, &stats(&sources), &Scoring::default(), 3, true, &mut Scratch::default());
    }
}

fn documents() -> impl Strategy<Value = Vec<(u8, String)>> {
    let text = prop_oneof![
        4 => "(red|fox|jumps|café|x{1,3}| ){0,12}",
        1 => Just("red ".repeat(600)),
        1 => any::<String>(),
    ];
    prop::collection::vec((0..3_u8, text), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damage_is_told_or_harmless(
        documents in documents(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
    ) {
        let analyzer = Analyzer::new(Options::default());
        let part = part(&documents, &analyzer);
        let bytes = encoded(&part);
        prop_assert_eq!(TextPart::decode(&mut Reader::new(&bytes)), Ok(part.clone()));
        ask(&part, &analyzer);

        let mut flipped = bytes.clone();
        flips.iter().for_each(|(at, byte)| *at.get_mut(&mut flipped) = *byte);
        let short = &bytes[..end.index(bytes.len())];
        prop_assert!(TextPart::decode(&mut Reader::new(short)).is_err());
        if let Ok(other) = TextPart::decode(&mut Reader::new(&flipped)) {
            ask(&other, &analyzer);
            // What is believed is written as it was read, but for numbers that took more bytes than they need.
            prop_assert_eq!(TextPart::decode(&mut Reader::new(&encoded(&other))), Ok(other));
        }
    }

    #[test]
    fn noise_is_told_or_harmless(bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..200)) {
        if let Ok(part) = TextPart::decode(&mut Reader::new(&bytes)) {
            ask(&part, &Analyzer::new(Options::default()));
        }
    }
}

#[test]
fn a_huge_count_takes_no_memory() {
    for at in 0..5 {
        let mut writer = Writer::default();
        (0..at).for_each(|_| writer.blob(&[]));
        writer.number(u64::MAX);
        assert!(TextPart::decode(&mut Reader::new(&writer.bytes)).is_err());
    }
}

#[test]
fn a_word_that_stands_nowhere_is_damage() {
    let read = |mark: u8, positions: &[u8]| {
        let mut writer = Writer::default();
        // A document of one term; its length, postings, bytes of positions; the posting.
        for blob in [&[1], b"a", &[1, 1, positions.len() as u8][..], &[1, mark], positions] {
            writer.blob(blob);
        }
        TextPart::decode(&mut Reader::new(&writer.bytes)).is_ok()
    };
    assert!(read(1, &[0]) && read(2, &[0, 1]));
    assert!(!read(0, &[]) && !read(1, &[]) && !read(1, &[0, 0]) && !read(2, &[0]));
}
