//! What an index is over, and what it takes out of a value.
//!
//! What kind of index it is stands in a map that those above write (`spec`), here as it is stored:
//!
//! ```text
//! definition  id varint | name | space | kind | prefix | spec
//! spec        {"type": "ordered", "paths": [path, ...], "unique": bool}
//!             {"type": "text", "fields": [{"name": text, "path": path, "weight": number}, ...],
//!              "language": text or null, "stop_words": bool, "fold_accents": bool, "k1": number, "b": number}
//!             {"type": "vector", "path": path, "dim": number, "metric": "cosine" or "euclidean" or "dot",
//!              "quantization": "f32" or "f16" or "i8"}
//!             and keys that mean nothing here
//! ```

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use strata_index::ordered::Range;
use strata_index::text::{self, Analyzer, Language, Query, Scoring, TextDelta};
use strata_index::vector::{self, Metric, Quantization, VectorOptions};

use crate::error::{Error, Result};
use crate::pack::{Input, put_bytes, put_varint};
use crate::value::path::{Path, find};
use crate::value::read::{Reader, Token};

/// An index of one keyspace, in all branches.
#[derive(Clone)]
pub struct Definition {
    /// Never given twice.
    pub id: u32,
    pub name: String,
    pub space: String,
    pub kind: String,
    /// Keys that do not begin so are left out.
    pub prefix: Vec<u8>,
    pub spec: Vec<u8>,
    /// What of the spec counts here.
    pub form: Arc<Form>,
}

#[derive(Debug)]
pub enum Form {
    /// By the values at some paths: the first of them has to be there.
    Ordered {
        paths: Vec<Path>,
        unique: bool,
    },
    Text(TextForm),
    /// By nearness of the vectors at a path: little-endian floats, or a list of numbers.
    Vector(Path, VectorOptions),
}

/// By the words of all texts at and below some paths.
pub struct TextForm {
    pub fields: Vec<(String, Path)>,
    pub analyzer: Analyzer,
    pub scoring: Scoring,
}

/// The form follows from the spec.
impl PartialEq for Definition {
    fn eq(&self, other: &Definition) -> bool {
        let parts = |it: &Definition| (it.id, [&it.name, &it.space, &it.kind].map(String::clone));
        parts(self) == parts(other) && (&self.prefix, &self.spec) == (&other.prefix, &other.spec)
    }
}

impl Eq for Definition {}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for TextForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextForm").field("fields", &self.fields).finish_non_exhaustive()
    }
}

/// Those of a keyspace.
pub type Definitions = Arc<[Arc<Definition>]>;

impl Definition {
    pub fn new(name: &str, (space, kind): (&str, &str), prefix: &[u8], spec: Vec<u8>) -> Result<Definition> {
        let (form, prefix) = (Arc::new(Form::of(&spec)?), prefix.to_vec());
        let (name, space, kind) = (name.to_owned(), space.to_owned(), kind.to_owned());
        Ok(Definition { id: 0, name, space, kind, prefix, spec, form })
    }

    pub fn is_unique(&self) -> bool {
        matches!(&*self.form, Form::Ordered { unique: true, .. })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.id));
        for bytes in [self.name.as_bytes(), self.space.as_bytes(), self.kind.as_bytes(), &self.prefix, &self.spec] {
            put_bytes(out, bytes);
        }
    }

    pub fn decode(input: &mut Input<'_>) -> Result<Definition> {
        let id = input.id()?;
        let (name, space, kind) = (input.text()?, input.text()?, input.text()?);
        let (prefix, spec) = (input.take()?.to_vec(), input.take()?.to_vec());
        let form = Arc::new(Form::of(&spec).map_err(|_| input.wrong("definition of an index"))?);
        Ok(Definition { id, name, space, kind, prefix, spec, form })
    }
}

impl Form {
    fn of(spec: &[u8]) -> Result<Form> {
        let spec = Spec::read(spec)?;
        match spec.text("type")? {
            "ordered" => Ok(Form::Ordered { paths: spec.list("paths", path)?, unique: spec.flag("unique")? }),
            "text" => TextForm::of(&spec).map(Form::Text),
            "vector" => Ok(Form::Vector(path(spec.get("path")?)?, vector_options(&spec)?)),
            other => Err(wrong(&format!("'{other}' is no type of index"))),
        }
    }
}

