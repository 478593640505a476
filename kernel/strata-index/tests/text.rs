//! Search against a plain loop over documents: the same hits, the same scores to the last bit.
//!
//! A world is a handful of documents over a small vocabulary, spread over several sources (parts, deltas, parts made of
//! either), each in a random slot, visible or not, hidden or not, let through by a filter or not.

use proptest::prelude::*;
use strata_index::text::{
    Analyzer, Clause, DROPPED, Hits, Language, Occur, Options, Origin, Pattern, Query, Scoring, Scratch, Source, Stats,
    TextDelta, TextIndex, TextPart, build, search, stats,
};
use strata_index::{Bits, Blocks, Keys, Sight, bytes};

const FIELDS: [&str; 3] = ["title", "body", "body.tags"];
const AT: u64 = 5;

#[derive(Debug, Clone)]
struct Document {
    texts: Vec<(u8, String)>,
    from: u64,
    to: u64,
    hidden: bool,
    admitted: bool,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Delta,
    Frozen,
    Decoded,
    /// Two parts made one, with other slots.
    Merged,
}

fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "red",
        "red",
        "red",
        "fox",
        "fox",
        "the",
        "Foxes",
        "jump",
        "jumped",
        "reddish",
        "café",
        "cafe",
        "don't",
        "well-known",
    ]);
    prop::collection::vec(word, 0..8).prop_map(|words| words.join(" "))
}

fn document() -> impl Strategy<Value = Document> {
    let version = || prop_oneof![3 => Just(0_u64), 1 => 0..8_u64];
    let flag = || prop::bool::weighted(0.8);
    (prop::collection::vec((0..3_u8, words()), 0..4), version(), version(), flag(), flag()).prop_map(
        |(texts, from, length, seen, admitted)| Document {
            texts,
            from,
            to: if length == 0 { u64::MAX } else { from + length },
            hidden: !seen,
            admitted,
        },
    )
}

fn form() -> impl Strategy<Value = Form> {
    prop::sample::select(vec![Form::Delta, Form::Frozen, Form::Decoded, Form::Merged])
}

fn query() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "red",
        "fox",
        "the",
        "jumping",
        "\"red fox\"",
        "\"the fox jump\"",
        "+red",
        "+fox",
        "-reddish",
        "-\"fox red\"",
        "re*",
        "title:red",
        "+body:fox",
        "body.tags:\"red fox\"",
        "other:fox",
        "j*",
        "body:j*",
        "\"fox re\"*",
        "+well-known",
        "cafe",
        "don't",
        "-the",
        "nothing",
        "\"",
    ]);
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.join(" "))
}

fn options() -> impl Strategy<Value = Options> {
    let language = prop::sample::select(vec![None, Some(Language::English), Some(Language::French)]);
    (language, any::<bool>(), any::<bool>()).prop_map(|(language, stop_words, fold_accents)| Options {
        language,
        stop_words,
        fold_accents,
    })
}

fn scoring() -> impl Strategy<Value = Scoring> {
    let weights = prop::collection::vec(prop::sample::select(vec![0.0, 0.1, 1.0, 2.5]), 0..3);
    weights.prop_map(|weights| Scoring { k1: 1.2, b: 0.75, weights })
}

enum Index {
    Delta(TextDelta),
    Part(TextPart),
}

/// One source with all that it borrows from.
struct Shelf {
    index: Index,
    from: Vec<u64>,
    to: Vec<u64>,
    hidden: Bits,
    only: Bits,
    blocks: Option<Blocks>,
    keys: Vec<Vec<u8>>,
}

impl Keys for Shelf {
    fn key(&self, slot: u32) -> &[u8] {
        &self.keys[slot as usize]
    }
}

