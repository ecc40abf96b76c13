//! Which transactions were asked of whom, and whom to ask next.

use std::collections::{HashMap, VecDeque};

use netsplit_bft::PeerId;
use netsplit_core::Hash;
use tokio::time::Instant;

/// Open questions; beyond, announcements are not followed until answers come.
const MAX_OPEN: usize = 32_768;
/// Further peers remembered for one transaction.
const MAX_OTHERS: usize = 3;
/// Deadlines for which a transaction that came may wait for its admission before the next peer is asked: the copy that
/// came may have been a bad one.
const PATIENCE: u8 = 6;

#[derive(Debug, Default)]
pub(crate) struct Asked {
    open: HashMap<Hash, Question>,
    /// In the order of deadlines, since all have the same time; answered ones are skipped when they come up.
    deadlines: VecDeque<(Instant, Hash)>,
}

#[derive(Debug)]
struct Question {
    deadline: Instant,
    peer: PeerId,
    others: Vec<PeerId>,
    /// Set when it came: the deadlines left until it should be in the pool.
    admission: Option<u8>,
}

impl Asked {
    /// A peer announced a transaction that is not here. True: ask it now.
    pub(crate) fn announced(&mut self, id: Hash, peer: PeerId, deadline: Instant) -> bool {
        if let Some(question) = self.open.get_mut(&id) {
            let others = &mut question.others;
            if question.peer != peer && others.len() < MAX_OTHERS && !others.contains(&peer) {
                others.push(peer);
            }
            return false;
        }
        if self.open.len() >= MAX_OPEN || self.deadlines.len() >= 2 * MAX_OPEN {
            return false;
        }
        self.open.insert(id, Question { deadline, peer, others: Vec::new(), admission: None });
        self.deadlines.push_back((deadline, id));
        true
    }

    /// A transaction came; false when it was not asked for, or came before. It is not asked for again while it waits for
    /// its admission.
    pub(crate) fn came(&mut self, id: &Hash) -> bool {
        match self.open.get_mut(id) {
            Some(question) => question.admission.replace(PATIENCE).is_none(),
            None => false,
        }
    }

    /// A transaction is in the pool.
    pub(crate) fn admitted(&mut self, id: &Hash) {
        self.open.remove(id);
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// The overdue questions, each now with the next peer to ask; those without one are given up.
    pub(crate) fn overdue(&mut self, now: Instant, deadline: Instant) -> Vec<(Hash, PeerId)> {
        let mut again = Vec::new();
        while let Some((due, id)) = self.deadlines.front().copied()
            && due <= now
        {
            self.deadlines.pop_front();
            let Some(question) = self.open.get_mut(&id) else { continue };
            if question.deadline != due {
                continue;
            }
            if let Some(left) = question.admission.as_mut().filter(|left| **left > 0) {
                *left -= 1;
                question.deadline = deadline;
                self.deadlines.push_back((deadline, id));
                continue;
            }
            if question.others.is_empty() {
                self.open.remove(&id);
                continue;
            }
            question.peer = question.others.remove(0);
            question.deadline = deadline;
            question.admission = None;
            again.push((id, question.peer));
            self.deadlines.push_back((deadline, id));
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netsplit_core::{Domain, SecretKey};

    use super::*;

    fn peer(seed: u8) -> PeerId {
        SecretKey::from_seed([seed; 32]).public()
    }

    fn id(number: u32) -> Hash {
        Hash::of(Domain::Seed, &number.to_le_bytes())
    }

    #[test]
    fn asks_one_peer_and_the_next_when_it_is_late() {
        let mut asked = Asked::default();
        let start = Instant::now();
        let wait = Duration::from_millis(500);
        assert!(asked.announced(id(1), peer(1), start + wait));
        assert!(!asked.announced(id(1), peer(1), start + wait));
        assert!(!asked.announced(id(1), peer(2), start + wait));
        assert!(asked.overdue(start, start + wait).is_empty());
        assert_eq!(asked.overdue(start + wait, start + 2 * wait), [(id(1), peer(2))]);
        assert!(asked.came(&id(1)));
        assert!(!asked.came(&id(1)), "asked once, taken once");
        asked.admitted(&id(1));
        assert!(asked.overdue(start + 2 * wait, start + 3 * wait).is_empty());
        assert_eq!(asked.next_deadline(), None);
    }

    #[test]
    fn what_waits_for_admission_is_not_asked_for_again_until_it_took_too_long() {
        let mut asked = Asked::default();
        let wait = Duration::from_millis(500);
        let mut now = Instant::now();
        assert!(asked.announced(id(1), peer(1), now + wait));
        assert!(asked.came(&id(1)));
        assert!(!asked.announced(id(1), peer(2), now + wait));
        for _ in 0..PATIENCE {
            now += wait;
            assert!(asked.overdue(now, now + wait).is_empty());
        }
        now += wait;
        assert_eq!(asked.overdue(now, now + wait), [(id(1), peer(2))], "the copy of peer 1 was not taken");
        assert!(asked.came(&id(1)), "the other copy is");
    }

    #[test]
    fn a_question_that_nobody_answers_is_given_up() {
        let mut asked = Asked::default();
        let start = Instant::now();
        asked.announced(id(1), peer(1), start);
        assert!(asked.overdue(start, start).is_empty());
        assert!(asked.announced(id(1), peer(1), start), "a new announcement may ask again");
    }

    #[test]
    fn bounded() {
        let mut asked = Asked::default();
        let start = Instant::now();
        let taken = (0..100_000).filter(|number| asked.announced(id(*number), peer(1), start)).count();
        assert_eq!(taken, MAX_OPEN);
        for number in 0..100_000 {
            asked.admitted(&id(number));
        }
        // Answered questions leave their deadlines behind until those pass, bounded too.
        for number in 100_000..300_000 {
            asked.announced(id(number), peer(1), start);
            asked.admitted(&id(number));
        }
        assert!(asked.deadlines.len() <= 2 * MAX_OPEN);
        asked.overdue(start, start);
        assert!(asked.deadlines.is_empty());
    }
}
