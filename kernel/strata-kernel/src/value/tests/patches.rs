//! Patches by example: what each op does, what it says when it refuses, and which region it touches.

use super::model::Value;
use crate::error::Error;
use crate::value::patch::apply;
use crate::value::*;

/// A path from its steps: "0" and "-1" are indices, "-" the end, all else keys.
fn path(steps: &str) -> Path {
    Path(
        steps
            .split_whitespace()
            .map(|step| match step {
                "-" => Step::End,
                step => step.parse().map(Step::Index).unwrap_or_else(|_| Step::Key(step.into())),
            })
            .collect(),
    )
}

fn map(pairs: &[(&str, Value)]) -> Value {
    Value::Map(pairs.iter().map(|(key, value)| (key.to_string(), value.clone())).collect())
}

fn list(items: &[i64]) -> Value {
    Value::List(items.iter().map(|&item| Value::Int(item)).collect())
}

fn set(steps: &str, value: Value) -> Op {
    Op::Set { path: path(steps), value: value.encode() }
}

fn delete(steps: &str) -> Op {
    Op::Delete { path: path(steps) }
}

fn insert(steps: &str, value: i64) -> Op {
    Op::Insert { path: path(steps), value: Value::Int(value).encode() }
}

fn merge(steps: &str, patch: Value) -> Op {
    Op::Merge { path: path(steps), patch: patch.encode() }
}

/// {"a": {"b": "text"}, "l": [1, 2, 3]}
fn document() -> Value {
    map(&[("a", map(&[("b", Value::String("text".into()))])), ("l", list(&[1, 2, 3]))])
}

/// The value and the regions after one op on `document()`.
fn after(op: Op) -> (Value, Vec<String>) {
    let patched = apply(Some(&document().encode()), &[op]).unwrap();
    (Value::decode(&patched.value.unwrap()), patched.touched.iter().map(Path::render).collect())
}

fn at(steps: &str, value: &Value) -> Option<Value> {
    value.get(&path(steps).0).cloned()
}

fn refusal(op: Op) -> String {
    apply(Some(&document().encode()), &[op]).unwrap_err().to_string()
}

#[test]
fn set_replaces_adds_and_appends() {
    let (value, touched) = after(set("a b", Value::Int(1)));
    assert_eq!((at("a b", &value), touched), (Some(Value::Int(1)), vec!["$.a.b".to_string()]));
    let (value, touched) = after(set("a x y", Value::Int(1)));
    assert_eq!((at("a x y", &value), touched), (Some(Value::Int(1)), vec!["$.a.x.y".to_string()]));
    let (value, touched) = after(set("l -", Value::Int(4)));
    assert_eq!((at("l", &value), touched), (Some(list(&[1, 2, 3, 4])), vec!["$.l".to_string()]));
    let (value, touched) = after(set("l -1", Value::Int(9)));
    assert_eq!((at("l", &value), touched), (Some(list(&[1, 2, 9])), vec!["$.l[2]".to_string()]));
    assert_eq!(after(set("", Value::Null)), (Value::Null, vec!["$".to_string()]));
}

#[test]
fn delete_removes_and_minds_nothing_missing() {
    let (value, touched) = after(delete("a b"));
    assert_eq!((at("a", &value), touched), (Some(map(&[])), vec!["$.a.b".to_string()]));
    let (value, touched) = after(delete("l -1"));
    assert_eq!((at("l", &value), touched), (Some(list(&[1, 2])), vec!["$.l".to_string()]));
    let missing =
        [("x", "$.x"), ("x y z", "$.x.y.z"), ("l 7", "$.l"), ("l -", "$.l"), ("l 7 x", "$.l"), ("x y 0 z", "$.x.y")];
    for (steps, region) in missing {
        assert_eq!(after(delete(steps)), (document(), vec![region.to_string()]), "{steps}");
    }
}

#[test]
fn insert_shifts_what_follows() {
    for (steps, expected) in [
        ("l 0", [9, 1, 2, 3]),
        ("l 2", [1, 2, 9, 3]),
        ("l 3", [1, 2, 3, 9]),
        ("l -", [1, 2, 3, 9]),
        ("l -1", [1, 2, 9, 3]),
        ("l -3", [9, 1, 2, 3]),
    ] {
        let (value, touched) = after(insert(steps, 9));
        assert_eq!((at("l", &value), touched), (Some(list(&expected)), vec!["$.l".to_string()]), "{steps}");
    }
}

