//! A new database, made whole from rows, that gets its name last.
//!
//! It is built in a directory beside the target; one rename makes it appear. So there is all of it or nothing, and what a
//! crash leaves is a directory `.strata-...` that nobody names.

use std::sync::Arc;

use super::Options;
use crate::env::{Below, Disk, Env};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::manifest::Manifest;
use crate::run::{self, RunWriter};
use crate::seal::GivenKeys;

/// The run of a new database.
const RUN: u64 = 1;

pub(super) struct Fresh {
    outside: Env,
    inside: Env,
    name: String,
    temporary: String,
    options: Options,
    database_id: [u8; 16],
    is_finished: bool,
    /// An empty directory of its name goes first.
    may_be_there: bool,
}

impl Fresh {
    /// Begin a database that will be called `name` in the directory that `outside` stands for, sealed with `keys`.
    pub fn begin(outside: &Env, name: &str, keys: Option<&GivenKeys>) -> Result<Fresh> {
        check_free(&*outside.disk, name, "database")?;
        Fresh::begin_beside(outside, name, keys)
    }

    /// Begin one that may take the place of an empty directory.
    pub fn begin_in_place(outside: &Env, name: &str, keys: Option<&GivenKeys>) -> Result<Fresh> {
        if !is_empty(&*outside.disk, name)? {
            return Fresh::begin(outside, name, keys);
        }
        let mut fresh = Fresh::begin_beside(outside, name, keys)?;
        fresh.may_be_there = true;
        Ok(fresh)
    }

    fn begin_beside(outside: &Env, name: &str, keys: Option<&GivenKeys>) -> Result<Fresh> {
        let temporary = format!(".strata-{:016x}", outside.rng.next_u64());
        let (high, low) = (outside.rng.next_u64().to_be_bytes(), outside.rng.next_u64().to_be_bytes());
        let database_id = [high, low].concat().try_into().expect("two times eight bytes");
        outside.disk.create_dir("")?;
        outside.disk.create_dir(&temporary)?;
        let inside = Env { disk: Arc::new(Below::new(&outside.disk, &temporary)), ..outside.clone() };
        // Nothing is written to its log, so it needs no room.
        let options = Options { segment_bytes: 4096, keys: keys.cloned(), ..Options::default() };
        let (outside, name) = (outside.clone(), name.to_owned());
        let (is_finished, may_be_there) = (false, false);
        let fresh = Fresh { outside, inside, name, temporary, options, database_id, is_finished, may_be_there };
        fresh.inside.disk.create_dir(run::DIRECTORY)?;
        Ok(fresh)
    }

    /// The run that takes all rows.
    pub fn run(&self) -> Result<RunWriter> {
        self.run_numbered(RUN)
    }

    pub fn run_numbered(&self, number: u64) -> Result<RunWriter> {
        RunWriter::create(&self.inside.disk, number, &self.options.runs(self.database_id))
    }

    /// Where it is built.
    pub fn inside(&self) -> &Env {
        &self.inside
    }

    pub fn database_id(&self) -> [u8; 16] {
        self.database_id
    }

    /// Make it whole with this run and what the MANIFEST says beside, and give it its name.
    pub fn finish(self, run: RunWriter, manifest: Manifest) -> Result<()> {
        let runs = end_run(run, RUN)?;
        self.finish_with(runs.into_iter().collect(), manifest)
    }

    /// Make it whole with runs that are written, oldest first, and give it its name.
    pub fn finish_with(mut self, runs: Vec<u64>, manifest: Manifest) -> Result<()> {
        let manifest = Manifest {
            database_id: self.database_id,
            created_us: self.inside.clock.wall_us(),
            segment: 1,
            proven: 0,
            next_run: runs.last().unwrap_or(&0) + 1,
            runs,
            ..manifest
        };
        let log = Log::create(&self.inside, self.options.log(self.database_id), manifest.anchor())?;
        let proven = log.close()?;
        Manifest { proven, ..manifest }.write(&*self.inside.disk, self.options.ring(self.database_id).as_deref())?;
        if self.may_be_there && is_empty(&*self.outside.disk, &self.name)? {
            self.outside.disk.remove_dir(&self.name)?;
        }
        check_free(&*self.outside.disk, &self.name, "database")?;
        self.outside.disk.rename(&self.temporary, &self.name)?;
        self.is_finished = true;
        self.outside.disk.sync_dir("")
    }
}

/// Make a run whole; its number, where it has any rows.
pub(super) fn end_run(run: RunWriter, number: u64) -> Result<Option<u64>> {
    if run.rows() == 0 {
        return Ok(None); // dropping the writer removes its file
    }
    run.finish()?;
    Ok(Some(number))
}

/// Whether the name is that of an empty directory.
pub(super) fn is_empty(disk: &dyn Disk, name: &str) -> Result<bool> {
    Ok(disk.list(name).ok().flatten().is_some_and(|names| names.is_empty()))
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = remove_all(&*self.outside.disk, &self.temporary);
        }
    }
}

/// Nothing may have the name: no file, no directory, and no link that leads nowhere.
pub(super) fn check_free(disk: &dyn Disk, name: &str, what: &'static str) -> Result<()> {
    let is_name = !name.is_empty() && ![".", ".."].contains(&name) && !name.contains(['/', '\0']);
    if !is_name {
        return Err(Error::InvalidInput(format!("'{}' is no path for a {what}", disk.describe(name))));
    }
    match disk.list("")? {
        Some(names) if names.iter().any(|other| other == name) => {
            Err(Error::AlreadyExists { what, name: disk.describe(name) })
        }
        _ => Ok(()),
    }
}

/// Remove what we made: files in a directory, and in directories in it.
fn remove_all(disk: &dyn Disk, directory: &str) -> Result<()> {
    for name in disk.list(directory)?.unwrap_or_default() {
        let path = format!("{directory}/{name}");
        if disk.remove(&path).is_err() {
            remove_all(disk, &path)?;
        }
    }
    disk.remove_dir(directory)
}
