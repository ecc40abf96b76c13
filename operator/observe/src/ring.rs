//! A bounded log that several readers follow, each at its own pace.

use std::collections::VecDeque;

/// The newest entries, numbered from 0 in the order they came.
pub(crate) struct Ring<T> {
    entries: VecDeque<T>,
    /// Number of the oldest entry that is still there.
    first: u64,
    capacity: usize,
}

/// How far one reader has come: the number of the next entry that it has not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor(u64);

impl<T> Ring<T> {
    pub fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), first: 0, capacity: capacity.max(1) }
    }

    /// Adds an entry; the oldest makes room for it.
    pub fn push(&mut self, entry: T) {
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back(entry);
    }

    /// Behind the newest entry: a reader that starts now.
    pub fn end(&self) -> Cursor {
        Cursor(self.first + self.entries.len() as u64)
    }

    /// Before the oldest entry that ever was: a reader that wants everything.
    pub fn beginning() -> Cursor {
        Cursor(0)
    }

    /// What this reader has not seen, oldest first, and how many entries it came too late for. Moves the cursor
    /// to the end.
    pub fn read(&self, cursor: &mut Cursor) -> (impl Iterator<Item = &T>, u64) {
        let lost = self.first.saturating_sub(cursor.0);
        // Within the entries: a cursor is never beyond the end.
        let skip = cursor.0.saturating_sub(self.first) as usize;
        *cursor = self.end();
        (self.entries.iter().skip(skip), lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ring: &Ring<u32>, cursor: &mut Cursor) -> (Vec<u32>, u64) {
        let (entries, lost) = ring.read(cursor);
        (entries.copied().collect(), lost)
    }

    #[test]
    fn readers_are_independent_and_learn_what_they_lost() {
        let mut ring = Ring::new(3);
        let mut early = ring.end();
        assert_eq!(read(&ring, &mut early), (vec![], 0));
        ring.push(1);
        ring.push(2);
        let mut late = ring.end();
        assert_eq!(read(&ring, &mut early), (vec![1, 2], 0));
        for entry in 3..=6 {
            ring.push(entry);
        }
        assert_eq!(read(&ring, &mut early), (vec![4, 5, 6], 1));
        assert_eq!(read(&ring, &mut late), (vec![4, 5, 6], 1));
        assert_eq!(read(&ring, &mut Ring::<u32>::beginning()), (vec![4, 5, 6], 3));
        assert_eq!(read(&ring, &mut early), (vec![], 0));
    }
}
