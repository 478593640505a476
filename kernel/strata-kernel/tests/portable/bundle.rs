//! Bundles: what goes out comes in again, equal content is equal bytes, and no other bytes do harm.

use std::sync::Arc;

use proptest::prelude::*;
use strata_kernel::Error;
use strata_kernel::branch::At;
use strata_kernel::change::{Expiry, What, Write};
use strata_kernel::env::sim::Sim;
use strata_kernel::store::{Bundle, Options, Store, import, verify_bundle};

use crate::grown::*;

fn exported(store: &Store, branch: Option<&str>, history: bool) -> (Sim, Bundle) {
    let outside = Sim::new(7);
    let made = store.export(&outside.env(), "out", branch, history, None).unwrap();
    assert_eq!(outside.disk.paths(), ["out"]);
    assert_eq!(outside.disk.content("out").unwrap().len() as u64, made.bytes);
    assert_eq!(verify_bundle(&outside.env(), "out", None).unwrap(), made);
    (outside, made)
}

fn imported(outside: &Sim, seed: u64) -> (Sim, Arc<Store>) {
    let target = Sim::new(seed);
    import(&outside.env(), "out", &target.env(), "db", None).unwrap();
    assert!(target.disk.paths().iter().all(|path| path.starts_with("db/")), "{:?}", target.disk.paths());
    let inside = Sim::new(seed);
    for path in target.disk.crash(seed).paths() {
        let content = target.disk.crash(seed).content(&path).unwrap();
        inside.disk.replace(path.strip_prefix("db/").unwrap(), content);
    }
    let store = Store::open(
        inside.env(),
        &Options { block_bytes: 256, segment_bytes: 1 << 16, create: false, ..Options::default() },
    )
    .unwrap();
    check(&store);
    (inside, store)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn all_history_comes_in_as_it_went_out(steps in prop::collection::vec(any_step(), 0..60)) {
        for (_, store) in grown(&steps) {
            let (outside, made) = exported(&store, None, true);
            let (sim, again) = imported(&outside, 3);
            let said = history_of(&store);
            let has_main = made.branches.iter().any(|name| name == "main");
            if has_main {
                prop_assert_eq!(&said, &history_of(&again));
                // And once more: the same bytes.
                prop_assert_eq!(exported(&again, None, true).1.digest, made.digest);
            }
            prop_assert!(again.database_id() != store.database_id());
            // It goes on as any other.
            let before = again.branch("main").unwrap().head().max(again.log.last_version());
            again.seal(&pick(&again, 0).name.read().clone(), None).unwrap();
            act(&sim, &again, &Step::Put(0, 0, 0, 0));
            prop_assert!(pick(&again, 0).head() > before.min(again.log.last_version() - 1));
            again.close().unwrap();
            let reopened = Store::open(sim.env(), &options(true)).unwrap();
            check(&reopened);
        }
    }

    #[test]
    fn the_newest_comes_in_and_equal_content_is_equal_bytes(steps in prop::collection::vec(any_step(), 0..60)) {
        let [(_, disk), (_, memory)] = grown(&steps);
        let (outside, made) = exported(&disk, None, false);
        prop_assert_eq!(exported(&memory, None, false).1.digest, made.digest);
        let (_, again) = imported(&outside, 3);
        if made.branches.iter().any(|name| name == "main") {
            prop_assert_eq!(newest_of(&disk), newest_of(&again));
            prop_assert_eq!(exported(&again, None, false).1.digest, made.digest);
        }
        // Put together in another way: one key after the other, branches without forks.
        let sim = Sim::new(9);
        let other = Store::memory(sim.env());
        for info in disk.branches().unwrap().iter().rev() {
            if info.name != "main" {
                other.create(&info.name).unwrap();
            }
            let (from, to) = (disk.branch(&info.name).unwrap(), other.branch(&info.name).unwrap());
            let all = rows_at(&disk, &from, At::from(from.head()));
            for ((space, kind), rows) in all.iter().rev() {
                for (key, value) in rows.iter().rev() {
                    let (old, new) = (disk.keyspace(space, kind), other.keyspace(space, kind));
                    let expires = from.read(old, key, from.head(), |found| found.unwrap().expires).unwrap();
                    let what = if expires == 0 { What::Put(value) } else { What::PutFor(value, Expiry::At(expires)) };
                    other.write(&to, &[Write { keyspace: new, key, what: What::Put(&[1]) }]).unwrap();
                    other.write(&to, &[Write { keyspace: new, key, what }]).unwrap();
                }
            }
            for space in disk.spaces(&from, from.head()).unwrap() {
                let keyspace = other.keyspace(&space, "kv");
                if !other.space_exists(&to, &space, u64::MAX - 1).unwrap() {
                    other.write(&to, &[Write { keyspace, key: b"gone", what: What::Put(&[1]) }]).unwrap();
                    other.delete(&to, keyspace, &[b"gone".to_vec()]).unwrap();
                }
            }
        }
        if made.branches.iter().any(|name| name == "main") {
            prop_assert_eq!(exported(&other, None, false).1.digest, made.digest);
        }
    }

    #[test]
    fn one_branch_comes_with_what_it_shows(steps in prop::collection::vec(any_step(), 0..60), chosen: u8) {
        for (_, store) in grown(&steps) {
            let name = pick(&store, chosen).name.read().clone();
            for history in [false, true] {
                let (outside, made) = exported(&store, Some(&name), history);
                prop_assert_eq!(&made.branches, std::slice::from_ref(&name));
                let (_, again) = imported(&outside, 3);
                let (old, new) = (store.branch(&name).unwrap(), again.branch(&name).unwrap());
                prop_assert_eq!(
                    rows_at(&store, &old, At::from(old.head())),
                    rows_at(&again, &new, At::from(new.head()))
                );
                if history {
                    for commit in old.commits(0, u64::MAX, false, usize::MAX).unwrap() {
                        let at = At::from(commit.version);
                        prop_assert_eq!(rows_at(&store, &old, at), rows_at(&again, &new, at));
                        prop_assert_eq!(new.time_of(commit.version).unwrap(), commit.time);
                    }
                }
            }
        }
    }
}

