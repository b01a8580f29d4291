//! The one source of randomness for chat and the cluster: jitter, picks, orders.
//!
//! Not for secrets. With the cargo feature `fault` a thread may be given a seed
//! (`fix`): a simulation, which runs on one thread, then repeats itself exactly.
//! Without the feature there is nothing but the thread's own generator.

use rand::Rng;

/// Uniform in [0, 1).
pub fn unit() -> f64 {
    with(|rng| rng.random())
}

/// Uniform in 0 to `n` - 1; 0 for an `n` of 0.
pub fn below(n: usize) -> usize {
    if n == 0 { 0 } else { with(|rng| rng.random_range(0..n)) }
}

/// Any number of 64 bits.
pub fn number() -> u64 {
    with(|rng| rng.random())
}

/// A random UUID (version 4).
pub fn uuid() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(with(|rng| rng.random())).into_uuid()
}

/// Puts the items into a random order, each order as likely as the others.
pub fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1));
    }
}

#[cfg(not(feature = "fault"))]
fn with<T>(draw: impl FnOnce(&mut rand::rngs::ThreadRng) -> T) -> T {
    draw(&mut rand::rng())
}

#[cfg(feature = "fault")]
fn with<T>(draw: impl FnOnce(&mut rand::rngs::StdRng) -> T) -> T {
    use rand::SeedableRng;
    SOURCE.with_borrow_mut(|source| match source {
        Some(fixed) => draw(fixed),
        None => draw(&mut rand::rngs::StdRng::from_rng(&mut rand::rng())),
    })
}

#[cfg(feature = "fault")]
thread_local! {
    static SOURCE: std::cell::RefCell<Option<rand::rngs::StdRng>> =
        const { std::cell::RefCell::new(None) };
}

/// From now on this thread draws what the seed says; `None` ends that.
#[cfg(feature = "fault")]
pub fn fix(seed: Option<u64>) {
    use rand::SeedableRng;
    SOURCE.set(seed.map(rand::rngs::StdRng::seed_from_u64));
}

/// Whether this thread draws what a seed says.
#[cfg(feature = "fault")]
pub fn is_fixed() -> bool {
    SOURCE.with_borrow(Option::is_some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_bounds() {
        for _ in 0..1_000 {
            assert!((0.0..1.0).contains(&unit()));
            assert!(below(3) < 3);
        }
        assert_eq!((below(0), below(1)), (0, 0));
        assert_eq!(uuid().get_version_num(), 4);
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_reaches_every_order() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let mut items = [1, 2, 3];
            shuffle(&mut items);
            assert_eq!(items.iter().sum::<i32>(), 6);
            seen.insert(items);
        }
        assert_eq!(seen.len(), 6);
    }

    #[cfg(feature = "fault")]
    #[test]
    fn a_seed_repeats_itself() {
        let run = |seed| {
            fix(Some(seed));
            let drawn: Vec<_> = (0..8).map(|_| number()).collect();
            fix(None);
            drawn
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