fn vector_options(spec: &Spec<'_>) -> Result<VectorOptions> {
    let dim = spec.number("dim")?;
    if !(1.0..=vector::DIM_MAX as f64).contains(&dim) || dim.fract() != 0.0 {
        return Err(wrong("'dim' is a number from 1 to 65535"));
    }
    let metric = match spec.text("metric")? {
        "cosine" => Metric::Cosine,
        "euclidean" => Metric::Euclidean,
        "dot" => Metric::Dot,
        other => return Err(wrong(&format!("'{other}' is no metric"))),
    };
    let quantization = match spec.text("quantization")? {
        "f32" => Quantization::F32,
        "f16" => Quantization::F16,
        "i8" => Quantization::I8,
        other => return Err(wrong(&format!("'{other}' is no quantization"))),
    };
    Ok(VectorOptions { dim: dim as usize, metric, quantization })
}

/// The vector at a path, if there is one of that dimension and of finite numbers.
pub fn vector_of(value: &[u8], path: &Path, dim: usize) -> Option<Vec<f32>> {
    let place = find(value, path)?;
    let mut reader = Reader::new(&value[place]);
    let vector = match reader.next().ok()? {
        Token::Bytes(bytes) => floats(bytes).filter(|vector| vector.len() == dim)?,
        Token::List(count) if count == dim => {
            let number = |reader: &mut Reader<'_>| match reader.next().ok()? {
                Token::Int(number) => Some(number as f32),
                Token::Float(number) => Some(number as f32),
                _ => None,
            };
            (0..count).map(|_| number(&mut reader)).collect::<Option<Vec<f32>>>()?
        }
        _ => return None,
    };
    vector.iter().all(|number| number.is_finite()).then_some(vector)
}

/// Little-endian floats of 4 bytes.
pub fn floats(bytes: &[u8]) -> Option<Vec<f32>> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

impl TextForm {
    /// What a text index reads and how, of which this is the spec.
    pub fn read(spec: &[u8]) -> Result<TextForm> {
        TextForm::of(&Spec::read(spec)?)
    }

    fn of(spec: &Spec<'_>) -> Result<TextForm> {
        let fields = spec.list("fields", |bytes| {
            let field = Spec::read(bytes)?;
            Ok((field.text("name")?.to_owned(), path(field.get("path")?)?, field.number("weight")?))
        })?;
        if fields.is_empty() || fields.len() > FIELDS_MAX {
            return Err(wrong("a text index has from 1 to 255 fields"));
        }
        let language = match spec.optional_text("language")? {
            None => None,
            Some(name) => Some(Language::named(name).ok_or_else(|| wrong(&format!("'{name}' is no language")))?),
        };
        let (stop_words, fold_accents) = (spec.flag("stop_words")?, spec.flag("fold_accents")?);
        let weights = fields.iter().map(|(_, _, weight)| *weight).collect();
        Ok(TextForm {
            fields: fields.into_iter().map(|(name, path, _)| (name, path)).collect(),
            analyzer: Analyzer::new(text::Options { language, stop_words, fold_accents }),
            scoring: Scoring { k1: spec.number("k1")?, b: spec.number("b")?, weights },
        })
    }

    pub fn query(&self, text: &str) -> Query {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| &name[..]).collect();
        Query::parse(text, &names, &self.analyzer)
    }

    /// Add what a value has of the fields to an index.
    pub fn add(&self, delta: &mut TextDelta, slot: u32, value: &[u8]) {
        let mut texts: Vec<(u8, &str)> = Vec::with_capacity(self.fields.len());
        for (number, (_, path)) in self.fields.iter().enumerate() {
            let place = if path.0.is_empty() { Some(0..value.len()) } else { find(value, path) };
            if let Some(place) = place {
                texts_of(&value[place], number as u8, &mut texts);
            }
        }
        if !texts.is_empty() {
            delta.add(slot, &texts, &self.analyzer);
        }
    }
}

