//! An ordered map whose clones share what they have in common.

use std::{fmt, marker::PhantomData, ops::Index, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};

/// Entries of one run. Measured with a million of them: the first change after a clone copies the list of all runs, each
/// change copies one run, and this is where the two cost about the same for a batch of some hundred changes.
const RUN_ENTRIES_MAX: usize = 256;
/// A run that gets shorter than this is joined to a neighbour that has room for it.
const RUN_ENTRIES_MIN: usize = RUN_ENTRIES_MAX / 4;

/// An ordered map as [`BTreeMap`](std::collections::BTreeMap), made for large ones that are cloned often and then differ in
/// little: a clone costs the same however many entries there are, and a change copies only what is near it.
///
/// Entries are kept in sorted runs, none of them empty.
#[derive(Clone)]
pub struct SharedMap<K, V> {
    runs: Arc<Vec<Run<K, V>>>,
    len: usize,
}

#[derive(Clone)]
struct Run<K, V> {
    /// Not above the first key, and above the keys of the run before. Kept here so that finding a run looks at one stretch of
    /// memory.
    from: K,
    entries: Arc<Vec<(K, V)>>,
}

impl<K, V> SharedMap<K, V> {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.runs.iter().flat_map(|run| run.entries.iter()).map(|(key, value)| (key, value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// About how many bytes of memory the entries take, counted as if nothing were shared, and without what keys and values
    /// point to.
    pub fn approximate_bytes(&self) -> usize {
        // A run that is split is half full, and a vector grows by doubling: entries take about one and a half of their size.
        self.len * size_of::<(K, V)>() * 3 / 2 + self.runs.len() * 64
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        let run = self.runs.get(self.run_of(key))?;
        let index = run.index_of(key).ok()?;
        Some(&run.entries[index].1)
    }

    /// Whether `key` has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The index of the run that has `key`, or would get it.
    fn run_of(&self, key: &K) -> usize {
        self.runs.partition_point(|run| run.from <= *key).saturating_sub(1)
    }
}

impl<K: Ord, V> Run<K, V> {
    fn index_of(&self, key: &K) -> Result<usize, usize> {
        self.entries.binary_search_by(|(known, _)| known.cmp(key))
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// The value of `key`, to be changed; the default if it had none.
    pub fn get_or_insert_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let (entries, index) = self.place(key, V::default);
        &mut entries[index].1
    }

    /// Gives `key` this value, and returns the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = self.len;
        let (entries, index) = self.place(key, || value.clone());
        let known = std::mem::replace(&mut entries[index].1, value);
        (self.len == before).then_some(known)
    }

    /// Takes `key` out, and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.run_of(key);
        let index = self.runs.get(at)?.index_of(key).ok()?;
        let runs = Arc::make_mut(&mut self.runs);
        let entries = Arc::make_mut(&mut runs[at].entries);
        let (_, value) = entries.remove(index);
        self.len -= 1;
        if entries.is_empty() {
            runs.remove(at);
        } else if entries.len() < RUN_ENTRIES_MIN {
            join(runs, at);
        }
        Some(value)
    }

    fn last_key(&self) -> Option<&K> {
        Some(&self.runs.last()?.entries.last()?.0)
    }

    /// Puts `entries`, which are in order and above all others, at the end.
    fn append_run(&mut self, entries: Vec<(K, V)>) {
        let Some((first, _)) = entries.first() else { return };
        self.len += entries.len();
        let runs = Arc::make_mut(&mut self.runs);
        runs.push(Run { from: first.clone(), entries: Arc::new(entries) });
        let last = runs.len() - 1;
        join(runs, last);
    }

    /// The entries of the run of `key` and its index there; it is put there with `value` if it was not in the map.
    fn place(&mut self, key: K, value: impl FnOnce() -> V) -> (&mut Vec<(K, V)>, usize) {
        let mut at = self.run_of(&key);
        let runs = Arc::make_mut(&mut self.runs);
        if runs.is_empty() {
            runs.push(Run { from: key.clone(), entries: Arc::default() });
        }
        let mut index = match runs[at].index_of(&key) {
            Ok(index) => return (Arc::make_mut(&mut runs[at].entries), index),
            Err(index) => index,
        };
        if runs[at].entries.len() == RUN_ENTRIES_MAX {
            let entries = Arc::make_mut(&mut runs[at].entries);
            // What comes in order leaves full runs behind; anything else leaves halves.
            let half = if index == entries.len() { entries.len() } else { entries.len() / 2 };
            let upper = entries.split_off(half);
            let from = upper.first().map_or(&key, |(first, _)| first).clone();
            runs.insert(at + 1, Run { from, entries: Arc::new(upper) });
            if index >= half {
                (at, index) = (at + 1, index - half);
            }
        }
        self.len += 1;
        let run = &mut runs[at];
        if key < run.from {
            run.from = key.clone();
        }
        let entries = Arc::make_mut(&mut run.entries);
        entries.insert(index, (key, value()));
        (entries, index)
    }
}

