//! The rows of damaged runs, as one run.
//!
//! Runs are merged as they are read for all else, but where a frame does not check the rows go on behind it. Each row is
//! looked at as an import looks at a bundle's: what no reader could use is lost, too.
//!
//! The catalogue of a branch stands in its first rows. Where that is lost the MANIFEST still knows the names, so the entries
//! are made again, at the version of the oldest row that needs them: everything is then copied once more with them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;
use super::{Loss, place_of};
use crate::branch::{decode_chunk, encode_chunk};
use crate::error::{Error, Result};
use crate::keyspaces::{CATALOGUE, COMMITS, NOTES, RESERVED, catalogue_key};
use crate::payload::{Note, Number};
use crate::run::{self, Gap, Remains, Row, RunWriter, Spot, parts_of, place_key};
use crate::sabotage;
use crate::store::fresh::{Fresh, end_run};
use crate::store::import::are_paths;
use crate::store::plan::erased_upto;
use crate::store::verify::Progress;
use crate::table::Version;
use crate::value;

/// So often the caller is told.
const STEP_ROWS: u64 = 1024;

/// What came of it.
#[derive(Default)]
pub(super) struct Copied {
    pub runs: Vec<u64>,
    pub rows: u64,
    pub lost: Vec<Loss>,
    pub ranges: Vec<LostRange>,
    /// Branches that may have lost rows.
    pub damaged: BTreeSet<u32>,
    /// Bytes that were read.
    pub bytes: u64,
}

/// Rows between two others of one run.
pub(super) struct LostRange {
    after: Option<Spot>,
    before: Option<Spot>,
    /// By branch, the newest version that the run can have had.
    newest: BTreeMap<u32, u64>,
    otherwise: u64,
}

impl LostRange {
    pub fn covers(&self, branch: u32, keyspace: u32, key: &[u8]) -> bool {
        let key = place_key(branch, keyspace, key);
        self.after.as_ref().is_none_or(|after| after.0 <= key)
            && self.before.as_ref().is_none_or(|before| key <= before.0)
    }

    pub fn newest(&self, branch: u32) -> u64 {
        self.newest.get(&branch).copied().unwrap_or(self.otherwise)
    }
}

/// Entries of catalogues that are made again, by place: version and number.
#[derive(Default)]
struct Repairs(BTreeMap<Vec<u8>, (u64, u32)>);

pub(super) fn copy(source: &Source, fresh: &Fresh, progress: Progress<'_>) -> Result<Copied> {
    let mut copy = Copy::new(source, fresh, Repairs::default())?;
    copy.all(progress)?;
    let needed = copy.needed();
    if needed.0.is_empty() {
        return copy.end();
    }
    let (done, total) = (copy.copied.bytes, copy.total);
    drop(copy);
    let mut copy = Copy::new(source, fresh, needed)?;
    copy.all(&mut |_, _| progress(done, total))?;
    copy.end()
}

struct Copy<'a> {
    source: &'a Source,
    repairs: Vec<(Vec<u8>, (u64, u32))>,
    runs: Vec<Remains>,
    writer: RunWriter,
    last: Option<Spot>,
    /// The newest commit that was written of the branch.
    committed: (u32, u64),
    /// By branch and keyspace, the oldest row.
    seen: BTreeMap<(u32, u32), u64>,
    named: BTreeSet<(u32, u32)>,
    copied: Copied,
    total: u64,
}

