//! Search against a model that scores every row.

use proptest::prelude::*;

use super::kept::Kept;
use super::{
    Effort, Hit, Metric, Quantization, Source, VectorBuild, VectorDelta, VectorIndex, VectorOptions, VectorPart, search,
};
use crate::bytes::{Reader, Writer};
use crate::hands::alone;
use crate::{Bits, Keys, Sight};

/// What is known of a row, and where it lies.
#[derive(Debug, Clone)]
struct Row {
    vector: Vec<f32>,
    from: u64,
    to: u64,
    hidden: bool,
    only: bool,
    source: usize,
}

/// Keys that are the rows' numbers.
struct Numbered(Vec<[u8; 4]>);

impl Keys for Numbered {
    fn key(&self, slot: u32) -> &[u8] {
        &self.0[slot as usize]
    }
}

/// The rows of one source, by slot.
struct Place {
    part: Option<VectorPart>,
    delta: VectorDelta,
    from: Vec<u64>,
    to: Vec<u64>,
    hidden: Bits,
    only: Bits,
    keys: Numbered,
}

const SOURCES: usize = 4;

/// Even sources are deltas, odd ones parts. Every third slot has no vector.
fn places(options: VectorOptions, rows: &[Row], spread: impl Fn(&Row) -> usize) -> Vec<Place> {
    (0..SOURCES)
        .map(|source| {
            let mut place = Place {
                part: None,
                delta: VectorDelta::new(options),
                from: Vec::new(),
                to: Vec::new(),
                hidden: Bits::default(),
                only: Bits::default(),
                keys: Numbered(Vec::new()),
            };
            for (number, row) in rows.iter().enumerate().filter(|(_, row)| spread(row) == source) {
                let slot = place.from.len() as u32;
                place.delta.add(slot, &row.vector);
                if row.hidden {
                    place.hidden.set(slot);
                }
                if row.only {
                    place.only.set(slot);
                }
                for _ in 0..1 + number % 2 {
                    place.from.push(row.from);
                    place.to.push(row.to);
                    place.keys.0.push((number as u32).to_be_bytes());
                }
            }
            // The last has cells, although it is small.
            if source == SOURCES - 1 {
                let rows = place.delta.rows.clone();
                let count = rows.len().div_ceil(8);
                place.part = Some(reread(
                    &VectorBuild::with_cells(options, rows.slots, rows.kept, count, &alone).finish_all(&alone),
                ));
            } else if source % 2 == 1 {
                place.part = Some(reread(&place.delta.clone().freeze(&alone)));
            }
            place
        })
        .collect()
}

fn reread(part: &VectorPart) -> VectorPart {
    let mut writer = Writer::default();
    part.encode(&mut writer);
    let mut reader = Reader::new(&writer.bytes);
    let again = VectorPart::decode(&mut reader).expect("what was written is read");
    assert!(reader.is_empty());
    assert_eq!(&again, part);
    again
}

/// The hits as numbers of rows, with their scores.
fn found(places: &[Place], query: &[f32], at: u64, filtered: bool, k: usize, effort: Effort) -> Vec<(u32, f64)> {
    let sources: Vec<Source> = places
        .iter()
        .map(|place| Source {
            index: place.part.as_ref().map_or(VectorIndex::Delta(&place.delta), VectorIndex::Part),
            sight: Sight {
                at,
                from: &place.from,
                to: &place.to,
                hidden: Some(&place.hidden),
                only: filtered.then_some(&place.only),
            },
            keys: &place.keys,
        })
        .collect();
    let number = |hit: &Hit| u32::from_be_bytes(places[hit.source].keys.0[hit.slot as usize]);
    search(query, &sources, k, effort).iter().map(|hit| (number(hit), hit.score)).collect()
}

/// What the query should give, scored plainly.
fn model(options: VectorOptions, rows: &[Row], query: &[f32], at: u64, filtered: bool) -> Vec<(u32, f64)> {
    let score = |row: &Row| {
        let mut delta = VectorDelta::new(options);
        delta.add(0, &row.vector);
        let kept = VectorIndex::Delta(&delta).vector(0).expect("it was added");
        plain_score(options.metric, query, &kept)
    };
    let shown = |row: &Row| row.from <= at && at < row.to && !row.hidden && (row.only || !filtered);
    let mut hits: Vec<(u32, f64)> =
        (0_u32..).zip(rows).filter(|(_, row)| shown(row)).map(|(number, row)| (number, score(row))).collect();
    hits.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    hits
}

/// In the order of summation that is ours: 16 lanes, then halves onto each other.
fn plain_sum(terms: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0; 16];
    terms.enumerate().for_each(|(index, term)| lanes[index % 16] += term);
    for width in [8, 4, 2, 1] {
        (0..width).for_each(|lane| lanes[lane] += lanes[lane + width]);
    }
    lanes[0]
}

fn plain_score(metric: Metric, query: &[f32], row: &[f32]) -> f64 {
    let pairs = || query.iter().zip(row).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    let product = plain_sum(pairs().map(|(a, b)| a * b));
    match metric {
        Metric::Dot => product,
        Metric::Euclidean => 1.0 / (1.0 + plain_sum(pairs().map(|(a, b)| (a - b) * (a - b))).sqrt()),
        Metric::Cosine => {
            let lengths = plain_sum(pairs().map(|(a, _)| a * a)).sqrt() * plain_sum(pairs().map(|(_, b)| b * b)).sqrt();
            if lengths > 0.0 { (product / lengths).clamp(-1.0, 1.0) } else { 0.0 }
        }
    }
}

