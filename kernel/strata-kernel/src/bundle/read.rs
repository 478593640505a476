//! Reading a bundle, from its front to its end, believing nothing.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{DIGEST, EXPIRES, FORMAT, FRAME_HEADER, FrameKind, HEADER, HISTORY, Item, KEY_AT, LZ4, MAGIC, Place};
use super::{SEALED, bound, checksum, cipher, header_checksum, may_unpack_to};
use crate::env::{Disk, File};
use crate::error::{Error, NO_MEMORY, Result};
use crate::log::Stamp;
use crate::pack::Input;
use crate::run::KEY_BYTES_MAX;
use crate::seal::{FileCipher, GivenKeys, KeyId};
use crate::table::{ChangeKind, Version};

pub struct BundleReader {
    file: Arc<dyn File>,
    name: String,
    size: u64,
    at: u64,
    digest: Sha256,
    has_history: bool,
    key_id: KeyId,
    cipher: Option<FileCipher>,
    /// The frame of rows: where it stands, its payload, and how much of that was read.
    frame_at: u64,
    rows: Vec<u8>,
    next: usize,
    place: Option<Place>,
    /// The row before at this place, and whether it was in this frame.
    key: Vec<u8>,
    version: Option<u64>,
    is_first: bool,
    count: u64,
    ended: Option<[u8; DIGEST]>,
}

/// A row, with where its bytes are in the frame.
struct Parts {
    kind: ChangeKind,
    version: u64,
    expires: u64,
    value: Option<(usize, usize)>,
    touched: (usize, usize),
}

impl BundleReader {
    /// Begin to read the bundle `name`, which must be a plain file.
    pub fn open(disk: &dyn Disk, name: &str, keys: Option<&GivenKeys>) -> Result<BundleReader> {
        let mut reader = BundleReader::begin(disk, name)?;
        reader.cipher = cipher(keys, reader.key_id)?;
        Ok(reader)
    }

    /// `open` without a key: what is sealed cannot be read on.
    pub fn begin(disk: &dyn Disk, name: &str) -> Result<BundleReader> {
        let place = disk.describe(name);
        let file = disk.open_plain(name)?.ok_or_else(|| Error::NotFound {
            what: "bundle",
            name: place.clone(),
            near: Vec::new(),
        })?;
        let size = file.size()?;
        let mut reader = BundleReader {
            file,
            name: place,
            size,
            at: 0,
            digest: Sha256::new(),
            has_history: false,
            key_id: KeyId::NONE,
            cipher: None,
            frame_at: 0,
            rows: Vec::new(),
            next: 0,
            place: None,
            key: Vec::new(),
            version: None,
            is_first: true,
            count: 0,
            ended: None,
        };
        reader.header()?;
        Ok(reader)
    }

    pub fn has_history(&self) -> bool {
        self.has_history
    }

    /// What it is sealed with.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Read on with what opens it among `keys`; false where nothing does.
    pub fn unlock(&mut self, keys: Option<&GivenKeys>) -> bool {
        let found = cipher(keys, self.key_id);
        found.map(|cipher| self.cipher = cipher).is_ok()
    }

    /// Where the next frame begins.
    pub fn place(&self) -> u64 {
        self.at
    }

    /// The length of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The rows so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The SHA-256 of the bundle, when its end was reached.
    pub fn digest(&self) -> Option<[u8; DIGEST]> {
        self.ended
    }

    /// Damage at the place that was read last.
    pub fn wrong(&self, reason: &str) -> Error {
        Error::damaged(&self.name, self.frame_at, reason)
    }

    fn header(&mut self) -> Result<()> {
        let header = self.take(HEADER)?;
        let header: [u8; HEADER] = header.try_into().expect("so many were read");
        if header[..8] != MAGIC {
            return Err(self.wrong("it is not a bundle"));
        }
        if u32_at(&header, 12) != header_checksum(&header) {
            return Err(self.wrong("the header has another checksum"));
        }
        if u32_at(&header, 8) != FORMAT {
            return Err(Error::TooNew { file: self.name.clone(), found: u32_at(&header, 8), known: FORMAT });
        }
        self.key_id = KeyId(*header[KEY_AT..].first_chunk().expect("the header is longer"));
        let rest = header[17..KEY_AT].iter().chain(&header[KEY_AT + 8..]);
        let is_sealed = header[16] & SEALED != 0;
        if header[16] > HISTORY | SEALED
            || rest.into_iter().any(|byte| *byte != 0)
            || is_sealed == self.key_id.is_none()
        {
            return Err(self.wrong("the header says what it cannot"));
        }
        self.has_history = header[16] & HISTORY != 0;
        Ok(())
    }

