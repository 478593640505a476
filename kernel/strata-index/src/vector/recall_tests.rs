//! Cells: what is found, that as many come as there are, and that equal rows give equal bytes.

use super::kept::Kept;
use super::{Effort, Metric, Quantization, Source, VectorBuild, VectorIndex, VectorOptions, VectorPart, search};
use crate::bytes::Writer;
use crate::hands::{Hands, alone};
use crate::{Bits, Keys, Sight};

const DIM: usize = 16;
const ROWS: usize = 4_000;
const CELLS: usize = 64;
const K: usize = 10;

struct NoKeys;

impl Keys for NoKeys {
    fn key(&self, _: u32) -> &[u8] {
        &[]
    }
}

/// Numbers from -1 to 1, thick in the middle.
fn chance(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let mixed = *seed ^ (*seed >> 31);
    (0..4).map(|part| ((mixed >> (16 * part)) & 0xffff) as f32 / 131_072.0).sum::<f32>() - 1.0
}

/// Around 50 centres that are `apart` times as far from each other as their rows; or around none.
fn rows(count: usize, apart: f32, mut seed: u64) -> Vec<f32> {
    let mut centre_seed = 99;
    let centres: Vec<f32> = (0..50 * DIM).map(|_| apart * chance(&mut centre_seed)).collect();
    let mut rows = Vec::new();
    for number in 0..count {
        rows.extend(centres[number * 7 % 50 * DIM..][..DIM].iter().map(|centre| centre + chance(&mut seed)));
    }
    rows
}

fn build(metric: Metric, quantization: Quantization, apart: f32) -> VectorPart {
    build_with(metric, quantization, apart, CELLS)
}

fn build_with(metric: Metric, quantization: Quantization, apart: f32, cells: usize) -> VectorPart {
    let options = VectorOptions { dim: DIM, metric, quantization };
    let kept = Kept::of(DIM, quantization, rows(ROWS, apart, 1));
    VectorBuild::with_cells(options, (0..ROWS as u32).collect(), kept, cells, &alone).finish_all(&alone)
}

fn slots(part: &VectorPart, query: &[f32], only: Option<&Bits>, k: usize, effort: Effort) -> Vec<u32> {
    let (from, to) = (vec![1; ROWS], vec![9; ROWS]);
    let sight = Sight { at: 1, from: &from, to: &to, hidden: None, only };
    let sources = [Source { index: VectorIndex::Part(part), sight, keys: &NoKeys }];
    search(query, &sources, k, effort).iter().map(|hit| hit.slot).collect()
}

/// The part of the nearest that is found, over 50 queries.
fn recall(part: &VectorPart, apart: f32, only: Option<&Bits>, effort: Effort) -> f64 {
    let queries = rows(50, apart, 2);
    let (mut found, mut all) = (0, 0);
    for query in queries.chunks_exact(DIM) {
        let exact = slots(part, query, only, K, Effort::Exact);
        let near = slots(part, query, only, K, effort);
        assert_eq!(near.len(), exact.len(), "as many come as there are");
        found += near.iter().filter(|slot| exact.contains(slot)).count();
        all += exact.len();
    }
    found as f64 / all as f64
}

#[test]
fn what_is_asked_for_is_found() {
    for metric in [Metric::Cosine, Metric::Euclidean, Metric::Dot] {
        for (quantization, apart) in [(Quantization::F32, 3.0), (Quantization::I8, 1.0), (Quantization::F16, 0.0)] {
            let part = build(metric, quantization, apart);
            let few: Bits = (0..ROWS as u32).filter(|slot| slot % 10 == 3).collect();
            let half: Bits = (0..ROWS as u32).filter(|slot| slot % 2 == 1).collect();
            for only in [None, Some(&half), Some(&few)] {
                let found = recall(&part, apart, only, Effort::default());
                assert!(found >= 0.95, "{metric:?} {quantization:?} {apart}: {found} with {:?}", only.map(Bits::len));
                assert_eq!(recall(&part, apart, only, Effort::Recall(1.0)), 1.0);
            }
        }
    }
}

