//! Writing a bundle: in order, one frame in memory. It gets its name when it is whole.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{
    DIGEST, EXPIRES, FORMAT, FRAME_BYTES, FRAME_HEADER, FrameKind, HEADER, HISTORY, KEY_AT, LZ4, MAGIC, Place,
};
use super::{SEALED, bound, checksum, cipher, header_checksum, may_unpack_to};
use crate::env::{Disk, Env, File};
use crate::error::{Error, Result};
use crate::log::Stamp;
use crate::pack::{put_bytes, put_varint};
use crate::sabotage;
use crate::seal::{FileCipher, GivenKeys, KeyId, SEAL_BYTES};
use crate::state::State;
use crate::table::{ChangeKind, Version};

/// A bundle being written. Dropped before it is finished, it removes what it wrote, if it can.
pub struct BundleWriter {
    disk: Arc<dyn Disk>,
    file: Arc<dyn File>,
    temporary: String,
    is_finished: bool,
    has_history: bool,
    cipher: Option<FileCipher>,
    at: u64,
    digest: Sha256,
    rows: Vec<u8>,
    /// The key of the row before, in the frame.
    key: Vec<u8>,
    count: u64,
}

impl BundleWriter {
    /// Sealed with the current one of `keys`, if there are any.
    pub fn create(outside: &Env, has_history: bool, keys: Option<&GivenKeys>) -> Result<BundleWriter> {
        let key = keys.map_or(KeyId::NONE, |keys| keys.current.id());
        let cipher = cipher(keys, key)?;
        let disk = Arc::clone(&outside.disk);
        let temporary = format!(".strata-{:016x}", outside.rng.next_u64());
        let file = disk.create(&temporary)?;
        let mut header = [0; HEADER];
        header[KEY_AT..KEY_AT + 8].copy_from_slice(&key.0);
        let mut writer = BundleWriter {
            disk,
            file,
            temporary,
            is_finished: false,
            has_history,
            at: 0,
            digest: Sha256::new(),
            rows: Vec::new(),
            key: Vec::new(),
            count: 0,
            cipher,
        };
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        header[16] = if has_history { HISTORY } else { 0 } | if key.is_none() { 0 } else { SEALED };
        let checksum = header_checksum(&header);
        header[12..16].copy_from_slice(&checksum.to_le_bytes());
        writer.put(&header)?;
        Ok(writer)
    }

    /// The newest commit, and the branches: first of all where there is history.
    pub fn head(&mut self, newest: Stamp, state: &State) -> Result<()> {
        let mut payload = Vec::new();
        put_varint(&mut payload, newest.version);
        put_varint(&mut payload, newest.time);
        payload.extend_from_slice(&state.encode());
        self.frame(FrameKind::Head, &payload)
    }

    /// The rows that follow belong there. Places ascend.
    pub fn place(&mut self, place: &Place) -> Result<()> {
        self.end_rows()?;
        let mut payload = Vec::new();
        match place {
            Place::Named { branch, space, kind } => {
                [branch, space, kind].iter().for_each(|name| put_bytes(&mut payload, name.as_bytes()));
            }
            Place::Numbered(branch, keyspace) => {
                [branch, keyspace].iter().for_each(|number| put_varint(&mut payload, u64::from(**number)));
            }
        }
        self.frame(FrameKind::Place, &payload)
    }

    /// Keys ascend, and versions of a key descend.
    pub fn row(&mut self, key: &[u8], row: &Version<'_>) -> Result<()> {
        let shared = self.key.iter().zip(key).take_while(|(a, b)| a == b).count();
        let out = &mut self.rows;
        out.push(row.kind as u8 | if row.expires == 0 { 0 } else { EXPIRES });
        put_varint(out, shared as u64);
        put_bytes(out, &key[shared..]);
        if self.has_history {
            put_varint(out, row.version);
        }
        if row.expires != 0 {
            put_varint(out, row.expires);
        }
        if let Some(value) = row.value {
            put_bytes(out, value);
        }
        if row.kind == ChangeKind::Patch {
            put_bytes(out, row.touched);
        }
        self.count += 1;
        self.key.truncate(shared);
        self.key.extend_from_slice(&key[shared..]);
        if self.rows.len() >= FRAME_BYTES { self.end_rows() } else { Ok(()) }
    }

    fn end_rows(&mut self) -> Result<()> {
        self.key.clear();
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        self.frame(FrameKind::Rows, &rows)?;
        self.rows = rows;
        self.rows.clear();
        Ok(())
    }

    fn frame(&mut self, kind: FrameKind, raw: &[u8]) -> Result<()> {
        let limit = u32::MAX as usize - FRAME_HEADER - SEAL_BYTES;
        if raw.len() > limit {
            let (limit, actual) = (limit as u64, raw.len() as u64);
            return Err(Error::LimitExceeded { what: "row in bytes", limit, actual });
        }
        let packed = lz4_flex::block::compress(raw);
        let is_packed = packed.len() < raw.len() - raw.len() / 8 && may_unpack_to(packed.len(), raw.len());
        let stored = if is_packed { &packed[..] } else { raw };
        let length = stored.len() + if self.cipher.is_some() { SEAL_BYTES } else { 0 };
        let mut frame = Vec::with_capacity(FRAME_HEADER + length);
        frame.extend_from_slice(&[kind as u8, if is_packed { LZ4 } else { 0 }, 0, 0]);
        frame.extend_from_slice(&(length as u32).to_le_bytes());
        frame.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        frame.extend_from_slice(&[0; 4]); // the checksum
        match &self.cipher {
            Some(cipher) => {
                let bound = bound(&frame, &self.digest);
                cipher.seal(self.at, &bound, stored, &mut frame);
            }
            None => frame.extend_from_slice(stored),
        }
        let checksum = checksum(&frame, &frame[FRAME_HEADER..], self.at);
        frame[12..FRAME_HEADER].copy_from_slice(&checksum.to_le_bytes());
        self.put(&frame)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_at(self.at, bytes)?;
        self.digest.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Make the bundle whole and durable, and give it its name. Returns its length and its SHA-256.
    pub fn finish(mut self, name: &str) -> Result<(u64, [u8; DIGEST])> {
        self.end_rows()?;
        let mut payload = Vec::new();
        put_varint(&mut payload, self.count);
        self.frame(FrameKind::End, &payload)?;
        let digest: [u8; DIGEST] = self.digest.clone().finalize().into();
        self.put(&digest)?;
        if !sabotage::on("K39") {
            self.file.sync()?;
        }
        self.disk.rename(&self.temporary, name)?;
        self.is_finished = true;
        self.disk.sync_dir("")?;
        Ok((self.at, digest))
    }
}

impl Drop for BundleWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = self.disk.remove(&self.temporary);
        }
    }
}
