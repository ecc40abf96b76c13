//! Shaped links as the agent keeps them: the shaper, and the timed probes that tell what the links really do.

use std::{
    collections::HashMap,
    io,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    model::{Cut, Rect},
    shape::{
        Counters, LinkEntry, LinkMeasure, LinkTable, LinkUpdate, Measurer, ShapeError, ShapeOptions,
        ShapeReport, Shaper,
    },
};

/// What is known of one shaped link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkEvidence {
    /// As the agent was told, which is not what the spec says if somebody wired it wrong.
    pub told: LinkEntry,
    pub measure: LinkMeasure,
    pub counters: Counters,
}

/// What is known of all shaped links.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinksEvidence {
    pub links: Vec<LinkEvidence>,
    /// What the emulation itself did wrong, as sentences.
    pub faults: Vec<String>,
    /// Nobody renewed the faults in time: the links are at their base.
    pub lease_ended: bool,
}

#[derive(Debug)]
pub struct Emulator {
    options: ShapeOptions,
    measurer: Measurer,
    /// Started for the first link that is shaped: a testnet without any pays nothing.
    shaper: Option<Shaper>,
    table: LinkTable,
    cuts: CutsInForce,
}

/// The cuts that links are under, each until its lease ends, as the kernel ends it.
#[derive(Debug, Clone, Default)]
pub(crate) struct CutsInForce(Vec<(Rect, Instant)>);

impl CutsInForce {
    pub(crate) fn new(cuts: &[Cut], now: Instant) -> Self {
        let until = |cut: &Cut| {
            let end = now + cut.lease;
            cut.rects.clone().into_iter().map(move |rect| (rect, end))
        };
        Self(cuts.iter().flat_map(until).collect())
    }

    /// Those that go on; `None`: all of them.
    pub(crate) fn after(&self, now: Instant) -> Option<Self> {
        let goes_on = |(_, until): &&(Rect, Instant)| *until > now;
        (!self.0.iter().all(|cut| goes_on(&cut)))
            .then(|| Self(self.0.iter().filter(goes_on).cloned().collect()))
    }

    pub(crate) fn cover(&self, from: Ipv4Addr, to: Ipv4Addr) -> bool {
        self.0.iter().any(|(rect, _)| rect.covers(from, to))
    }

    pub(crate) fn rects(&self) -> Vec<Rect> {
        self.0.iter().map(|(rect, _)| rect.clone()).collect()
    }
}

impl Emulator {
    /// `session` tells the probes of this agent from those of one before it.
    pub fn new(options: ShapeOptions, session: u32) -> Self {
        Self {
            options,
            measurer: Measurer::new(options.timed, session),
            shaper: None,
            table: LinkTable::default(),
            cuts: CutsInForce::default(),
        }
    }

    pub fn add_node(&mut self, address: Ipv4Addr, namespace: OwnedFd) -> io::Result<()> {
        self.measurer.add_node(address, Some(namespace))
    }

    /// As [`set`](Self::set), of what is told of a new state.
    pub fn update(&mut self, update: LinkUpdate) -> Result<(), ShapeError> {
        self.set(update.onto(&self.table))
    }

    /// Makes exactly these links shaped, the faulted ones until their lease ends.
    pub fn set(&mut self, table: LinkTable) -> Result<(), ShapeError> {
        if self.shaper.is_none() && table.is_empty() {
            return Ok(());
        }
        let shaper = if let Some(shaper) = self.shaper.take() {
            shaper
        } else {
            let shaper = Shaper::start(self.options)?;
            shaper.cut(self.cuts.rects())?;
            shaper
        };
        let set = shaper.set(table.clone());
        self.shaper = Some(shaper);
        set?;
        self.measure(table);
        Ok(())
    }

    /// Keeps the faults for `lease` from now on; those that have ended stay so.
    pub fn renew(&self, lease: Duration) -> Result<(), ShapeError> {
        self.shaper.as_ref().map_or(Ok(()), |shaper| shaper.renew(lease))
    }

    /// Follows the cuts, so that held packets of a link that is cut are dropped. The kernel cuts by itself.
    pub fn cut(&mut self, cuts: &[Cut], now: Instant) -> Result<(), ShapeError> {
        self.replace_cuts(CutsInForce::new(cuts, now))
    }

    /// Leaves out the cuts whose lease has ended, as the kernel does.
    pub fn expire(&mut self, now: Instant) -> Result<(), ShapeError> {
        self.cuts.after(now).map_or(Ok(()), |cuts| self.replace_cuts(cuts))
    }

    fn replace_cuts(&mut self, cuts: CutsInForce) -> Result<(), ShapeError> {
        let before = std::mem::replace(&mut self.cuts, cuts);
        // What was lost to a cut says nothing about the link's own losses.
        self.measurer.forget(|from, to| before.cover(from, to) != self.cuts.cover(from, to));
        self.shaper.as_ref().map_or(Ok(()), |shaper| shaper.cut(self.cuts.rects()))
    }

    pub fn evidence(&mut self) -> Result<LinksEvidence, ShapeError> {
        let Some(shaper) = &self.shaper else { return Ok(LinksEvidence::default()) };
        let report = shaper.report()?;
        if report.lease_ended {
            self.measure(self.table.without_faults());
        }
        Ok(self.compose(&report))
    }

    fn compose(&self, report: &ShapeReport) -> LinksEvidence {
        let counters: HashMap<u32, Counters> =
            report.links.iter().map(|link| (link.number, link.counters)).collect();
        let link = |(told, measure): (LinkEntry, LinkMeasure)| LinkEvidence {
            told,
            measure,
            counters: counters.get(&told.number).copied().unwrap_or_default(),
        };
        LinksEvidence {
            links: self.measurer.measures().map(link).collect(),
            faults: report.faults(),
            lease_ended: report.lease_ended,
        }
    }

    /// The links are as this table has them.
    fn measure(&mut self, table: LinkTable) {
        let changes = table.changes_since(&self.table);
        if !changes.is_empty() {
            self.measurer.follow(table.seed(), &changes);
        }
        self.table = table;
    }

    /// When [`Self::send_due`] has something to do again; `None` when no link is shaped.
    pub fn wake_after(&self) -> Option<Duration> {
        self.measurer.wake_after()
    }

    pub fn send_due(&mut self) {
        self.measurer.send_due();
    }

    pub fn receive(&mut self) {
        self.measurer.receive();
    }
}
