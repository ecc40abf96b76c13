//! Experiments from their first step to the verdict, in simulated worlds.

mod endings;
mod node_faults;
mod preview;
mod restarts;
mod validity;
mod world;
