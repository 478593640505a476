//! The laws of patches, attacked: regions that do not overlap commute, and what no region overlaps reads alike.
//!
//! Strategy: random documents and ops over three keys and short lists, where almost everything meets, and
//! then every op of a small universe against every other on every document of another.

use proptest::collection::vec;
use proptest::prelude::*;

use super::model::{self, Value};
use crate::value::patch::apply;
use crate::value::{Op, Patched, Path, Step, check, equal, find, overlaps};

fn run(document: Option<&[u8]>, ops: &[Op]) -> Option<Patched> {
    apply(document, ops).ok()
}

fn disjoint(ours: &[Path], theirs: &[Path]) -> bool {
    !ours.iter().any(|a| theirs.iter().any(|b| overlaps(a, b)))
}

fn same(a: &Option<Vec<u8>>, b: &Option<Vec<u8>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => equal(a, b),
        (a, b) => a == b,
    }
}

/// Both orders of two patches that each work alone and whose regions are disjoint. False: they are not.
fn assert_commute(document: Option<&[u8]>, ours: &[Op], theirs: &[Op], a: &Patched, b: &Patched) -> bool {
    if !disjoint(&a.touched, &b.touched) {
        return false;
    }
    let case = || format!("{:?} {ours:?} {theirs:?}", document.map(Value::decode));
    let ab = apply(a.value.as_deref(), theirs).unwrap_or_else(|error| panic!("{error} after ours: {}", case()));
    let ba = apply(b.value.as_deref(), ours).unwrap_or_else(|error| panic!("{error} after theirs: {}", case()));
    assert!(same(&ab.value, &ba.value), "the order shows: {}", case());
    // Regions, too, are the same wherever the patch is applied: validation may use either.
    assert_eq!((&ab.touched, &ba.touched), (&b.touched, &a.touched), "regions moved: {}", case());
    true
}

fn assert_reads_alike(document: Option<&[u8]>, patched: &Patched, path: &Path) -> bool {
    if !disjoint(std::slice::from_ref(path), &patched.touched) {
        return false;
    }
    let before = document.and_then(|bytes| find(bytes, path).map(|range| &bytes[range]));
    let after = patched.value.as_deref().and_then(|bytes| find(bytes, path).map(|range| &bytes[range]));
    assert_eq!(before, after, "{} of {:?}", path.render(), document.map(Value::decode));
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn patch_equals_model(document in model::small_document(), ops in vec(model::op(), 1..5)) {
        let bytes = document.as_ref().map(Value::encode);
        let ours = apply(bytes.as_deref(), &ops);
        let theirs = model::patch(document, &ops);
        match (ours, theirs) {
            (Ok(ours), Some(theirs)) => {
                if let Some(bytes) = &ours.value {
                    check(bytes).unwrap();
                }
                prop_assert_eq!(ours.value.map(|bytes| Value::decode(&bytes)), theirs);
            }
            (Err(_), None) => {}
            (ours, theirs) => prop_assert!(false, "{:?} against {:?}", ours, theirs),
        }
    }

    #[test]
    fn disjoint_ops_commute(document in model::small_document(), ops in vec(model::op(), 12)) {
        let bytes = document.as_ref().map(Value::encode);
        let done: Vec<_> = ops.iter().filter_map(|op| Some((op, run(bytes.as_deref(), std::slice::from_ref(op))?))).collect();
        for (ours, a) in &done {
            for (theirs, b) in &done {
                assert_commute(bytes.as_deref(), std::slice::from_ref(ours), std::slice::from_ref(theirs), a, b);
            }
        }
    }

    #[test]
    fn disjoint_patches_commute(
        document in model::small_document(),
        patches in vec(vec(model::op(), 1..4), 12),
    ) {
        let bytes = document.as_ref().map(Value::encode);
        let done: Vec<_> = patches.iter().filter_map(|ops| Some((ops, run(bytes.as_deref(), ops)?))).collect();
        for (ours, a) in &done {
            for (theirs, b) in &done {
                assert_commute(bytes.as_deref(), ours, theirs, a, b);
            }
        }
    }

    #[test]
    fn reads_outside_the_regions_stand(
        document in model::small_document(),
        ops in vec(model::op(), 1..4),
        paths in vec(model::path(), 12),
    ) {
        let bytes = document.as_ref().map(Value::encode);
        if let Some(patched) = run(bytes.as_deref(), &ops) {
            for path in &paths {
                assert_reads_alike(bytes.as_deref(), &patched, path);
            }
        }
    }

    #[test]
    fn regions_are_resolved_and_apart(document in model::small_document(), ops in vec(model::op(), 1..4)) {
        let bytes = document.as_ref().map(Value::encode);
        let touched = run(bytes.as_deref(), &ops).map_or(Vec::new(), |patched| patched.touched);
        for (a, b) in touched.iter().zip(touched.iter().skip(1)) {
            prop_assert!(a < b && !overlaps(a, b), "{} and {}", a.render(), b.render());
        }
        for path in touched {
            prop_assert!(!path.0.iter().any(|step| matches!(step, Step::End | Step::Index(..0))), "{}", path.render());
        }
    }
}

