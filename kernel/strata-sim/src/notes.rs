//! The acknowledgement log: what was promised and when. It lies outside of the disk that is crashed.
//!
//! A moment is a count of mutating disk calls, so an image of moment m holds the work of the first m calls.

use strata_kernel::log::Durability;

#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    pub moment: usize,
    pub time_us: u64,
}

#[derive(Debug, Clone, Copy)]
struct Issued {
    moment: usize,
    acknowledged: Option<Acknowledged>,
}

#[derive(Debug, Clone)]
pub struct Notes {
    /// From this moment on there is a database. Before it, opening may begin anew.
    pub created: usize,
    /// The index is the version. Version 0 is there from the beginning.
    issued: Vec<Issued>,
    /// (moment, version): what the store said is durable.
    durable: Vec<(usize, u64)>,
}

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    PowerCut,
    Kill,
}

impl Notes {
    /// Nothing was promised yet.
    pub fn new() -> Notes {
        let acknowledged = Some(Acknowledged { moment: 0, time_us: 0 });
        Notes { created: usize::MAX, issued: vec![Issued { moment: 0, acknowledged }], durable: vec![(0, 0)] }
    }

    /// Notes on a database that was found at `version` after a crash at `moment`, its moments counted from there.
    /// What opening shows is on disk once it is open, at `opened`. Until then no more is than was before, except that
    /// a power cut leaves only what is.
    pub fn found(&self, version: u64, moment: usize, crash: Crash, opened: usize) -> Notes {
        let known = self.issued[..=version as usize].iter();
        let carried = |issued: &Issued| match issued.acknowledged.filter(|given| given.moment <= moment) {
            Some(given) => Acknowledged { moment: 0, ..given },
            None => Acknowledged { moment: opened, time_us: 0 },
        };
        let issued = known.map(|issued| Issued { moment: 0, acknowledged: Some(carried(issued)) }).collect();
        let before = if crash == Crash::PowerCut { version } else { self.newest_durable(moment).min(version) };
        Notes { created: 0, issued, durable: vec![(0, before), (opened, version)] }
    }

    pub fn issue(&mut self, version: u64, moment: usize) {
        assert_eq!(version as usize, self.issued.len(), "versions are noted in order");
        self.issued.push(Issued { moment, acknowledged: None });
    }

    pub fn acknowledge(&mut self, version: u64, acknowledged: Acknowledged) {
        self.issued[version as usize].acknowledged = Some(acknowledged);
    }

    pub fn durable(&mut self, moment: usize, version: u64) {
        self.durable.push((moment, version));
    }

    pub fn newest_durable(&self, moment: usize) -> u64 {
        self.durable.iter().filter(|(at, _)| *at <= moment).map(|(_, version)| *version).max().unwrap_or(0)
    }

    pub fn newest_issued(&self, moment: usize) -> u64 {
        self.issued.iter().rposition(|issued| issued.moment <= moment).unwrap_or(0) as u64
    }

    pub fn newest_acknowledged(&self, moment: usize) -> u64 {
        self.acknowledged(moment).map(|(version, _)| version).max().unwrap_or(0)
    }

    fn acknowledged(&self, moment: usize) -> impl Iterator<Item = (u64, Acknowledged)> {
        let known = self.issued.iter().enumerate();
        known.filter_map(move |(version, issued)| {
            issued.acknowledged.filter(|given| given.moment <= moment).map(|given| (version as u64, given))
        })
    }

    /// D1: whether finding `version` after a crash at `moment` breaks what was promised by then.
    pub fn check(
        &self,
        version: u64,
        moment: usize,
        crash: Crash,
        durability: Durability,
        interval_us: u64,
    ) -> Result<(), String> {
        let issued = self.newest_issued(moment);
        if version > issued {
            return Err(format!("version {version} was found, only {issued} were issued"));
        }
        let acknowledged = self.newest_acknowledged(moment);
        let promised = match (crash, durability) {
            (Crash::PowerCut, Durability::Buffered) => self.newest_durable(moment),
            _ => acknowledged,
        };
        if version < promised {
            return Err(format!("version {promised} was promised, {version} was found"));
        }
        let lost = || self.acknowledged(moment).filter(|(lost, _)| *lost > version).map(|(_, given)| given.time_us);
        let span = lost().max().zip(lost().min()).map_or(0, |(newest, oldest)| newest - oldest);
        if span > interval_us {
            return Err(format!("the acknowledgements lost span {span} us, an interval is {interval_us}"));
        }
        Ok(())
    }
}
