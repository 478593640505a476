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
}

impl Fresh {
    /// Begin a database that will be called `name` in the directory that `outside` stands for, sealed with `keys`.
    pub fn begin(outside: &Env, name: &str, keys: Option<&GivenKeys>) -> Result<Fresh> {
        check_free(&*outside.disk, name, "database")?;
        let temporary = format!(".strata-{:016x}", outside.rng.next_u64());
        let (high, low) = (outside.rng.next_u64().to_be_bytes(), outside.rng.next_u64().to_be_bytes());
        let database_id = [high, low].concat().try_into().expect("two times eight bytes");
        outside.disk.create_dir("")?;
        outside.disk.create_dir(&temporary)?;
        let inside = Env { disk: Arc::new(Below::new(&outside.disk, &temporary)), ..outside.clone() };
        // Nothing is written to its log, so it needs no room.
        let options = Options { segment_bytes: 4096, keys: keys.cloned(), ..Options::default() };
        let (outside, name) = (outside.clone(), name.to_owned());
        let fresh = Fresh { outside, inside, name, temporary, options, database_id, is_finished: false };
        fresh.inside.disk.create_dir(run::DIRECTORY)?;
        Ok(fresh)
    }

    /// The run that takes all rows.
    pub fn run(&self) -> Result<RunWriter> {
        RunWriter::create(&self.inside.disk, RUN, &self.options.runs(self.database_id))
    }

    /// Make it whole with this run and what the MANIFEST says beside, and give it its name.
    pub fn finish(mut self, run: RunWriter, manifest: Manifest) -> Result<()> {
        let has_rows = run.rows() > 0;
        if has_rows {
            run.finish()?;
        } else {
            drop(run); // which removes its file
        }
        let manifest = Manifest {
            database_id: self.database_id,
            created_us: self.inside.clock.wall_us(),
            segment: 1,
            proven: 0,
            next_run: RUN + 1,
            runs: if has_rows { vec![RUN] } else { Vec::new() },
            ..manifest
        };
        let log = Log::create(&self.inside, self.options.log(self.database_id), manifest.anchor())?;
        let proven = log.close()?;
        Manifest { proven, ..manifest }.write(&*self.inside.disk, self.options.ring(self.database_id).as_deref())?;
        check_free(&*self.outside.disk, &self.name, "database")?;
        self.outside.disk.rename(&self.temporary, &self.name)?;
        self.is_finished = true;
        self.outside.disk.sync_dir("")
    }
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
