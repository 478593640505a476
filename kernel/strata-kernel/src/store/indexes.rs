//! The indexes of a database: which there are, and how a query gets to see one.
//!
//! Definitions stand in the MANIFEST, where there is one, and count in all branches. What an index holds is made when it is
//! first asked, and kept beside the data of each branch (`crate::index`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustc_hash::FxHashMap;

use super::Store;
use crate::branch::{At, Branch, Data};
use crate::change::Change;
use crate::error::{Error, Result};
use crate::index::{Definition, Definitions, Delta, Own, Part, PartBuilder, View};
use crate::run::{Derived, Run, Section, derived_path, write_derived};
use crate::sabotage;
use crate::table::Version;

/// The definitions that count now: by space and kind of the keyspace.
#[derive(Default)]
pub(super) struct Catalogue(FxHashMap<(String, String), Definitions>);

impl Catalogue {
    pub fn new(definitions: &[Definition]) -> Catalogue {
        let mut by_keyspace: FxHashMap<(String, String), Vec<Arc<Definition>>> = FxHashMap::default();
        for definition in definitions {
            let keyspace = (definition.space.clone(), definition.kind.clone());
            by_keyspace.entry(keyspace).or_default().push(Arc::new(definition.clone()));
        }
        Catalogue(by_keyspace.into_iter().map(|(keyspace, definitions)| (keyspace, definitions.into())).collect())
    }
}

impl Store {
    pub fn indexes(&self) -> Result<Vec<Definition>> {
        self.check_open()?;
        Ok(self.of_state(|state| state.indexes.clone()))
    }

    /// Declare an index. It holds what is there when it is first asked; a unique one is asked at once.
    pub fn create_index(&self, definition: Definition) -> Result<()> {
        let (name, is_unique) = (definition.name.clone(), definition.is_unique());
        self.add_index(definition)?;
        if is_unique && let Err(error) = self.check_no_doubles(&name) {
            self.drop_index(&name)?;
            return Err(error);
        }
        Ok(())
    }

    /// Whether any index is unique.
    #[inline]
    pub(crate) fn has_unique(&self) -> bool {
        self.has_unique.load(Ordering::Acquire)
    }

