//! Vectors as a part keeps them: what is scored, and what comes back.

use super::half;
use super::{DIM_MAX, Metric, Quantization};
use crate::Bits;
use crate::bytes::{Damaged, Reader, Writer};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    dim: usize,
    count: usize,
    numbers: Numbers,
}

#[derive(Debug, Clone, PartialEq)]
enum Numbers {
    F32(Vec<f32>),
    F16(Vec<u16>),
    /// In steps of a scale that each vector has of its own: 127 steps are its largest number.
    I8 {
        codes: Vec<i8>,
        scales: Vec<f32>,
    },
}

/// The largest scale: 128 steps of it are still a number.
const SCALE_MAX: f32 = f32::MAX / 128.0;

impl Kept {
    pub fn new(dim: usize, quantization: Quantization) -> Kept {
        assert!((1..=DIM_MAX).contains(&dim), "a vector has 1 to {DIM_MAX} dimensions");
        let numbers = match quantization {
            Quantization::F32 => Numbers::F32(Vec::new()),
            Quantization::F16 => Numbers::F16(Vec::new()),
            Quantization::I8 => Numbers::I8 { codes: Vec::new(), scales: Vec::new() },
        };
        Kept { dim, count: 0, numbers }
    }

    /// Of `vectors` one after the other.
    pub fn of(dim: usize, quantization: Quantization, vectors: Vec<f32>) -> Kept {
        let mut kept = Kept::new(dim, quantization);
        if quantization == Quantization::F32 {
            Kept { dim, count: vectors.len() / dim, numbers: Numbers::F32(vectors) }
        } else {
            vectors.chunks_exact(dim).for_each(|vector| kept.push(vector));
            kept
        }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    pub fn push(&mut self, vector: &[f32]) {
        assert_eq!(vector.len(), self.dim, "the vector is of another dimension");
        self.count += 1;
        match &mut self.numbers {
            Numbers::F32(numbers) => numbers.extend_from_slice(vector),
            Numbers::F16(numbers) => numbers.extend(vector.iter().map(|&number| half::from_f32(number))),
            Numbers::I8 { codes, scales } => {
                let largest = vector.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
                let scale = (largest / 127.0).min(SCALE_MAX);
                let steps = if scale > 0.0 { 1.0 / f64::from(scale) } else { 0.0 };
                codes.extend(
                    vector.iter().map(|&number| (f64::from(number) * steps).round().clamp(-127.0, 127.0) as i8),
                );
                scales.push(scale);
            }
        }
    }

    /// Do something with a vector; `room` is for unpacking it, used again and again.
    pub fn with<T>(&self, position: usize, room: &mut Vec<f32>, act: impl FnOnce(&[f32]) -> T) -> T {
        let range = position * self.dim..(position + 1) * self.dim;
        room.clear();
        match &self.numbers {
            Numbers::F32(numbers) => return act(&numbers[range]),
            Numbers::F16(numbers) => room.extend(numbers[range].iter().map(|&number| half::to_f32(number))),
            Numbers::I8 { codes, scales } => {
                let scale = scales[position];
                room.extend(codes[range].iter().map(|&code| f32::from(code) * scale));
            }
        }
        act(room)
    }

    pub fn vector(&self, position: usize) -> Vec<f32> {
        self.with(position, &mut Vec::new(), <[f32]>::to_vec)
    }

    /// The codes that are the vectors, and their scales.
    pub fn as_codes(&self) -> Option<(&[i8], &[f32])> {
        match &self.numbers {
            Numbers::I8 { codes, scales } => Some((codes, scales)),
            Numbers::F32(_) | Numbers::F16(_) => None,
        }
    }

    /// Append the vector, of length one where only its direction counts.
    pub fn extend_with(&self, position: usize, metric: Metric, matrix: &mut Vec<f32>) {
        self.with(position, &mut Vec::new(), |vector| {
            let square: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let factor = if metric == Metric::Cosine && square > 0.0 { 1.0 / square.sqrt() } else { 1.0 };
            matrix.extend(vector.iter().map(|&x| (f64::from(x) * factor) as f32));
        });
    }

    /// Bring the vectors into another order: first that of position `order[0]`.
    pub fn reorder(&mut self, order: &[u32]) {
        let dim = self.dim;
        match &mut self.numbers {
            Numbers::F32(numbers) => reorder(numbers, dim, order),
            Numbers::F16(numbers) => reorder(numbers, dim, order),
            Numbers::I8 { codes, scales } => {
                reorder(codes, dim, order);
                reorder(scales, 1, order);
            }
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match &self.numbers {
            Numbers::F32(numbers) => 4 * numbers.capacity(),
            Numbers::F16(numbers) => 2 * numbers.capacity(),
            Numbers::I8 { codes, scales } => codes.capacity() + 4 * scales.capacity(),
        }
    }

    pub fn encode(&self, writer: &mut Writer) {
        match &self.numbers {
            Numbers::F32(numbers) => writer.numbers(numbers),
            Numbers::F16(numbers) => writer.numbers(numbers),
            Numbers::I8 { codes, scales } => {
                writer.numbers(codes);
                writer.numbers(scales);
            }
        }
    }

    /// `count` vectors, all of finite numbers.
    pub fn decode(reader: &mut Reader, dim: usize, quantization: Quantization, count: usize) -> Result<Kept, Damaged> {
        let all = count.checked_mul(dim).ok_or(Damaged("a count is too large"))?;
        let (numbers, finite) = match quantization {
            Quantization::F32 => {
                let numbers = exactly(reader.numbers()?, all)?;
                let finite = all_finite(&numbers);
                (Numbers::F32(numbers), finite)
            }
            Quantization::F16 => {
                let numbers: Vec<u16> = exactly(reader.numbers()?, all)?;
                let finite = numbers.iter().all(|half| half & 0x7c00 != 0x7c00);
                (Numbers::F16(numbers), finite)
            }
            Quantization::I8 => {
                let (codes, scales) = (exactly(reader.numbers()?, all)?, exactly(reader.numbers()?, count)?);
                let finite = scales.iter().all(|scale| (0.0..=SCALE_MAX).contains(scale));
                (Numbers::I8 { codes, scales }, finite)
            }
        };
        if finite { Ok(Kept { dim, count, numbers }) } else { Err(Damaged("a vector has a number that is none")) }
    }
}

/// In place, since there may be no room for all twice: along each cycle, with one row in hand.
fn reorder<T: Copy>(numbers: &mut [T], dim: usize, order: &[u32]) {
    let mut placed = Bits::new(order.len());
    for start in 0..order.len() as u32 {
        if placed.has(start) {
            continue;
        }
        let in_hand = numbers[start as usize * dim..][..dim].to_vec();
        let mut at = start;
        while placed.set(at) && order[at as usize] != start {
            let from = order[at as usize];
            numbers.copy_within(from as usize * dim..(from as usize + 1) * dim, at as usize * dim);
            at = from;
        }
        numbers[at as usize * dim..][..dim].copy_from_slice(&in_hand);
    }
}

pub(super) fn exactly<T>(numbers: Vec<T>, count: usize) -> Result<Vec<T>, Damaged> {
    if numbers.len() == count { Ok(numbers) } else { Err(Damaged("lengths do not fit each other")) }
}

/// Of all, not up to the first that is not: such a loop is done many numbers at a time.
pub(super) fn all_finite(numbers: &[f32]) -> bool {
    numbers.chunks(4096).all(|chunk| chunk.iter().fold(true, |finite, number| finite & number.is_finite()))
}
