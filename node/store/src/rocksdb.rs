//! The store on disk.
//!
//! Every setting here keeps a node small: many run on one machine. Memory is bounded by the write buffers (8 MiB for all columns
//! together) and one cache (8 MiB, index and filter blocks included).

use std::path::Path;

use ::rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, Env, IteratorMode,
    LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};
use bytes::Bytes;

use crate::error::StoreError;
use crate::store::{Batch, Column, Pairs, Store};

const MIB: usize = 1 << 20;
const CACHE: usize = 8 * MIB;
/// Of one column; the log of writes is dropped when the columns written into it are flushed.
const WRITE_BUFFER: usize = 2 * MIB;
const WRITE_BUFFERS_TOTAL: usize = 8 * MIB;
const MAX_LOG: u64 = 16 * MIB as u64;
const MAX_OPEN_FILES: i32 = 128;
/// A file is compacted for its deletions alone if so many entries in a row hold so many of them, or all entries this share.
/// By size alone nothing would hurry: a node deletes what it prunes, and what was deleted would stay on disk.
const MANY_DELETIONS: (usize, usize, f64) = (256, 128, 0.5);

/// A RocksDB database, one column family a column. One process at a time can have it open.
pub struct RocksStore {
    db: DB,
}

impl std::fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksStore").field("path", &self.db.path()).finish()
    }
}

impl RocksStore {
    /// Opens the database in `folder`, or makes an empty one there.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let fail = |error| StoreError::backend("open the database", error);
        let mut env = Env::new().map_err(fail)?;
        env.set_background_threads(1);
        env.set_high_priority_background_threads(1);
        let cache = Cache::new_lru_cache(CACHE);
        let families = Column::ALL
            .map(|column| ColumnFamilyDescriptor::new(column.name(), column_options(column, &cache)));
        let db = DB::open_cf_descriptors(&database_options(&env), folder, families).map_err(fail)?;
        Ok(Self { db })
    }

    fn family(&self, column: Column) -> &ColumnFamily {
        self.db.cf_handle(column.name()).expect("every column was opened with the database")
    }
}

fn database_options(env: &Env) -> Options {
    let mut options = Options::default();
    options.set_env(env);
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(1);
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_max_file_opening_threads(1);
    options.set_db_write_buffer_size(WRITE_BUFFERS_TOTAL);
    options.set_max_total_wal_size(MAX_LOG);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(MIB);
    options.set_max_manifest_file_size(4 * MIB);
    options
}

fn column_options(column: Column, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_format_version(5);
    if matches!(column, Column::State | Column::TreeNodes | Column::Transactions) {
        table.set_bloom_filter(10.0, false);
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER);
    options.set_max_write_buffer_number(2);
    options.set_arena_block_size(64 << 10);
    let (among, deletions, share) = MANY_DELETIONS;
    options.add_compact_on_deletion_collector_factory(among, deletions, share);
    options.set_target_file_size_base(4 * MIB as u64);
    options.set_max_bytes_for_level_base(16 * MIB as u64);
    options
}

impl Store for RocksStore {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get_cf(self.family(column), key);
        Ok(value.map_err(|error| StoreError::backend("read", error))?.map(Bytes::from))
    }

    fn scan(&self, column: Column, from: &[u8], until: &[u8], limit: usize) -> Result<Pairs, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(until);
        if from >= until {
            return Ok(Vec::new());
        }
        self.db
            .iterator_cf_opt(self.family(column), options, IteratorMode::Start)
            .take(limit)
            .map(|pair| {
                let (key, value) = pair.map_err(|error| StoreError::backend("scan", error))?;
                Ok((Bytes::from(key), Bytes::from(value)))
            })
            .collect()
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut writes = WriteBatch::default();
        for (column, key, value) in batch.into_operations() {
            match value {
                Some(value) => writes.put_cf(self.family(column), key, value),
                None => writes.delete_cf(self.family(column), key),
            }
        }
        self.db
            .write_opt(writes, &WriteOptions::default())
            .map_err(|error| StoreError::backend("commit a batch", error))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush_wal(true).map_err(|error| StoreError::backend("sync", error))
    }
}