/// A search that asks for less looks at less: otherwise the cells are of no use.
#[test]
fn effort_is_traded_for_recall() {
    let part = build(Metric::Euclidean, Quantization::F32, 0.0);
    let found = [0.3, 0.7, 0.95].map(|wanted| recall(&part, 0.0, None, Effort::Recall(wanted)));
    assert!(found[0] < 0.85 && found[0] < found[1] && found[1] < found[2], "{found:?}");
    assert!(found[0] > 0.25 && found[1] > 0.6 && found[2] > 0.9, "{found:?}");
}

/// A fifth as many cells as clusters: those that hold several come apart, and what is near is found in few of them.
#[test]
fn cells_follow_clusters() {
    for metric in [Metric::Cosine, Metric::Euclidean, Metric::Dot] {
        let part = build_with(metric, Quantization::F32, 6.0, 10);
        let cells = part.cells.as_ref().map_or(0, |cells| cells.len());
        assert!((45..=70).contains(&cells), "{cells} cells of 50 clusters");
        let found = recall(&part, 6.0, None, Effort::default());
        assert!(found >= 0.9, "{metric:?}: {found}");
    }
}

#[test]
fn equal_rows_are_in_one_cell() {
    let options = VectorOptions { dim: DIM, metric: Metric::Cosine, quantization: Quantization::F32 };
    let kept = Kept::of(DIM, Quantization::F32, rows(1, 1.0, 1).repeat(ROWS));
    let part = VectorBuild::with_cells(options, (0..ROWS as u32).collect(), kept, 1, &alone).finish_all(&alone);
    assert_eq!(part.cells.as_ref().map(|cells| cells.len()), Some(1));
    assert_eq!(slots(&part, &[1.0; DIM], None, ROWS, Effort::default()).len(), ROWS);
}

#[test]
fn as_many_come_as_there_are_wherever_they_lie() {
    let part = build(Metric::Euclidean, Quantization::F32, 3.0);
    // All rows of one cluster, asked for from the midst of another; and more than a filter leaves.
    let far: Bits = (0..ROWS as u32).filter(|slot| slot % 50 == 4).collect();
    let query = &rows(2, 3.0, 5)[..DIM];
    assert_eq!(slots(&part, query, Some(&far), 60, Effort::Recall(0.1)).len(), 60);
    assert_eq!(slots(&part, query, Some(&far), 600, Effort::Recall(0.1)).len(), ROWS / 50);
    assert_eq!(slots(&part, query, None, ROWS + 1, Effort::Recall(0.1)).len(), ROWS);
    assert_eq!(slots(&part, query, Some(&Bits::default()), 5, Effort::Recall(0.1)).len(), 0);
}

#[test]
fn equal_rows_give_equal_bytes() {
    let options = VectorOptions { dim: DIM, metric: Metric::Cosine, quantization: Quantization::F32 };
    let bytes = |part: VectorPart| {
        let mut writer = Writer::default();
        part.encode(&mut writer);
        writer.bytes
    };
    let begin = |hands: Hands, cells: usize| {
        let kept = Kept::of(DIM, Quantization::F32, rows(ROWS, 3.0, 1));
        VectorBuild::with_cells(options, (0..ROWS as u32).collect(), kept, cells, hands)
    };
    let backwards: Hands = &|pieces, work| (0..pieces).rev().for_each(work);
    // Few enough are split.
    for cells in [CELLS, 10] {
        let whole = bytes(begin(&alone, cells).finish_all(&alone));
        assert_eq!(bytes(begin(backwards, cells).finish_all(backwards)), whole);
        let pieces = begin(&alone, cells);
        let assigned = [pieces.assign(0..501), pieces.assign(501..502), pieces.assign(502..ROWS)].concat();
        assert_eq!(bytes(pieces.finish(assigned, backwards)), whole);
    }
}

#[test]
fn vectors_of_cells_come_back() {
    let (all, part) = (rows(ROWS, 1.0, 1), build(Metric::Cosine, Quantization::F32, 1.0));
    for slot in 0..ROWS {
        let vector = VectorIndex::Part(&part).vector(slot as u32);
        assert_eq!(vector.as_deref(), Some(&all[slot * DIM..][..DIM]));
    }
    assert_eq!((part.len(), part.slots_end()), (ROWS, ROWS));
}