/// All texts in a value, in their order; keys of maps are none.
fn texts_of<'a>(value: &'a [u8], field: u8, texts: &mut Vec<(u8, &'a str)>) {
    let mut reader = Reader::new(value);
    // How many values are still to come, and of how many of them a key comes first.
    let mut open = vec![(1, false)];
    while let Some((left, is_map)) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        if *is_map && reader.skip_value().is_err() {
            return;
        }
        match reader.next() {
            Ok(Token::String(text)) => texts.push((field, text)),
            Ok(Token::List(count)) => open.push((count, false)),
            Ok(Token::Map(count)) => open.push((count, true)),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

const FIELDS_MAX: usize = 255;

/// The entries of a map, each value still packed.
struct Spec<'a>(Vec<(&'a str, &'a [u8])>);

impl<'a> Spec<'a> {
    fn read(bytes: &'a [u8]) -> Result<Spec<'a>> {
        let mut reader = Reader::new(bytes);
        let Token::Map(count) = reader.next()? else { return Err(wrong("it is no map")) };
        let entries = (0..count).map(|_| Ok((reader.key()?, reader.skip_value()?)));
        entries.collect::<Result<_>>().map(Spec)
    }

    fn get(&self, name: &str) -> Result<&'a [u8]> {
        let found = self.0.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| *value).ok_or_else(|| wrong(&format!("there is no '{name}'")))
    }

    fn text(&self, name: &str) -> Result<&'a str> {
        match Reader::new(self.get(name)?).next()? {
            Token::String(text) => Ok(text),
            _ => Err(wrong(&format!("'{name}' is no text"))),
        }
    }

    fn optional_text(&self, name: &str) -> Result<Option<&'a str>> {
        match Reader::new(self.get(name)?).next()? {
            Token::Null => Ok(None),
            _ => self.text(name).map(Some),
        }
    }

    fn number(&self, name: &str) -> Result<f64> {
        match Reader::new(self.get(name)?).next()? {
            Token::Float(number) if number.is_finite() => Ok(number),
            Token::Int(number) => Ok(number as f64),
            _ => Err(wrong(&format!("'{name}' is no number"))),
        }
    }

    fn flag(&self, name: &str) -> Result<bool> {
        match Reader::new(self.get(name)?).next()? {
            Token::Bool(flag) => Ok(flag),
            _ => Err(wrong(&format!("'{name}' is neither true nor false"))),
        }
    }

    fn list<T>(&self, name: &str, item: impl Fn(&'a [u8]) -> Result<T>) -> Result<Vec<T>> {
        let mut reader = Reader::new(self.get(name)?);
        let Token::List(count) = reader.next()? else { return Err(wrong(&format!("'{name}' is no list"))) };
        (0..count).map(|_| item(reader.skip_value()?)).collect()
    }
}

fn path(bytes: &[u8]) -> Result<Path> {
    Path::decode(bytes).map(|(path, _)| path)
}

fn wrong(reason: &str) -> Error {
    Error::InvalidInput(format!("the definition of an index cannot be read: {reason}"))
}

/// Where a row stands in an ordered index: bytes that sort as the values at `paths` do, one behind the other. `None` where
/// the first is not there.
pub fn order_of(value: &[u8], paths: &[Path]) -> Option<Vec<u8>> {
    let mut order = Vec::with_capacity(16);
    for (number, path) in paths.iter().enumerate() {
        match find(value, path) {
            Some(place) => put_order(&value[place], &mut order)?,
            None if number == 0 => return None,
            None => order.push(MISSING),
        }
    }
    Some(order)
}

// Kinds in the order in which they sort. Two values of which one is no prefix of the other keep that behind each other.
const MISSING: u8 = 0x08;
const NULL: u8 = 0x10;
const FALSE: u8 = 0x20;
const TRUE: u8 = 0x21;
const NUMBER: u8 = 0x30;
const STRING: u8 = 0x40;
const BYTES: u8 = 0x50;
/// Lists and maps: all alike.
const CONTAINER: u8 = 0x60;

/// Append what `value` sorts by. Numbers sort by what they are worth, whether they are integers or not.
fn put_order(value: &[u8], order: &mut Vec<u8>) -> Option<()> {
    match Reader::new(value).next().ok()? {
        Token::Null => order.push(NULL),
        Token::Bool(false) => order.push(FALSE),
        Token::Bool(true) => order.push(TRUE),
        Token::Int(number) => {
            let near = number as f64;
            // The near one may be 2^63, which is no i64.
            let rest = i128::from(number) - near as i128;
            put_number(near, rest as i32, order);
        }
        Token::Float(number) => put_number(number, 0, order),
        Token::String(text) => put_text(STRING, text.as_bytes(), order),
        Token::Bytes(bytes) => put_text(BYTES, bytes, order),
        Token::List(_) | Token::Map(_) => order.push(CONTAINER),
    }
    Some(())
}

/// A float, and how far above it the number is, which is not 0 for large integers only.
fn put_number(near: f64, rest: i32, order: &mut Vec<u8>) {
    let bits = if near == 0.0 { 0 } else { near.to_bits() };
    let sorted = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    order.push(NUMBER);
    order.extend_from_slice(&sorted.to_be_bytes());
    order.extend_from_slice(&((rest as u32) ^ 1 << 31).to_be_bytes());
}

