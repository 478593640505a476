//! What the indexes of a keyspace hold of the rows of one run.

use std::collections::BTreeMap;

use strata_index::bytes::{Damaged, Reader, Writer};
use strata_index::hands::Hands;
use strata_index::ordered::{OrderedDelta, OrderedIndex, OrderedPart};
use strata_index::text::{TextDelta, TextIndex, TextPart};
use strata_index::vector::{VectorDelta, VectorIndex, VectorPart};

use super::definition::{Definition, Definitions, Form, order_of, vector_of};
use super::docs::{Docs, LIVE};
use crate::table::Version;

/// By the id of the index. Rows that an index leaves out have no entry in it.
pub struct Part {
    pub docs: Docs,
    indexes: BTreeMap<u32, PartIndex>,
}

enum PartIndex {
    Ordered(OrderedPart),
    Text(TextPart),
    Vector(Box<VectorPart>),
}

/// What one index holds of rows in memory, or of a part that is being made.
pub enum DeltaIndex {
    Ordered(OrderedDelta),
    Text(TextDelta),
    Vector(VectorDelta),
}

impl DeltaIndex {
    pub fn new(form: &Form) -> DeltaIndex {
        match form {
            Form::Ordered { .. } => DeltaIndex::Ordered(OrderedDelta::default()),
            Form::Text(_) => DeltaIndex::Text(TextDelta::new()),
            Form::Vector(_, options) => DeltaIndex::Vector(VectorDelta::new(*options)),
        }
    }

    pub fn add(&mut self, slot: u32, definition: &Definition, key: &[u8], value: &[u8]) {
        if !key.starts_with(&definition.prefix) {
            return;
        }
        match (self, &*definition.form) {
            (DeltaIndex::Ordered(delta), Form::Ordered { paths, .. }) => {
                if let Some(order) = order_of(value, paths) {
                    delta.add(slot, &order);
                }
            }
            (DeltaIndex::Text(delta), Form::Text(form)) => form.add(delta, slot, value),
            (DeltaIndex::Vector(delta), Form::Vector(path, options)) => {
                if let Some(vector) = vector_of(value, path, options.dim) {
                    delta.add(slot, &vector);
                }
            }
            _ => unreachable!("an index is of the form of its definition"),
        }
    }

    fn freeze(self, hands: Hands) -> PartIndex {
        match self {
            DeltaIndex::Ordered(delta) => PartIndex::Ordered(delta.freeze()),
            DeltaIndex::Text(delta) => PartIndex::Text(delta.freeze()),
            DeltaIndex::Vector(delta) => PartIndex::Vector(Box::new(delta.freeze(hands))),
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match self {
            DeltaIndex::Ordered(delta) => delta.memory_bytes(),
            DeltaIndex::Text(delta) => delta.memory_bytes(),
            DeltaIndex::Vector(delta) => delta.memory_bytes(),
        }
    }

    pub fn ordered(&self) -> Option<OrderedIndex<'_>> {
        if let DeltaIndex::Ordered(delta) = self { Some(OrderedIndex::Delta(delta)) } else { None }
    }

    pub fn text(&self) -> Option<TextIndex<'_>> {
        if let DeltaIndex::Text(delta) = self { Some(TextIndex::Delta(delta)) } else { None }
    }

    pub fn vectors(&self) -> Option<VectorIndex<'_>> {
        if let DeltaIndex::Vector(delta) = self { Some(VectorIndex::Delta(delta)) } else { None }
    }
}

/// A part that is being made of rows as they stand in a run: by key, of each the newest first.
pub struct PartBuilder {
    definitions: Definitions,
    docs: Docs,
    indexes: Vec<DeltaIndex>,
}

impl PartBuilder {
    pub fn new(definitions: &Definitions) -> PartBuilder {
        let indexes = definitions.iter().map(|definition| DeltaIndex::new(&definition.form)).collect();
        PartBuilder { definitions: definitions.clone(), docs: Docs::default(), indexes }
    }