fn options(dim: usize) -> impl Strategy<Value = VectorOptions> {
    let metric = prop_oneof![Just(Metric::Cosine), Just(Metric::Euclidean), Just(Metric::Dot)];
    let quantization = prop_oneof![Just(Quantization::F32), Just(Quantization::F16), Just(Quantization::I8)];
    (metric, quantization).prop_map(move |(metric, quantization)| VectorOptions { dim, metric, quantization })
}

/// Numbers of many kinds: few, so that scores tie; usual; very large and very small.
fn vector(dim: usize) -> impl Strategy<Value = Vec<f32>> {
    let finite = any::<f32>().prop_map(|number| if number.is_finite() { number } else { 0.0 });
    prop_oneof![
        3 => prop::collection::vec((-1..2_i8).prop_map(f32::from), dim),
        4 => prop::collection::vec(-1.0_f32..1.0, dim),
        1 => prop::collection::vec(finite, dim),
        1 => (prop::collection::vec(-1.0_f32..1.0, dim), -40..36_i32)
            .prop_map(|(vector, power)| vector.iter().map(|number| number * 10_f32.powi(power)).collect()),
    ]
}

fn row(dim: usize) -> impl Strategy<Value = Row> {
    (vector(dim), 0..6_u64, 1..8_u64, prop::bool::weighted(0.2), prop::bool::weighted(0.3), 0..SOURCES).prop_map(
        |(vector, from, last, hidden, only, source)| Row { vector, from, to: from + last, hidden, only, source },
    )
}

fn history() -> impl Strategy<Value = (VectorOptions, Vec<Row>, Vec<f32>)> {
    prop_oneof![1..5_usize, 15..20_usize, 30..70_usize]
        .prop_flat_map(|dim| (options(dim), prop::collection::vec(row(dim), 0..80), vector(dim)))
}

proptest! {
    #[test]
    fn exact_search_equals_the_model(
        (options, rows, query) in history(), at in 0..8_u64, filtered: bool, k in 0..20_usize,
    ) {
        let mut expected = model(options, &rows, &query, at, filtered);
        expected.truncate(k);
        let places = |spread: fn(&Row) -> usize| places(options, &rows, spread);
        for places in [places(|row| row.source), places(|row| row.from as usize % 2), places(|_| SOURCES - 1)] {
            let hits = found(&places, &query, at, filtered, k, Effort::Exact);
            prop_assert_eq!(&hits, &expected);
            prop_assert!(hits.iter().all(|(_, score)| score.is_finite()));
            // Some may be missed now, but there are as many, each with its score.
            let hits = found(&places, &query, at, filtered, k, Effort::Recall(0.5));
            prop_assert_eq!(hits.len(), expected.len());
            let all = model(options, &rows, &query, at, filtered);
            prop_assert!(hits.iter().all(|hit| all.contains(hit)));
        }
    }

    #[test]
    fn any_bytes_are_a_part_or_damaged(
        (options, rows, query) in history(), cells in 0..5_usize, place: prop::sample::Index, byte: u8, cut: bool,
    ) {
        let kept = Kept::of(options.dim, options.quantization, rows.iter().flat_map(|row| row.vector.clone()).collect());
        let build = VectorBuild::with_cells(options, (0..rows.len() as u32).collect(), kept, cells, &alone);
        let mut writer = Writer::default();
        build.finish_all(&alone).encode(&mut writer);
        let mut bytes = writer.bytes;
        let index = place.index(bytes.len());
        bytes[index] = byte;
        if cut {
            bytes.truncate(index);
        }
        if let Ok(part) = VectorPart::decode(&mut Reader::new(&bytes)) && part.slots_end() < 1000 && !part.is_empty() {
            let (from, to) = (vec![0; part.slots_end()], vec![9; part.slots_end()]);
            let sight = Sight { at: 1, from: &from, to: &to, hidden: None, only: None };
            let keys = Numbered(vec![[0; 4]; part.slots_end()]);
            let index = VectorIndex::Part(&part);
            let query = if index.options().dim == query.len() { query } else { vec![0.5; index.options().dim] };
            let hits = search(&query, &[Source { index, sight, keys: &keys }], 5, Effort::default());
            prop_assert!(hits.iter().all(|hit| hit.score.is_finite()));
        }
    }

    #[test]
    fn random_bytes_are_damaged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(VectorPart::decode(&mut Reader::new(&bytes)).is_err());
    }
}

#[test]
fn vectors_come_back_bit_for_bit() {
    let options = VectorOptions { dim: 3, metric: Metric::Cosine, quantization: Quantization::F32 };
    let vector = [1.0e-40, -3.5, f32::MAX];
    let mut delta = VectorDelta::new(options);
    delta.add(7, &vector);
    assert_eq!(VectorIndex::Delta(&delta).vector(7).as_deref(), Some(&vector[..]));
    assert_eq!(VectorIndex::Delta(&delta).vector(6), None);
    let part = delta.freeze(&alone);
    assert_eq!(VectorIndex::Part(&part).vector(7).as_deref(), Some(&vector[..]));
    assert_eq!(part.slots_end(), 8);
}
