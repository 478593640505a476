//! BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"), as Lucene and FTS5 have it.
//!
//! ```text
//! idf          = ln(1 + (N - df + 0.5) / (df + 0.5))
//! tf           = sum over fields of weight · count
//! contribution = idf · (k1 + 1) · tf / (tf + k1 · (1 - b + b · length / average length))
//! ```
//!
//! Only additions, multiplications and divisions of f64 in a fixed order, so the same bits come out everywhere; for that
//! reason the logarithm is our own.

use super::postings::Mark;

#[derive(Debug, Clone, PartialEq)]
pub struct Scoring {
    /// How much further occurrences of a word count: 0 or more.
    pub k1: f64,
    /// How much long documents are marked down: 0 to 1.
    pub b: f64,
    /// By field number; 1 where there is none. A field whose weight is not above 0 is not searched.
    pub weights: Vec<f64>,
}

impl Default for Scoring {
    fn default() -> Scoring {
        Scoring { k1: 1.2, b: 0.75, weights: Vec::new() }
    }
}

/// Of all visible documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub documents: u64,
    /// Their lengths together.
    pub length: u64,
}

impl Stats {
    pub fn average_length(&self) -> f64 {
        if self.length == 0 { 1.0 } else { self.length as f64 / self.documents as f64 }
    }
}

/// What an occurrence counts, by field; 0: the field is not searched.
pub(super) struct Weights(Vec<f64>);

impl Weights {
    #[inline]
    pub fn of(&self, field: u8) -> f64 {
        self.0.get(field as usize).copied().unwrap_or(1.0)
    }

    #[inline]
    pub fn count(&self, mark: Mark) -> f64 {
        self.of(mark.field()) * f64::from(mark.count())
    }

    /// Of one field alone.
    pub fn only(&self, field: u8) -> Weights {
        let mut weights = vec![0.0; 256];
        weights[field as usize] = self.of(field);
        Weights(weights)
    }
}

impl Scoring {
    pub(super) fn weights(&self) -> Weights {
        let weight = |weight: &f64| if *weight > 0.0 { weight.min(1e12) } else { 0.0 };
        Weights(self.weights.iter().map(weight).collect())
    }
}

pub(super) fn idf(documents: u64, having: u64) -> f64 {
    let (all, having) = (documents.max(having) as f64, having as f64);
    ln(1.0 + (all - having + 0.5) / (having + 0.5))
}

/// What depends on the query alone.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    flat: f64,
    slope: f64,
    k1: f64,
}

impl Norm {
    pub fn new(scoring: &Scoring, stats: &Stats) -> Norm {
        let Scoring { k1, b, .. } = *scoring;
        Norm { flat: k1 * (1.0 - b), slope: k1 * b / stats.average_length(), k1 }
    }

    /// For so many documents. One occurrence in field 0 weighs `unit`.
    pub fn term(&self, idf: f64, documents: usize, unit: f64) -> Term {
        let gain = idf * (self.k1 + 1.0);
        let short = if documents < 2 * SHORT as usize { 0 } else { SHORT };
        let once = (0..short).map(|length| self.contribution(gain, unit, length)).collect();
        Term { documents: documents as u64, idf, unit, norm: *self, gain, once }
    }

    /// Above 0, so that a document that was found can be told from one that was not.
    #[inline]
    fn contribution(&self, gain: f64, count: f64, length: u32) -> f64 {
        let score = gain * count / (count + (self.flat + self.slope * f64::from(length)));
        score.max(f64::MIN_POSITIVE)
    }
}

/// Lengths below have a place in a table, since a division takes longer than all else.
const SHORT: u32 = 128;

/// A term in a query.
pub(super) struct Term {
    /// How many visible ones have it.
    pub documents: u64,
    pub idf: f64,
    /// What one occurrence in field 0 weighs.
    pub unit: f64,
    norm: Norm,
    gain: f64,
    /// By length, for those that have it once. Empty where few do.
    once: Vec<f64>,
}

impl Term {
    #[inline]
    pub fn contribution(&self, count: f64, length: u32) -> f64 {
        self.norm.contribution(self.gain, count, length)
    }

    /// The same for one in field 0, by length; of short documents only, and none where the term is rare.
    pub fn once(&self) -> &[f64] {
        &self.once
    }
}

/// Of a number from 1 on.
fn ln(number: f64) -> f64 {
    const HIGH: f64 = std::f64::consts::LN_2;
    let bits = number.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mut mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln m = 2 · atanh((m - 1) / (m + 1)), by its series: |ratio| <= 0.172, so 12 terms leave 1e-20.
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let series = (0..12).rev().fold(0.0, |sum, term| sum * square + 1.0 / f64::from(2 * term + 1));
    f64::from(exponent) * HIGH + 2.0 * ratio * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_one() {
        assert_eq!(ln(1.0), 0.0);
        for step in 0..200_000 {
            let number = 1.0 + f64::from(step) * f64::from(step) * 1e-3;
            let error = (ln(number) - number.ln()).abs();
            assert!(error <= 4e-16 * number.ln().max(1e-3), "ln {number} is off by {error}");
        }
    }

    #[test]
    fn rarer_words_and_more_of_them_count_more() {
        assert!(idf(100, 1) > idf(100, 2) && idf(100, 100) > 0.0);
        assert!(idf(3, 5) > 0.0, "statistics that do not fit do no harm");
        let norm = Norm::new(&Scoring::default(), &Stats { documents: 2, length: 20 });
        let term = norm.term(3.0, 1_000, 1.0);
        assert!(term.contribution(2.0, 10) > term.contribution(1.0, 10));
        assert!(term.contribution(1.0, 5) > term.contribution(1.0, 10));
        // At the average length one occurrence is worth the idf.
        assert!((term.contribution(1.0, 10) - 3.0).abs() < 1e-12);
        assert!((0..).zip(term.once()).all(|(length, once)| *once == term.contribution(1.0, length)));
    }
}