    pub fn add(&mut self, key: &[u8], version: &Version<'_>) {
        use strata_index::Keys;
        let newer = (self.docs.len() as u32).checked_sub(1).filter(|slot| self.docs.key(*slot) == key);
        let to = newer.map_or(LIVE, |slot| self.docs.from[slot as usize]);
        let slot = self.docs.push(key, version, to);
        if let Some(value) = version.value {
            for (definition, index) in self.definitions.iter().zip(&mut self.indexes) {
                index.add(slot, definition, key, value);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.docs.len() == 0
    }

    pub fn finish(self, hands: Hands) -> Part {
        let ids = self.definitions.iter().map(|definition| definition.id);
        let indexes = ids.zip(self.indexes.into_iter().map(|index| index.freeze(hands))).collect();
        Part { docs: self.docs, indexes }
    }
}

impl Part {
    /// Whether it has all these indexes. More do no harm.
    pub fn has_all(&self, definitions: &Definitions) -> bool {
        definitions.iter().all(|definition| self.indexes.contains_key(&definition.id))
    }

    pub fn ordered(&self, id: u32) -> Option<OrderedIndex<'_>> {
        if let PartIndex::Ordered(part) = self.indexes.get(&id)? { Some(OrderedIndex::Part(part)) } else { None }
    }

    pub fn text(&self, id: u32) -> Option<TextIndex<'_>> {
        if let PartIndex::Text(part) = self.indexes.get(&id)? { Some(TextIndex::Part(part)) } else { None }
    }

    pub fn vectors(&self, id: u32) -> Option<VectorIndex<'_>> {
        if let PartIndex::Vector(part) = self.indexes.get(&id)? { Some(VectorIndex::Part(part)) } else { None }
    }

    pub fn memory_bytes(&self) -> usize {
        let index = |index: &PartIndex| match index {
            PartIndex::Ordered(part) => part.memory_bytes(),
            PartIndex::Text(part) => part.memory_bytes(),
            PartIndex::Vector(part) => part.memory_bytes(),
        };
        self.docs.memory_bytes() + self.indexes.values().map(index).sum::<usize>()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.docs.encode(&mut out);
        out.number(self.indexes.len() as u64);
        for (id, index) in &self.indexes {
            out.number(u64::from(*id));
            match index {
                PartIndex::Ordered(part) => {
                    out.number(ORDERED);
                    part.encode(&mut out);
                }
                PartIndex::Text(part) => {
                    out.number(TEXT);
                    part.encode(&mut out);
                }
                PartIndex::Vector(part) => {
                    out.number(VECTOR);
                    part.encode(&mut out);
                }
            }
        }
        out.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Part, Damaged> {
        let mut input = Reader::new(bytes);
        let docs = Docs::decode(&mut input)?;
        let mut indexes = BTreeMap::new();
        for _ in 0..input.count()? {
            let id = u32::try_from(input.number()?).map_err(|_| Damaged("the id of an index is too large"))?;
            let index = match input.number()? {
                ORDERED => PartIndex::Ordered(OrderedPart::decode(&mut input, docs.len())?),
                TEXT => PartIndex::Text(text_of(&mut input, docs.len())?),
                VECTOR => PartIndex::Vector(Box::new(vectors_of(&mut input, docs.len())?)),
                _ => return Err(Damaged("an index is of no kind")),
            };
            indexes.insert(id, index);
        }
        if input.is_empty() { Ok(Part { docs, indexes }) } else { Err(Damaged("there is more than a part")) }
    }
}

const ORDERED: u64 = 1;
const TEXT: u64 = 2;
const VECTOR: u64 = 3;

fn vectors_of(input: &mut Reader<'_>, slots: usize) -> Result<VectorPart, Damaged> {
    let part = VectorPart::decode(input)?;
    if part.slots_end() <= slots { Ok(part) } else { Err(Damaged("a vector index has more slots than rows")) }
}

fn text_of(input: &mut Reader<'_>, slots: usize) -> Result<TextPart, Damaged> {
    let part = TextPart::decode(input)?;
    if part.slots() as usize <= slots { Ok(part) } else { Err(Damaged("a text index has more slots than rows")) }
}