/// Every value of at most two levels over keys a, b and leaves null, 1.
fn universe_of_values() -> Vec<Value> {
    let leaves = [Value::Null, Value::Int(1)];
    let maps = |inner: &[Value]| {
        let choices: Vec<Option<&Value>> = std::iter::once(None).chain(inner.iter().map(Some)).collect();
        let mut maps = Vec::new();
        for a in &choices {
            for b in &choices {
                let pairs = [("a", a), ("b", b)].into_iter();
                let pairs = pairs.filter_map(|(key, value)| Some((key.to_owned(), (*value)?.clone())));
                maps.push(Value::Map(pairs.collect()));
            }
        }
        maps
    };
    let lists = |inner: &[Value]| {
        let mut lists = vec![Value::List(vec![])];
        lists.extend(inner.iter().map(|item| Value::List(vec![item.clone()])));
        lists.extend(inner.iter().map(|item| Value::List(vec![Value::Int(0), item.clone()])));
        lists
    };
    let mut flat = leaves.to_vec();
    flat.extend(lists(&leaves[1..]));
    flat.extend(maps(&leaves));
    let mut all = flat.clone();
    all.extend(lists(&flat));
    all.extend(maps(&flat[1..]));
    all
}

fn universe_of_ops() -> Vec<Op> {
    let steps =
        [Step::Key("a".into()), Step::Key("b".into()), Step::Index(0), Step::Index(-1), Step::Index(1), Step::End];
    let mut paths = vec![Path::root()];
    for first in &steps {
        paths.push(Path(vec![first.clone()]));
        for second in &steps {
            paths.push(Path(vec![first.clone(), second.clone()]));
        }
    }
    for third in &steps {
        paths.push(Path(vec![steps[0].clone(), steps[0].clone(), third.clone()]));
        paths.push(Path(vec![steps[0].clone(), steps[2].clone(), third.clone()]));
    }
    let map = |key: &str, value: Value| Value::Map([(key.to_owned(), value)].into());
    let patches = [
        Value::Null,
        Value::Map([].into()),
        map("a", Value::Null),
        map("a", Value::Int(7)),
        map("a", map("b", Value::Null)),
        map("b", Value::Map([].into())),
    ];
    let mut ops = Vec::new();
    for path in paths {
        ops.push(Op::Delete { path: path.clone() });
        ops.push(Op::Set { path: path.clone(), value: Value::Int(8).encode() });
        ops.push(Op::Set { path: path.clone(), value: Value::List(vec![Value::Int(9)]).encode() });
        ops.push(Op::Insert { path: path.clone(), value: Value::Int(6).encode() });
        ops.extend(patches.iter().map(|patch| Op::Merge { path: path.clone(), patch: patch.encode() }));
    }
    ops
}

#[test]
fn every_small_pair_commutes() {
    let mut documents = vec![None];
    documents.extend(universe_of_values().iter().map(|value| Some(value.encode())));
    let ops = universe_of_ops();
    let mut commuting = 0;
    for document in &documents {
        let document = document.as_deref();
        let done: Vec<_> = ops.iter().filter_map(|op| Some((op, run(document, std::slice::from_ref(op))?))).collect();
        for (n, (ours, a)) in done.iter().enumerate() {
            for (theirs, b) in &done[n..] {
                let one = std::slice::from_ref::<Op>;
                commuting += usize::from(assert_commute(document, one(ours), one(theirs), a, b));
            }
        }
    }
    assert!(commuting > 100_000, "only {commuting} pairs were disjoint: the universe is too small");
}

#[test]
fn every_small_read_stands() {
    let ops = universe_of_ops();
    let paths: Vec<Path> =
        ops.iter().filter_map(|op| if let Op::Delete { path } = op { Some(path.clone()) } else { None }).collect();
    let mut untouched = 0;
    for document in std::iter::once(None).chain(universe_of_values().iter().map(|value| Some(value.encode()))) {
        for op in &ops {
            let Some(patched) = run(document.as_deref(), std::slice::from_ref(op)) else { continue };
            untouched += paths.iter().filter(|path| assert_reads_alike(document.as_deref(), &patched, path)).count();
        }
    }
    assert!(untouched > 100_000, "only {untouched} reads were outside");
}