// --- damage ------------------------------------------------------------------------------------------

fn small_bundles() -> Vec<Sim> {
    let steps: Vec<Step> = (0..16u8)
        .map(|n| match n % 8 {
            0 => Step::Fork(n, n / 8, 150),
            1 => Step::Delete(n, n, n),
            2 => Step::Append(n, n),
            3 => Step::Noted(n, n),
            4 => Step::Add(n, n),
            _ => Step::Put(n, n, n * 3, n),
        })
        .collect();
    let [(_, store), _] = grown(&steps);
    [false, true].into_iter().map(|history| exported(&store, None, history).0).collect()
}

/// Refused, and nothing is left.
fn refused(bundle: &Sim, content: Vec<u8>) -> Error {
    bundle.disk.replace("out", content);
    let target = Sim::new(3);
    let error = import(&bundle.env(), "out", &target.env(), "db", None).expect_err("it is damaged");
    assert_eq!(target.disk.paths(), Vec::<String>::new());
    assert_eq!(verify_bundle(&bundle.env(), "out", None).expect_err("it is damaged"), error);
    error
}

#[test]
fn every_bit_and_every_length_is_checked() {
    for bundle in small_bundles() {
        let whole = bundle.disk.content("out").unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(refused(&bundle, damaged), Error::Corrupt { .. }), "bit {bit}");
        }
        for length in 0..whole.len() {
            assert!(matches!(refused(&bundle, whole[..length].to_vec()), Error::Corrupt { .. }), "length {length}");
        }
        let longer = [&whole[..], &[0]].concat();
        assert!(matches!(refused(&bundle, longer), Error::Corrupt { .. }));
        assert!(matches!(refused(&bundle, [&whole[..], &whole[..]].concat()), Error::Corrupt { .. }));
    }
}

/// Make the checksums right again, so that what is behind them is tried.
pub fn repaired(mut bytes: Vec<u8>) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let number = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    if bytes.len() < 64 {
        return bytes;
    }
    let header = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..64]);
    bytes[12..16].copy_from_slice(&header.to_le_bytes());
    let mut at = 64;
    while at + 16 <= bytes.len() {
        let end = at + 16 + number(&bytes, at + 4) as usize;
        if end > bytes.len() {
            return bytes;
        }
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[at + 16..end]), &bytes[at..at + 12]);
        let checksum = crc32c::crc32c_append(checksum, &(at as u64).to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&checksum.to_le_bytes());
        if bytes[at] == 0xe4 && end + 32 == bytes.len() {
            let digest: [u8; 32] = Sha256::digest(&bytes[..end]).into();
            bytes[end..].copy_from_slice(&digest);
            return bytes;
        }
        at = end;
    }
    bytes
}

