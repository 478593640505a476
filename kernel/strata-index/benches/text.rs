//! What text search costs: indexing, freezing, bytes, and queries of several kinds.
//!
//! `cargo bench -p strata-index --bench text`, with a word behind it for some queries only. 50,000 documents of 15 words by Zipf's law, and three words that are in about
//! 200, 1,000 and 4,000 of them. Medians of many rounds.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures the real world")]

use std::time::Instant;

use strata_index::bytes::{Reader, Writer};
use strata_index::text::{
    Analyzer, Language, Options, Query, Scoring, Scratch, Source, TextDelta, TextIndex, TextPart, search, stats,
};
use strata_index::{Bits, Blocks, Keys, Sight};

const DOCUMENTS: u64 = 50_000;
const VOCABULARY: u64 = 30_000;

fn main() {
    let texts: Vec<String> = (0..DOCUMENTS).map(text).collect();
    let english = Analyzer::new(Options { language: Some(Language::English), stop_words: true, fold_accents: true });
    let delta = index("English", &texts, &english);
    index("no stems", &texts, &Analyzer::new(Options::default()));
    let bytes: usize = texts.iter().map(String::len).sum();
    println!("delta: {:.1} MB in memory, of {:.1} MB of text", delta.memory_bytes() as f64 / 1e6, bytes as f64 / 1e6);
    let rows = Rows::new();
    queries("delta", &[TextIndex::Delta(&delta)], &rows, &english);
    let part = part(delta);
    queries("part", &[TextIndex::Part(&part)], &rows, &english);
    let fields = two_fields(&texts, &english);
    queries("two fields", &[TextIndex::Delta(&fields)], &rows, &english);
    let spread: Vec<TextDelta> = (0..8).map(|nth| every_eighth(&texts, nth, &english)).collect();
    let spread: Vec<TextIndex> = spread.iter().map(TextIndex::Delta).collect();
    queries("8 deltas", &spread, &rows, &english);
}

fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn text(number: u64) -> String {
    let ending = |rank: u64| ["", "ing", "ed", "s", "ation"][(rank % 5) as usize];
    let word = |nth: u64| {
        // Ranks by a log-uniform law, which is Zipf's.
        let share = mix(number * 16 + nth) as f64 / u64::MAX as f64;
        let rank = ((VOCABULARY as f64).powf(share) as u64).min(VOCABULARY) - 1;
        let letters = |n: u64| char::from(b"bcdfglmnprst"[(mix(rank) >> (4 * n)) as usize % 12]);
        let vowel = |n: u64| char::from(b"aeiou"[(mix(rank) >> (5 * n)) as usize % 5]);
        let stem: String = (0..2 + rank % 2).flat_map(|n| [letters(n), vowel(n + 3)]).collect();
        format!("{stem}{}{}", char::from(b'k' + (rank % 8) as u8), ending(rank))
    };
    let mut words: Vec<String> = (0..15).map(word).collect();
    for (nth, (word, of)) in [("quartz", 250), ("violet", 50), ("window", 12)].into_iter().enumerate() {
        if mix(number * 3 + nth as u64 + 1_000_000_000).is_multiple_of(of) {
            words[nth * 4] = word.to_owned();
        }
    }
    if number % 1_000 == 7 {
        (words[0], words[1]) = ("quartz".into(), "window".into());
    }
    words.join(" ")
}

fn index(name: &str, texts: &[String], analyzer: &Analyzer) -> TextDelta {
    let mut delta = TextDelta::new();
    let start = Instant::now();
    for (slot, text) in texts.iter().enumerate() {
        delta.add(slot as u32, &[(0, text)], analyzer);
    }
    println!("indexed, {name}: {:.2} us a document", micros(start) / texts.len() as f64);
    delta
}

fn two_fields(texts: &[String], analyzer: &Analyzer) -> TextDelta {
    let mut delta = TextDelta::new();
    for (slot, text) in texts.iter().enumerate() {
        let (title, body) = text.split_at(text.len() / 3);
        delta.add(slot as u32, &[(0, title), (1, body)], analyzer);
    }
    delta
}

fn every_eighth(texts: &[String], nth: usize, analyzer: &Analyzer) -> TextDelta {
    let mut delta = TextDelta::new();
    for (slot, text) in texts.iter().enumerate().filter(|(slot, _)| slot % 8 == nth) {
        delta.add(slot as u32, &[(0, text)], analyzer);
    }
    delta
}

