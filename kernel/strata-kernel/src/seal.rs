//! Encryption at rest: what a file holds is sealed with AES-256-GCM, and opens only where it was put.
//!
//! A *key* is 32 random bytes that the caller hands in at open; it is in no file. Files name it by its *id*, a hash of it.
//! Each file has keys of its own, made from that key with HKDF: so no file holds many messages under one key, and a block
//! of one file, kind of file or database does not open in another. The address (database, kind, file, offset) is
//! authenticated with each message, and what else the caller gives, such as the header before it.
//!
//! **Nonces.** With GCM one nonce for two messages gives both away, and a log writes to one place more than once: a torn
//! tail is cut and written again, and a copied or restored directory lives on twice. So the place cannot be the nonce, a
//! counter in memory is lost with the process and doubled with the machine's snapshot, and chance is only as good as its
//! source (`env::Rng` is no such source). So the nonce is made from the message: a keyed hash of address and plaintext,
//! GHASH and then AES under keys that serve nothing else, cut to 96 bits, as AES-GCM-SIV does it. Then
//! - the same message at the same place gives the same bytes again, which tells that it is the same and no more;
//! - two different messages of one file get one nonce with probability 2^-96: 2^28 in a file make it 2^-41.
//!
//! Whoever opens needs to know none of this: the nonce stands beside the ciphertext, and the rest is AES-GCM as anywhere.
//! What this does not tell: that a whole directory was replaced by an older copy of itself.
//!
//! Bytes: `docs/design/format.md`.

use std::fmt;
use std::hint::black_box;

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use hkdf::Hkdf;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, NO_MEMORY, Result};
use crate::sabotage;

pub const KEY_BYTES: usize = 32;
pub const NONCE_BYTES: usize = 12;
pub const TAG_BYTES: usize = 16;
/// What sealing adds to a message.
pub const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// Database, kind, file and offset.
const ADDRESS: usize = 16 + 1 + 8 + 8;
/// The most that a caller may have authenticated beside the address.
pub const MOST_EXTRA: usize = 128 - ADDRESS;

/// Names a key in files and messages without telling it. All zeros name none: what is not sealed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KeyId(pub [u8; 8]);

impl KeyId {
    pub const NONE: KeyId = KeyId([0; 8]);

    pub fn is_none(self) -> bool {
        self == KeyId::NONE
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key as it was handed in. Forgotten, to the last byte, when dropped.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl Key {
    /// The bytes must be random: a password is no key.
    pub fn new(bytes: &[u8]) -> Result<Key> {
        let Ok(bytes) = <[u8; KEY_BYTES]>::try_from(bytes).map(Zeroizing::new) else {
            let text = format!("a key is {KEY_BYTES} random bytes, not {}", bytes.len());
            return Err(Error::InvalidInput(text));
        };
        let hash = Sha256::new().chain_update("strata key id").chain_update(&bytes[..]).finalize();
        let id = KeyId(*hash.first_chunk().expect("32 bytes"));
        if id.is_none() || bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(Error::InvalidInput("this key is no random bytes".to_owned()));
        }
        Ok(Key { id, bytes })
    }

    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// What kind of file a message stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Log = 1,
    Run = 2,
    Manifest = 3,
    Value = 4,
    Bundle = 5,
    Index = 6,
}

/// Where one message stands: no two of a database share it at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealPlace {
    pub kind: Kind,
    pub file: u64,
    pub offset: u64,
}

/// Keys as they are handed in, before it is known for which database.
#[derive(Clone, Debug)]
pub struct GivenKeys {
    /// Seals what is written.
    pub current: Key,
    /// Open what was sealed with them before.
    pub older: Vec<Key>,
}

impl GivenKeys {
    pub fn ring(&self, database_id: [u8; 16]) -> Keyring {
        Keyring::new(database_id, self.current.clone(), self.older.iter().cloned())
    }
}

/// The keys that were handed in for one database: the one that new files are sealed with, and those of older files.
#[derive(Clone)]
pub struct Keyring {
    database_id: [u8; 16],
    /// The current one first.
    keys: Vec<Key>,
    plain_too: bool,
    seals_nothing_new: bool,
}

impl Keyring {
    pub fn new(database_id: [u8; 16], current: Key, older: impl IntoIterator<Item = Key>) -> Keyring {
        let mut keys = vec![current];
        for key in older {
            if keys.iter().all(|known| known.id != key.id) {
                keys.push(key);
            }
        }
        Keyring { database_id, keys, plain_too: false, seals_nothing_new: false }
    }

    /// Read files that are not sealed as well: while a database that was not encrypted becomes so.
    pub fn plain_too(mut self) -> Keyring {
        self.plain_too = true;
        self
    }