impl Shelf {
    /// With the documents in some order of slots, one free here and there, or so many that they lie in several windows.
    fn new(documents: &[(&Document, Vec<u8>)], form: Form, stride: u32, analyzer: &Analyzer) -> Shelf {
        let count = documents.len() * 2 * stride as usize;
        let mut shelf = Shelf {
            index: Index::Delta(TextDelta::new()),
            from: vec![0; count],
            to: vec![u64::MAX; count],
            hidden: Bits::default(),
            only: Bits::default(),
            blocks: None,
            keys: vec![Vec::new(); count],
        };
        // Later ones first, so that slots are not added in order.
        let slot = |number: usize| ((documents.len() - 1 - number) * 2 + number % 2) as u32 * stride;
        let mut deltas = [TextDelta::new(), TextDelta::new()];
        for (number, (document, key)) in documents.iter().enumerate() {
            let at = slot(number) as usize;
            (shelf.from[at], shelf.to[at], shelf.keys[at]) = (document.from, document.to, key.clone());
            if document.hidden {
                shelf.hidden.set(at as u32);
            }
            if document.admitted {
                shelf.only.set(at as u32);
            }
            let texts: Vec<(u8, &str)> = document.texts.iter().map(|(field, text)| (*field, text.as_str())).collect();
            match form {
                Form::Merged => deltas[number % 2].add(number as u32, &texts, analyzer),
                _ => deltas[0].add(at as u32, &texts, analyzer),
            }
        }
        let [first, second] = deltas;
        shelf.index = match form {
            Form::Delta => Index::Delta(first),
            Form::Frozen => Index::Part(first.freeze()),
            Form::Decoded => Index::Part(through_bytes(&first.freeze())),
            Form::Merged => {
                let part = second.freeze();
                let moved = |odd: usize| -> Vec<u32> {
                    (0..documents.len()).map(|n| if n % 2 == odd { slot(n) } else { DROPPED }).collect()
                };
                let (even, odd) = (moved(0), moved(1));
                Index::Part(build(&[
                    Origin { index: TextIndex::Delta(&first), slots: Some(&even) },
                    Origin { index: TextIndex::Part(&part), slots: Some(&odd) },
                ]))
            }
        };
        if documents.len().is_multiple_of(2) {
            shelf.blocks = Some(Blocks::of(&shelf.from, &shelf.to));
        }
        shelf
    }

    fn source(&self, filtered: bool) -> Source<'_> {
        let index = match &self.index {
            Index::Delta(delta) => TextIndex::Delta(delta),
            Index::Part(part) => TextIndex::Part(part),
        };
        let only = filtered.then_some(&self.only);
        Source {
            index,
            sight: Sight { at: AT, from: &self.from, to: &self.to, hidden: Some(&self.hidden), only },
            blocks: self.blocks.as_ref(),
            keys: self,
        }
    }
}

fn through_bytes(part: &TextPart) -> TextPart {
    let mut writer = bytes::Writer::default();
    part.encode(&mut writer);
    let mut reader = bytes::Reader::new(&writer.bytes);
    let read = TextPart::decode(&mut reader).expect("we wrote it");
    assert!(reader.is_empty() && read == *part);
    read
}

/// Terms with field and position; texts of one field far from each other.
fn terms(document: &Document, analyzer: &Analyzer) -> Vec<(u8, u32, String)> {
    let mut terms = Vec::new();
    for (nth, (field, text)) in document.texts.iter().enumerate() {
        analyzer
            .terms(text, |term, position, _| terms.push((*field, nth as u32 * 100_000 + position, term.to_owned())));
    }
    terms
}

fn fits(pattern: &Pattern, term: &str) -> bool {
    match pattern {
        Pattern::Term(wanted) => wanted == term,
        Pattern::Prefix { start, term: own } => term.starts_with(start) || own.as_deref() == Some(term),
    }
}

/// How often, weighted; 0: not at all.
fn count(clause: &Clause, terms: &[(u8, u32, String)], scoring: &Scoring) -> f64 {
    let weight = |field: u8| scoring.weights.get(field as usize).copied().unwrap_or(1.0);
    let begins = terms.iter().filter(|(field, position, _)| {
        clause.field.is_none_or(|wanted| wanted == *field)
            && clause.words.iter().all(|(offset, pattern)| {
                terms.iter().any(|(f, p, term)| f == field && *p == position + offset && fits(pattern, term))
            })
    });
    let mut counts = [0_u32; 3];
    begins.for_each(|(field, ..)| counts[*field as usize] += 1);
    (0..3).map(|field| weight(field) * f64::from(counts[field as usize])).sum()
}

