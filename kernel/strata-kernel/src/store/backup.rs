//! Backup: a second directory that holds the newest checkpoint, and opens as a database.
//!
//! A checkpoint is made, and its runs are linked or copied beside those that an earlier backup left there: runs never change,
//! so only new ones cost anything. Then a MANIFEST names them, and last go those that it does not name. So a crash leaves
//! the older backup or the newer one. Commits and compactions go on: who holds a run can read it though its name is gone.
//!
//! A directory that somebody wrote to since is no backup any more, and is refused: its MANIFEST says so, or its log does.

use std::sync::Arc;

use super::Store;
use super::verify::Progress;
use crate::env::{Disk, Env};
use crate::error::{Error, Result};
use crate::log::{Durability, Log, LogOptions};
use crate::manifest::{self, Manifest};
use crate::run::{self, Run};
use crate::sabotage;

/// What a backup holds, and what it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backup {
    pub version: u64,
    pub time: u64,
    pub runs: u64,
    pub bytes: u64,
    pub new_runs: u64,
    /// Of the new runs, those that needed no copy.
    pub linked_runs: u64,
    pub copied_bytes: u64,
    pub removed_runs: u64,
}

impl Store {
    /// Make `to` a backup of what is committed now. `progress` is told of bytes of runs, done and in all.
    pub fn backup(&self, to: &Env, progress: Progress<'_>) -> Result<Backup> {
        self.check_store_writable()?;
        if !self.keeps_a_log() {
            return Err(Error::InvalidInput("a database in memory has no files to back up: export it".to_owned()));
        }
        look_at(&*to.disk)?;
        self.carry_out_erasures()?;
        let (manifest, runs) = self.held()?;
        to.disk.create_dir("")?;
        let _lock = to.disk.lock("LOCK", Some(&format!("backup by pid {}", self.env.spawn.process_id())))?;
        let options = LogOptions { durability: Durability::Buffered, segment_bytes: 4096, ..self.log_options() };
        // Only its numbers: it may be sealed with an earlier key.
        let earlier = Manifest::numbers(&*to.disk)?;
        if let Some(earlier) = &earlier {
            check_earlier(earlier, &manifest, to, &options)?;
        }
        let mut copier = Copier { from: &*self.env.disk, to: &*to.disk, backup: Backup::default(), progress };
        copier.backup.bytes = runs.iter().map(|run| run.file_bytes()).sum();
        to.disk.create_dir(run::DIRECTORY)?;
        let named = earlier.as_ref().map_or(&[][..], |earlier| &earlier.runs);
        let mut done = 0;
        for run in &runs {
            copier.take(run, named.contains(&run.number()), done)?;
            done += run.file_bytes();
        }
        to.disk.sync_dir(run::DIRECTORY)?;
        let (segment, proven) = match &earlier {
            Some(earlier) => (earlier.segment, earlier.proven),
            None => {
                let begin = Manifest { segment: 1, proven: 0, ..manifest.clone() };
                (1, Log::create(to, options, begin.anchor())?.close()?)
            }
        };
        let (version, time) = (manifest.checkpoint_version, manifest.checkpoint_time);
        let manifest = Manifest { segment, proven, is_backup: true, ..manifest };
        if sabotage::on("K38") {
            remove_others(&*to.disk, &manifest)?;
        }
        manifest.write(&*to.disk, self.keys().as_deref())?;
        let removed_runs = remove_others(&*to.disk, &manifest)?;
        Ok(Backup { version, time, runs: runs.len() as u64, removed_runs, ..copier.backup })
    }

    /// The newest checkpoint with its runs, which stay readable as long as they are held.
    fn held(&self) -> Result<(Manifest, Vec<Arc<Run>>)> {
        let _alone = self.keeper.lock();
        self.checkpoint_alone()?;
        let manifest = self.manifest().ok_or(Error::Closed("database"))?;
        Ok((manifest, self.runs.read().clone()))
    }
}

