//! Full text: words, phrases and prefixes, ranked by BM25.
//!
//! ```text
//! analyzer   text → words → terms (lower case, accents, stop words, stems)
//! delta      term → postings, growing        build   deltas and parts → one part
//! part       the same, sorted and flat       bytes   a part as bytes, and back
//! query      what is asked for               matches which rows of one index have it
//! search     statistics, scores, the best    spans   where the words stand in a text
//! ```
//!
//! **Layout.** A term's postings are three arrays: slots (ascending in a part), marks (count in the low byte, field in the
//! high one), and the positions of each posting as variable-length differences. A posting is one term in one field of one
//! row; a count above 255 takes several. Positions are walked for phrases only.
//!
//! **Invariant.** What a row contributes depends on its own words, and on statistics over all visible rows of all sources,
//! summed in one order; ties are broken by key. So hits and scores are the same to the last bit however rows are spread
//! over sources, and equal those of an index that was built of the visible rows alone.

mod analyzer;
mod build;
mod bytes;
mod delta;
mod language;
mod matches;
mod part;
mod postings;
mod query;
mod score;
mod search;
mod spans;
mod stop_words;
mod varint;
mod window;

pub use analyzer::{Analyzer, Options};
pub use build::{DROPPED, Origin, build};
pub use delta::TextDelta;
pub use language::Language;
pub use part::TextPart;
pub use postings::TextIndex;
pub use query::{Clause, Occur, Pattern, Query};
pub use score::{Scoring, Stats};
pub use search::{Hit, Hits, Scratch, Source, TermScore, search, stats};
pub use spans::spans;
