//! The judge: values as trees, and patches as their definition says, without a thought for speed.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::value::{Op, Path, Reader, Step, Token, write};

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// As bits, so that equality is that of values (all NaNs here are one).
    Float(u64),
    String(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

impl Value {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => write::null(out),
            Value::Bool(value) => write::bool(out, *value),
            Value::Int(value) => write::int(out, *value),
            Value::Float(bits) => write::float(out, f64::from_bits(*bits)),
            Value::String(value) => write::string(out, value),
            Value::Bytes(value) => write::bytes(out, value),
            Value::List(items) => {
                write::list_header(out, items.len());
                items.iter().for_each(|item| item.write(out));
            }
            Value::Map(pairs) => {
                write::map_header(out, pairs.len());
                for (key, value) in pairs {
                    write::string(out, key);
                    value.write(out);
                }
            }
        }
    }

    /// The same value written another way: keys in reverse, and the widest encodings, chosen by `dice`.
    pub fn encode_oddly(&self, dice: &mut u64, out: &mut Vec<u8>) {
        *dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let odd = *dice >> 63 == 1;
        match self {
            Value::Int(value) if odd => {
                out.push(0xd3);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Value::String(value) if odd => odd_string(value, out),
            Value::Bytes(value) if odd => {
                out.push(0xc6);
                out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                out.extend_from_slice(value);
            }
            Value::List(items) => {
                odd_header(0xdd, odd, items.len(), write::list_header, out);
                items.iter().for_each(|item| item.encode_oddly(dice, out));
            }
            Value::Map(pairs) => {
                odd_header(0xdf, odd, pairs.len(), write::map_header, out);
                for (key, value) in pairs.iter().rev() {
                    if odd {
                        odd_string(key, out)
                    } else {
                        write::string(out, key)
                    }
                    value.encode_oddly(dice, out);
                }
            }
            plain => plain.write(out),
        }
    }

    pub fn decode(bytes: &[u8]) -> Value {
        let mut reader = Reader::new(bytes);
        let value = Value::read(&mut reader);
        assert_eq!(reader.remaining(), 0);
        value
    }

    fn read(reader: &mut Reader<'_>) -> Value {
        match reader.next().unwrap() {
            Token::Null => Value::Null,
            Token::Bool(value) => Value::Bool(value),
            Token::Int(value) => Value::Int(value),
            Token::Float(value) => Value::Float(value.to_bits()),
            Token::String(value) => Value::String(value.to_owned()),
            Token::Bytes(value) => Value::Bytes(value.to_owned()),
            Token::List(count) => Value::List((0..count).map(|_| Value::read(reader)).collect()),
            Token::Map(count) => {
                let pairs: BTreeMap<_, _> =
                    (0..count).map(|_| (reader.key().unwrap().to_owned(), Value::read(reader))).collect();
                assert_eq!(pairs.len(), count, "a key stands twice");
                Value::Map(pairs)
            }
        }
    }

    pub fn get(&self, steps: &[Step]) -> Option<&Value> {
        let Some((step, rest)) = steps.split_first() else { return Some(self) };
        match (self, step) {
            (Value::Map(pairs), Step::Key(key)) => pairs.get(key)?.get(rest),
            (Value::List(items), Step::Index(index)) => items.get(position(*index, items.len())?)?.get(rest),
            _ => None,
        }
    }
}

fn odd_string(value: &str, out: &mut Vec<u8>) {
    out.push(0xdb);
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value.as_bytes());
}

fn odd_header(tag: u8, odd: bool, count: usize, plain: fn(&mut Vec<u8>, usize), out: &mut Vec<u8>) {
    if odd {
        out.push(tag);
        out.extend_from_slice(&(count as u32).to_be_bytes());
    } else {
        plain(out, count);
    }
}

fn position(index: i64, count: usize) -> Option<usize> {
    let count = count as i64;
    let position = if index < 0 { index + count } else { index };
    (0..count).contains(&position).then_some(position as usize)
}

/// `None`: refused.
pub fn patch(document: Option<Value>, ops: &[Op]) -> Option<Option<Value>> {
    ops.iter().try_fold(document, apply)
}

fn apply(document: Option<Value>, op: &Op) -> Option<Option<Value>> {
    let empty = || Value::Map(BTreeMap::new());
    match op {
        Op::Set { path, value } => set(document.or_else(|| Some(empty())), &path.0, Value::decode(value)).map(Some),
        Op::Delete { path } if path.0.is_empty() => None,
        Op::Delete { path } => document.map_or(Some(None), |document| delete(document, &path.0).map(Some)),
        Op::Insert { path, value } => insert(document?, &path.0, Value::decode(value)).map(Some),
        Op::Merge { path, patch } if path.0.is_empty() => Some(Some(merge(document, Value::decode(patch)))),
        Op::Merge { path, patch } => {
            let document = document.unwrap_or_else(empty);
            // A merge is a set of what RFC 7396 makes of the target; only the end of a list is no target.
            let target = document.get(&path.0).cloned();
            if target.is_none() && path.0.last() == Some(&Step::End) {
                return None;
            }
            set(Some(document), &path.0, merge(target, Value::decode(patch))).map(Some)
        }
    }
}

