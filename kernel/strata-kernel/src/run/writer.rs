//! Writing a run: rows come in order and leave as frames, so that memory stays at one block, one index block and the hashes
//! of its keys, whatever the size of the run.

use std::sync::Arc;

use super::block::{Aside, BlockBuilder, PREFIX};
use super::filter::{self, RowHash};
use super::footer::Footer;
use super::frame::{FrameKind, Framing};
use super::index::{self, Index};
use super::{DIRECTORY, KEY_BYTES_MAX, RunOptions, path, temporary_path};
use crate::env::{Disk, File};
use crate::error::{Error, Result};
use crate::sabotage;
use crate::seal::KeyId;
use crate::table::{ChangeKind, Version};

/// The file is written in pieces of about this size: smaller ones cost more calls, larger ones more memory.
const PIECE_BYTES: usize = 256 << 10;
/// A block is closed when so much stands aside for it, so that a reader in order meets both close together.
const ASIDE_BYTES_MAX: u64 = 1 << 20;

/// A run being written. Dropped before it is finished, it removes what it wrote, if it can.
pub struct RunWriter {
    disk: Arc<dyn Disk>,
    file: Arc<dyn File>,
    options: RunOptions,
    framing: Framing,
    number: u64,
    is_finished: bool,
    /// What is not yet in the file, and where it goes.
    piece: Vec<u8>,
    written: u64,
    block: BlockBuilder,
    /// What stands aside for the block.
    aside_bytes: u64,
    /// The newest version in the block.
    newest: u64,
    /// The blocks since the last index block, and the hashes of their keys.
    index: Index,
    hashes: Vec<RowHash>,
    footer: Footer,
    /// The place key and version of the row before.
    key: Vec<u8>,
    version: u64,
    scratch: Vec<u8>,
}

impl RunWriter {
    /// Begin a run. What an earlier attempt at the same number left is removed.
    pub fn create(disk: &Arc<dyn Disk>, number: u64, options: &RunOptions) -> Result<RunWriter> {
        if disk.list(DIRECTORY)?.is_none() {
            disk.create_dir(DIRECTORY)?;
            disk.sync_dir("")?;
        }
        let temporary = temporary_path(number);
        let file = match disk.create(&temporary) {
            // Left by a crash: what it holds was never in force.
            Err(Error::Storage { errno: 17, .. }) => {
                disk.remove(&temporary)?;
                disk.create(&temporary)?
            }
            other => other?,
        };
        let framing = options.framing(number, options.key())?;
        let piece = framing.header().to_vec();
        Ok(RunWriter {
            disk: disk.clone(),
            file,
            options: options.clone(),
            framing,
            number,
            is_finished: false,
            piece,
            written: 0,
            block: BlockBuilder::default(),
            aside_bytes: 0,
            newest: 0,
            index: Index::default(),
            hashes: Vec::new(),
            footer: Footer::default(),
            key: Vec::new(),
            version: 0,
            scratch: Vec::new(),
        })
    }

    /// How long the file is so far, with what waits to be written.
    pub fn bytes_written(&self) -> u64 {
        self.written + self.piece.len() as u64
    }

    pub fn rows(&self) -> u64 {
        self.footer.rows
    }

    /// Add the next row: by branch, keyspace and key, ascending, then by version, descending.
    pub fn add(&mut self, branch: u32, keyspace: u32, key: &[u8], row: &Version<'_>) -> Result<()> {
        if key.len() > KEY_BYTES_MAX {
            let (limit, actual) = (KEY_BYTES_MAX as u64, key.len() as u64);
            return Err(Error::LimitExceeded { what: "key in bytes", limit, actual });
        }
        assert_eq!(row.value.is_none(), row.kind == ChangeKind::Delete, "only a deletion has no value");
        assert!(row.touched.is_empty() || row.kind == ChangeKind::Patch, "only a patch has touched paths");
        let place_key = &mut self.scratch;
        place_key.clear();
        place_key.extend_from_slice(&branch.to_be_bytes());
        place_key.extend_from_slice(&keyspace.to_be_bytes());
        place_key.extend_from_slice(key);
        let is_first = self.footer.rows == 0;
        let is_new_key = is_first || *place_key != self.key;
        let is_behind = if is_new_key { is_first || *place_key > self.key } else { row.version < self.version };
        assert!(is_behind, "rows are added in order");
        if self.is_block_full() {
            self.end_block()?;
        }
        if is_new_key {
            std::mem::swap(&mut self.key, &mut self.scratch);
        }
        self.version = row.version;
        // A key that goes on behind an index block is in both filters.
        if is_new_key || self.hashes.is_empty() {
            let branch = if sabotage::on("K16") { 0 } else { branch };
            self.hashes.push(RowHash::of(branch, keyspace, key));
        }
        let aside = self.put_aside(row)?;
        self.block.add(&self.key, row, aside);
        self.newest = self.newest.max(row.version);
        let raw_bytes = key.len() + row.value.map_or(0, <[u8]>::len) + row.touched.len();
        self.footer.count(branch, row.version, is_new_key, raw_bytes);
        Ok(())
    }

