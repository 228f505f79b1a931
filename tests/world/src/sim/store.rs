//! Records with versions: what a conditional write means, once for every kind of record.

use std::collections::BTreeMap;

use spillway_control::record::Stored;

/// Records of one kind by key.
#[derive(Debug)]
pub(crate) struct Store<K, T> {
    records: BTreeMap<K, Stored<T>>,
}

impl<K, T> Default for Store<K, T> {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, T: Clone> Store<K, T> {
    pub(crate) fn get(&self, key: &K) -> Option<&Stored<T>> {
        self.records.get(key)
    }

    /// The version there; 0 if there is no record.
    pub(crate) fn version(&self, key: &K) -> u64 {
        self.records.get(key).map_or(0, |stored| stored.version)
    }

    /// Stores `record` if the record there is at `expected_version`.
    pub(crate) fn put(&mut self, key: &K, record: &T, expected_version: u64) -> bool {
        if self.version(key) != expected_version {
            return false;
        }
        let stored = Stored {
            record: record.clone(),
            version: expected_version + 1,
        };
        self.records.insert(key.clone(), stored);
        true
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.records
            .iter()
            .map(|(key, stored)| (key, &stored.record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_names_the_version_it_saw() {
        let mut store = Store::default();
        assert!(!store.put(&1, &"late", 1));
        assert!(store.put(&1, &"first", 0));
        assert!(!store.put(&1, &"first", 0), "it is there already");
        assert!(store.put(&1, &"second", 1));
        assert_eq!(
            store.get(&1).map(|s| (s.record, s.version)),
            Some(("second", 2))
        );
        assert_eq!(store.version(&2), 0);
    }
}