/// Bytes that somebody made up and that check: they are refused, or make a database that can be read to its end.
#[test]
fn what_checks_and_was_made_up_is_refused_or_harmless() {
    let mut taken = 0;
    for bundle in small_bundles() {
        let whole = bundle.disk.content("out").unwrap();
        for (at, change) in (64..whole.len()).flat_map(|at| [1, 0x80, 0xff].map(|change| (at, change))) {
            let mut changed = whole.clone();
            changed[at] ^= change;
            bundle.disk.replace("out", repaired(changed));
            let target = Sim::new(3);
            if import(&bundle.env(), "out", &target.env(), "db", None).is_err() {
                assert_eq!(target.disk.paths(), Vec::<String>::new());
                continue;
            }
            taken += 1;
            let (_, store) = imported(&bundle, 3);
            let _ = history_of_anything(&store);
        }
    }
    assert!(taken > 100, "{taken}");
}

fn history_of_anything(store: &Store) -> Result<(), Error> {
    for info in store.branches()? {
        let branch = store.branch(&info.name)?;
        for commit in branch.commits(0, u64::MAX, false, usize::MAX)? {
            let _ = rows_at(store, &branch, At::from(commit.version));
            branch.version_at(commit.time)?;
        }
        store.spaces(&branch, branch.head())?;
        let _ = store
            .write(&branch, &[Write { keyspace: store.keyspace("default", "kv"), key: b"k", what: What::Put(&[1]) }]);
    }
    store.close()
}

/// A frame that says it unpacks to half a gigabyte, and one that says it is that long.
#[test]
fn lying_lengths_take_no_memory() {
    let bundle = small_bundles().remove(0);
    let whole = bundle.disk.content("out").unwrap();
    for (codec, stored, raw) in [(1, 8, 512 << 20), (0, 512 << 20, 512 << 20), (1, 3 << 20, u32::MAX)] {
        let mut lying = whole[..64].to_vec();
        lying.extend_from_slice(&[0xe2, codec, 0, 0]);
        lying.extend_from_slice(&u32::to_le_bytes(stored));
        lying.extend_from_slice(&u32::to_le_bytes(raw));
        lying.extend_from_slice(&[0; 4]);
        lying.resize(lying.len() + (stored as usize).min(4 << 20), 0);
        assert!(matches!(refused(&bundle, repaired(lying)), Error::Corrupt { offset: 64, .. }));
    }
}

#[test]
fn what_is_there_is_not_replaced() {
    let bundle = small_bundles().remove(0);
    let target = Sim::new(3);
    target.disk.replace("db", vec![1]);
    let error = import(&bundle.env(), "out", &target.env(), "db", None).unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }));
    assert_eq!(target.disk.content("db"), Some(vec![1]));
    for name in ["", ".", "..", "a/b", "/etc", "a\0b"] {
        assert!(
            matches!(import(&bundle.env(), "out", &target.env(), name, None), Err(Error::InvalidInput(_))),
            "{name}"
        );
    }
    let store = Store::memory(Sim::new(1).env());
    assert!(matches!(store.export(&target.env(), "db", None, false, None), Err(Error::AlreadyExists { .. })));
    assert!(matches!(store.export(&target.env(), "new", Some("none"), false, None), Err(Error::NotFound { .. })));
    assert_eq!(target.disk.paths(), ["db"]);
}

/// A power cut at every call, and every call failing: all of it, or none under its name.
#[test]
fn a_crash_leaves_all_or_nothing() {
    for bundle in small_bundles() {
        let target = Sim::new(3);
        import(&bundle.env(), "out", &target.env(), "db", None).unwrap();
        let mut whole = 0;
        for count in 0..=target.disk.journal_len() {
            for seed in 0..8 {
                let image = target.disk.image_at(count, seed);
                if image.paths().iter().any(|path| path.starts_with("db/")) {
                    whole += 1;
                    let inside = Sim::new(1);
                    for path in image.paths().iter().filter_map(|path| path.strip_prefix("db/")) {
                        inside.disk.replace(path, image.content(&format!("db/{path}")).unwrap());
                    }
                    let store = Store::open(inside.env(), &options(true)).unwrap();
                    check(&store);
                }
            }
        }
        assert!(whole > 0);
        for at in 0..target.disk.calls() {
            use strata_kernel::env::sim::{EIO, Fault, FaultKind};
            let failing = Sim::new(3);
            failing.disk.fail(Fault { at, forever: true, kind: FaultKind::Errno(EIO) });
            let outcome = import(&bundle.env(), "out", &failing.env(), "db", None);
            failing.disk.heal();
            let is_there = failing.disk.paths().iter().any(|path| path.starts_with("db/"));
            assert!(!is_there || outcome.is_ok() || at + 3 > target.disk.calls(), "call {at}");
        }
    }
}
