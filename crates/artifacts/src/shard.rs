//! Which parts a process computes.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Shard `index` of `count`: a process computes the parts whose index leaves the remainder `index` when divided by
/// `count`. The number of shards changes who computes a part, never what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// Shard `index` of `count`.
    ///
    /// # Errors
    ///
    /// Fails unless `index < count`.
    pub fn new(index: u32, count: u32) -> Result<Self, Error> {
        if index < count {
            Ok(Self { index, count })
        } else {
            Err(Error::Shard { found: format!("{index}/{count}") })
        }
    }

    /// Position of this shard, from 0.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Number of shards.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether this shard computes part `part`.
    pub fn contains(self, part: u32) -> bool {
        part % self.count == self.index
    }
}

impl Default for Shard {
    /// The only shard, which computes every part.
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::Shard { found: text.to_owned() };
        let (index, count) = text.split_once('/').ok_or_else(invalid)?;
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| invalid());
        Self::new(number(index)?, number(count)?).map_err(|_| invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_belongs_to_exactly_one_shard() {
        for count in 1..6 {
            for part in 0..40 {
                let owners = (0..count).filter(|&i| Shard::new(i, count).unwrap().contains(part)).count();
                assert_eq!(owners, 1, "part {part} of {count} shards");
            }
        }
    }

    #[test]
    fn malformed_shards_are_rejected() {
        for text in ["", "1", "4/4", "1/0", "-1/2", "a/b", "1/2/3", "0/4 "] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
        assert_eq!("3/4".parse::<Shard>().unwrap(), Shard::new(3, 4).unwrap());
    }
}
