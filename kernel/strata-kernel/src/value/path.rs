//! Paths: places inside a value.
//!
//! In the log a path is itself a value, a list of its steps: a string is a map key, an integer a list
//! index, null the end of a list. So `$.a[-1][-]` is `["a", -1, null]`, and any MessagePack reader can show it.

use std::fmt::Write as _;
use std::ops::Range;

use super::read::{Reader, Token};
use super::walk::{self, Place};
use super::write;
use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A key of a map.
    Key(String),
    /// An element of a list; negative from the end.
    Index(i64),
    /// The place after the last element of a list.
    End,
}

/// Steps from the root of a value. No steps: the root.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// The whole value.
    pub fn root() -> Self {
        Path::default()
    }

    /// As people write it: `$.a['odd key'][0][-1][-]`. Unlike paths give unlike texts.
    pub fn render(&self) -> String {
        render(&self.0)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        write::list_header(out, self.0.len());
        for step in &self.0 {
            match step {
                Step::Key(key) => write::string(out, key),
                Step::Index(index) => write::int(out, *index),
                Step::End => write::null(out),
            }
        }
    }

    /// Read what `encode` wrote, which `bytes` begin with, and return how many of them it was.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize)> {
        let mut reader = Reader::new(bytes);
        Path::read(&mut reader).map(|path| (path, reader.position()))
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let Token::List(count) = reader.next()? else {
            return Err(Error::InvalidInput("a path has to be a list of steps".into()));
        };
        // Grown as steps come: a step in memory is far larger than the byte that announces it.
        let mut steps = Vec::with_capacity(count.min(16));
        for _ in 0..count {
            steps.push(match reader.next()? {
                Token::String(key) => Step::Key(key.to_owned()),
                Token::Int(index) => Step::Index(index),
                Token::Null => Step::End,
                other => return Err(Error::InvalidInput(format!("{other:?} is no step of a path"))),
            });
        }
        Ok(Path(steps))
    }
}

impl From<Vec<Step>> for Path {
    fn from(steps: Vec<Step>) -> Self {
        Path(steps)
    }
}

/// The byte range of the value at `path`; `None` when any step is missing or does not fit.
///
/// Passes over what stands in front of it and decodes nothing.
pub fn find(bytes: &[u8], path: &Path) -> Option<Range<usize>> {
    match walk::walk(bytes, &path.0, |_, _| ()) {
        Ok(Place::Found { entry, value_at, .. }) => Some(value_at..entry.end),
        _ => None,
    }
}

/// The region that a read of `path` depends on: indices counted from the start. Where a list has no such element it is
/// the list's own path, since only a change of its structure can make one.
pub fn region(bytes: &[u8], path: &Path) -> Path {
    let mut region = path.clone();
    let place = walk::walk(bytes, &path.0, |step, element| region.0[step] = Step::Index(element as i64));
    if let Ok(Place::NoElement { step, .. }) = place {
        region.0.truncate(step);
    }
    region
}

/// Whether what happens at one path can be seen at the other: they are equal, or one leads through the other.
///
/// A negative index or the end may be any element as long as nobody has looked at the list, so it meets
/// every index that counts from the start. Two negative ones meet only if equal: both count from the end
/// of one list, as a change of its length is told as a change of the list (see `patch`).
pub fn overlaps(a: &Path, b: &Path) -> bool {
    a.0.iter().zip(&b.0).all(|(a, b)| meet(a, b))
}

fn meet(a: &Step, b: &Step) -> bool {
    match (a, b) {
        (Step::Key(a), Step::Key(b)) => a == b,
        (Step::Key(_), _) | (_, Step::Key(_)) => false,
        (Step::Index(a), Step::Index(b)) => a == b || (*a < 0) != (*b < 0),
        (Step::End, _) | (_, Step::End) => true,
    }
}

pub(super) fn render(steps: &[Step]) -> String {
    let mut out = String::from("$");
    for step in steps {
        match step {
            Step::Key(key) if is_plain(key) => {
                out.push('.');
                out.push_str(key);
            }
            Step::Key(key) => quote(&mut out, key),
            Step::Index(index) => write!(out, "[{index}]").expect("a String takes all"),
            Step::End => out.push_str("[-]"),
        }
    }
    out
}

/// Whether a key can stand behind a dot: a name as in most languages, and in ASCII, so that nothing
/// invisible stands bare in a message.
fn is_plain(key: &str) -> bool {
    let mut letters = key.bytes();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == b'_')
}

fn quote(out: &mut String, key: &str) {
    out.push_str("['");
    for letter in key.chars() {
        match letter {
            '\'' => out.push_str("\\'"),
            '\\' => out.push_str("\\\\"),
            // As RFC 9535 writes them.
            control if control.is_control() => write!(out, "\\u{:04x}", control as u32).expect("a String takes all"),
            other => out.push(other),
        }
    }
    out.push_str("']");
}
