//! Changing encoded values in place. A container's header holds how many, not how long, so a change
//! costs one shift of the bytes behind it and at most one header: that of the container it is in.

use std::ops::Range;

use super::path::Step;
use super::shape::Container;
use super::{Kind, write};

/// Put `with` where `range` was.
pub(super) fn replace(bytes: &mut Vec<u8>, range: Range<usize>, with: &[u8]) {
    let (end, size) = (range.start + with.len(), bytes.len());
    if with.len() > range.len() {
        bytes.resize(size + with.len() - range.len(), 0);
    }
    if range.end != end {
        bytes.copy_within(range.end..size, end);
    }
    bytes.truncate(size + with.len() - range.len());
    bytes[range.start..end].copy_from_slice(with);
}

/// Write how many elements or pairs `container` has now. What is behind the header may move.
pub(super) fn set_count(bytes: &mut Vec<u8>, container: &Container, count: usize) {
    let mut header = Vec::with_capacity(5);
    match container.kind {
        Kind::Map => write::map_header(&mut header, count),
        _ => write::list_header(&mut header, count),
    }
    replace(bytes, container.at..container.body, &header);
}

/// Add one pair or element, already encoded, at `at` inside `container`.
pub(super) fn add(bytes: &mut Vec<u8>, container: &Container, at: usize, entry: &[u8]) {
    // The entry first: it lies behind the header, whose size may change.
    replace(bytes, at..at, entry);
    set_count(bytes, container, container.count + 1);
}

pub(super) fn remove(bytes: &mut Vec<u8>, container: &Container, entry: Range<usize>) {
    replace(bytes, entry, &[]);
    set_count(bytes, container, container.count - 1);
}

/// The pair that makes `keys` lead to `value`: each but the last holds a new map with the next one alone.
pub(super) fn nested(keys: &[Step], value: &[u8]) -> Vec<u8> {
    let names = || keys.iter().filter_map(|step| if let Step::Key(key) = step { Some(key) } else { None });
    let mut out = Vec::with_capacity(value.len() + names().map(|key| key.len() + 6).sum::<usize>());
    for (n, key) in names().enumerate() {
        if n > 0 {
            write::map_header(&mut out, 1);
        }
        write::string(&mut out, key);
    }
    out.extend_from_slice(value);
    out
}
