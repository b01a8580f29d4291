//! Tokens that were verified, kept in two halves: when the younger is full the
//! older is forgotten, and what is used moves to the younger. So the cache is
//! bounded, an insertion costs the same always, and a flood of fresh tokens
//! does not push out those in use.
//!
//! The table's key is a token's last bytes, the end of its signature: hashing
//! the whole of it would cost more than all else that is done for a known one.
//! Two tokens that end alike take each other's place, and no more.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::Verified;

#[derive(Debug)]
pub(super) struct Cache {
    half: usize,
    halves: RwLock<Halves>,
}

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<End, Kept>,
    old: HashMap<End, Kept>,
}

/// How a token ends.
type End = [u8; 16];

#[derive(Debug)]
struct Kept {
    // Compared whole: another could end alike.
    token: Box<[u8]>,
    verified: Arc<Verified>,
}

/// A short one has zeros in front.
fn end(token: &[u8]) -> End {
    let mut end = End::default();
    for (place, byte) in end.iter_mut().rev().zip(token.iter().rev()) {
        *place = *byte;
    }
    end
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { half: (capacity / 2).max(1), halves: RwLock::default() }
    }

    pub(super) fn get(&self, token: &[u8]) -> Option<Arc<Verified>> {
        let end = end(token);
        {
            let halves = self.halves.read().unwrap_or_else(PoisonError::into_inner);
            let is_it = |kept: &&Kept| *kept.token == *token;
            if let Some(kept) = halves.young.get(&end).filter(is_it) {
                return Some(kept.verified.clone());
            }
            halves.old.get(&end).filter(is_it)?;
        }
        let mut halves = self.halves.write().unwrap_or_else(PoisonError::into_inner);
        let kept = halves.old.remove(&end).filter(|kept| *kept.token == *token)?;
        let verified = kept.verified.clone();
        halves.put(self.half, end, kept);
        Some(verified)
    }

    pub(super) fn insert(&self, token: &[u8], verified: Arc<Verified>) {
        let mut halves = self.halves.write().unwrap_or_else(PoisonError::into_inner);
        halves.put(self.half, end(token), Kept { token: token.into(), verified });
    }
}

impl Halves {
    fn put(&mut self, half: usize, end: End, kept: Kept) {
        if self.young.len() >= half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(end, kept);
    }
}
