//! Patches: changes inside a value, made on its bytes.
//!
//! A patch is applied to the newest value at commit. It tells which regions it touched, and two patches whose
//! regions do not overlap give the same value in either order: that is why siblings may be changed at the
//! same time. What a region is:
//!
//!   set of a key, or of an element that is there   its path, indices counted from the start
//!   delete of a key                                its path, also when it is missing
//!   anything that changes how many elements        the path of the list
//!   merge                                          see `merge`
//!   set of the root                                the root
//!
//! Maps made on the way do not widen the region. Invariant (attacked in `tests/laws.rs`): regions that do not
//! overlap commute, and a read at a path that overlaps no region gives the same before and after.
//!
//! In the log a patch is a list of `[code, path, value]`, delete without the value; codes are those of `Op::code`.

use std::fmt;

use super::merge::Merge;
use super::path::{self, Path, Step};
use super::read::{Reader, Token};
use super::shape::{self, Malformed};
use super::walk::{self, Place, walk};
use super::{Kind, MAX_DEPTH, check, edit, write};
use crate::error::{Error, Result};

/// One change. The bytes of values are checked values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Replace or add; makes the document and maps on the way; at `End` appends.
    Set { path: Path, value: Vec<u8> },
    /// Remove a key or an element; what is missing needs no removal.
    Delete { path: Path },
    /// Put in front of element `path[-1]`; at `End` or the length, append.
    Insert { path: Path, value: Vec<u8> },
    /// RFC 7396 at `path`; makes the document and maps on the way.
    Merge { path: Path, patch: Vec<u8> },
}

/// Whether a patch gives a value anew rather than change the one there is. What was said of that, as when it expires, is
/// no longer so then.
pub fn replaces(ops: &[Op]) -> bool {
    ops.iter().any(|op| matches!(op, Op::Set { path, .. } if path.0.is_empty()))
}

/// What a patch made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patched {
    /// The new document. `None` where there was none and nothing made one (deletes alone do not).
    pub value: Option<Vec<u8>>,
    /// The regions that were touched (see the head of this file), sorted, none inside another.
    pub touched: Vec<Path>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchError {
    /// The document does not have what the op needs at `path` (rendered).
    Refused { path: String, reason: String },
    /// A limit, or bytes that are no value.
    Other(Error),
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatchError::Refused { path, reason } => write!(f, "path {path}: {reason}"),
            PatchError::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PatchError {}

impl From<Error> for PatchError {
    fn from(error: Error) -> Self {
        PatchError::Other(error)
    }
}

impl From<Malformed> for PatchError {
    fn from(malformed: Malformed) -> Self {
        PatchError::Other(malformed.into())
    }
}

impl From<PatchError> for Error {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Other(error) => error,
            refused => Error::InvalidInput(refused.to_string()),
        }
    }
}

/// Apply `ops` in order, all or nothing. `None`: there is no document yet.
///
/// Limits hold for the result; what stands between two ops may pass them.
pub fn apply(document: Option<&[u8]>, ops: &[Op]) -> Result<Patched, PatchError> {
    let mut draft = Draft::of(document, ops);
    for op in ops {
        draft.apply(op)?;
    }
    draft.finish()
}

/// A document while it is changed.
struct Draft {
    bytes: Vec<u8>,
    exists: bool,
    touched: Vec<Path>,
    /// An op may have gone too deep. Only then is the result measured: it takes a walk over all of it.
    maybe_too_deep: bool,
}

impl Draft {
    fn of(document: Option<&[u8]>, ops: &[Op]) -> Self {
        let before = document.unwrap_or(&[]);
        let mut bytes = Vec::with_capacity(before.len() + ops.iter().map(Op::growth).sum::<usize>());
        bytes.extend_from_slice(before);
        Draft { bytes, exists: document.is_some(), touched: Vec::new(), maybe_too_deep: false }
    }

    fn apply(&mut self, op: &Op) -> Result<(), PatchError> {
        match op {
            Op::Set { path, value } => self.set(path, value),
            Op::Delete { path } => self.delete(path),
            Op::Insert { path, value } => self.insert(path, value),
            Op::Merge { path, patch } => self.merge(path, patch),
        }
    }

    fn finish(self) -> Result<Patched, PatchError> {
        check::check_size(self.bytes.len())?;
        if self.maybe_too_deep && self.exists {
            check::depth(&self.bytes)?;
        }
        Ok(Patched { value: self.exists.then_some(self.bytes), touched: outermost(self.touched) })
    }

    fn set(&mut self, path: &Path, value: &[u8]) -> Result<(), PatchError> {
        self.create();
        self.note_depth(path, value)?;
        let (place, mut region) = self.locate(path)?;
        match place {
            Place::Found { entry, value_at, .. } => edit::replace(&mut self.bytes, value_at..entry.end, value),
            Place::NoKey { map, step, end } => {
                let keys = only_keys(path, step)?;
                edit::add(&mut self.bytes, &map, end, &edit::nested(keys, value));
            }
            Place::NoElement { list, step } if path.0[step..] == [Step::End] => {
                let end = shape::end_of_run(&self.bytes, list.body, list.count)?;
                edit::add(&mut self.bytes, &list, end, value);
                region.0.truncate(step);
            }
            Place::NoElement { list, step } => return Err(no_element(path, step, list.count)),
            Place::Unfit { step, kind } => return Err(unfit(path, step, kind)),
        }
        self.touch(region);
        Ok(())
    }