/// The examples of RFC 7396, appendix A, as far as they are maps and lists of ours.
#[test]
fn merge_is_that_of_the_rfc() {
    let text = |text: &str| Value::String(text.into());
    let examples = [
        (map(&[("a", text("b"))]), map(&[("a", text("c"))]), map(&[("a", text("c"))])),
        (map(&[("a", text("b"))]), map(&[("b", text("c"))]), map(&[("a", text("b")), ("b", text("c"))])),
        (map(&[("a", text("b"))]), map(&[("a", Value::Null)]), map(&[])),
        (map(&[("a", text("b")), ("b", text("c"))]), map(&[("a", Value::Null)]), map(&[("b", text("c"))])),
        (map(&[("a", list(&[1]))]), map(&[("a", text("c"))]), map(&[("a", text("c"))])),
        (map(&[("a", text("c"))]), map(&[("a", list(&[1]))]), map(&[("a", list(&[1]))])),
        (
            map(&[("a", map(&[("b", text("c"))]))]),
            map(&[("a", map(&[("b", text("d")), ("c", Value::Null)]))]),
            map(&[("a", map(&[("b", text("d"))]))]),
        ),
        (list(&[1, 2]), list(&[3, 4]), list(&[3, 4])),
        (map(&[("a", text("b"))]), list(&[1]), list(&[1])),
        (map(&[("a", text("foo"))]), Value::Null, Value::Null),
        (map(&[("a", text("foo"))]), text("bar"), text("bar")),
        (map(&[("e", Value::Null)]), map(&[("a", Value::Int(1))]), map(&[("e", Value::Null), ("a", Value::Int(1))])),
        (list(&[1, 2]), map(&[("a", text("b")), ("c", Value::Null)]), map(&[("a", text("b"))])),
        (
            map(&[]),
            map(&[("a", map(&[("bb", map(&[("ccc", Value::Null)]))]))]),
            map(&[("a", map(&[("bb", map(&[]))]))]),
        ),
    ];
    for (target, patch, result) in examples {
        let patched = apply(Some(&target.encode()), &[merge("", patch)]).unwrap();
        assert_eq!(Value::decode(&patched.value.unwrap()), result);
    }
}

#[test]
fn merge_touches_the_leaves_of_its_patch() {
    let touched = |op| after(op).1;
    let one = Value::Int(1);
    assert_eq!(
        touched(merge("", map(&[("a", map(&[("b", Value::Null), ("c", one.clone())])), ("x", one.clone())]))),
        ["$.a.b", "$.a.c", "$.x"]
    );
    // Nothing was there: maps made on the way are not touched.
    assert_eq!(touched(merge("x", map(&[("y", map(&[("z", one.clone())]))]))), ["$.x.y.z"]);
    // A list and a string had to go.
    assert_eq!(touched(merge("", map(&[("l", map(&[("z", one.clone())]))]))), ["$.l"]);
    assert_eq!(touched(merge("a b", map(&[("z", one.clone())]))), ["$.a.b"]);
    assert_eq!(touched(merge("a", map(&[]))), ["$.a"]);
    assert_eq!(touched(merge("l -1", one)), ["$.l[2]"]);
}

#[test]
fn refusals_name_path_and_reason() {
    let one = || Value::Int(1);
    assert_eq!(refusal(set("a b c", one())), "path $.a.b.c: 'b' is a string, not a map");
    assert_eq!(refusal(set("a 0", one())), "path $.a[0]: 'a' is a map, not a list");
    assert_eq!(refusal(set("l x", one())), "path $.l.x: 'l' is a list, not a map");
    assert_eq!(refusal(set("0", one())), "path $[0]: the document is a map, not a list");
    assert_eq!(refusal(delete("l 0 x")), "path $.l[0].x: $.l[0] is an int, not a map");
    assert_eq!(refusal(set("l 3", one())), "path $.l[3]: index 3 is beyond the end of 'l', which has 3 elements");
    assert_eq!(refusal(insert("l -4", 1)), "path $.l[-4]: index -4 is beyond the end of 'l', which has 3 elements");
    assert!(refusal(set("x y -", one())).starts_with("path $.x.y[-]: 'y' is missing"));
    assert!(refusal(insert("x 0", 1)).starts_with("path $.x[0]: 'x' is missing"));
    assert!(refusal(set("l - x", one())).starts_with("path $.l[-].x: nothing stands at the end of 'l'"));
    assert!(refusal(delete("")).starts_with("path $: "));
    assert!(refusal(insert("a", 1)).starts_with("path $.a: "));
    assert!(matches!(Error::from(apply(None, &[insert("a", 1)]).unwrap_err()), Error::InvalidInput(_)));
}

#[test]
fn a_document_is_made_by_what_writes() {
    let made = |op: Op| apply(None, &[op]).unwrap();
    let patched = made(set("a b", Value::Int(1)));
    assert_eq!(Value::decode(&patched.value.unwrap()), map(&[("a", map(&[("b", Value::Int(1))]))]));
    assert_eq!(patched.touched, [path("a b")]);
    assert_eq!(made(merge("", Value::Int(1))), Patched { value: Some(vec![1]), touched: vec![Path::root()] });
    assert_eq!(made(set("", Value::Int(1))), Patched { value: Some(vec![1]), touched: vec![Path::root()] });
    assert_eq!(made(delete("a b")), Patched { value: None, touched: vec![path("a b")] });
    assert_eq!(made(delete("a 0")).touched, [path("a")]);
    assert!(apply(None, &[insert("0", 1)]).is_err());
}