    /// Refuse changes that would give two keys of a branch one value in a unique index. With the branch's line held.
    pub(crate) fn check_unique(&self, branch: &Branch, changes: &[Change<'_>], now: u64) -> Result<()> {
        let mut keyspaces: Vec<u32> = changes.iter().map(|change| change.keyspace).collect();
        keyspaces.sort_unstable();
        keyspaces.dedup();
        for keyspace in keyspaces {
            let (space, kind) = self.keyspace_name(keyspace);
            let Some(definitions) = self.definitions(&space, &kind) else { continue };
            if !definitions.iter().any(|definition| definition.is_unique()) {
                continue;
            }
            // Of a key that is changed twice the last counts.
            let changed = changes.iter().filter(|change| change.keyspace == keyspace);
            let pending: BTreeMap<Vec<u8>, Option<Vec<u8>>> =
                changed.map(|change| (change.key.to_vec(), change.value.as_deref().map(<[u8]>::to_vec))).collect();
            let pending: Vec<_> = pending.into_iter().collect();
            let newest = At::past(NEWEST, now);
            let double = self.look(branch, keyspace, &definitions, newest, &pending, |view| {
                let unique = definitions.iter().filter(|definition| definition.is_unique());
                unique
                    .filter_map(|definition| Some((definition, view.double_of(definition, &pending)?)))
                    .next()
                    .map(|(definition, key)| double(definition, &key))
            })?;
            if let Some(error) = double {
                return Err(error);
            }
        }
        Ok(())
    }

    fn check_no_doubles(&self, name: &str) -> Result<()> {
        let found = self.indexes()?.into_iter().find(|index| index.name == name);
        let Some(index) = found else { return Ok(()) };
        let keyspace = self.keyspace(&index.space, &index.kind);
        let Some(definitions) = self.definitions(&index.space, &index.kind) else { return Ok(()) };
        let branches: Vec<_> = self.registry.read().all().cloned().collect();
        for branch in branches {
            let at = At::head(branch.head());
            let found = self.look(&branch, keyspace, &definitions, at, &[], |view| view.first_double(index.id))?;
            if let Some(key) = found {
                return Err(double(&index, &key));
            }
        }
        Ok(())
    }

    fn add_index(&self, definition: Definition) -> Result<()> {
        let mut outcome = Ok(());
        self.change_state(|state| {
            if state.indexes.iter().any(|other| other.name == definition.name) {
                outcome = Err(Error::AlreadyExists { what: "index", name: definition.name.clone() });
                return;
            }
            state.next_index += 1;
            state.indexes.push(Definition { id: state.next_index, ..definition });
        })?;
        self.learn_indexes();
        outcome
    }

    /// Declare an index for those above, unless there is one of that name: where nothing may be written, for as long as the
    /// database is open.
    pub fn declare_index(&self, definition: Definition) -> Result<()> {
        if self
            .definitions(&definition.space, &definition.kind)
            .is_some_and(|known| known.iter().any(|other| other.name == definition.name))
        {
            return Ok(());
        }
        match self.create_index(definition.clone()) {
            Err(Error::AlreadyExists { .. }) => Ok(()),
            Err(Error::ReadOnly(_)) if self.read_only => {
                let mut catalogue = self.catalogue.write();
                let keyspace = (definition.space.clone(), definition.kind.clone());
                let known = catalogue.0.entry(keyspace).or_insert_with(|| Vec::new().into());
                let id = u32::MAX - known.len() as u32;
                *known = known.iter().cloned().chain([Arc::new(Definition { id, ..definition })]).collect();
                Ok(())
            }
            other => other,
        }
    }

    /// Returns whether there was one of that name.
    pub fn drop_index(&self, name: &str) -> Result<bool> {
        let is_there = self.indexes()?.iter().any(|index| index.name == name);
        if is_there {
            self.change_state(|state| state.indexes.retain(|index| index.name != name))?;
            self.learn_indexes();
        }
        Ok(is_there)
    }

    /// Let the definitions of the state count from now on.
    pub(super) fn learn_indexes(&self) {
        let (catalogue, has_unique) =
            self.of_state(|state| (Catalogue::new(&state.indexes), state.indexes.iter().any(Definition::is_unique)));
        *self.catalogue.write() = catalogue;
        self.has_unique.store(has_unique, Ordering::Release);
    }

    /// The indexes of a keyspace.
    pub fn definitions(&self, space: &str, kind: &str) -> Option<Definitions> {
        let catalogue = self.catalogue.read();
        if catalogue.0.is_empty() {
            return None;
        }
        catalogue.0.get(&(space.to_owned(), kind.to_owned())).cloned()
    }

    /// Call `look` with what `branch` shows of the indexes of a keyspace at a version, and above it what is `pending`: keys
    /// and values of a transaction, `None` for a deletion.
    pub fn look<R>(
        &self,
        branch: &Branch,
        keyspace: u32,
        definitions: &Definitions,
        at: At,
        pending: &[(Vec<u8>, Option<Vec<u8>>)],
        look: impl FnOnce(&View<'_>) -> R,
    ) -> Result<R> {
        let pending = (!pending.is_empty()).then(|| Delta::of_pending(definitions, pending));
        // A head that was looked up some time ago may have been trimmed since.
        let at = if at.is_latest { At { version: branch.head(), ..at } } else { at };
        let lineage = branch.sources(at);
        loop {
            let guards: Vec<_> = lineage.iter().map(|(branch, _)| branch.data.read()).collect();
            let mut owns = Vec::with_capacity(guards.len());
            for ((branch, at), data) in lineage.iter().zip(&guards) {
                branch.check_retained(data, keyspace, *at)?;
                owns.extend(own(data, keyspace, definitions).map(|own| (own, at.version)));
            }
            if owns.len() == guards.len() {
                return Ok(look(&View::new(pending.as_ref(), &owns, || branch.time(at))));
            }
            drop(owns);
            drop(guards);
            for (branch, _) in &lineage {
                self.load_indexes(branch, keyspace, definitions)?;
            }
        }
    }

    /// Make what the indexes of a keyspace hold of one branch, unless it is there.
    fn load_indexes(&self, branch: &Branch, keyspace: u32, definitions: &Definitions) -> Result<()> {
        loop {
            let (runs, settled, known) = {
                let data = branch.data.read();
                if own(&data, keyspace, definitions).is_some() {
                    return Ok(());
                }
                let held = data.indexed.as_ref().and_then(|indexed| indexed.get(&keyspace));
                (Arc::clone(&data.runs), data.settled.0, held.map(Own::parts_by_run).unwrap_or_default())
            };
            let mut parts = Vec::with_capacity(runs.len());
            for run in runs.iter() {
                let part = match known.get(&run.number()).filter(|part| part.has_all(definitions)) {
                    Some(part) => Arc::clone(part),
                    None => self.part(run, branch.id, keyspace, definitions)?,
                };
                parts.push((run.number(), part));
            }
            let mut loaded = Own::new(definitions, parts);
            let mut data = branch.data.write();
            if Arc::ptr_eq(&data.runs, &runs) && data.settled.0 == settled {
                fill(&mut loaded, &data, keyspace, settled);
                data.indexed.get_or_insert_default().insert(keyspace, loaded);
                return Ok(());
            }
        }
    }

    /// What the indexes of a keyspace hold of a branch's rows in a run: as it is kept beside the run, or made anew.
    fn part(&self, run: &Arc<Run>, branch: u32, keyspace: u32, definitions: &Definitions) -> Result<Arc<Part>> {
        let section = (branch, keyspace);
        if let Some(part) = self.kept_part(run, section).filter(|part| part.has_all(definitions)) {
            return Ok(Arc::new(part));
        }
        if !self.read_only {
            self.keep_parts(run)?;
            if let Some(part) = self.kept_part(run, section).filter(|part| part.has_all(definitions)) {
                return Ok(Arc::new(part));
            }
        }
        Ok(Arc::new(make_part(run, section, definitions)?.finish(&self.hands())))
    }

    /// Make what indexes hold of all runs anew; `progress` is told of rows done and in all.
    pub fn rebuild_indexes(&self, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<()> {
        self.check_store_writable()?;
        let runs = self.runs.read().clone();
        let (mut done, total) = (0, runs.iter().map(|run| run.rows()).sum());
        for run in &runs {
            progress(done, total)?;
            self.remove_parts(run)?;
            self.keep_parts(run)?;
            done += run.rows();
        }
        for branch in self.registry.read().with_ancestors().values() {
            branch.data.write().indexed = None;
        }
        progress(total, total)
    }

    /// Read what indexes keep of a run.
    pub(super) fn verify_parts(&self, run: &Run) -> Result<()> {
        let _alone = self.deriving.lock();
        let Some(derived) = Derived::open(&*self.env.disk, run, &self.run_options())? else { return Ok(()) };
        for (section, _) in derived.sections() {
            let bytes = derived.section(section)?.unwrap_or_default();
            Part::decode(&bytes).map_err(|damaged| derived.corrupt(0, damaged.0))?;
        }
        Ok(())
    }

    /// Those that make parts: as many as the world has.
    fn hands(&self) -> impl Fn(usize, &(dyn Fn(usize) + Sync)) + '_ {
        |pieces, work| self.env.spawn.side_by_side(pieces, work)
    }

    /// What cannot be read is made anew: `verify` says what is wrong with it.
    fn kept_part(&self, run: &Run, section: Section) -> Option<Part> {
        let derived = Derived::open(&*self.env.disk, run, &self.run_options()).ok()??;
        Part::decode(&derived.section(section).ok()??).ok()
    }

    /// Keep what the indexes hold of a run beside it, so that opening does not make it anew. Where that fails there is none.
    fn keep_parts(&self, run: &Arc<Run>) -> Result<()> {
        let _alone = self.deriving.lock();
        let is_live = self.runs.read().iter().any(|live| Arc::ptr_eq(live, run));
        if is_live { self.write_parts(run) } else { Ok(()) }
    }

    /// Of a run that was just made. It does without where that fails.
    pub(super) fn index_new_run(&self, run: &Arc<Run>) {
        let _alone = self.deriving.lock();
        let _ = self.write_parts(run);
    }

    fn write_parts(&self, run: &Arc<Run>) -> Result<()> {
        let catalogue: Vec<_> = self.catalogue.read().0.clone().into_iter().collect();
        let mut sections = Vec::new();
        for ((space, kind), definitions) in catalogue {
            let Some(keyspace) = self.keyspaces.read().number(&space, &kind) else { continue };
            for span in run.spans() {
                let section = (span.branch, keyspace);
                let part = make_part(run, section, &definitions)?;
                if !part.is_empty() {
                    sections.push((section, part.finish(&self.hands()).encode()));
                }
            }
        }
        if !sections.is_empty() {
            let _ = write_derived(&*self.env.disk, run, &self.run_options(), &sections);
        }
        Ok(())
    }

    /// Remove what indexes keep of a run that is no more.
    pub(super) fn remove_parts(&self, run: &Run) -> Result<()> {
        if sabotage::on("I05") {
            return Ok(());
        }
        let _alone = self.deriving.lock();
        match self.env.disk.remove(&derived_path(run.number())) {
            Err(Error::Storage { errno: NOT_THERE, .. }) => Ok(()),
            other => other,
        }
    }
}

const NOT_THERE: i32 = 2;
/// Above all versions there are, and below where the rows end that are the newest of their keys.
const NEWEST: u64 = u64::MAX - 1;

fn double(definition: &Definition, key: &[u8]) -> Error {
    let key = String::from_utf8_lossy(key).replace('\0', "/");
    Error::AlreadyExists { what: "value in a unique index", name: format!("{} of '{key}'", definition.name) }
}

fn make_part(run: &Arc<Run>, (branch, keyspace): Section, definitions: &Definitions) -> Result<PartBuilder> {
    let mut part = PartBuilder::new(definitions);
    let mut rows = run.all(Some((branch, keyspace, b"")))?;
    while rows.info().is_some_and(|row| (row.branch, row.keyspace) == (branch, keyspace)) {
        let row = rows.row()?.expect("it was looked at");
        part.add(row.key, &row.version);
        rows.advance()?;
    }
    Ok(part)
}

/// What there is of a keyspace's indexes, if it shows all that there is.
fn own<'a>(data: &'a Data, keyspace: u32, definitions: &Definitions) -> Option<&'a Own> {
    let own = data.indexed.as_ref()?.get(&keyspace)?;
    (!own.is_stale && Arc::ptr_eq(&own.definitions, definitions)).then_some(own)
}

/// Add the rows in memory above the checkpoint, the oldest of each key first.
fn fill(own: &mut Own, data: &Data, keyspace: u32, settled: u64) {
    let tables: Vec<_> = data.tables(keyspace).collect();
    for table in tables.into_iter().rev() {
        let mut rows: Vec<(&[u8], Version<'_>)> = Vec::new();
        table.changed((settled, u64::MAX), |key, version| rows.push((key, version)));
        rows.sort_by_key(|(_, version)| version.version);
        rows.iter().for_each(|(key, version)| own.add(key, version));
    }
}