    fn is_block_full(&self) -> bool {
        let is_long = self.block.size_bytes() >= self.options.block_bytes || self.aside_bytes >= ASIDE_BYTES_MAX;
        is_long && !self.block.is_empty()
    }

    /// Give a large value a frame of its own.
    fn put_aside(&mut self, row: &Version<'_>) -> Result<Option<Aside>> {
        let value = row.value.unwrap_or_default();
        let size = value.len() + row.touched.len();
        if size <= self.options.large_value_bytes {
            return Ok(None);
        }
        let joined;
        let payload = if row.touched.is_empty() {
            value
        } else {
            joined = [value, row.touched].concat();
            &joined
        };
        let offset = self.bytes_written();
        let frame_bytes = self.framing.append(FrameKind::Value, offset, payload, &mut self.piece)?;
        self.aside_bytes += u64::from(frame_bytes);
        self.write_piece(PIECE_BYTES)?;
        Ok(Some(Aside { offset, frame_bytes }))
    }

    /// Close the block. The next row's place key is in `scratch`, and where it is a new key it gives the fence.
    fn end_block(&mut self) -> Result<()> {
        let offset = self.bytes_written();
        let frame_bytes = self.framing.append(FrameKind::Block, offset, self.block.finish(), &mut self.piece)?;
        // At the end there is no next row, and `scratch` is empty.
        let goes_on = self.scratch == self.key;
        let (fence, version) = match (goes_on, self.scratch.len() >= PREFIX) {
            (true, _) => (&self.key[..], self.version),
            (false, true) => (index::separator(&self.key, &self.scratch), 0),
            (false, false) => (&self.key[..], 0),
        };
        self.index.add(fence, index::entry(version, self.newest, offset, frame_bytes, 0));
        self.block.clear();
        (self.aside_bytes, self.newest) = (0, 0);
        if self.index.size_bytes() >= self.options.index_bytes {
            self.end_index()?;
        }
        self.write_piece(PIECE_BYTES)
    }

    /// Put down the index block and the filter of the blocks since the last one.
    fn end_index(&mut self) -> Result<()> {
        let last = self.index.entries().len() - 1;
        let (fence, version) = (self.index.key(last).to_vec(), self.index.entries()[last].version);
        let newest = self.index.newest();
        let mut payload = Vec::new();
        self.index.encode(&mut payload);
        let offset = self.bytes_written();
        let frame_bytes = self.framing.append(FrameKind::Index, offset, &payload, &mut self.piece)?;
        let filter = filter::build(&self.hashes);
        let filter_offset = self.bytes_written();
        let filter_bytes = self.framing.append(FrameKind::Filter, filter_offset, &filter, &mut self.piece)?;
        self.footer.top.add(&fence, index::entry(version, newest, offset, frame_bytes, filter_bytes));
        self.index.clear();
        self.hashes.clear();
        Ok(())
    }

    /// Write what waits, when it is at least `least` bytes.
    fn write_piece(&mut self, least: usize) -> Result<()> {
        if self.piece.len() >= least {
            match self.file.write_at(self.written, &self.piece) {
                Err(Error::Storage { errno: 28, .. }) if sabotage::on("T12") => {}
                other => other?,
            }
            self.written += self.piece.len() as u64;
            self.piece.clear();
        }
        Ok(())
    }

    /// What it is sealed with.
    pub fn key(&self) -> KeyId {
        self.framing.key
    }

    /// Make the run whole and durable, and give it its name; returns its length. After an error there may be a file of that
    /// name, which nothing should name.
    pub fn finish(mut self) -> Result<u64> {
        self.scratch.clear();
        if !self.block.is_empty() {
            self.end_block()?;
        }
        if !self.index.entries().is_empty() {
            self.end_index()?;
        }
        let offset = self.bytes_written();
        let footer = self.footer.encode();
        let footer_bytes = self.framing.append(FrameKind::Footer, offset, &footer, &mut self.piece)?;
        self.piece.extend_from_slice(&self.framing.tail(offset, footer_bytes));
        self.write_piece(1)?;
        if !sabotage::on("T19") {
            match self.file.sync() {
                Err(_) if sabotage::on("K23") => {}
                Err(_) if sabotage::on("K24") => self.file.sync()?,
                other => other?,
            }
        }
        self.disk.rename(&temporary_path(self.number), &path(self.number))?;
        self.is_finished = true;
        if !sabotage::on("K14") {
            self.disk.sync_dir(DIRECTORY)?;
        }
        Ok(self.written)
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // What stays is an orphan, which the next open for writing removes.
            let _ = self.disk.remove(&temporary_path(self.number));
        }
    }
}