/// Headers hold 15, then 65,535, before they grow: the element before and after must survive each crossing.
#[test]
fn headers_grow_and_shrink() {
    for size in [15usize, 65_535] {
        let items: Vec<i64> = (0..size as i64).collect();
        let bytes = map(&[("a", Value::Int(1)), ("l", list(&items)), ("z", Value::Int(2))]).encode();
        let grown = apply(Some(&bytes), &[set("l -", Value::Int(-1))]).unwrap().value.unwrap();
        check(&grown).unwrap();
        assert_eq!(at("l -1", &Value::decode(&grown)), Some(Value::Int(-1)));
        let shrunk = apply(Some(&grown), &[delete("l -1")]).unwrap().value.unwrap();
        assert_eq!(shrunk, bytes);
        let pairs: Vec<(String, Value)> = items.iter().map(|n| (format!("k{n:05}"), Value::Int(*n))).collect();
        let bytes = Value::Map(pairs.into_iter().collect()).encode();
        let grown = apply(Some(&bytes), &[set("z", Value::Null)]).unwrap().value.unwrap();
        check(&grown).unwrap();
        assert_eq!(apply(Some(&grown), &[delete("z")]).unwrap().value.unwrap(), bytes);
    }
}

#[test]
fn limits_hold_for_the_result() {
    let deep = |depth: usize| {
        let mut bytes = vec![0x91; depth];
        bytes.push(0xc0);
        bytes
    };
    let keys = |count| Path(vec![Step::Key("k".into()); count]);
    let set = |path, value| Op::Set { path, value };
    assert!(apply(None, &[set(keys(MAX_DEPTH), vec![1])]).is_ok());
    assert!(apply(None, &[set(keys(64), deep(64))]).is_ok());
    let merge = Op::Merge {
        path: keys(100),
        patch: {
            let mut bytes = [0x81, 0xa1, b'k'].repeat(29);
            bytes.push(1);
            bytes
        },
    };
    for op in [set(keys(MAX_DEPTH + 1), vec![1]), set(keys(64), deep(65)), merge] {
        let error = Error::from(apply(None, &[op]).unwrap_err());
        assert_eq!(error, Error::LimitExceeded { what: "value depth", limit: 128, actual: 129 });
    }
    // Too deep for a moment only.
    assert!(apply(None, &[set(keys(200), vec![1]), Op::Delete { path: keys(1) }]).is_ok());
    let mut large = Vec::new();
    write::bytes(&mut large, &vec![0; MAX_VALUE_BYTES - 5]);
    assert!(apply(None, &[set(Path::root(), large.clone())]).is_ok());
    let error = Error::from(apply(None, &[set(keys(1), large)]).unwrap_err());
    assert!(matches!(error, Error::LimitExceeded { what: "value size", .. }));
}

#[test]
fn a_patch_is_all_or_nothing_and_in_order() {
    let document = document().encode();
    let ops = [set("x", list(&[])), set("x -", Value::Int(1)), set("x -", Value::Int(2)), delete("x 0")];
    let patched = apply(Some(&document), &ops).unwrap();
    assert_eq!(at("x", &Value::decode(&patched.value.unwrap())), Some(list(&[2])));
    assert_eq!(patched.touched, [path("x")]);
    assert!(apply(Some(&document), &[set("x", Value::Int(1)), set("x y", Value::Int(1))]).is_err());
}

/// Python shows maps in the order of their bytes, so a new key must not jump the queue.
#[test]
fn new_keys_come_last() {
    let mut before = vec![0x81, 0xa1, b'm', 0x01];
    let mut after = vec![0x83, 0xa1, b'm', 0x01, 0xa1, b'z', 0x02, 0xa1, b'a', 0x03];
    let one_by_one = [set("z", Value::Int(2)), set("a", Value::Int(3))];
    assert_eq!(apply(Some(&before), &one_by_one).unwrap().value.unwrap(), after);
    let patch = vec![0x82, 0xa1, b'z', 0x02, 0xa1, b'a', 0x03];
    let merged = apply(Some(&before), &[Op::Merge { path: Path::root(), patch: patch.clone() }]).unwrap();
    assert_eq!(merged.value.unwrap(), after);
    // What was there keeps its place.
    (before[3], after[3]) = (9, 1);
    let merged = apply(Some(&after), &[Op::Merge { path: Path::root(), patch: before }]).unwrap();
    assert_eq!(merged.value.unwrap()[..4], [0x83, 0xa1, b'm', 0x09]);
}
