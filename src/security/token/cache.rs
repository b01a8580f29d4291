//! Tokens that were verified, kept in two halves: when the younger is full the
//! older is forgotten, and what is used moves to the younger. So the cache is
//! bounded, an insertion costs the same always, and a flood of fresh tokens
//! does not push out those in use.

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
    // The whole token is the key: a hash of it alone could be met by another.
    young: HashMap<Box<[u8]>, Arc<Verified>>,
    old: HashMap<Box<[u8]>, Arc<Verified>>,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { half: (capacity / 2).max(1), halves: RwLock::default() }
    }

    pub(super) fn get(&self, token: &[u8]) -> Option<Arc<Verified>> {
        {
            let halves = self.halves.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(verified) = halves.young.get(token) {
                return Some(verified.clone());
            }
            if !halves.old.contains_key(token) {
                return None;
            }
        }
        let mut halves = self.halves.write().unwrap_or_else(PoisonError::into_inner);
        let (key, verified) = halves.old.remove_entry(token)?;
        halves.put(self.half, key, verified.clone());
        Some(verified)
    }

    pub(super) fn insert(&self, token: &[u8], verified: Arc<Verified>) {
        let mut halves = self.halves.write().unwrap_or_else(PoisonError::into_inner);
        halves.put(self.half, token.into(), verified);
    }
}

impl Halves {
    fn put(&mut self, half: usize, key: Box<[u8]>, verified: Arc<Verified>) {
        if self.young.len() >= half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, verified);
    }
}
