//! The log's storage, measured.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use netsplit_bft::LogStorage;

use crate::metrics::Metrics;

#[derive(Debug)]
pub(crate) struct Measured<L> {
    pub inner: L,
    pub metrics: Arc<Metrics>,
}

impl<L: LogStorage> LogStorage for Measured<L> {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        self.inner.segments()
    }

    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>> {
        self.inner.read(segment)
    }

    fn resume(&mut self, segment: u64, len: u64) -> io::Result<()> {
        self.inner.resume(segment, len)
    }

    fn create(&mut self, segment: u64, content: &[u8]) -> io::Result<()> {
        self.inner.create(segment, content)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.metrics.wal_bytes.inc_by(bytes.len() as u64);
        self.inner.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let start = Instant::now();
        self.inner.sync()?;
        self.metrics.wal_sync.observe(start.elapsed().as_secs_f64());
        self.metrics.wal_syncs.inc();
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.inner.remove(segment)
    }
}