/// Joins the run `at` with a neighbour, if both fit one run.
fn join<K: Clone, V: Clone>(runs: &mut Vec<Run<K, V>>, at: usize) {
    let len = |at: usize| runs.get(at).map_or(RUN_ENTRIES_MAX, |run| run.entries.len());
    let fits = |left: usize| len(left) + len(left + 1) <= RUN_ENTRIES_MAX;
    let left = match at.checked_sub(1) {
        Some(left) if fits(left) => left,
        _ if fits(at) => at,
        _ => return,
    };
    let right = runs.remove(left + 1);
    Arc::make_mut(&mut runs[left].entries).extend(right.entries.iter().cloned());
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { runs: Arc::default(), len: 0 }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && (Arc::ptr_eq(&self.runs, &other.runs) || self.iter().eq(other.iter()))
    }
}

impl<K: Eq, V: Eq> Eq for SharedMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord, V> Index<&K> for SharedMap<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the key is in the map")
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    /// Fast where the keys come in order, as from a snapshot.
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        let mut last_run: Vec<(K, V)> = Vec::new();
        for (key, value) in entries {
            let is_next = match last_run.last() {
                Some((last, _)) => *last < key,
                None => self.last_key().is_none_or(|last| *last < key),
            };
            if is_next && last_run.len() < RUN_ENTRIES_MAX {
                last_run.push((key, value));
                continue;
            }
            self.append_run(std::mem::take(&mut last_run));
            if is_next {
                last_run.reserve_exact(RUN_ENTRIES_MAX);
                last_run.push((key, value));
            } else {
                self.insert(key, value);
            }
        }
        self.append_run(last_run);
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

impl<K: Clone, V: Clone> IntoIterator for SharedMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.runs.iter().flat_map(|run| run.entries.iter()).cloned().collect::<Vec<_>>().into_iter()
    }
}

impl<K: Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;

        let mut map = serializer.serialize_map(Some(self.len))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de, K: Ord + Clone + Deserialize<'de>, V: Clone + Deserialize<'de>> Deserialize<'de> for SharedMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);

        impl<'de, K: Ord + Clone + Deserialize<'de>, V: Clone + Deserialize<'de>> Visitor<'de> for Entries<K, V> {
            type Value = SharedMap<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut error = None;
                let entries = std::iter::from_fn(|| match entries.next_entry() {
                    Ok(entry) => entry,
                    Err(why) => {
                        error = Some(why);
                        None
                    }
                });
                let map = entries.collect();
                error.map_or(Ok(map), Err)
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Whether the runs are what the rest relies on.
    fn is_sound(map: &SharedMap<u16, u32>) -> bool {
        let keys: Vec<_> = map.keys().collect();
        keys.is_sorted_by(|one, next| one < next)
            && keys.len() == map.len()
            && map.runs.iter().all(|run| (1..=RUN_ENTRIES_MAX).contains(&run.entries.len()))
            && map.runs.iter().all(|run| run.from <= run.entries[0].0)
            && map.runs.windows(2).all(|runs| runs[0].entries.last().is_some_and(|(last, _)| *last < runs[1].from))
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_a_clone_keeps_what_it_was(
            before in vec((any::<u16>(), any::<u32>()), 0..3_000),
            changes in vec((0..4_000_u16, proptest::option::of(any::<u32>())), 0..3_000),
        ) {
            let known: BTreeMap<u16, u32> = before.iter().copied().collect();
            let original: SharedMap<u16, u32> = before.into_iter().collect();
            let (mut expected, mut changed) = (known.clone(), original.clone());
            for (key, value) in changes {
                let (ours, theirs) = match value {
                    Some(value) => (changed.insert(key, value), expected.insert(key, value)),
                    None => (changed.remove(&key), expected.remove(&key)),
                };
                prop_assert_eq!(ours, theirs);
                prop_assert_eq!(changed.get(&key), expected.get(&key));
            }
            prop_assert!(is_sound(&changed) && is_sound(&original));
            prop_assert!(changed.iter().eq(expected.iter()));
            prop_assert!(original.iter().eq(known.iter()));
            prop_assert_eq!(serde_json::to_string(&changed).unwrap(), serde_json::to_string(&expected).unwrap());
            let read: SharedMap<u16, u32> = serde_json::from_str(&serde_json::to_string(&changed).unwrap()).unwrap();
            prop_assert_eq!(&read, &changed);
            prop_assert_eq!(read == original, expected == known);
        }
    }

    #[test]
    fn runs_that_empty_are_joined() {
        let mut map: SharedMap<u16, u32> = (0..20_000).map(|key| (key, 1)).collect();
        for key in (0..20_000).filter(|key| key % 100 != 0) {
            map.remove(&key);
        }
        assert!(is_sound(&map));
        assert_eq!(map.len(), 200);
        assert!(map.runs.len() <= 6, "{} runs of 200 entries", map.runs.len());
        *map.get_or_insert_default(7) += 5;
        assert_eq!((map[&7], map.get(&8)), (5, None));
    }
}