    fn delete(&mut self, path: &Path) -> Result<(), PatchError> {
        if path.0.is_empty() {
            return Err(refused(path, "the whole document cannot be deleted by a patch; delete its key".into()));
        }
        if !self.exists {
            self.touch(missing_region(path.clone(), 0));
            return Ok(());
        }
        let (place, mut region) = self.locate(path)?;
        match place {
            Place::Found { parent, entry, .. } => {
                let parent = parent.expect("a path with steps ends inside a container");
                edit::remove(&mut self.bytes, &parent, entry);
                if parent.kind == Kind::List {
                    region.0.pop();
                }
            }
            Place::NoKey { step, .. } | Place::NoElement { step, .. } => region = missing_region(region, step),
            Place::Unfit { step, kind } => return Err(unfit(path, step, kind)),
        }
        self.touch(region);
        Ok(())
    }

    fn insert(&mut self, path: &Path, value: &[u8]) -> Result<(), PatchError> {
        let Some((last @ (Step::Index(_) | Step::End), to_list)) = path.0.split_last() else {
            return Err(refused(path, "an insert needs a path that ends with a list index".into()));
        };
        self.create();
        self.note_depth(path, value)?;
        let mut region = Path(to_list.to_vec());
        let place = walk(&self.bytes, to_list, |step, element| region.0[step] = Step::Index(element as i64))?;
        let last_step = to_list.len();
        let list_at = match place {
            Place::Found { value_at, .. } => value_at,
            Place::NoKey { step, .. } => return Err(missing(path, step)),
            Place::NoElement { list, step } => return Err(no_element(path, step, list.count)),
            Place::Unfit { step, kind } => return Err(unfit(path, step, kind)),
        };
        let Some(list) = shape::container(&self.bytes, list_at)?.filter(|list| list.kind == Kind::List) else {
            return Err(unfit(path, last_step, shape::kind_at(&self.bytes, list_at)?));
        };
        let Some(before) = insert_position(last, list.count) else {
            return Err(no_element(path, last_step, list.count));
        };
        let at = shape::end_of_run(&self.bytes, list.body, before)?;
        edit::add(&mut self.bytes, &list, at, value);
        self.touch(region);
        Ok(())
    }

    fn merge(&mut self, path: &Path, patch: &[u8]) -> Result<(), PatchError> {
        if path.0.is_empty() && !self.exists {
            let merge = Merge::run(Path::root(), None, patch)?;
            return self.adopt(path, 0..0, merge);
        }
        self.create();
        let (place, region) = self.locate(path)?;
        match place {
            Place::Found { entry, value_at, .. } => {
                let merge = Merge::run(region, Some(&self.bytes[value_at..entry.end]), patch)?;
                self.adopt(path, value_at..entry.end, merge)
            }
            Place::NoKey { map, step, end } => {
                let keys = only_keys(path, step)?;
                let merge = Merge::run(region, None, patch)?;
                self.note_depth(path, &merge.out)?;
                edit::add(&mut self.bytes, &map, end, &edit::nested(keys, &merge.out));
                merge.touched.into_iter().for_each(|region| self.touch(region));
                Ok(())
            }
            Place::NoElement { list, step } => Err(no_element(path, step, list.count)),
            Place::Unfit { step, kind } => Err(unfit(path, step, kind)),
        }
    }

    /// Put what a merge made where its target was.
    fn adopt(&mut self, path: &Path, range: std::ops::Range<usize>, merge: Merge) -> Result<(), PatchError> {
        self.note_depth(path, &merge.out)?;
        edit::replace(&mut self.bytes, range, &merge.out);
        self.exists = true;
        merge.touched.into_iter().for_each(|region| self.touch(region));
        Ok(())
    }

    /// Make the document, as an empty map, where there is none.
    fn create(&mut self) {
        if !self.exists {
            self.exists = true;
            self.bytes.clear();
            write::map_header(&mut self.bytes, 0);
        }
    }

    /// Where `path` leads, and `path` with its indices counted from the start as far as it leads.
    fn locate(&self, path: &Path) -> Result<(Place, Path), Malformed> {
        let mut resolved = path.clone();
        let place = walk(&self.bytes, &path.0, |step, element| resolved.0[step] = Step::Index(element as i64))?;
        Ok((place, resolved))
    }

    fn note_depth(&mut self, path: &Path, value: &[u8]) -> Result<(), Malformed> {
        self.maybe_too_deep |= match MAX_DEPTH.checked_sub(path.0.len()) {
            // A value is at most as deep as it is long, which spares small ones the walk.
            Some(room) => value.len() > room && shape::depth(value, room)? > room,
            None => true,
        };
        Ok(())
    }

    fn touch(&mut self, region: Path) {
        // A run of appends touches one list.
        if self.touched.last() != Some(&region) {
            self.touched.push(region);
        }
    }
}