    /// The same, with `key` for new files.
    pub fn with_current(&self, key: Key) -> Keyring {
        Keyring { plain_too: self.plain_too, ..Keyring::new(self.database_id, key, self.keys.iter().cloned()) }
    }

    /// The same, and new files are not sealed: while a database that was encrypted becomes plain. The MANIFEST still is.
    pub fn seal_nothing_new(&self) -> Keyring {
        Keyring { seals_nothing_new: true, ..self.clone().plain_too() }
    }

    /// Only the key for new files: once no file is sealed with another, or with none.
    pub fn only_current(&self) -> Keyring {
        Keyring::new(self.database_id, self.keys[0].clone(), [])
    }

    pub fn reads_plain(&self) -> bool {
        self.plain_too
    }

    /// The key for new files; `NONE` where they are not sealed any more.
    pub fn current(&self) -> KeyId {
        if self.seals_nothing_new { KeyId::NONE } else { self.keys[0].id }
    }

    /// The key of the MANIFEST, which is the first file to be sealed and the last not to be.
    pub fn of_manifest(&self) -> KeyId {
        self.keys[0].id
    }

    /// Whether there is one key, and everything is sealed with it.
    pub fn is_settled(&self) -> bool {
        self.keys.len() == 1 && !self.plain_too
    }

    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(|key| key.id)
    }

    pub fn database_id(&self) -> [u8; 16] {
        self.database_id
    }

    /// What seals and opens the messages of one file. Making it costs a few microseconds: keep it with the file.
    pub fn cipher(&self, kind: Kind, file: u64, key: KeyId) -> Result<FileCipher> {
        match self.keys.iter().find(|known| known.id == key) {
            Some(key) => Ok(FileCipher::new(self.database_id, kind, file, key)),
            None => Err(Error::NeedsKey { needed: key, given: self.ids().collect() }),
        }
    }

    /// Put a message, sealed with the current key, at the end of `out`: nonce, ciphertext, tag.
    pub fn seal(&self, place: SealPlace, plain: &[u8], out: &mut Vec<u8>) {
        FileCipher::new(self.database_id, place.kind, place.file, &self.keys[0]).seal(place.offset, &[], plain, out);
    }

    /// Put the message that was sealed with `key` for `place` at the end of `out`. The inner error says why not.
    pub fn open(
        &self,
        place: SealPlace,
        key: KeyId,
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Result<(), &'static str>> {
        Ok(self.cipher(place.kind, place.file, key)?.open(place.offset, &[], sealed, out))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.keys).field("plain_too", &self.plain_too).finish_non_exhaustive()
    }
}

/// What a file that names `key` is to be read with: `None` for one that is not sealed.
///
/// `NeedsKey` when it takes a key that was not given. Refused, too, is a file that is not sealed where keys were given
/// for all: or whoever can write to the disk could put in what he likes.
pub fn cipher(keys: Option<&Keyring>, kind: Kind, file: u64, key: KeyId) -> Result<Option<FileCipher>> {
    match keys {
        None if key.is_none() => Ok(None),
        None => Err(Error::NeedsKey { needed: key, given: Vec::new() }),
        Some(keys) if key.is_none() && keys.plain_too => Ok(None),
        Some(_) if key.is_none() => Err(Error::InvalidInput(
            "the database is not encrypted, and a key was given: open it without one, or ask for it to be encrypted"
                .to_owned(),
        )),
        Some(keys) => keys.cipher(kind, file, key).map(Some),
    }
}

/// What stands beside a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    pub nonce: [u8; NONCE_BYTES],
    pub tag: [u8; TAG_BYTES],
}

/// Seals and opens the messages of one file. Its keys are overwritten when it is dropped.
pub struct FileCipher {
    /// Database, kind and file.
    address: [u8; ADDRESS - 8],
    message: LessSafeKey,
    nonce_hash: GHash,
    nonce: Aes256,
}

const NOT_OPENED: &str = "it does not open with its key: it was changed, or belongs elsewhere";

impl FileCipher {
    fn new(database_id: [u8; 16], kind: Kind, file: u64, key: &Key) -> FileCipher {
        let mut address = [0; ADDRESS - 8];
        address[..16].copy_from_slice(&database_id);
        address[16] = kind as u8;
        address[17..].copy_from_slice(&file.to_le_bytes());
        let mut keys = Zeroizing::new([0; 32 + 32 + 16]);
        let expand = Hkdf::<Sha256>::from_prk(&key.bytes[..]).expect("a key is as long as the hash");
        expand.expand_multi_info(&[b"strata file keys", &address], &mut keys[..]).expect("less than 255 hashes");
        let (message, rest) = keys.split_at(32);
        let (nonce, hash) = rest.split_at(32);
        FileCipher {
            address,
            message: message_key(message),
            nonce_hash: GHash::new(hash.try_into().expect("16 bytes")),
            nonce: Aes256::new(nonce.try_into().expect("32 bytes")),
        }
    }

