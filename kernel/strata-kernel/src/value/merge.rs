//! RFC 7396 merge patches: maps merge key by key, null removes, all else replaces.
//!
//! What a merge touches are the leaves of the patch. A map of the patch that finds a map, or nothing, is
//! merely walked through, so that two merges may both make `a` and each set its own key in it. One that
//! finds anything else replaces it and touches its path, and an empty one is a leaf: it says that there is
//! a map, which deleting that path would undo.

use std::collections::BTreeMap;

use super::path::{Path, Step};
use super::read::{Reader, Token};
use super::{Kind, check, edit, kind, write};
use crate::error::Result;

pub(super) struct Merge {
    /// Where we are.
    place: Path,
    pub touched: Vec<Path>,
    pub out: Vec<u8>,
}

impl Merge {
    /// Apply `patch` to `target`, which stands at `place` (`None`: nothing does).
    pub fn run(place: Path, target: Option<&[u8]>, patch: &[u8]) -> Result<Self> {
        let mut merge = Merge { place, touched: Vec::new(), out: Vec::new() };
        merge.value(target, patch, false, 0)?;
        Ok(merge)
    }

    /// `covered`: an ancestor is in `touched` already.
    fn value(&mut self, target: Option<&[u8]>, patch: &[u8], covered: bool, depth: usize) -> Result<()> {
        check::check_depth(depth)?;
        let mut reader = Reader::new(patch);
        let token = reader.next()?;
        let replaces = match target {
            Some(target) => kind(target)? != Kind::Map,
            None => false,
        };
        let is_leaf = !matches!(token, Token::Map(1..));
        if !covered && (is_leaf || replaces) {
            self.touched.push(self.place.clone());
        }
        let Token::Map(count) = token else {
            self.out.extend_from_slice(patch);
            return Ok(());
        };
        let target = target.filter(|_| !replaces).unwrap_or(&[0x80]);
        self.map(target, pairs(&mut reader, count)?, covered || replaces, depth)
    }

    fn map<'a>(&mut self, target: &[u8], patch: Vec<(&'a str, &'a [u8])>, covered: bool, depth: usize) -> Result<()> {
        let start = self.out.len();
        let index: BTreeMap<&str, usize> = patch.iter().enumerate().map(|(n, (key, _))| (*key, n)).collect();
        let mut used = vec![false; patch.len()];
        let mut reader = Reader::new(target);
        let Token::Map(count) = reader.next()? else { unreachable!("the caller looked") };
        let mut kept = 0;
        for (key, old) in pairs(&mut reader, count)? {
            if let Some(&n) = index.get(key) {
                used[n] = true;
                kept += self.pair(key, Some(old), patch[n].1, covered, depth)?;
            } else {
                write::string(&mut self.out, key);
                self.out.extend_from_slice(old);
                kept += 1;
            }
        }
        // What is new comes last, in the order of the patch.
        for (key, patch) in patch.iter().zip(used).filter_map(|(pair, used)| (!used).then_some(pair)) {
            kept += self.pair(key, None, patch, covered, depth)?;
        }
        let mut header = Vec::with_capacity(5);
        write::map_header(&mut header, kept);
        edit::replace(&mut self.out, start..start, &header);
        Ok(())
    }

    /// Merge at one key; returns how many pairs it left there.
    fn pair(&mut self, key: &str, old: Option<&[u8]>, patch: &[u8], covered: bool, depth: usize) -> Result<usize> {
        self.place.0.push(Step::Key(key.to_owned()));
        let removes = kind(patch)? == Kind::Null;
        if !removes {
            write::string(&mut self.out, key);
            self.value(old, patch, covered, depth + 1)?;
        } else if !covered {
            self.touched.push(self.place.clone());
        }
        self.place.0.pop();
        Ok(usize::from(!removes))
    }
}

/// The pairs of a map whose header `reader` has passed.
fn pairs<'a>(reader: &mut Reader<'a>, count: usize) -> Result<Vec<(&'a str, &'a [u8])>> {
    (0..count).map(|_| Ok((reader.key()?, reader.skip_value()?))).collect()
}
