//! Signature verification by ZIP-215 (`ed25519-zebra`). Under this rule single and batch verification accept the same signatures, so
//! the validity of a block does not depend on how it was batched; `ed25519-dalek`'s `verify_batch` does not have this property.

use std::num::NonZeroUsize;

use ed25519_zebra::{VerificationKey, VerificationKeyBytes, batch};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::sign_bytes;
use crate::{Domain, PublicKey, Signature, SignedTransaction};

/// Largest batch: above this the gain for each signature is small, and the cost of one bad signature grows.
const BATCH: usize = 512;
/// A failed batch is checked again in parts of this size before single signatures are. With it, signatures that are all bad cost less
/// than three times what single checks would, and one bad signature in a batch costs 32 single checks.
const PART: usize = 32;
/// Below this many signatures a batch is not faster than single checks.
const LEAST: usize = 4;
/// Least number of signatures that is worth another thread (about 4 ms of work on one core).
const PER_THREAD: usize = 256;

/// One signature to check.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    pub key: &'a PublicKey,
    pub message: &'a [u8],
    pub signature: &'a Signature,
}

/// Checks a single signature.
pub fn verify_one(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    VerificationKey::try_from(*key.raw())
        .and_then(|key| key.verify(&ed25519_zebra::Signature::from_bytes(signature.as_bytes()), message))
        .is_ok()
}

/// Which of `items` carry their signer's signature, in the order given. Equal to [`SignedTransaction::verify`] on each.
pub fn verify_batch(items: &[&SignedTransaction]) -> Vec<bool> {
    with_messages(items, |checks| {
        let mut valid = Vec::with_capacity(checks.len());
        for batch in checks.chunks(BATCH) {
            verify_chunk(batch, &mut valid);
        }
        valid
    })
}

/// As [`verify_batch`], spread over at most `threads` threads when there are enough signatures to pay for them.
pub fn verify_batch_threaded(items: &[&SignedTransaction], threads: NonZeroUsize) -> Vec<bool> {
    let threads = threads.get().min(items.len() / PER_THREAD);
    if threads < 2 {
        return verify_batch(items);
    }
    let share = items.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let mut shares = items.chunks(share);
        let own = shares.next().unwrap_or_default();
        let others: Vec<_> = shares.map(|items| scope.spawn(|| verify_batch(items))).collect();
        let mut valid = verify_batch(own);
        for other in others {
            valid.extend(other.join().expect("verifying a signature does not panic"));
        }
        valid
    })
}

/// Whether every one of `checks` is valid: one batch for each 512, without looking for the bad one.
pub fn all_valid(checks: &[Check<'_>]) -> bool {
    checks.chunks(BATCH).all(|batch| {
        if batch.len() < LEAST {
            batch.iter().all(|check| verify_one(check.key, check.message, check.signature))
        } else {
            batch_valid(batch)
        }
    })
}

fn with_messages<T>(items: &[&SignedTransaction], run: impl FnOnce(&[Check<'_>]) -> T) -> T {
    let messages: Vec<[u8; 48]> = items.iter().map(|item| sign_bytes::transaction(&item.id())).collect();
    let checks: Vec<Check<'_>> = items
        .iter()
        .zip(&messages)
        .map(|(item, message)| Check { key: &item.signer, message, signature: &item.signature })
        .collect();
    run(&checks)
}

fn verify_chunk(checks: &[Check<'_>], valid: &mut Vec<bool>) {
    if checks.len() >= LEAST && batch_valid(checks) {
        valid.extend(std::iter::repeat_n(true, checks.len()));
    } else if checks.len() > PART {
        checks.chunks(PART).for_each(|part| verify_chunk(part, valid));
    } else {
        valid.extend(checks.iter().map(|check| verify_one(check.key, check.message, check.signature)));
    }
}

fn batch_valid(checks: &[Check<'_>]) -> bool {
    let mut verifier = batch::Verifier::new();
    // The coefficients that blind the sum come from a hash of all that is checked: who chooses the signatures cannot choose them
    // freely any more, and no source of randomness is needed.
    let mut seed = blake3::Hasher::new();
    seed.update(Domain::Seed.tag());
    for check in checks {
        seed.update(check.key.raw()).update(check.signature.as_bytes());
        seed.update(&(check.message.len() as u64).to_le_bytes()).update(check.message);
        verifier.queue((
            VerificationKeyBytes::from(*check.key.raw()),
            ed25519_zebra::Signature::from_bytes(check.signature.as_bytes()),
            &check.message,
        ));
    }
    verifier.verify(StdRng::from_seed(*seed.finalize().as_bytes())).is_ok()
}
