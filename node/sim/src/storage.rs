//! A disk for the log that forgets what was not synced.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use netsplit_bft::LogStorage;

use crate::fuse::Fuse;
use crate::rng::Rng;

#[derive(Clone, Debug, Default)]
struct Segment {
    content: Vec<u8>,
    synced: usize,
}

/// What outlives a crash.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    segments: BTreeMap<u64, Segment>,
    pub syncs: u64,
}

impl Disk {
    /// The machine stops. Of what was not synced nothing remains, or (half of the time) a prefix, cut anywhere, or one with
    /// rubbish at its end, as a real disk leaves them.
    pub fn crash(&mut self, rng: &mut Rng) {
        for segment in self.segments.values_mut() {
            let unsynced = segment.content.len() - segment.synced;
            let kept = if rng.percent(50) { 0 } else { rng.below(unsynced as u64 + 1) as usize };
            segment.content.truncate(segment.synced + kept);
            if kept > 0 && rng.percent(30) {
                let rubbish = rng.range(1, kept.min(16) as u64) as usize;
                let end = segment.content.len();
                segment.content[end - rubbish..].fill(0);
            }
            segment.synced = segment.content.len();
        }
    }

    /// Writes back, for the disk that lies about syncs.
    pub fn write_back(&mut self) {
        self.segments.values_mut().for_each(|segment| segment.synced = segment.content.len());
    }
}

/// The log's view of a [`Disk`].
#[derive(Clone, Debug)]
pub struct SimLog {
    pub disk: Rc<RefCell<Disk>>,
    pub fuse: Fuse,
    /// A mutation: syncs do nothing.
    pub lies: bool,
}

impl LogStorage for SimLog {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.disk.borrow().segments.keys().copied().collect())
    }

    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>> {
        Ok(self.disk.borrow().segments[&segment].content.clone())
    }

    fn resume(&mut self, segment: u64, len: u64) -> io::Result<()> {
        self.fuse.burn()?;
        let mut disk = self.disk.borrow_mut();
        let segment = disk.segments.get_mut(&segment).expect("the log resumes a segment that it read");
        segment.content.truncate(len as usize);
        segment.synced = segment.content.len();
        Ok(())
    }

    fn create(&mut self, segment: u64, content: &[u8]) -> io::Result<()> {
        self.fuse.burn()?;
        let torn = content[..content.len() / 2].to_vec();
        self.disk.borrow_mut().segments.insert(segment, Segment { synced: torn.len(), content: torn });
        self.fuse.burn()?;
        let whole = Segment { content: content.to_vec(), synced: content.len() };
        self.disk.borrow_mut().segments.insert(segment, whole);
        self.fuse.burn()?;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.fuse.burn()?;
        let mut disk = self.disk.borrow_mut();
        let (_, segment) =
            disk.segments.iter_mut().next_back().expect("the log appends to a segment that it created");
        segment.content.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.fuse.burn()?;
        if !self.lies {
            self.disk.borrow_mut().write_back();
        }
        self.disk.borrow_mut().syncs += 1;
        self.fuse.burn()?;
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.fuse.burn()?;
        self.disk.borrow_mut().segments.remove(&segment);
        Ok(())
    }
}
