//! What a damaged database says of itself: its MANIFEST, or the copy of it, or else what its files tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Loss;
use crate::branch::decode_chunk;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::keyspaces::{CATALOGUE, COMMITS, Keyspaces, RESERVED};
use crate::log::Stamp;
use crate::log::read::SegmentHeader;
use crate::manifest::{self, Manifest};
use crate::payload::Number;
use crate::run::frames::Frames;
use crate::run::{self, Remains};
use crate::seal::{GivenKeys, KeyId, Keyring};
use crate::state::{BranchState, State};
use crate::store::Options;
use crate::store::branches::MAIN;
use crate::{log, seal};

pub(super) struct Source {
    pub env: Env,
    pub options: Options,
    pub manifest: Manifest,
    /// Whether names and parents of branches are known, and which runs count.
    pub is_known: bool,
    pub lost: Vec<Loss>,
}

impl Source {
    pub fn find(env: &Env, keys: Option<&GivenKeys>) -> Result<Source> {
        let disk = &*env.disk;
        let names = disk.list("")?;
        let missing = || Error::NotFound { what: "database", name: disk.describe(""), near: Vec::new() };
        let names = names.ok_or_else(missing)?;
        let ours = [manifest::PATH, manifest::COPY, log::DIRECTORY, run::DIRECTORY];
        if !names.iter().any(|name| ours.contains(&name.as_str())) {
            return Err(Error::InvalidInput(format!("'{}' is not a Strata database", disk.describe(""))));
        }
        let options = Options { keys: keys.cloned(), read_only: true, create: false, ..Options::default() };
        let source =
            Source { env: env.clone(), options, manifest: Manifest::default(), is_known: true, lost: Vec::new() };
        let mut damage = "it is missing".to_owned();
        for path in [manifest::PATH, manifest::COPY] {
            match Manifest::read_from(disk, path, &|id| source.options.ring(id)) {
                Ok(Some(manifest)) => {
                    let lost = if path == manifest::COPY { unknown_runs(env, &manifest)? } else { Vec::new() };
                    return Ok(Source { manifest, lost, ..source });
                }
                Ok(None) => {}
                Err(Error::Corrupt { reason, .. }) if path == manifest::PATH => damage = reason,
                Err(Error::Corrupt { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        source.guess(damage)
    }

    pub fn ring(&self) -> Option<Arc<Keyring>> {
        let ring = self.options.ring(self.manifest.database_id)?;
        Some(if self.manifest.plain_too { Arc::new(Keyring::clone(&ring).plain_too()) } else { ring })
    }

    pub fn run_options(&self) -> run::RunOptions {
        run::RunOptions { keys: self.ring(), ..self.options.runs(self.manifest.database_id) }
    }

    pub fn log_options(&self) -> log::LogOptions {
        log::LogOptions { keys: self.ring(), ..self.options.log(self.manifest.database_id) }
    }

    /// Without a MANIFEST all runs count, and branches have the names that we give them.
    fn guess(self, damage: String) -> Result<Source> {
        let (database_id, key) = self.identity()?.ok_or_else(|| Error::Corrupt {
            file: manifest::PATH.to_owned(),
            offset: 0,
            reason: format!("{damage}, and so is its copy, and no other file tells the database"),
        })?;
        let keys = self.options.ring(database_id);
        drop(seal::cipher(keys.as_deref(), seal::Kind::Manifest, 0, key)?);
        let runs = run_numbers(&self.env)?;
        let segment = segment_numbers(&self.env)?.first().copied().unwrap_or(1);
        let manifest = Manifest { database_id, segment, runs, ..Manifest::default() };
        let mut source = Source { manifest, is_known: false, ..self };
        source.guess_state()?;
        source.lost.push(Loss {
            file: manifest::PATH.to_owned(),
            what: "names and parents of branches, policies, and what is to be erased",
            reason: damage,
            ..Loss::default()
        });
        Ok(source)
    }

    /// The database that most files say they belong to, and what they are sealed with.
    fn identity(&self) -> Result<Option<([u8; 16], KeyId)>> {
        let mut votes: BTreeMap<([u8; 16], KeyId), usize> = BTreeMap::new();
        for said in headers(&self.env)? {
            *votes.entry(said).or_default() += 1;
        }
        Ok(votes.into_iter().max_by_key(|(_, count)| *count).map(|(found, _)| found))
    }

    /// Branches and keyspaces as the rows of the runs have them.
    fn guess_state(&mut self) -> Result<()> {
        let mut branches: BTreeMap<u32, Stamp> = BTreeMap::from([(0, Stamp::default())]);
        let mut keyspaces = Keyspaces::default();
        for &number in &self.manifest.runs {
            let mut rows = match Remains::open(&*self.env.disk, number, &self.run_options()) {
                Ok(rows) => rows,
                Err(Error::Corrupt { .. } | Error::NeedsKey { .. } | Error::InvalidInput(_)) => continue,
                Err(other) => return Err(other),
            };
            while let Some(row) = rows.row() {
                let last = branches.entry(row.branch).or_default();
                match (row.keyspace, row.version.value) {
                    (COMMITS, Some(value)) => {
                        let newest = decode_chunk(value).ok().and_then(|chunk| chunk.last().copied());
                        *last = newest.filter(|newest| newest.version > last.version).unwrap_or(*last);
                    }
                    (CATALOGUE, Some(value)) => {
                        if let Some(Number::Int(number @ 1..)) = Number::decode(value)
                            && let Some(number) = u32::try_from(number).ok().filter(|number| *number < RESERVED / 2)
                        {
                            keyspaces.learn(row.key, number);
                        }
                    }
                    _ => {}
                }
                rows.advance()?;
            }
        }
        let newest = branches.values().copied().max_by_key(|stamp| stamp.version).unwrap_or_default();
        (self.manifest.checkpoint_version, self.manifest.checkpoint_time) = (newest.version, newest.time);
        self.manifest.state = State {
            next_branch: branches.keys().max().map_or(1, |id| id.saturating_add(1)),
            branches: branches.into_iter().map(|(id, last)| made_up(id, last)).collect(),
            keyspaces: keyspaces.names().to_vec(),
            ..State::default()
        };
        Ok(())
    }
}

/// The ids of the keys that files name, as far as they can be read, the MANIFEST's first.
pub fn sealed_with_any(env: &Env) -> Result<Vec<KeyId>> {
    let mut ids = Vec::new();
    for path in [manifest::PATH, manifest::COPY] {
        match Manifest::key_in(&*env.disk, path) {
            Ok(key) => ids.extend(key),
            Err(Error::Corrupt { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    ids.extend(headers(env)?.into_iter().rev().map(|(_, key)| key));
    ids.retain(|id| !id.is_none());
    let mut seen = BTreeSet::new();
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

/// Database and key, as the headers of runs and segments have them that can be read.
fn headers(env: &Env) -> Result<Vec<([u8; 16], KeyId)>> {
    let mut found = Vec::new();
    for number in run_numbers(env)? {
        let path = run::path(number);
        let Some(file) = env.disk.open(&path)? else { continue };
        let frames = Frames::new(&file, &path, &|_, _, _| None)?;
        found.extend(frames.check_header().ok().map(|key| (frames.database_id(), key)));
    }
    for number in segment_numbers(env)? {
        let Some(file) = env.disk.open(&log::path(number))? else { continue };
        let mut bytes = [0; log::read::SEGMENT_HEADER];
        let count = file.read_at(0, &mut bytes)?;
        found.extend(SegmentHeader::decode(&bytes[..count]).ok().map(|header| (header.database_id, header.key)));
    }
    Ok(found)
}

/// The name of a branch whose own is lost.
pub(super) fn name_of(id: u32) -> String {
    if id == 0 { MAIN.to_owned() } else { format!("recovered-{id}") }
}

fn made_up(id: u32, last: Stamp) -> BranchState {
    BranchState { id, name: name_of(id), version: last.version, hash: last.hash, ..BranchState::default() }
}

fn run_numbers(env: &Env) -> Result<Vec<u64>> {
    let names = env.disk.list(run::DIRECTORY)?.unwrap_or_default();
    let whole = names.iter().filter(|name| name.ends_with(".run"));
    let mut numbers: Vec<u64> = whole.filter_map(|name| run::number_of(name)).collect();
    numbers.retain(|number| names.contains(&run::path(*number)[run::DIRECTORY.len() + 1..].to_owned()));
    numbers.sort_unstable();
    Ok(numbers)
}

fn segment_numbers(env: &Env) -> Result<Vec<u64>> {
    let names = env.disk.list(log::DIRECTORY)?.unwrap_or_default();
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| log::read::number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// An older copy knows nothing of the newest runs.
fn unknown_runs(env: &Env, copy: &Manifest) -> Result<Vec<Loss>> {
    let newer = run_numbers(env)?.into_iter().filter(|number| *number >= copy.next_run.max(1));
    let loss = |number| Loss {
        file: run::path(number),
        what: "a run",
        reason: "the MANIFEST is damaged, and its copy is older than this run".to_owned(),
        ..Loss::default()
    };
    Ok(newer.map(loss).collect())
}