/// The regions that lie in no other one, sorted.
fn outermost(mut regions: Vec<Path>) -> Vec<Path> {
    // In order, a path stands before all that it leads to.
    regions.sort_unstable();
    regions.dedup_by(|inner, outer| inner.0.starts_with(&outer.0));
    regions
}

/// In front of which element an insert goes; the length is the end. Negative ones name existing elements.
fn insert_position(step: &Step, count: usize) -> Option<usize> {
    match step {
        Step::Index(index) if usize::try_from(*index) == Ok(count) => Some(count),
        Step::Index(index) => walk::resolve(*index, count),
        _ => Some(count),
    }
}

/// The region of a delete that found nothing from step number `step` on.
///
/// Its path, as long as only keys are missing. Where a list would have to be there it is the place of
/// that list, since a map made there makes this delete an error.
fn missing_region(mut path: Path, step: usize) -> Path {
    let keys = path.0[step..].iter().take_while(|step| matches!(step, Step::Key(_))).count();
    path.0.truncate(step + keys);
    path
}

/// The steps from `step` on, which have to be keys: only maps are made on the way.
fn only_keys(path: &Path, step: usize) -> Result<&[Step], PatchError> {
    let steps = &path.0[step..];
    match steps.iter().position(|step| !matches!(step, Step::Key(_))) {
        None => Ok(steps),
        Some(other) => Err(missing(path, step + other - 1)),
    }
}

#[cold]
fn refused(path: &Path, reason: String) -> PatchError {
    PatchError::Refused { path: path.render(), reason }
}

/// Step number `step` names a key that is not there, and a list was wanted of it.
#[cold]
fn missing(path: &Path, step: usize) -> PatchError {
    refused(path, format!("{} is missing, and lists are not made on the way; set it first", name(path, step + 1)))
}

#[cold]
fn no_element(path: &Path, step: usize, count: usize) -> PatchError {
    let what = name(path, step);
    refused(
        path,
        match &path.0[step] {
            Step::Index(index) => format!("index {index} is beyond the end of {what}, which has {count} elements"),
            _ => format!("nothing stands at the end of {what}; [-] is for appending"),
        },
    )
}

#[cold]
fn unfit(path: &Path, step: usize, kind: Kind) -> PatchError {
    let wanted = if matches!(path.0[step], Step::Key(_)) { Kind::Map } else { Kind::List };
    refused(path, format!("{} is {kind}, not {wanted}", name(path, step)))
}

/// What the first `steps` of a path lead to, in words.
fn name(path: &Path, steps: usize) -> String {
    match path.0[..steps].split_last() {
        None => "the document".into(),
        Some((Step::Key(key), _)) => format!("'{key}'"),
        Some(_) => path::render(&path.0[..steps]),
    }
}

impl Op {
    fn code(&self) -> i64 {
        match self {
            Op::Set { .. } => 0,
            Op::Delete { .. } => 1,
            Op::Insert { .. } => 2,
            Op::Merge { .. } => 3,
        }
    }

    pub fn path(&self) -> &Path {
        self.parts().0
    }

    fn parts(&self) -> (&Path, Option<&[u8]>) {
        match self {
            Op::Set { path, value } | Op::Insert { path, value } | Op::Merge { path, patch: value } => {
                (path, Some(value))
            }
            Op::Delete { path } => (path, None),
        }
    }

    /// About how much larger it makes a document.
    fn growth(&self) -> usize {
        self.parts().1.map_or(0, |value| value.len() + 16)
    }
}

/// Append `ops` in the form that the log holds.
pub fn encode(ops: &[Op], out: &mut Vec<u8>) {
    write::list_header(out, ops.len());
    for op in ops {
        let (path, value) = op.parts();
        write::list_header(out, 2 + usize::from(value.is_some()));
        write::int(out, op.code());
        path.encode(out);
        out.extend_from_slice(value.unwrap_or(&[]));
    }
}

/// Read what `encode` wrote, and nothing else. Values are passed over, not checked.
pub fn decode(bytes: &[u8]) -> Result<Vec<Op>> {
    let mut reader = Reader::new(bytes);
    let Token::List(count) = reader.next()? else { return Err(no_op()) };
    let ops = (0..count).map(|_| decode_op(&mut reader)).collect::<Result<_>>()?;
    if reader.remaining() == 0 { Ok(ops) } else { Err(no_op()) }
}

fn decode_op(reader: &mut Reader<'_>) -> Result<Op> {
    let (Token::List(parts), Token::Int(code)) = (reader.next()?, reader.next()?) else { return Err(no_op()) };
    let path = Path::read(reader)?;
    let mut value = || reader.skip_value().map(<[u8]>::to_vec);
    Ok(match (code, parts) {
        (0, 3) => Op::Set { path, value: value()? },
        (1, 2) => Op::Delete { path },
        (2, 3) => Op::Insert { path, value: value()? },
        (3, 3) => Op::Merge { path, patch: value()? },
        _ => return Err(no_op()),
    })
}

#[cold]
fn no_op() -> Error {
    Error::InvalidInput("the bytes are no list of patch operations".into())
}
