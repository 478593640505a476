//! Values as the judge knows them: a small tree with its own encoder.
//!
//! Nothing here calls the kernel's value code. What the kernel stores is compared byte for byte with what
//! this file encodes, so a mistake in either shows.

use std::fmt;

use sha2::{Digest, Sha256};

/// A place inside a map of maps. Lists are left to the kernel's own property tests.
pub type DocPath = Vec<&'static str>;

#[derive(Debug, Clone, PartialEq)]
pub enum Doc {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Doc>),
    /// In the order in which the keys came.
    Map(Vec<(String, Doc)>),
}

/// A change inside a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    Set(DocPath, Doc),
    Delete(DocPath),
}

/// The value has not the shape that an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfit;

impl Edit {
    pub fn path(&self) -> &DocPath {
        match self {
            Edit::Set(path, _) | Edit::Delete(path) => path,
        }
    }

    fn apply(&self, doc: Option<Doc>) -> Result<Option<Doc>, Unfit> {
        match self {
            Edit::Set(path, value) => set(doc, path, value).map(Some),
            Edit::Delete(path) => match doc {
                None => Ok(None),
                Some(doc) => delete(doc, path).map(Some),
            },
        }
    }
}

/// All of `edits`, or nothing.
pub fn patch(doc: Option<&Doc>, edits: &[Edit]) -> Result<Option<Doc>, Unfit> {
    edits.iter().try_fold(doc.cloned(), |doc, edit| edit.apply(doc))
}

/// Whether they give the document anew.
pub fn replaces(edits: &[Edit]) -> bool {
    edits.iter().any(|edit| matches!(edit, Edit::Set(path, _) if path.is_empty()))
}

fn set(doc: Option<Doc>, path: &[&str], value: &Doc) -> Result<Doc, Unfit> {
    let Some((first, rest)) = path.split_first() else { return Ok(value.clone()) };
    let mut pairs = match doc {
        None => Vec::new(),
        Some(Doc::Map(pairs)) => pairs,
        Some(_) => return Err(Unfit),
    };
    match pairs.iter_mut().find(|(key, _)| key == first) {
        Some((_, inner)) => *inner = set(Some(inner.clone()), rest, value)?,
        None => pairs.push(((*first).to_owned(), set(None, rest, value)?)),
    }
    Ok(Doc::Map(pairs))
}

fn delete(doc: Doc, path: &[&str]) -> Result<Doc, Unfit> {
    let Doc::Map(mut pairs) = doc else { return Err(Unfit) };
    let Some(index) = pairs.iter().position(|(key, _)| key == path[0]) else { return Ok(Doc::Map(pairs)) };
    if path.len() == 1 {
        pairs.remove(index);
    } else {
        pairs[index].1 = delete(pairs[index].1.clone(), &path[1..])?;
    }
    Ok(Doc::Map(pairs))
}

/// What happens at one path can be seen at the other.
pub fn overlap(a: &[&str], b: &[&str]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

impl Doc {
    pub fn at(&self, path: &[&str]) -> Option<&Doc> {
        path.iter().try_fold(self, |doc, step| match doc {
            Doc::Map(pairs) => pairs.iter().find(|(key, _)| key == step).map(|(_, inner)| inner),
            _ => None,
        })
    }

    /// The smallest MessagePack, as docs/design/format.md asks for it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Doc::Null => out.push(0xc0),
            Doc::Int(int) => write_int(out, *int),
            Doc::Text(text) => {
                write_length(out, text.len(), (0xa0, 32), [Some(0xd9), Some(0xda), Some(0xdb)]);
                out.extend_from_slice(text.as_bytes());
            }
            Doc::Bytes(bytes) => {
                write_length(out, bytes.len(), (0, 0), [Some(0xc4), Some(0xc5), Some(0xc6)]);
                out.extend_from_slice(bytes);
            }
            Doc::List(items) => {
                write_length(out, items.len(), (0x90, 16), [None, Some(0xdc), Some(0xdd)]);
                items.iter().for_each(|item| item.write(out));
            }
            Doc::Map(pairs) => {
                write_length(out, pairs.len(), (0x80, 16), [None, Some(0xde), Some(0xdf)]);
                for (key, value) in pairs {
                    Doc::Text(key.clone()).write(out);
                    value.write(out);
                }
            }
        }
    }
}

impl fmt::Display for Doc {
    /// Cut short: a report names the key, and the seed gives the rest again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{self:?}");
        f.write_str(text.get(..80).unwrap_or(&text))
    }
}

fn write_int(out: &mut Vec<u8>, int: i64) {
    let bytes = int.to_be_bytes();
    let (tag, width) = match int {
        -32..=127 => return out.push(int as u8),
        0x80..=0xff => (0xcc, 1),
        0x100..=0xffff => (0xcd, 2),
        0x1_0000..=0xffff_ffff => (0xce, 4),
        0x1_0000_0000.. => (0xcf, 8),
        -0x80..=-33 => (0xd0, 1),
        -0x8000..=-0x81 => (0xd1, 2),
        -0x8000_0000..=-0x8001 => (0xd2, 4),
        _ => (0xd3, 8),
    };
    out.push(tag);
    out.extend_from_slice(&bytes[8 - width..]);
}

/// `short` is the tag that holds lengths below a bound itself; then come those for 1, 2 and 4 bytes of length.
fn write_length(out: &mut Vec<u8>, length: usize, short: (u8, usize), tags: [Option<u8>; 3]) {
    if length < short.1 {
        return out.push(short.0 | length as u8);
    }
    let bytes = (length as u32).to_be_bytes();
    match (length, tags) {
        (0..=0xff, [Some(tag), _, _]) => out.extend_from_slice(&[tag, bytes[3]]),
        (0..=0xffff, [_, Some(tag), _]) => out.extend_from_slice(&[tag, bytes[2], bytes[3]]),
        (_, [_, _, Some(tag)]) => {
            out.push(tag);
            out.extend_from_slice(&bytes);
        }
        _ => unreachable!("every kind has a form for long ones"),
    }
}

/// One entry of a stream, as it is stored: `[kind, time, value, hash]`.
pub fn entry(kind: &str, time: u64, value: &Doc, hash: [u8; 32]) -> Doc {
    Doc::List(vec![Doc::Text(kind.to_owned()), Doc::Int(time as i64), value.clone(), Doc::Bytes(hash.to_vec())])
}

/// What a transaction sees of an entry that it will append.
pub fn provisional_entry(kind: &str, value: &Doc) -> Doc {
    Doc::List(vec![Doc::Text(kind.to_owned()), Doc::Null, value.clone(), Doc::Null])
}

/// The hash of an entry, over the one before it.
pub fn chain(previous: [u8; 32], sequence: u64, kind: &str, time: u64, value: &Doc) -> [u8; 32] {
    let hashed = Doc::List(vec![
        Doc::Bytes(previous.to_vec()),
        Doc::Int(sequence as i64),
        Doc::Text(kind.to_owned()),
        Doc::Int(time as i64),
        value.clone(),
    ]);
    Sha256::digest(hashed.encode()).into()
}