impl<'a> Copy<'a> {
    fn new(source: &'a Source, fresh: &Fresh, repairs: Repairs) -> Result<Copy<'a>> {
        let mut repairs: Vec<_> = repairs.0.into_iter().collect();
        repairs.reverse(); // the next at the end
        let mut copy = Copy {
            source,
            repairs,
            runs: Vec::new(),
            writer: fresh.run()?,
            last: None,
            committed: (0, 0),
            seen: BTreeMap::new(),
            named: BTreeSet::new(),
            copied: Copied::default(),
            total: 0,
        };
        for &number in &source.manifest.runs {
            copy.open(number)?;
        }
        copy.total = copy.runs.iter().map(Remains::size).sum();
        Ok(copy)
    }

    fn open(&mut self, number: u64) -> Result<()> {
        let reason = match Remains::open(&*self.source.env.disk, number, &self.source.run_options()) {
            Ok(run) => {
                self.runs.push(run);
                return Ok(());
            }
            Err(Error::Corrupt { reason, .. }) => reason,
            Err(error @ (Error::NeedsKey { .. } | Error::InvalidInput(_))) => error.to_string(),
            Err(other) => return Err(other),
        };
        self.copied.lost.push(Loss { file: run::path(number), what: "a run", reason, ..Loss::default() });
        let newest = BTreeMap::new();
        let otherwise = self.source.manifest.checkpoint_version;
        self.copied.ranges.push(LostRange { after: None, before: None, newest, otherwise });
        self.copied.damaged.extend(self.source.manifest.state.branches.iter().map(|branch| branch.id));
        Ok(())
    }

    /// The newest version that a run can have of each branch: its footer says it.
    fn bounds(&self, run: &Remains) -> BTreeMap<u32, u64> {
        let Some(spans) = run.spans() else { return BTreeMap::new() };
        let mut newest: BTreeMap<u32, u64> =
            self.source.manifest.state.branches.iter().map(|branch| (branch.id, 0)).collect();
        newest.extend(spans.iter().map(|span| (span.branch, span.newest)));
        newest
    }

    fn all(&mut self, progress: Progress<'_>) -> Result<()> {
        let mut count = 0;
        loop {
            let keyed = self.runs.iter().enumerate().filter_map(|(number, run)| {
                let (key, version) = run.place_key()?;
                Some((key, Reverse(version), number))
            });
            let next = keyed.min();
            if let Some((place, entry)) = self.repairs.last()
                && next.is_none_or(|(key, version, _)| (&place[..], Reverse(entry.0)) < (key, version))
            {
                self.repair()?;
                continue;
            }
            let Some((key, Reverse(version), number)) = next else { return self.tell(progress) };
            // Without a MANIFEST a row may stand in a run and in the one that it was merged into.
            let is_double = self.last.as_ref().is_some_and(|last| (&last.0[..], last.1) == (key, version));
            if !is_double {
                self.last = Some((key.to_vec(), version));
                self.take(number)?;
            }
            self.runs[number].advance()?;
            count += 1;
            if count % STEP_ROWS == 0 {
                self.tell(progress)?;
            }
        }
    }

    fn tell(&mut self, progress: Progress<'_>) -> Result<()> {
        self.copied.bytes = self.runs.iter().map(Remains::position).sum();
        progress(self.copied.bytes, self.total)
    }

    fn repair(&mut self) -> Result<()> {
        let Some((place, (version, number))) = self.repairs.pop() else { return Ok(()) };
        let (branch, keyspace, key) = parts_of(&place);
        let value = Number::Int(number.into()).to_value();
        self.writer.add(branch, keyspace, key, &Version { version, ..Version::own(Some(&value)) })?;
        self.named.insert((branch, number));
        Ok(())
    }

    /// Copy the row that a run is at, unless it is not to be.
    fn take(&mut self, number: usize) -> Result<()> {
        let Some(row) = self.runs[number].row() else { return Ok(()) };
        let Row { branch, keyspace, key, version } = row;
        let state = &self.source.manifest.state;
        let is_branch = state.branches.binary_search_by_key(&branch, |branch| branch.id).is_ok();
        let first_branch = state.next_branch == 0 && branch == 0;
        if !is_branch && !first_branch {
            return Ok(()); // of a branch that was deleted
        }
        if version.version <= erased_upto(&state.erasures, &state.keyspaces, keyspace, key) && !sabotage::on("S04") {
            return Ok(());
        }
        if let Some(reason) = self.fault(&row) {
            let spot = (place_key(branch, keyspace, key), version.version);
            self.lose_row(number, spot, reason);
            return Ok(());
        }
        if keyspace == COMMITS {
            return copy_commits(&mut self.writer, &mut self.committed, &row);
        }
        if keyspace == CATALOGUE
            && let Some(Number::Int(number)) = version.value.and_then(Number::decode)
        {
            self.named.insert((branch, number as u32));
        } else if keyspace < RESERVED {
            let oldest = self.seen.entry((branch, keyspace)).or_insert(version.version);
            *oldest = version.version.min(*oldest);
        }
        self.writer.add(branch, keyspace, key, &version)
    }

    fn lose_row(&mut self, number: usize, spot: Spot, reason: &str) {
        let run = &self.runs[number];
        let gap = Gap {
            offset: run.block_offset(),
            length: 0,
            reason: reason.to_owned(),
            after: Some(spot.clone()),
            before: Some(spot),
            is_one_row: true,
        };
        let (name, newest) = (run.name().to_owned(), self.bounds(run));
        self.lose(&name, newest, gap);
    }

    /// Why no reader could use a row, though its frame checks.
    fn fault(&self, row: &Row<'_>) -> Option<&'static str> {
        let Row { keyspace, version, .. } = row;
        let manifest = &self.source.manifest;
        if version.version == 0 || (self.source.is_known && version.version > manifest.checkpoint_version) {
            return Some("it has a version that was not written yet");
        }
        let value = version.value.unwrap_or_default();
        match *keyspace {
            COMMITS => decode_chunk(value).is_err().then_some("commits cannot be read"),
            NOTES => Note::decode(value).is_err().then_some("a note cannot be read"),
            CATALOGUE => {
                let number = Number::decode(value);
                let named = |number: i64| {
                    let (space, kind) = manifest.state.keyspaces.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
                    (catalogue_key(space, kind) == row.key).then_some(())
                };
                let is_right = matches!(number, Some(Number::Int(number)) if named(number).is_some());
                (!is_right).then_some("the catalogue contradicts itself")
            }
            RESERVED.. => None,
            _ if version.value.is_some_and(|value| value::check(value).is_err()) || !are_paths(version.touched) => {
                Some("a value cannot be read")
            }
            _ if self.name(*keyspace).is_none() => Some("nothing tells the space that it is in"),
            _ => None,
        }
    }

    fn name(&self, keyspace: u32) -> Option<&(String, String)> {
        let names = &self.source.manifest.state.keyspaces;
        names.get(keyspace as usize - 1).filter(|(space, kind)| !space.is_empty() && !kind.is_empty())
    }

    /// The entries that the catalogues lack.
    fn needed(&self) -> Repairs {
        let mut needed = Repairs::default();
        if self.copied.lost.is_empty() && self.runs.iter().all(|run| run.gaps().is_empty()) {
            return needed;
        }
        for (&(branch, keyspace), &oldest) in &self.seen {
            let Some((space, kind)) = self.name(keyspace) else { continue };
            if !self.lineage(branch).any(|branch| self.named.contains(&(branch, keyspace))) {
                needed.0.insert(place_key(branch, CATALOGUE, &catalogue_key(space, kind)), (oldest, keyspace));
            }
        }
        needed
    }

    /// A branch and its ancestors.
    fn lineage(&self, branch: u32) -> impl Iterator<Item = u32> {
        let branches = &self.source.manifest.state.branches;
        std::iter::successors(Some(branch), |id| {
            let found = branches.binary_search_by_key(id, |branch| branch.id).ok()?;
            branches[found].parent.map(|(parent, _)| parent)
        })
    }

    fn lose(&mut self, file: &str, newest: BTreeMap<u32, u64>, gap: Gap) {
        let state = &self.source.manifest.state;
        let named = |spot: &Option<Spot>| spot.as_ref().map(|spot| place_of(state, spot));
        let what = if gap.is_one_row { "a version of a key" } else { "rows" };
        let first_branch = gap.after.as_ref().map_or(0, |spot| parts_of(&spot.0).0);
        let last_branch = gap.before.as_ref().map_or(u32::MAX, |spot| parts_of(&spot.0).0);
        let within = state.branches.iter().map(|branch| branch.id).chain([0]);
        self.copied.damaged.extend(within.filter(|id| (first_branch..=last_branch).contains(id)));
        let version = gap.after.as_ref().map(|spot| spot.1).filter(|_| gap.is_one_row);
        self.copied.lost.push(Loss {
            file: file.to_owned(),
            offset: gap.offset,
            length: gap.length,
            what,
            reason: gap.reason,
            first: named(&gap.after),
            last: named(&gap.before),
            versions: version.map(|version| (version, version)),
        });
        let otherwise = self.source.manifest.checkpoint_version;
        self.copied.ranges.push(LostRange { after: gap.after, before: gap.before, newest, otherwise });
    }

    fn end(mut self) -> Result<Copied> {
        for run in std::mem::take(&mut self.runs) {
            let newest = self.bounds(&run);
            for gap in run.gaps() {
                self.lose(run.name(), newest.clone(), gap.clone());
            }
        }
        self.copied.rows = self.writer.rows();
        self.copied.runs = end_run(self.writer, 1)?.into_iter().collect();
        Ok(self.copied)
    }
}

/// Commits as they are, but for those that stand in two runs.
fn copy_commits(writer: &mut RunWriter, committed: &mut (u32, u64), row: &Row<'_>) -> Result<()> {
    let mut chunk = decode_chunk(row.version.value.unwrap_or_default())?;
    let after = if committed.0 == row.branch { committed.1 } else { 0 };
    let count = chunk.len();
    chunk.retain(|commit| commit.version > after);
    let Some(last) = chunk.last() else { return Ok(()) };
    *committed = (row.branch, last.version);
    if chunk.len() == count {
        return writer.add(row.branch, COMMITS, row.key, &row.version);
    }
    let (first, value) = (chunk[0].version, encode_chunk(&chunk));
    let version = Version { version: first, ..Version::own(Some(&value)) };
    writer.add(row.branch, COMMITS, &first.to_be_bytes(), &version)
}