/// The values between two bounds: lists of leading values, as packed, and whether the bound itself is one of them.
///
/// Where only one bound is given, and it ends in a number or a text, the other is where numbers or texts end.
pub fn range_of(start: Option<(&[u8], bool)>, end: Option<(&[u8], bool)>) -> Result<Range> {
    let order = |(values, own): (&[u8], bool)| leading(values).map(|order| (order, own));
    let (start, end) = (start.map(order).transpose()?, end.map(order).transpose()?);
    // What begins with the order of a bound has it, and other values behind it.
    let past = |order: &[u8]| [order, &[0xff]].concat();
    let first = match (&start, &end) {
        (Some(((order, _), true)), _) => Bound::Included(order.clone()),
        (Some(((order, _), false)), _) => Bound::Excluded(past(order)),
        (None, Some(((order, last), _))) if is_ordered(order[*last]) => Bound::Included(order[..=*last].to_vec()),
        (None, _) => Bound::Unbounded,
    };
    let last = match (&start, &end) {
        (_, Some(((order, _), true))) => Bound::Excluded(past(order)),
        (_, Some(((order, _), false))) => Bound::Excluded(order.clone()),
        (Some(((order, last), _)), None) if is_ordered(order[*last]) => Bound::Excluded(past(&order[..=*last])),
        (_, None) => Bound::Unbounded,
    };
    Ok(Range { start: first, end: last })
}

fn is_ordered(kind: u8) -> bool {
    [NUMBER, STRING].contains(&kind)
}

/// The order of a list of values, and where that of the last begins.
fn leading(values: &[u8]) -> Result<(Vec<u8>, usize)> {
    let mut reader = Reader::new(values);
    let Token::List(count) = reader.next()? else { return Err(wrong("a bound is no list")) };
    let (mut order, mut last) = (Vec::new(), 0);
    for _ in 0..count {
        last = order.len();
        put_order(reader.skip_value()?, &mut order).ok_or_else(|| wrong("a bound cannot be read"))?;
    }
    if count == 0 { Err(wrong("a bound has no value")) } else { Ok((order, last)) }
}

/// Bytes with an end that sorts before all that could follow.
fn put_text(kind: u8, text: &[u8], order: &mut Vec<u8>) {
    order.push(kind);
    for &byte in text {
        order.push(byte);
        if byte == 0 {
            order.push(0xff);
        }
    }
    order.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Definition, Form, put_order};
    use crate::pack::Input;
    use crate::value::path::{Path, Step};
    use crate::value::write;

    fn order(write: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let (mut value, mut order) = (Vec::new(), Vec::new());
        write(&mut value);
        put_order(&value, &mut order).unwrap();
        order
    }

    fn int(number: i64) -> Vec<u8> {
        order(|out| write::int(out, number))
    }

    proptest! {
        #[test]
        fn integers_sort(a in any::<i64>(), b in any::<i64>(), near in -3..4i64) {
            prop_assert_eq!(int(a).cmp(&int(b)), a.cmp(&b));
            let c = a.saturating_add(near);
            prop_assert_eq!(int(a).cmp(&int(c)), a.cmp(&c));
        }

        #[test]
        fn floats_sort_among_integers(a in -1e17..1e17f64, b in -(1i64 << 52)..(1i64 << 52)) {
            let float = order(|out| write::float(out, a));
            prop_assert_eq!(float.cmp(&int(b)), a.partial_cmp(&(b as f64)).unwrap());
        }

        #[test]
        fn texts_sort(a in "[\0-b]{0,4}", b in "[\0-b]{0,4}") {
            let text = |text: &str| order(|out| write::string(out, text));
            prop_assert_eq!(text(&a).cmp(&text(&b)), a.cmp(&b));
        }
    }

    #[test]
    fn a_definition_is_read_as_it_was_written() {
        let mut spec = Vec::new();
        write::map_header(&mut spec, 3);
        write::string(&mut spec, "type");
        write::string(&mut spec, "ordered");
        write::string(&mut spec, "paths");
        write::list_header(&mut spec, 2);
        Path(vec![Step::Key("age".into())]).encode(&mut spec);
        Path::root().encode(&mut spec);
        write::string(&mut spec, "unique");
        write::bool(&mut spec, true);
        let definition = Definition::new("by_age", ("default", "json"), b"user/", spec).unwrap();
        let paths = vec![Path(vec![Step::Key("age".into())]), Path::root()];
        assert!(matches!(&*definition.form, Form::Ordered { paths: found, unique: true } if *found == paths));
        let mut out = Vec::new();
        definition.encode(&mut out);
        let mut input = Input::new(&out, "MANIFEST", "the state");
        assert_eq!(Definition::decode(&mut input).unwrap(), definition);
        assert!(input.is_at_end());
    }
}
