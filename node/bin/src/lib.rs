//! One node: wiring of the parts that the other crates define.
//!
//! ```text
//! peers --- net --- consensus, bulk ---> engine thread (bft::Engine over Application over Chain; WAL) ---> net
//!              \--- relay -----------> relay task <---> admission threads ---> Pool <--- engine thread
//! users --- API ----------------------------------------/                     Chain --> Feed --> API streams
//! ```
//!
//! The engine thread alone writes the chain and the log; a failed write stops the node. The pool is shared by the
//! threads that check signatures and the engine; its lock is never held across a check, an execution or a write.

pub mod admission;
mod api;
mod application;
mod clock;
mod engine;
mod feed;
mod http;
mod inbox;
mod limit;
mod metrics;
mod pool;
mod priority;
mod relay;
mod run;
mod wal;

pub use clock::{Clock, system_clock};
pub use run::{Identity, run};
