//! When a node crashes: at its n-th effect.

use std::cell::Cell;
use std::rc::Rc;

/// Counts the effects of one life of a node. All its seams share it.
#[derive(Clone, Debug)]
pub struct Fuse(Rc<Cell<u64>>);

/// The node is gone.
#[derive(Debug)]
pub struct Crash;

impl Fuse {
    /// Burns out at the `effects`-th effect.
    pub fn new(effects: u64) -> Self {
        Self(Rc::new(Cell::new(effects.max(1))))
    }

    /// To be called before (and after) each effect.
    pub fn burn(&self) -> Result<(), Crash> {
        let left = self.0.get().saturating_sub(1);
        self.0.set(left);
        if left == 0 { Err(Crash) } else { Ok(()) }
    }

    pub fn is_burnt(&self) -> bool {
        self.0.get() == 0
    }

    /// No crash from now on.
    pub fn disarm(&self) {
        if !self.is_burnt() {
            self.0.set(u64::MAX);
        }
    }
}

impl From<Crash> for std::io::Error {
    fn from(_: Crash) -> Self {
        Self::other("simulated crash")
    }
}
