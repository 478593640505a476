//! Rows with their codes.

use super::codes::Codes;
use super::kept::Kept;
use super::{DIM_MAX, Metric, Quantization, VectorOptions};
use crate::bytes::{Damaged, Reader, Writer};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rows {
    pub options: VectorOptions,
    /// Of each row.
    pub slots: Vec<u32>,
    pub kept: Kept,
    pub codes: Codes,
}

impl Rows {
    pub fn new(options: VectorOptions) -> Rows {
        let kept = Kept::new(options.dim, options.quantization);
        Rows { options, slots: Vec::new(), kept, codes: Codes::default() }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn memory_bytes(&self) -> usize {
        self.kept.memory_bytes() + self.codes.memory_bytes() + 4 * self.slots.capacity()
    }

    pub fn encode(&self, writer: &mut Writer) {
        let VectorOptions { dim, metric, quantization } = self.options;
        [dim as u64, metric as u64, quantization as u64].iter().for_each(|number| writer.number(*number));
        writer.numbers(&self.slots);
        self.kept.encode(writer);
        self.codes.encode(writer);
    }

    pub fn decode(reader: &mut Reader) -> Result<Rows, Damaged> {
        let options = decode_options(reader)?;
        let slots: Vec<u32> = reader.numbers()?;
        let kept = Kept::decode(reader, options.dim, options.quantization, slots.len())?;
        let codes = Codes::decode(reader, &kept)?;
        Ok(Rows { options, slots, kept, codes })
    }
}

fn decode_options(reader: &mut Reader) -> Result<VectorOptions, Damaged> {
    let dim = reader.count()?;
    if !(1..=DIM_MAX).contains(&dim) {
        return Err(Damaged("a dimension that no vector has"));
    }
    let metrics = [Metric::Cosine, Metric::Euclidean, Metric::Dot];
    let quantizations = [Quantization::F32, Quantization::F16, Quantization::I8];
    let metric = *metrics.get(reader.count()?).ok_or(Damaged("a metric that there is not"))?;
    let quantization = *quantizations.get(reader.count()?).ok_or(Damaged("a quantization that there is not"))?;
    Ok(VectorOptions { dim, metric, quantization })
}