    /// The next bytes of the file, which it must have.
    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        if self.size - self.at < length as u64 {
            return Err(self.wrong("it ends too early"));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| self.wrong(NO_MEMORY))?;
        bytes.resize(length, 0);
        if self.file.read_at(self.at, &mut bytes)? < length {
            return Err(self.wrong("it ends too early"));
        }
        self.digest.update(&bytes);
        self.at += length as u64;
        Ok(bytes)
    }

    /// What comes next; `None` at the end, when all was found right.
    pub fn item(&mut self) -> Result<Option<Item<'_>>> {
        if self.ended.is_some() {
            return Ok(None);
        }
        while self.next == self.rows.len() {
            self.frame_at = self.at;
            let (kind, payload) = self.frame()?;
            self.rows.clear();
            self.next = 0;
            match kind {
                FrameKind::Head => {
                    self.rows = payload;
                    self.next = self.rows.len();
                    return self.head().map(Some);
                }
                FrameKind::Place => {
                    self.begin_place(&payload)?;
                    return Ok(self.place.as_ref().map(Item::Place));
                }
                FrameKind::Rows if self.place.is_none() || payload.is_empty() => {
                    return Err(self.wrong("there are rows of no place"));
                }
                FrameKind::Rows => {
                    self.rows = payload;
                    self.is_first = true;
                }
                FrameKind::End => return self.end(&payload).map(|()| None),
            }
        }
        let parts = self.row()?;
        let slice = |(start, end): (usize, usize)| &self.rows[start..end];
        let (value, touched) = (parts.value.map(slice), slice(parts.touched));
        let Parts { kind, version, expires, .. } = parts;
        Ok(Some(Item::Row(&self.key, Version { version, kind, value, touched, expires })))
    }

    fn frame(&mut self) -> Result<(FrameKind, Vec<u8>)> {
        let (at, before) = (self.at, self.digest.clone());
        let header = self.take(FRAME_HEADER)?;
        let kind = FrameKind::from_u8(header[0]).filter(|_| header[1] <= LZ4 && header[2..4] == [0, 0]);
        let kind = kind.ok_or_else(|| self.wrong("there is no frame"))?;
        let (stored, raw) = (u32_at(&header, 4) as usize, u32_at(&header, 8) as usize);
        let bytes = self.take(stored)?;
        if u32_at(&header, 12) != checksum(&header, &bytes, at) {
            return Err(self.wrong("a frame has another checksum"));
        }
        let bytes = match &self.cipher {
            Some(cipher) => {
                let mut opened = Vec::new();
                let outcome = cipher.open(at, &bound(&header, &before), &bytes, &mut opened);
                outcome.map_err(|reason| self.wrong(reason))?;
                opened
            }
            None => bytes,
        };
        let stored = bytes.len();
        if header[1] != LZ4 {
            return if raw == stored {
                Ok((kind, bytes))
            } else {
                Err(self.wrong("a frame has not the length it says"))
            };
        }
        if !may_unpack_to(stored, raw) || raw / 255 > stored {
            return Err(self.wrong("a frame unpacks to more than it may"));
        }
        let mut unpacked = vec![0; raw];
        match lz4_flex::block::decompress_into(&bytes, &mut unpacked) {
            Ok(size) if size == raw => Ok((kind, unpacked)),
            _ => Err(self.wrong("a frame does not unpack")),
        }
    }

    fn head(&mut self) -> Result<Item<'_>> {
        let is_expected = self.has_history && self.frame_at == HEADER as u64;
        let mut input = Input::new(&self.rows, "bundle", "the head");
        match (input.varint(), input.varint()) {
            (Ok(version), Ok(time)) if is_expected => {
                Ok(Item::Head(Stamp { version, time, ..Stamp::default() }, input.rest()))
            }
            _ => Err(self.wrong("there is a head where none can be")),
        }
    }

    fn begin_place(&mut self, payload: &[u8]) -> Result<()> {
        let mut input = Input::new(payload, "bundle", "a place");
        let read = |input: &mut Input<'_>| -> Result<Place> {
            Ok(if self.has_history {
                Place::Numbered(input.id()?, input.id()?)
            } else {
                Place::Named { branch: input.text()?, space: input.text()?, kind: input.text()? }
            })
        };
        let place = read(&mut input).ok().filter(|_| input.is_at_end());
        let place = place.ok_or_else(|| self.wrong("a place cannot be read"))?;
        if self.place.as_ref().is_some_and(|before| *before >= place) {
            return Err(self.wrong("the places are not in order"));
        }
        if self.has_history && self.place.is_none() && self.frame_at == HEADER as u64 {
            return Err(self.wrong("the head is missing"));
        }
        self.place = Some(place);
        self.key.clear();
        self.version = None;
        Ok(())
    }

    fn row(&mut self) -> Result<Parts> {
        let (parts, shared, rest, next) = self.read_row().map_err(|_| self.wrong("a row cannot be read"))?;
        let rest = self.rows[rest.0..rest.1].to_vec();
        if shared > if self.is_first { 0 } else { self.key.len() } || shared + rest.len() > KEY_BYTES_MAX {
            return Err(self.wrong("a row has no such key"));
        }
        let is_behind = match (self.version, rest[..].cmp(&self.key[shared..])) {
            // With nothing shared beyond, the same key can come again in a history only.
            (None, _) => true,
            (Some(_), std::cmp::Ordering::Greater) => true,
            (Some(before), std::cmp::Ordering::Equal) => self.has_history && parts.version < before,
            (Some(_), std::cmp::Ordering::Less) => false,
        };
        if !is_behind {
            return Err(self.wrong("the rows are not in order"));
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(&rest);
        self.version = Some(parts.version);
        self.is_first = false;
        self.next = next;
        self.count += 1;
        Ok(parts)
    }

    /// The row at `next`: its parts, how much of the key before it shares, where the rest is, and where the next row begins.
    fn read_row(&self) -> Result<(Parts, usize, (usize, usize), usize)> {
        let mut input = Input::new(&self.rows, "bundle", "a row");
        input.at = self.next;
        let tag = input.byte()?;
        let kind = ChangeKind::from_u8(tag & !EXPIRES).ok_or_else(|| input.wrong("kind"))?;
        let shared = usize::try_from(input.varint()?).unwrap_or(usize::MAX).min(KEY_BYTES_MAX + 1);
        let rest = span(&mut input)?;
        let version = if self.has_history { input.varint()? } else { 0 };
        let expires = if tag & EXPIRES != 0 { input.varint()? } else { 0 };
        let value = if kind == ChangeKind::Delete { None } else { Some(span(&mut input)?) };
        let touched = if kind == ChangeKind::Patch { span(&mut input)? } else { (0, 0) };
        let next = input.at;
        Ok((Parts { kind, version, expires, value, touched }, shared, rest, next))
    }

    fn end(&mut self, payload: &[u8]) -> Result<()> {
        let mut input = Input::new(payload, "bundle", "the end");
        let count = input.varint().ok().filter(|_| input.is_at_end());
        if count != Some(self.count) {
            return Err(self.wrong("it has not the rows it says"));
        }
        if self.has_history && self.frame_at == HEADER as u64 {
            return Err(self.wrong("the head is missing"));
        }
        let digest: [u8; DIGEST] = self.digest.clone().finalize().into();
        if self.take(DIGEST)? != digest {
            return Err(self.wrong("it has another SHA-256"));
        }
        if self.at != self.size {
            self.frame_at = self.at;
            return Err(self.wrong("there are bytes behind its end"));
        }
        self.ended = Some(digest);
        Ok(())
    }
}

/// Where the bytes are that come next.
fn span(input: &mut Input<'_>) -> Result<(usize, usize)> {
    let taken = input.take()?.len();
    Ok((input.at - taken, input.at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a header is long enough"))
}