struct Expected {
    key: Vec<u8>,
    score: f64,
}

/// What a book says BM25 is.
fn expected(
    documents: &[(&Document, Vec<u8>)],
    query: &Query,
    scoring: &Scoring,
    filtered: bool,
    analyzer: &Analyzer,
) -> (Stats, Vec<Expected>) {
    let seen = documents.iter().filter(|(d, _)| d.from <= AT && AT < d.to && !d.hidden);
    let seen: Vec<_> =
        seen.map(|(d, key)| (*d, key, terms(d, analyzer))).filter(|(.., terms)| !terms.is_empty()).collect();
    let length: usize = seen.iter().map(|(.., terms)| terms.len()).sum();
    let n = seen.len() as f64;
    let mut hits = Vec::new();
    for (document, key, terms) in &seen {
        let (mut score, mut any, mut fit) = (0.0, false, true);
        for clause in query.clauses() {
            let tf = count(clause, terms, scoring);
            fit &= match clause.occur {
                Occur::Should => true,
                Occur::Must => tf > 0.0,
                Occur::Not => tf == 0.0,
            };
            if tf == 0.0 || clause.occur == Occur::Not {
                continue;
            }
            any = true;
            let df = seen.iter().filter(|(.., terms)| count(clause, terms, scoring) > 0.0).count() as f64;
            let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
            let shape = 1.0 - scoring.b + scoring.b * terms.len() as f64 / (length as f64 / n);
            score += idf * (scoring.k1 + 1.0) * tf / (tf + scoring.k1 * shape);
        }
        if any && fit && (document.admitted || !filtered) {
            hits.push(Expected { key: (*key).clone(), score });
        }
    }
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.key.cmp(&b.key)));
    (Stats { documents: seen.len() as u64, length: length as u64 }, hits)
}

fn run(
    shelves: &[Shelf],
    query: &Query,
    scoring: &Scoring,
    k: usize,
    filtered: bool,
    scratch: &mut Scratch,
) -> (Stats, Hits) {
    let sources: Vec<Source> = shelves.iter().map(|shelf| shelf.source(filtered)).collect();
    let stats = stats(&sources);
    (stats, search(query, &sources, &stats, scoring, k, true, scratch))
}

