//! Finding the place that a path names, by headers and keys alone.

use std::ops::Range;

use super::Kind;
use super::path::Step;
use super::shape::{self, Container, Malformed};

/// Where a path leads in a value, or where it stops leading.
#[derive(Debug)]
pub(super) enum Place {
    /// There is a value. `entry` is all that goes when it is deleted: in a map it begins with the key.
    Found { parent: Option<Container>, entry: Range<usize>, value_at: usize },
    /// Step number `step` names a key that this map lacks; the map ends at `end`.
    NoKey { map: Container, step: usize, end: usize },
    /// Step number `step` names an element that this list lacks.
    NoElement { list: Container, step: usize },
    /// Step number `step` does not fit what it would be taken in.
    Unfit { step: usize, kind: Kind },
}

/// Follow `steps` from the root of the value that is all of `bytes`.
///
/// `resolved` is told, for each step that is an index, its number and which element that is from the start.
#[inline]
pub(super) fn walk(bytes: &[u8], steps: &[Step], mut resolved: impl FnMut(usize, usize)) -> Result<Place, Malformed> {
    let (mut parent, mut entry_at, mut value_at) = (None, 0, 0);
    for (step, wanted) in steps.iter().enumerate() {
        let inside = shape::container(bytes, value_at)?;
        (entry_at, value_at) = match (wanted, inside) {
            (Step::Key(key), Some(map)) if map.kind == Kind::Map => match find_key(bytes, &map, key.as_bytes())? {
                Ok(pair) => pair,
                Err(end) => return Ok(Place::NoKey { map, step, end }),
            },
            (Step::Index(index), Some(list)) if list.kind == Kind::List => {
                let Some(element) = resolve(*index, list.count) else { return Ok(Place::NoElement { list, step }) };
                resolved(step, element);
                let at = shape::end_of_run(bytes, list.body, element)?;
                (at, at)
            }
            (Step::End, Some(list)) if list.kind == Kind::List => return Ok(Place::NoElement { list, step }),
            _ => return Ok(Place::Unfit { step, kind: shape::kind_at(bytes, value_at)? }),
        };
        parent = inside;
    }
    Ok(Place::Found { parent, entry: entry_at..shape::end_of(bytes, value_at)?, value_at })
}

/// The number from the start of element `index` in a list of `count`, if there is one.
#[inline]
pub(super) fn resolve(index: i64, count: usize) -> Option<usize> {
    let from_start = if index < 0 { index.checked_add_unsigned(count as u64)? } else { index };
    usize::try_from(from_start).ok().filter(|&element| element < count)
}

/// Offsets of the pair with this key and of its value; the end of the map where there is none.
#[inline]
fn find_key(bytes: &[u8], map: &Container, wanted: &[u8]) -> Result<Result<(usize, usize), usize>, Malformed> {
    let mut at = map.body;
    for _ in 0..map.count {
        let (key, value_at) = shape::key(bytes, at)?;
        // Keys of one map tend to differ at their end, and one byte is cheaper than a call.
        if key.last() == wanted.last() && key == wanted {
            return Ok(Ok((at, value_at)));
        }
        at = shape::end_of(bytes, value_at)?;
    }
    Ok(Err(at))
}
