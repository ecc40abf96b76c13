//! The write-ahead log: everything that this node has said, and why, durable before it is said.
//!
//! One log of numbered segments holds the core's inputs, block bodies and decisions in the order in which they
//! happened, so that one sync orders all of them. Layouts: [`segment`], [`record`].
//!
//! What a reader cannot tell: whether damage to the very last records, which nothing was written after, is a torn write
//! or a fault of the disk. It is taken for a torn write.

pub mod file;
pub mod record;
pub mod segment;

use std::io;

use netsplit_core::{Hash, Height};

use self::record::{Record, frame};
use crate::Fatal;

/// Append-only storage for numbered segments. The highest number is the one being written.
///
/// Nothing is durable before [`Self::sync`], except where a method says so.
pub trait LogStorage {
    /// Numbers of the segments that exist, ascending.
    fn segments(&mut self) -> io::Result<Vec<u64>>;
    /// The whole content of a segment.
    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>>;
    /// Cuts the last segment to `len` bytes and goes on appending there. Durable on return.
    fn resume(&mut self, segment: u64, len: u64) -> io::Result<()>;
    /// Starts a new segment, above all others, with this content. Durable on return, its name too.
    fn create(&mut self, segment: u64, content: &[u8]) -> io::Result<()>;
    /// Appends to the last segment.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes all that was appended durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Deletes a segment, durably. It may be the last one while none is being written.
    fn remove(&mut self, segment: u64) -> io::Result<()>;
}

/// Rotation: a segment is left at the next height boundary beyond either.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
const SEGMENT_HEIGHTS: u32 = 64;

/// What a log held when it was opened.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The last height that it knows to be decided.
    pub decided: Height,
    pub records: Vec<Record>,
}

/// The log over its storage.
#[derive(Debug)]
pub(crate) struct Log<L> {
    storage: L,
    chain_id: Hash,
    segment: u64,
    /// Bytes of the segment, and how many of them are durable.
    len: u64,
    durable: u64,
    heights: u32,
}

impl<L: LogStorage> Log<L> {
    /// Touches nothing; [`Self::open`] does.
    pub fn new(storage: L, chain_id: Hash) -> Self {
        Self { storage, chain_id, segment: 0, len: 0, durable: 0, heights: 0 }
    }

    /// Reads the log and makes it ready for appending; `None` if there is none yet (then [`Self::begin`] it).
    pub fn open(&mut self) -> Result<Option<Contents>, Fatal> {
        let numbers = self.storage.segments().map_err(|e| Fatal::log("listing segments", e))?;
        let mut records = Vec::new();
        let mut decided = 0;
        let mut last = None;
        for (index, &number) in numbers.iter().enumerate() {
            if index > 0 && numbers[index - 1] + 1 != number {
                let missing = numbers[index - 1] + 1;
                return Err(Fatal::Damaged {
                    segment: missing,
                    offset: 0,
                    detail: "segment is missing".into(),
                });
            }
            let content =
                self.storage.read(number).map_err(|e| Fatal::log(format!("reading segment {number}"), e))?;
            let is_last = index + 1 == numbers.len();
            match segment::read(&content, number, &self.chain_id)? {
                None if is_last => {
                    self.storage
                        .remove(number)
                        .map_err(|e| Fatal::log(format!("removing segment {number}"), e))?;
                }
                Some(segment) if is_last || segment.len == content.len() => {
                    last = Some((number, segment.len as u64));
                    decided = segment.height.saturating_sub(1);
                    records.extend(segment.records);
                }
                // A segment is synced to its end before the next one is created.
                other => {
                    let offset = other.map_or(0, |segment| segment.len) as u64;
                    return Err(Fatal::Damaged {
                        segment: number,
                        offset,
                        detail: "its end is missing".into(),
                    });
                }
            }
        }
        let Some((number, len)) = last else { return Ok(None) };
        self.storage.resume(number, len).map_err(|e| Fatal::log(format!("resuming segment {number}"), e))?;
        (self.segment, self.len, self.durable) = (number, len, len);
        for record in &records {
            if let Record::Decided(commit) = record {
                self.heights += 1;
                decided = decided.max(commit.height);
            }
        }
        Ok(Some(Contents { decided, records }))
    }

    /// Starts an empty log at the height that is to be decided.
    pub fn begin(&mut self, height: Height) -> Result<(), Fatal> {
        self.create(1, height)
    }

    pub fn append(&mut self, record: &Record) -> Result<(), Fatal> {
        let bytes = frame(record, self.segment, self.len, self.durable);
        self.storage.append(&bytes).map_err(|e| Fatal::log("appending a record", e))?;
        self.len += bytes.len() as u64;
        if matches!(record, Record::Decided(_)) {
            self.heights += 1;
        }
        Ok(())
    }

    /// Makes everything appended so far durable.
    pub fn sync(&mut self) -> Result<(), Fatal> {
        if self.durable < self.len {
            self.storage.sync().map_err(|e| Fatal::log("syncing", e))?;
            self.durable = self.len;
        }
        Ok(())
    }

    /// Whether to [`Self::rotate`] at the coming height boundary.
    pub fn is_full(&self) -> bool {
        self.len >= SEGMENT_BYTES || self.heights >= SEGMENT_HEIGHTS
    }

    /// Goes on in a new segment, at the height that is to be decided, and drops the old ones. Everything in them must be
    /// durable elsewhere.
    pub fn rotate(&mut self, height: Height) -> Result<(), Fatal> {
        self.sync()?;
        self.create(self.segment + 1, height)?;
        for number in self.storage.segments().map_err(|e| Fatal::log("listing segments", e))? {
            if number < self.segment {
                self.storage
                    .remove(number)
                    .map_err(|e| Fatal::log(format!("removing segment {number}"), e))?;
            }
        }
        Ok(())
    }

    fn create(&mut self, number: u64, height: Height) -> Result<(), Fatal> {
        let header = segment::header(number, height, &self.chain_id);
        self.storage
            .create(number, &header)
            .map_err(|e| Fatal::log(format!("creating segment {number}"), e))?;
        self.segment = number;
        self.len = header.len() as u64;
        self.durable = self.len;
        self.heights = 0;
        Ok(())
    }

    pub fn storage(&self) -> &L {
        &self.storage
    }
}