fn found(shelves: &[Shelf], hits: &Hits) -> Vec<(Vec<u8>, f64)> {
    hits.hits.iter().map(|hit| (shelves[hit.source].keys[hit.slot as usize].clone(), hit.score)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_finds_what_a_loop_finds(
        documents in prop::collection::vec((document(), 0..3_usize), 0..24),
        forms in prop::collection::vec(form(), 3),
        texts in prop::collection::vec(query(), 1..4),
        (options, scoring) in (options(), scoring()),
        k in prop_oneof![0..6_usize, Just(100)],
        (filtered, quiet, alike) in any::<(bool, bool, bool)>(),
        stride in prop_oneof![Just(1_u32), Just(700)],
    ) {
        let analyzer = Analyzer::new(options);
        let mut documents = documents;
        // Few texts, so that many documents score alike.
        for number in 3..documents.len() {
            if alike {
                documents[number].0.texts = documents[number % 3].0.texts.clone();
            }
        }
        if quiet {
            documents.iter_mut().for_each(|(d, _)| (d.from, d.to) = (0, u64::MAX));
        }
        let keyed = |number: usize| format!("k{}", number * 7919 % 100).into_bytes();
        let all: Vec<_> = documents.iter().enumerate().map(|(n, (d, source))| (d, keyed(n), *source)).collect();
        let shelf = |wanted: Option<usize>, form: Form| {
            let own: Vec<_> = all.iter().filter(|(.., source)| wanted.is_none_or(|wanted| wanted == *source)).map(|(d, key, _)| (*d, key.clone())).collect();
            Shelf::new(&own, form, stride, &analyzer)
        };
        let spread: Vec<Shelf> = forms.iter().enumerate().map(|(n, form)| shelf(Some(n), *form)).collect();
        let one = [shelf(None, Form::Frozen)];
        let plain: Vec<_> = all.iter().map(|(d, key, _)| (*d, key.clone())).collect();
        let mut scratch = Scratch::default();
        for text in texts {
            let query = Query::parse(&text, &FIELDS, &analyzer);
            let (counted, hits) = run(&spread, &query, &scoring, k, filtered, &mut scratch);
            let (other, same) = run(&one, &query, &scoring, k, filtered, &mut scratch);
            prop_assert_eq!(counted, other);
            // To the last bit, however the rows are spread.
            prop_assert_eq!(found(&spread, &hits), found(&one, &same));
            prop_assert_eq!((hits.matched, hits.cut), (same.matched, same.cut));
            let (numbers, wanted) = expected(&plain, &query, &scoring, filtered, &analyzer);
            prop_assert_eq!(counted, numbers);
            prop_assert_eq!(hits.matched as usize, wanted.len());
            prop_assert_eq!(hits.hits.len(), wanted.len().min(k));
            prop_assert_eq!(hits.cut.is_some(), wanted.len() > k);
            // A book's formula rounds otherwise, so near ties may change places.
            for (hit, wanted) in found(&spread, &hits).iter().zip(&wanted) {
                prop_assert!((hit.1 - wanted.score).abs() < 1e-12, "{} is not {}", hit.1, wanted.score);
            }
            let all = run(&spread, &query, &scoring, 1000, filtered, &mut scratch).1;
            let every = found(&spread, &all);
            prop_assert!(every.is_sorted_by(|a, b| a.1 > b.1 || a.1 == b.1 && a.0 < b.0), "ties are broken by key");
            prop_assert_eq!(&found(&spread, &hits), &every[..every.len().min(k)]);
            prop_assert_eq!(hits.cut, every.get(k).map(|(_, score)| *score));
            let mut keys: Vec<_> = every.into_iter().map(|(key, _)| key).collect();
            let mut wanted: Vec<_> = wanted.into_iter().map(|hit| hit.key).collect();
            keys.sort();
            wanted.sort();
            prop_assert_eq!(keys, wanted);
            for hit in &all.hits {
                let sum = hit.terms.iter().fold(0.0, |sum, term| sum + term.contribution);
                prop_assert_eq!(sum, hit.score);
            }
        }
    }
}

/// Scores are the same bits on every machine and in every version, or those of two of them could not be compared.
#[test]
fn scores_do_not_depend_on_the_machine() {
    let analyzer = Analyzer::new(Options { language: Some(Language::English), stop_words: true, fold_accents: true });
    let document =
        |text: &str| Document { texts: vec![(0, text.into())], from: 0, to: u64::MAX, hidden: false, admitted: true };
    let texts =
        ["The red fox jumps", "a fox, a red fox and foxes", "nothing red here but red", "jumping dogs all day long"];
    let documents = texts.map(document);
    let keyed: Vec<_> = documents.iter().zip(b'a'..).map(|(document, key)| (document, vec![key])).collect();
    let shelf = [Shelf::new(&keyed, Form::Frozen, 1, &analyzer)];
    let query = Query::parse("red foxes jumped", &[], &analyzer);
    let (_, hits) = run(&shelf, &query, &Scoring::default(), 10, false, &mut Scratch::default());
    let found: Vec<_> = found(&shelf, &hits).into_iter().map(|(key, score)| (key[0] as char, score)).collect();
    let wanted =
        [('a', 1.8511536067519168), ('b', 1.3938591146473178), ('d', 0.6548752503449791), ('c', 0.5109575941075795)];
    assert_eq!(found, wanted);
}
