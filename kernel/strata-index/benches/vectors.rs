//! Nearest vectors: time, recall, building and memory.
//!
//! `cargo bench -p strata-index --bench vectors [-- rows dim [clusters [ratio ...]]]`: 100,000 of 128 dimensions by default.
//! Clusters are normal around 1,000 centres that are normal themselves; `ratio` is how far the centres spread for each unit
//! of a cluster's own spread: 0 is plain normal data, the hard case. Queries are new rows of the same kind.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures the real world")]

use std::time::Instant;

use strata_index::bytes::{Reader, Writer};
use strata_index::vector::{
    Effort, Metric, Quantization, Source, VectorBuild, VectorIndex, VectorOptions, VectorPart, search,
};
use strata_index::{Bits, Keys, Sight};

const QUERIES: usize = 1_000;
const ROUNDS: usize = 3;
const K: usize = 10;

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Of a normal distribution: the sum of twelve even ones, nearly.
    fn normal(&mut self) -> f32 {
        let sum: u64 = (0..3)
            .map(|_| self.next())
            .flat_map(|bits| [bits & 0xffff, (bits >> 16) & 0xffff, (bits >> 32) & 0xffff, bits >> 48])
            .sum();
        sum as f32 / 65_536.0 - 6.0
    }
}

fn rows(count: usize, dim: usize, (clusters, ratio): (usize, f32), seed: u64) -> Vec<f32> {
    let mut chance = Chance(7);
    let centres: Vec<f32> = (0..clusters * dim).map(|_| ratio * chance.normal()).collect();
    let mut chance = Chance(seed);
    let mut rows = Vec::with_capacity(count * dim);
    for _ in 0..count {
        let cluster = chance.next() as usize % clusters;
        rows.extend(centres[cluster * dim..][..dim].iter().map(|centre| centre + chance.normal()));
    }
    rows
}

struct NoKeys;

impl Keys for NoKeys {
    fn key(&self, _: u32) -> &[u8] {
        &[]
    }
}

fn main() {
    let numbers: Vec<f32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (count, dim) = match numbers[..] {
        [count, dim, ..] => (count as usize, dim as usize),
        _ => (100_000, 128),
    };
    let clusters = numbers.get(2).map_or(1_000, |clusters| *clusters as usize);
    let ratios = if numbers.len() > 3 { numbers[3..].to_vec() } else { vec![2.0, 1.0, 0.5, 0.0] };
    println!("{count} rows of {dim} in {clusters} clusters, {QUERIES} queries for {K}");
    for ratio in ratios {
        for metric in [Metric::Euclidean, Metric::Cosine] {
            let options = VectorOptions { dim, metric, quantization: Quantization::F32 };
            measure(options, count, (clusters, ratio));
        }
    }
}

/// Seconds that this thread had a processor, so that a busy machine does not count; where that is not known, seconds.
fn processor(start: Instant) -> f64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = spent.and_then(|spent| spent.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()));
    spent.map_or_else(|| start.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}

fn measure(options: VectorOptions, count: usize, shape: (usize, f32)) {
    println!("-- {:?}, ratio {}", options.metric, shape.1);
    let queries = rows(QUERIES, options.dim, shape, 2);
    let vectors = rows(count, options.dim, shape, 1);
    let start = Instant::now();
    let begun = processor(start);
    let build = VectorBuild::new(options, (0..count as u32).collect(), vectors);
    let trained = processor(start) - begun;
    let cells = build.assign(0..build.len());
    let assigned = processor(start) - begun;
    let part = build.finish(cells, &strata_index::hands::alone);
    println!(
        "built in {:.2} s of processor (centres {trained:.2}, cells {:.2}); {} MB",
        processor(start) - begun,
        assigned - trained,
        part.memory_bytes() / 1_000_000
    );
    let mut writer = Writer::default();
    part.encode(&mut writer);
    let start = Instant::now();
    VectorPart::decode(&mut Reader::new(&writer.bytes)).expect("what was written");
    println!("{} MB on disk, read in {:.0} ms", writer.bytes.len() / 1_000_000, start.elapsed().as_secs_f64() * 1e3);
    drop(writer);
    for share in [1, 2, 10, 100] {
        let only: Option<Bits> =
            (share > 1).then(|| (0..count as u32).filter(|slot| slot % share == 3 % share).collect());
        println!("filter 1 in {share}");
        ask(&part, &queries, only.as_ref());
    }
}

fn ask(part: &VectorPart, queries: &[f32], only: Option<&Bits>) {
    let (from, to) = (vec![1; part.len()], vec![u64::MAX; part.len()]);
    let sight = Sight { at: 5, from: &from, to: &to, hidden: None, only };
    let sources = [Source { index: VectorIndex::Part(part), sight, keys: &NoKeys }];
    let dim = queries.len() / QUERIES;
    let mut truth = Vec::new();
    for effort in [Effort::Exact, Effort::Recall(0.9), Effort::Recall(0.95), Effort::default()] {
        let some = if effort == Effort::Exact && part.len() > 300_000 { 200 } else { QUERIES };
        let (mut times, mut found, mut asked) = (vec![f64::INFINITY; some], 0, 0);
        let mut time = |query: &[f32], number: usize| {
            let start = Instant::now();
            let hits = search(query, &sources, K, effort);
            times[number] = times[number].min(start.elapsed().as_secs_f64() * 1e6);
            hits
        };
        let asking = || queries.chunks_exact(dim).zip(0..some);
        // Others on the machine take their turns, so each query's best time counts, with all others between.
        (1..if effort == Effort::Exact { 1 } else { ROUNDS })
            .for_each(|_| asking().for_each(|(query, number)| drop(time(query, number))));
        for (query, number) in asking() {
            let slots: Vec<u32> = time(query, number).iter().map(|hit| hit.slot).collect();
            if effort == Effort::Exact {
                truth.push(slots);
            } else if let Some(truth) = truth.get(number) {
                found += slots.iter().filter(|slot| truth.contains(slot)).count();
                asked += truth.len();
            }
        }
        times.sort_by(f64::total_cmp);
        let (p50, p95) = (times[times.len() / 2], times[times.len() * 95 / 100]);
        let recall = if asked > 0 { found as f64 / asked as f64 } else { 1.0 };
        println!("  {effort:?}: p50 {p50:.1} us, p95 {p95:.1}, recall {recall:.4}");
    }
}
