//! Shaping: what happens to a packet on a directed link beside being cut.
//!
//! [`Link`] is the pure model: it says for each packet whether it is lost and when it leaves. [`Shaper`] runs it on real
//! packets: rules (`rules`) send those of shaped links to NFQUEUE (`queue`) at PREROUTING, after the cuts; one thread
//! asks the model and gives the verdicts in time. Packets are never held on their way out of the sender: they would stay
//! charged to its socket, and TCP would stop sending.
//!
//! The rules live in a table that goes with the thread's socket, behind a gate that the thread renews: an agent that dies
//! or hangs lets packets flow.

pub(crate) mod arrival;
mod hold;
mod link;
mod measure;
pub(crate) mod pace;
mod queue;
mod random;
mod rules;
mod schedule;
mod shaper;
mod state;
mod system;
mod table;
pub mod timed;
pub(crate) mod train;
mod worker;

pub use hold::{HeldProbe, Inlet};
pub use link::{Arrival, Counters, Dropped, Fate, Link};
pub(crate) use measure::{FLIGHTS, WINDOW};
pub use measure::{LinkMeasure, Measurer, patience};
pub use queue::QueueError;
pub use random::{Purpose, Stream};
pub use shaper::{DEFAULT_GATE, LinkReport, ShapeError, ShapeOptions, ShapeReport, Shaper};
pub use state::{LinkEntry, LinkState, Share};
pub use table::{LinkChange, LinkTable, LinkUpdate};
pub use timed::TimedProbe;
pub use train::FASTEST as FASTEST_MEASURED;
