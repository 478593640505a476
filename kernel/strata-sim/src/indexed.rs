//! Indexes that come and go: after each look and each crash they must answer as ones made of what the model has.
//!
//! What is expected is asked of the same code over one part that has just been made, from the model's rows: how an index
//! answers is tested elsewhere, here it is what it holds. The list of the indexes is one file's change, like a policy.

use std::ops::Bound;
use std::sync::Arc;

use strata_kernel::branch::{At, Branch as StoreBranch};
use strata_kernel::index::{Definition, Definitions, Delta, Effort, Filter, Form, Own, ValueRange, View};
use strata_kernel::store::Store;

use crate::care::Care;
use crate::doc::Doc;
use crate::driver::{Check, Driver};
use crate::model::{Branch, Commit, KEYSPACES, State};

/// Names, and the keyspace of each.
const ALL: [(&str, usize); 4] = [("by y", 0), ("by all", 0), ("words", 2), ("near", 0)];
const WORDS: &str = "text same 1 2 17 the";
/// As many numbers as the shortest noise is bytes, by four.
const DIM: usize = 10;
/// More than there are rows.
const MANY: usize = 10_000;
/// An index is looked at by so many versions at most.
const VERSIONS: usize = 8;

fn definition((name, keyspace): (&str, usize)) -> Check<Definition> {
    let (paths, yes, no) = (Doc::List(vec![]).encode(), vec![0xc3], vec![0xc2]);
    let text = |text: &str| Doc::Text(text.to_owned()).encode();
    let list = |items: &[Vec<u8>]| [vec![0x90 | items.len() as u8], items.concat()].concat();
    let y = Doc::List(vec![Doc::Text("y".to_owned())]).encode();
    let number = |number: usize| Doc::Int(number as i64).encode();
    let spec = match name {
        "by y" => map(&[("type", text("ordered")), ("paths", list(&[y])), ("unique", no)]),
        "by all" => map(&[("type", text("ordered")), ("paths", list(&[paths])), ("unique", no)]),
        "words" => {
            let field = map(&[("name", text("all")), ("path", paths), ("weight", number(1))]);
            map(&[
                ("type", text("text")),
                ("fields", list(&[field])),
                ("language", Doc::Null.encode()),
                ("stop_words", no),
                ("fold_accents", yes),
                ("k1", number(1)),
                ("b", number(1)),
            ])
        }
        _ => map(&[
            ("type", text("vector")),
            ("path", paths),
            ("dim", number(DIM)),
            ("metric", text("cosine")),
            ("quantization", text("f32")),
        ]),
    };
    Ok(Definition::new(name, KEYSPACES[keyspace], b"", spec)?)
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let pair = |(key, value): &(&str, Vec<u8>)| [Doc::Text((*key).to_owned()).encode(), value.clone()].concat();
    [vec![0x80 | pairs.len() as u8], pairs.iter().flat_map(pair).collect()].concat()
}

/// The names of those there are.
pub fn names(store: &Store) -> Check<Vec<String>> {
    Ok(store.indexes()?.into_iter().map(|index| index.name).collect())
}

impl Driver {
    /// Declare an index, drop one, make what they hold anew, or ask them.
    pub fn change_indexes(&mut self) -> Check {
        let was_poisoned = self.poisoned();
        let chosen = *self.pick(&ALL);
        let mut after = names(self.store())?;
        let outcome = match self.below(10) {
            0 => {
                self.tell("rebuild indexes".to_owned());
                self.with_others(|store| store.rebuild_indexes(&mut |_, _| Ok(())))?
            }
            1..=3 => {
                self.tell("ask indexes".to_owned());
                heads(self.store(), &self.numbers, &self.state())?;
                Ok(())
            }
            _ if after.iter().any(|name| name == chosen.0) => {
                self.tell(format!("drop index '{}'", chosen.0));
                after.retain(|name| name != chosen.0);
                self.care.indexes.ask(self.moment(), after);
                self.with_others(|store| store.drop_index(chosen.0).map(drop))?
            }
            _ => {
                self.tell(format!("create index '{}'", chosen.0));
                let definition = definition(chosen)?;
                after.push(chosen.0.to_owned());
                self.care.indexes.ask(self.moment(), after);
                self.with_others(|store| store.create_index(definition))?
            }
        };
        if outcome.is_ok() {
            self.care.indexes.done(self.moment());
        }
        self.looked_after(outcome, was_poisoned)
    }
}