fn set(target: Option<Value>, steps: &[Step], value: Value) -> Option<Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match (target.unwrap_or_else(|| Value::Map(BTreeMap::new())), step) {
        (Value::Map(mut pairs), Step::Key(key)) => {
            let old = pairs.remove(key);
            pairs.insert(key.clone(), set(old, rest, value)?);
            Some(Value::Map(pairs))
        }
        (Value::List(mut items), Step::Index(index)) => {
            let at = position(*index, items.len())?;
            items[at] = set(Some(items[at].clone()), rest, value)?;
            Some(Value::List(items))
        }
        (Value::List(mut items), Step::End) if rest.is_empty() => {
            items.push(value);
            Some(Value::List(items))
        }
        _ => None,
    }
}

fn delete(target: Value, steps: &[Step]) -> Option<Value> {
    let (step, rest) = steps.split_first().unwrap();
    match (target, step) {
        (Value::Map(mut pairs), Step::Key(key)) => {
            if let Some(old) = pairs.remove(key)
                && !rest.is_empty()
            {
                pairs.insert(key.clone(), delete(old, rest)?);
            }
            Some(Value::Map(pairs))
        }
        (Value::List(mut items), Step::Index(index)) => {
            if let Some(at) = position(*index, items.len()) {
                let old = items.remove(at);
                if !rest.is_empty() {
                    items.insert(at, delete(old, rest)?);
                }
            }
            Some(Value::List(items))
        }
        (Value::List(items), Step::End) => Some(Value::List(items)),
        _ => None,
    }
}

fn insert(target: Value, steps: &[Step], value: Value) -> Option<Value> {
    let (last, rest) = steps.split_last()?;
    let Value::List(mut items) = target.get(rest)?.clone() else { return None };
    let at = match last {
        Step::End => items.len(),
        Step::Index(index) if *index == items.len() as i64 => items.len(),
        Step::Index(index) => position(*index, items.len())?,
        Step::Key(_) => return None,
    };
    items.insert(at, value);
    set(Some(target), rest, Value::List(items))
}

/// RFC 7396, section 2, word for word.
fn merge(target: Option<Value>, patch: Value) -> Value {
    let Value::Map(patch) = patch else { return patch };
    let mut pairs = if let Some(Value::Map(pairs)) = target { pairs } else { BTreeMap::new() };
    for (key, value) in patch {
        let old = pairs.remove(&key);
        if value != Value::Null {
            pairs.insert(key, merge(old, value));
        }
    }
    Value::Map(pairs)
}

// -- Strategies. Few keys and small lists: what we look for lies in how operations meet.

pub fn any_float() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), Just((-0.0f64).to_bits()), Just(f64::INFINITY.to_bits()), Just(0x7ff8_0000_0000_0001)]
}

/// Any value, with wide numbers and strings of every header size.
pub fn any_value() -> impl Strategy<Value = Value> {
    let sizes = prop_oneof![0..40usize, Just(255), Just(256), Just(65_536)];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (any::<i64>(), 0..64u32).prop_map(|(value, shift)| Value::Int(value >> shift)),
        any_float().prop_map(Value::Float),
        ".{0,12}".prop_map(Value::String),
        sizes.clone().prop_map(|size| Value::String("x".repeat(size))),
        sizes.prop_map(|size| Value::Bytes(vec![7; size])),
    ];
    leaf.prop_recursive(4, 48, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Value::List),
            btree_map(".{0,6}", inner, 0..20).prop_map(Value::Map),
        ]
    })
}

pub fn key() -> impl Strategy<Value = String> {
    prop_oneof!["a", "b", "c"].prop_map(|key| key.to_string())
}

pub fn small_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![2 => Just(Value::Null), 3 => (0..9i64).prop_map(Value::Int)];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 0..4).prop_map(Value::List),
            2 => btree_map(key(), inner, 0..4).prop_map(Value::Map),
        ]
    })
}

pub fn small_document() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![1 => Just(None), 9 => small_value().prop_map(Some)]
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![6 => key().prop_map(Step::Key), 4 => (-3..4i64).prop_map(Step::Index), 1 => Just(Step::End)]
}

pub fn path() -> impl Strategy<Value = Path> {
    vec(step(), 0..5).prop_map(Path)
}

pub fn op() -> impl Strategy<Value = Op> {
    let value = || small_value().prop_map(|value| value.encode());
    prop_oneof![
        3 => (path(), value()).prop_map(|(path, value)| Op::Set { path, value }),
        2 => path().prop_map(|path| Op::Delete { path }),
        1 => (path(), value()).prop_map(|(path, value)| Op::Insert { path, value }),
        2 => (path(), value()).prop_map(|(path, patch)| Op::Merge { path, patch }),
    ]
}