fn part(delta: TextDelta) -> TextPart {
    let start = Instant::now();
    let part = delta.freeze();
    println!("frozen in {:.1} ms; {:.1} MB in memory", micros(start) / 1e3, part.memory_bytes() as f64 / 1e6);
    let mut writer = Writer::default();
    let start = Instant::now();
    part.encode(&mut writer);
    println!("encoded in {:.1} ms: {:.1} MB", micros(start) / 1e3, writer.bytes.len() as f64 / 1e6);
    let start = Instant::now();
    let part = TextPart::decode(&mut Reader::new(&writer.bytes)).expect("we wrote it");
    println!("decoded in {:.1} ms", micros(start) / 1e3);
    part
}

/// What rows are visible: all, or not all.
struct Rows {
    from: Vec<u64>,
    to: Vec<u64>,
    ended: Vec<u64>,
    hidden: Bits,
    tenth: Bits,
    keys: Vec<[u8; 8]>,
}

impl Keys for Rows {
    fn key(&self, slot: u32) -> &[u8] {
        &self.keys[slot as usize]
    }
}

impl Rows {
    fn new() -> Rows {
        let ended = |n: u64| if mix(n + 77).is_multiple_of(10) { DOCUMENTS } else { u64::MAX };
        Rows {
            from: (0..DOCUMENTS).collect(),
            to: vec![u64::MAX; DOCUMENTS as usize],
            ended: (0..DOCUMENTS).map(ended).collect(),
            hidden: (0..DOCUMENTS as u32).filter(|n| mix(u64::from(*n) + 99).is_multiple_of(20)).collect(),
            tenth: (0..DOCUMENTS as u32).filter(|n| mix(u64::from(*n) + 55).is_multiple_of(10)).collect(),
            keys: (0..DOCUMENTS).map(u64::to_be_bytes).collect(),
        }
    }

    fn all(&self) -> Sight<'_> {
        Sight { at: u64::MAX - 1, from: &self.from, to: &self.to, hidden: None, only: None }
    }

    fn some(&self) -> Sight<'_> {
        Sight { to: &self.ended, hidden: Some(&self.hidden), ..self.all() }
    }

    fn filtered(&self) -> Sight<'_> {
        Sight { only: Some(&self.tenth), ..self.all() }
    }
}

fn queries(name: &str, indexes: &[TextIndex], rows: &Rows, analyzer: &Analyzer) {
    println!("{name}:");
    let cases = [
        ("three words", "quartz violet window", rows.all(), false),
        ("  a tenth ended, a twentieth hidden", "quartz violet window", rows.some(), false),
        ("  a tenth pass the filter", "quartz violet window", rows.filtered(), false),
        ("  explained", "quartz violet window", rows.all(), true),
        ("a rare word", "quartz", rows.all(), false),
        ("must and not", "+violet window -quartz", rows.all(), false),
        ("phrase", "\"quartz window\"", rows.all(), false),
        ("prefix of few", "quar*", rows.all(), false),
        ("prefix of many", "b*", rows.all(), false),
    ];
    let mut scratch = Scratch::default();
    let wanted = std::env::args().nth(1).filter(|word| !word.starts_with('-')).unwrap_or_default();
    for (case, text, sight, explain) in cases.into_iter().filter(|(case, ..)| case.contains(&wanted)) {
        let query = Query::parse(text, &[], analyzer);
        let blocks = Blocks::of(sight.from, sight.to);
        let sources: Vec<Source> =
            indexes.iter().map(|index| Source { index: *index, sight, blocks: Some(&blocks), keys: rows }).collect();
        let counted = stats(&sources);
        let mut ask = || search(&query, &sources, &counted, &Scoring::default(), 10, explain, &mut scratch);
        let matched = ask().matched;
        println!("  {case:36} {:8.1} us  {matched} matched", median(|| drop(ask())));
    }
    let blocks = Blocks::of(&rows.from, &rows.to);
    let source = |index: &_| Source { index: *index, sight: rows.all(), blocks: Some(&blocks), keys: rows };
    let sources: Vec<Source> = indexes.iter().map(source).collect();
    println!("  {:36} {:8.1} us", "statistics from nothing", median(|| _ = std::hint::black_box(stats(&sources))));
}

fn median(mut work: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..2_001)
        .map(|_| {
            let start = Instant::now();
            work();
            micros(start)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}