/// What indexes say of each branch at its head.
pub fn heads(store: &Store, numbers: &[u32; KEYSPACES.len()], state: &State) -> Check {
    for branch in state.branches.values() {
        let found = store.branch(&branch.name).map_err(|error| error.to_string())?;
        let nothing = Commit::default();
        let commit = branch.newest().map_or(&nothing, |commit| commit);
        let now = At::past(branch.head, store.env.clock.wall_us());
        same(store, &found, numbers, commit, now).map_err(|why| format!("{} at its head: {why}", branch.name))?;
    }
    Ok(())
}

/// And at some versions.
pub fn versions(store: &Store, numbers: &[u32; KEYSPACES.len()], state: &State, care: &Care) -> Check {
    for branch in state.branches.values() {
        let found = store.branch(&branch.name).map_err(|error| error.to_string())?;
        for version in (0..=state.version).rev().step_by(1 + state.version as usize / VERSIONS) {
            let nothing = Commit::default();
            let commit = branch.shown_at(version).map_or(&nothing, |commit| commit);
            match same(store, &found, numbers, commit, At::past(version, commit.time)) {
                Err(why) if why.contains("is no longer kept") && may_refuse(care, branch, version, state) => {}
                seen => seen.map_err(|why| format!("{} at version {version}: {why}", branch.name))?,
            }
        }
    }
    Ok(())
}

fn may_refuse(care: &Care, branch: &Branch, version: u64, state: &State) -> bool {
    care.may_refuse(branch, version, state.time)
}

fn same(store: &Store, branch: &Arc<StoreBranch>, numbers: &[u32; KEYSPACES.len()], commit: &Commit, at: At) -> Check {
    for (keyspace, (space, kind)) in KEYSPACES.iter().enumerate() {
        let Some(definitions) = store.definitions(space, kind) else { continue };
        let rows: Vec<(Vec<u8>, Option<Vec<u8>>)> =
            commit.rows(keyspace, at.time).map(|(key, value)| (key.clone(), Some(value.bytes.clone()))).collect();
        let (delta, own) = (Delta::of_pending(&definitions, &rows), Own::new(&definitions, Vec::new()));
        let expected = answers(&View::new(Some(&delta), &[(&own, 0)], || at.time), &definitions);
        let found = store.look(branch, numbers[keyspace], &definitions, at, &[], |view| answers(view, &definitions))?;
        let wrong = expected.iter().zip(&found).position(|(expected, found)| expected != found);
        if let Some(wrong) = wrong {
            let name = &definitions[wrong].name;
            return Err(format!("index '{name}' says {:?}, not {:?}", found[wrong], expected[wrong]));
        }
        let by_y = definitions.iter().position(|definition| definition.name == "by y");
        let has_y = || commit.rows(keyspace, at.time).filter(|(_, value)| value.doc.at(&["y"]).is_some()).count();
        if let Some(by_y) = by_y.filter(|by_y| found[*by_y].0.len() != has_y()) {
            return Err(format!("index 'by y' has {} rows, not {}", found[by_y].0.len(), has_y()));
        }
    }
    Ok(())
}

/// Keys with the bits of their scores, best first, and how many others there are.
type Answer = (Vec<(Vec<u8>, u64)>, u64);

fn answers(view: &View<'_>, definitions: &Definitions) -> Vec<Answer> {
    let hits =
        |hits: Vec<strata_kernel::index::Hit>| hits.into_iter().map(|hit| (hit.key, hit.score.to_bits())).collect();
    let answer = |definition: &Arc<Definition>| match &*definition.form {
        Form::Ordered { .. } => {
            let all = ValueRange { start: Bound::Unbounded, end: Bound::Unbounded };
            (hits(view.scan(definition.id, &all, false, MANY)), 0)
        }
        Form::Text(form) => {
            let found = view.search(definition, &form.query(WORDS), &Filter::default(), MANY, false);
            (hits(found.hits), found.stats.documents)
        }
        Form::Vector(..) => {
            let query: Vec<f32> = (0..DIM).map(|number| number as f32 - 4.5).collect();
            (hits(view.nearest(definition.id, &query, &Filter::default(), MANY, Effort::Exact)), 0)
        }
    };
    definitions.iter().map(answer).collect()
}
