//! Rows that were used lately.

use std::{collections::HashMap, mem};

/// Values by key, in two generations. Whatever is used belongs to the young one; once that is full, it becomes the old one, and what the
/// old one had left is forgotten. So the least that is remembered is what was used last, at the cost of one lookup more.
#[derive(Debug)]
pub(super) struct Generations<T> {
    young: HashMap<String, T>,
    old: HashMap<String, T>,
    /// How many values the young generation may have.
    young_max: usize,
}

impl<T> Generations<T> {
    /// Remembers up to `values_max` values, and whatever is added between two calls of [`Generations::age`].
    pub(super) fn new(values_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_max: values_max / 2 }
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.young.contains_key(key) || self.old.contains_key(key)
    }

    pub(super) fn insert(&mut self, key: String, value: T) {
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// The value of the key, which counts as used now; a new one if there is none.
    pub(super) fn get_or_insert_with(&mut self, key: &str, value: impl FnOnce() -> T) -> &mut T {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key).unwrap_or_else(|| (key.to_owned(), value()));
            self.young.insert(key, value);
        }
        self.young.get_mut(key).expect("the young generation has the key, since it was inserted if it was not there")
    }

    /// What was used since the generations changed.
    pub(super) fn young(&self) -> impl Iterator<Item = (&String, &T)> {
        self.young.iter()
    }

    pub(super) fn young_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.young.values_mut()
    }

    /// Lets the generations change if the young one is full.
    pub(super) fn age(&mut self) {
        if self.young.len() > self.young_max {
            self.old = mem::take(&mut self.young);
        }
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut rows = Generations::new(4);
        for round in 0..10 {
            *rows.get_or_insert_with("hot", || 0) += 1;
            rows.insert(format!("cold-{round}"), 0);
            rows.insert(format!("cool-{round}"), 0);
            rows.age();
        }
        assert_eq!(*rows.get_or_insert_with("hot", || 0), 10);
        assert!(rows.contains("cold-9") && !rows.contains("cold-8"));
        assert_eq!(rows.young().count(), 1);
        rows.clear();
        assert!(!rows.contains("hot"));
    }
}
