//! What the units of one process share: inputs that were read, checked and parsed once.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use crate::StageArgs;

/// Bytes that are kept for the next units.
const CAPACITY_BYTES: usize = 1 << 30;

/// Inputs by name, the last used at the end; as many as fit into a bound.
///
/// A name must say everything that the value depends on: artifacts and checkpoints by their keys and digests, which never
/// change their content.
#[derive(Default)]
pub struct Cache {
    capacity_bytes: usize,
    entries: RefCell<Vec<Entry>>,
}

struct Entry {
    name: String,
    value: Rc<dyn Any>,
    size_bytes: usize,
}

impl Cache {
    /// An empty cache. It keeps nothing where the process has a single unit.
    pub fn new(args: &StageArgs) -> Self {
        Self::with_capacity(if args.names_units_on_stdin() { CAPACITY_BYTES } else { 0 })
    }

    /// An empty cache that keeps up to `capacity_bytes`.
    pub fn with_capacity(capacity_bytes: usize) -> Self {
        Self { capacity_bytes, entries: RefCell::default() }
    }

    /// The value `name`, which `make` yields with its size in bytes unless it is there.
    ///
    /// # Errors
    ///
    /// Fails as `make` does.
    pub fn get<T: 'static, E>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<(T, usize), E>,
    ) -> Result<Rc<T>, E> {
        if let Some(value) = self.take(name) {
            return Ok(value);
        }
        let (value, size_bytes) = make()?;
        let value = Rc::new(value);
        let mut entries = self.entries.borrow_mut();
        entries.push(Entry { name: name.to_owned(), value: value.clone(), size_bytes });
        let mut total: usize = entries.iter().map(|entry| entry.size_bytes).sum();
        while total > self.capacity_bytes {
            total -= entries.remove(0).size_bytes;
        }
        Ok(value)
    }

    /// The value `name` if it is there, which is then the last used.
    fn take<T: 'static>(&self, name: &str) -> Option<Rc<T>> {
        let mut entries = self.entries.borrow_mut();
        let index = entries.iter().position(|entry| entry.name == name && entry.value.is::<T>())?;
        let entry = entries.remove(index);
        let value = Rc::clone(&entry.value).downcast().ok();
        entries.push(entry);
        value
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = self.entries.borrow();
        f.debug_map().entries(entries.iter().map(|entry| (&entry.name, entry.size_bytes))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the value `name` had to be made.
    fn is_made(cache: &Cache, name: &str, size_bytes: usize) -> bool {
        let mut is_made = false;
        let make = || {
            is_made = true;
            Ok::<_, ()>((name.to_owned(), size_bytes))
        };
        assert_eq!(*cache.get(name, make).unwrap(), name);
        is_made
    }

    #[test]
    fn a_value_is_made_once_and_the_least_recently_used_goes() {
        let cache = Cache::with_capacity(10);
        assert!(is_made(&cache, "a", 5) && is_made(&cache, "b", 5));
        assert!(!is_made(&cache, "a", 5));
        assert!(is_made(&cache, "c", 5));
        assert!(!is_made(&cache, "a", 5) && is_made(&cache, "b", 5));
    }

    #[test]
    fn what_does_not_fit_is_made_again() {
        let cache = Cache::with_capacity(10);
        assert!(is_made(&cache, "a", 11) && is_made(&cache, "a", 11));
    }

    #[test]
    fn a_failure_is_not_kept() {
        let cache = Cache::with_capacity(10);
        assert_eq!(cache.get::<u8, _>("a", || Err("bad")), Err("bad"));
        assert_eq!(cache.get::<u8, &str>("a", || Ok((1, 1))).as_deref(), Ok(&1));
    }
}
