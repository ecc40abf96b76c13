//! Where one account stands, as far as a lane knows.

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Nonce {
    /// To be asked for.
    Unknown,
    Asked,
    Known,
}

/// One account of a lane.
pub(super) struct Account {
    pub number: usize,
    pub nonce: Nonce,
    /// The next to sign for.
    pub next: u64,
    /// Changes when signing starts over at another nonce: what was signed before is void.
    pub epoch: u32,
    /// At the last look.
    pub confirmed: u64,
    pub looks_without_progress: u32,
}

impl Account {
    pub fn new(number: usize) -> Self {
        Self { number, nonce: Nonce::Unknown, next: 0, epoch: 0, confirmed: 0, looks_without_progress: 0 }
    }

    /// The chain says that this is the next nonce.
    pub fn stands_at(&mut self, next: u64) {
        self.nonce = Nonce::Known;
        self.confirmed = next;
        self.looks_without_progress = 0;
        self.rewind(next);
    }

    /// Signs from that nonce on; what was signed before is void.
    pub fn rewind(&mut self, next: u64) {
        self.next = next;
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// The nonce has to be asked for again; what was signed before is void.
    pub fn start_over(&mut self) {
        self.nonce = Nonce::Unknown;
        self.looks_without_progress = 0;
        self.rewind(self.next);
    }

    /// Compares with the last look. `confirmed` is the lowest nonce not known to be final, `grown` whether the
    /// chain has grown since; while it stands still, nothing is late. Gives how many looks in a row found
    /// transfers in flight and none of them final.
    pub fn look(&mut self, confirmed: u64, grown: bool) -> u32 {
        let moved = confirmed != self.confirmed || self.next <= confirmed || self.nonce != Nonce::Known;
        self.confirmed = confirmed;
        if moved {
            self.looks_without_progress = 0;
        } else if grown {
            self.looks_without_progress += 1;
        }
        self.looks_without_progress
    }
}