/// Whether the directory is a backup, or the beginnings of one, or nothing. Changes nothing.
fn look_at(disk: &dyn Disk) -> Result<()> {
    let names = disk.list("")?.unwrap_or_default();
    let ours = ["LOCK", "WAL", "DATA", "MANIFEST.tmp", manifest::COPY];
    let is_foreign = !names.iter().any(|name| name == manifest::PATH);
    match names.iter().find(|name| is_foreign && !ours.contains(&name.as_str())) {
        Some(foreign) => Err(no_backup(disk, &format!("it holds '{foreign}' and no MANIFEST"))),
        None => Ok(()),
    }
}

fn no_backup(disk: &dyn Disk, reason: &str) -> Error {
    Error::InvalidInput(format!("'{}' is not a backup of this database: {reason}", disk.describe("")))
}

fn check_earlier(earlier: &Manifest, now: &Manifest, to: &Env, options: &LogOptions) -> Result<()> {
    let disk = &*to.disk;
    if earlier.database_id != now.database_id {
        return Err(no_backup(disk, "it belongs to another"));
    }
    let mut records = 0;
    let mut count = |_: crate::log::Entry<'_>| {
        records += 1;
        Ok(())
    };
    if earlier.is_backup {
        match Log::read(to, options.clone(), earlier.anchor(), &mut count) {
            // Without records it takes no key.
            Err(Error::NeedsKey { .. } | Error::InvalidInput(_)) => records = 1,
            outcome => drop(outcome?),
        }
    }
    if !earlier.is_backup || records > 0 {
        return Err(no_backup(disk, "it was written to, and is a database of its own"));
    }
    if earlier.checkpoint_version > now.checkpoint_version {
        return Err(no_backup(disk, "it is newer"));
    }
    Ok(())
}

struct Copier<'a> {
    from: &'a dyn Disk,
    to: &'a dyn Disk,
    backup: Backup,
    progress: Progress<'a>,
}

impl Copier<'_> {
    /// See to it that the run is there, under its name and whole.
    fn take(&mut self, run: &Run, is_named: bool, done: u64) -> Result<()> {
        let path = run::path(run.number());
        if let Some(file) = self.to.open(&path)? {
            if run.ends_like(&*file)? {
                return (self.progress)(done + run.file_bytes(), self.backup.bytes);
            }
            if is_named {
                return Err(no_backup(self.to, &format!("its {path} is another")));
            }
            self.to.remove(&path)?; // what a backup that was cut short left of another time
        }
        let temporary = run::temporary_path(run.number());
        if self.to.open(&temporary)?.is_some() {
            self.to.remove(&temporary)?;
        }
        self.backup.new_runs += 1;
        if self.to.link(&temporary, self.from, &path)? {
            self.backup.linked_runs += 1;
        } else {
            let file = self.to.create(&temporary)?;
            let (progress, bytes) = (&mut self.progress, self.backup.bytes);
            run.copy_to(&*file, &mut |copied| progress(done + copied, bytes))?;
            if !sabotage::on("K37") {
                file.sync()?;
            }
            self.backup.copied_bytes += run.file_bytes();
        }
        self.to.rename(&temporary, &path)?;
        (self.progress)(done + run.file_bytes(), self.backup.bytes)
    }
}

/// Remove runs that the MANIFEST does not name; returns how many.
fn remove_others(disk: &dyn Disk, manifest: &Manifest) -> Result<u64> {
    let mut removed = 0;
    for name in disk.list(run::DIRECTORY)?.unwrap_or_default() {
        if run::number_of(&name).is_some_and(|number| name.ends_with(".tmp") || !manifest.runs.contains(&number)) {
            disk.remove(&format!("{}/{name}", run::DIRECTORY))?;
            removed += u64::from(!name.ends_with(".tmp"));
        }
    }
    Ok(removed)
}