    /// Put the message at the end of `out`: nonce, ciphertext, tag. `extra` is authenticated with it.
    pub fn seal(&self, offset: u64, extra: &[u8], plain: &[u8], out: &mut Vec<u8>) {
        out.reserve(plain.len() + SEAL_BYTES);
        let start = out.len() + NONCE_BYTES;
        out.resize(start, 0);
        out.extend_from_slice(plain);
        let seal = self.seal_in_place(offset, extra, &mut out[start..]);
        out[start - NONCE_BYTES..start].copy_from_slice(&seal.nonce);
        out.extend_from_slice(&seal.tag);
    }

    /// Put the message that `seal` sealed with the same offset and extra at the end of `out`. After an error `out` is
    /// as it was.
    pub fn open(&self, offset: u64, extra: &[u8], sealed: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        let parts = sealed.split_first_chunk().and_then(|(nonce, rest)| Some((nonce, rest.split_last_chunk()?)));
        let Some((nonce, (ciphertext, tag))) = parts else { return Err("it is shorter than a seal") };
        out.try_reserve(ciphertext.len()).map_err(|_| NO_MEMORY)?;
        let start = out.len();
        out.extend_from_slice(ciphertext);
        let opened = self.open_in_place(offset, extra, &Seal { nonce: *nonce, tag: *tag }, &mut out[start..]);
        if opened.is_err() {
            out.truncate(start);
        }
        opened
    }

    /// Make a ciphertext of `message`.
    pub fn seal_in_place(&self, offset: u64, extra: &[u8], message: &mut [u8]) -> Seal {
        let (associated, length) = self.associated(offset, extra);
        let associated = &associated[..length];
        let nonce = if sabotage::on("T56") { nonce_of_place(offset) } else { self.nonce_of(associated, message) };
        let once = Nonce::assume_unique_for_key(nonce);
        let tag = self.message.seal_in_place_separate_tag(once, Aad::from(associated), message);
        let tag = tag.expect("a message is shorter than 64 GiB");
        Seal { nonce, tag: tag.as_ref().try_into().expect("16 bytes") }
    }

    /// Make the message of a ciphertext again. After an error it is neither.
    pub fn open_in_place(
        &self,
        offset: u64,
        extra: &[u8],
        seal: &Seal,
        ciphertext: &mut [u8],
    ) -> Result<(), &'static str> {
        let (associated, length) = self.associated(offset, extra);
        let (nonce, tag) = (Nonce::assume_unique_for_key(seal.nonce), Tag::from(seal.tag));
        let opened =
            self.message.open_in_place_separate_tag(nonce, Aad::from(&associated[..length]), tag, ciphertext, 0..);
        opened.map(|_| ()).map_err(|_| NOT_OPENED)
    }

    fn associated(&self, offset: u64, extra: &[u8]) -> ([u8; ADDRESS + MOST_EXTRA], usize) {
        let mut bytes = [0; ADDRESS + MOST_EXTRA];
        if !sabotage::on("T55") {
            bytes[..ADDRESS - 8].copy_from_slice(&self.address);
            bytes[ADDRESS - 8..ADDRESS].copy_from_slice(&offset.to_le_bytes());
        }
        bytes[ADDRESS..ADDRESS + extra.len()].copy_from_slice(extra);
        (bytes, ADDRESS + extra.len())
    }

    /// A keyed hash of all that is sealed.
    fn nonce_of(&self, associated: &[u8], message: &[u8]) -> [u8; NONCE_BYTES] {
        let mut hash = self.nonce_hash.clone();
        hash.update_padded(associated);
        hash.update_padded(message);
        let mut lengths = ghash::Block::default();
        lengths[..8].copy_from_slice(&(associated.len() as u64).to_be_bytes());
        lengths[8..].copy_from_slice(&(message.len() as u64).to_be_bytes());
        hash.update(&[lengths]);
        let mut block = hash.finalize();
        self.nonce.encrypt_block(&mut block);
        let nonce = *block.first_chunk().expect("16 bytes");
        block.zeroize();
        nonce
    }
}

fn message_key(bytes: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("32 bytes"))
}

impl Drop for FileCipher {
    /// The other two do so themselves.
    fn drop(&mut self) {
        self.message = message_key(&[0; KEY_BYTES]);
        black_box(&self.message); // or the compiler would see that nobody reads it
    }
}

/// The planted bug: what is written again to the same place gets the same nonce.
fn nonce_of_place(offset: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..8].copy_from_slice(&offset.to_le_bytes());
    nonce
}

impl fmt::Debug for FileCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileCipher")
    }
}

#[cfg(test)]
mod tests;
