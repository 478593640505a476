//! A directory of a disk as a disk of its own.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Disk, File, Lock};
use crate::error::Result;

pub struct Below {
    disk: Arc<dyn Disk>,
    directory: String,
}

impl Below {
    pub fn new(disk: &Arc<dyn Disk>, directory: &str) -> Below {
        Below { disk: Arc::clone(disk), directory: directory.to_owned() }
    }

    fn at(&self, path: &str) -> String {
        if path.is_empty() { self.directory.clone() } else { format!("{}/{path}", self.directory) }
    }
}

impl Disk for Below {
    fn open(&self, path: &str) -> Result<Option<Arc<dyn File>>> {
        self.disk.open(&self.at(path))
    }

    fn open_plain(&self, path: &str) -> Result<Option<Arc<dyn File>>> {
        self.disk.open_plain(&self.at(path))
    }

    fn create(&self, path: &str) -> Result<Arc<dyn File>> {
        self.disk.create(&self.at(path))
    }

    fn create_dir(&self, path: &str) -> Result<()> {
        self.disk.create_dir(&self.at(path))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        self.disk.list(&self.at(path))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.disk.rename(&self.at(from), &self.at(to))
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.disk.remove(&self.at(path))
    }

    fn link(&self, path: &str, from: &dyn Disk, source: &str) -> Result<bool> {
        self.disk.link(&self.at(path), from, source)
    }

    fn real_path(&self, path: &str) -> Option<PathBuf> {
        self.disk.real_path(&self.at(path))
    }

    fn remove_dir(&self, path: &str) -> Result<()> {
        self.disk.remove_dir(&self.at(path))
    }

    fn sync_dir(&self, path: &str) -> Result<()> {
        self.disk.sync_dir(&self.at(path))
    }

    fn lock(&self, path: &str, owner: Option<&str>) -> Result<Box<dyn Lock>> {
        self.disk.lock(&self.at(path), owner)
    }

    fn describe(&self, path: &str) -> String {
        self.disk.describe(&self.at(path))
    }
}
