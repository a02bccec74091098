//! Which split an emoji goes to: decided by a digest of its code point, never by an image of it.
//!
//! Emoji that show the same thing (joined sequences with the same first code point) or that artists draw as
//! variants of one drawing (a `series` of the manifest) form a group and share a split.

use std::collections::{BTreeMap, HashMap};

use pipeline_spec::data_manifest::SplitRule;

/// Drawings that models are pretrained on.
pub const BASE: &str = "base";
/// The pool that shots are drawn from.
pub const TRAIN: &str = "train";
/// Drawings for selection.
pub const VAL: &str = "val";
/// Held-out drawings.
pub const TEST: &str = "test";
/// Drawings of test emoji by the held-out artist.
pub const SHIFT: &str = "shift";

/// What the rule sees of an emoji.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmojiFacts {
    /// Code points without variation selectors, joined by `-`.
    pub hexcode: String,
    /// Position of its class, if it has one.
    pub class: Option<u32>,
    /// Drawings by the train artists.
    pub num_images: u32,
}

/// Deals every emoji to a split; the result has one split per entry of `emoji`.
pub fn deal(emoji: &[EmojiFacts], series: &[Vec<String>], rule: &SplitRule) -> Vec<&'static str> {
    let mut splits = vec![BASE; emoji.len()];
    let mut ranked: BTreeMap<u32, Vec<(String, Vec<usize>)>> = BTreeMap::new();
    for (key, members) in groups(emoji, series) {
        let class = emoji[members[0]].class;
        let one_class = members.iter().all(|&m| emoji[m].class == class);
        if let Some(class) = class.filter(|_| one_class && members.len() <= rule.max_group as usize) {
            let rank = blake3::hash(key.as_bytes()).to_hex().to_string();
            ranked.entry(class).or_default().push((rank, members));
        }
    }
    for (class, mut groups) in ranked {
        groups.sort();
        let images = |members: &[usize]| members.iter().map(|&m| u64::from(emoji[m].num_images)).sum::<u64>();
        let of_class: Vec<_> = (0..emoji.len()).filter(|&i| emoji[i].class == Some(class)).collect();
        let total = images(&of_class);
        let mut held =
            Held { base: total - groups.iter().map(|(_, g)| images(g)).sum::<u64>(), ..Held::default() };
        for (_, members) in groups {
            let split = held.next(rule, total, images(&members));
            for member in members {
                splits[member] = split;
            }
        }
    }
    splits
}

/// Images of a class that each split holds so far.
#[derive(Default)]
struct Held {
    train: u64,
    base: u64,
    val: u64,
    test: u64,
}

impl Held {
    /// The split that the next group of `images` images goes to.
    fn next(&mut self, rule: &SplitRule, total: u64, images: u64) -> &'static str {
        let (split, held) = if self.train < u64::from(rule.min_train_images) {
            (TRAIN, &mut self.train)
        } else if self.base < u64::from(rule.min_base_images) {
            (BASE, &mut self.base)
        } else if self.val < u64::from(rule.min_val_images) {
            (VAL, &mut self.val)
        } else if self.test < u64::from(rule.max_test_images)
            && self.test * 100 < u64::from(rule.test_percent) * total
        {
            (TEST, &mut self.test)
        } else {
            (BASE, &mut self.base)
        };
        *held += images;
        split
    }
}

/// Positions of the members of each group, by the group's key: the first hexcode of the series, else the
/// first code point.
fn groups(emoji: &[EmojiFacts], series: &[Vec<String>]) -> BTreeMap<String, Vec<usize>> {
    let in_series: HashMap<&str, &str> =
        series.iter().flat_map(|s| s.iter().map(|code| (code.as_str(), s[0].as_str()))).collect();
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (position, emoji) in emoji.iter().enumerate() {
        let first = emoji.hexcode.split('-').next().unwrap_or_default();
        let key = in_series.get(emoji.hexcode.as_str()).or_else(|| in_series.get(first)).unwrap_or(&first);
        groups.entry((*key).to_owned()).or_default().push(position);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: SplitRule = SplitRule {
        min_train_images: 8,
        min_base_images: 4,
        min_val_images: 2,
        test_percent: 40,
        max_test_images: 20,
        max_group: 2,
    };

    fn emoji(hexcode: &str, class: Option<u32>) -> EmojiFacts {
        EmojiFacts { hexcode: hexcode.to_owned(), class, num_images: 2 }
    }

    #[test]
    fn groups_share_a_split_and_quotas_are_met() {
        let mut all: Vec<_> = (0..20).map(|i| emoji(&format!("1F4{i:02}"), Some(0))).collect();
        all.push(emoji("1F400-200D-1F9BA", Some(0)));
        all.push(emoji("1F500", None));
        let series = vec![vec!["1F401".to_owned(), "1F402".to_owned()]];
        let splits = deal(&all, &series, &RULE);
        assert_eq!(splits[0], splits[20]);
        assert_eq!(splits[1], splits[2]);
        assert_eq!(splits[21], BASE);
        let images = |name| 2 * splits.iter().filter(|s| **s == name).count();
        assert!((8..12).contains(&images(TRAIN)), "{splits:?}");
        assert!(
            (2..6).contains(&images(VAL)) && images(BASE) >= 4 && (16..22).contains(&images(TEST)),
            "{splits:?}"
        );
    }

    #[test]
    fn groups_over_two_classes_and_large_groups_are_base() {
        let codes = ["1F401", "1F402", "1F403", "1F404", "1F405"];
        let all: Vec<_> = codes.iter().enumerate().map(|(i, c)| emoji(c, Some(u32::from(i == 1)))).collect();
        let series = vec![
            vec!["1F401".to_owned(), "1F402".to_owned()],
            vec!["1F403".to_owned(), "1F404".to_owned(), "1F405".to_owned()],
        ];
        assert_eq!(deal(&all, &series, &RULE), [BASE; 5]);
    }
}
