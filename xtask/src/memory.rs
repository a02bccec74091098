//! How much memory the started processes hold, and whether there is room for another, as Linux tells it.

use pipeline_spec::Stage;
use std::collections::BTreeMap;

/// The highest figures seen, in bytes. None is above zero where the system has no `/proc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The largest resident size of one process of each stage.
    peaks: BTreeMap<Stage, u64>,
    /// The largest sum over the processes that ran at the same time.
    pub together_bytes: u64,
}

impl Memory {
    /// Takes one look at `processes`, each with its process id.
    pub fn sample(&mut self, processes: impl Iterator<Item = (Stage, u32)>) {
        let mut together = 0;
        for (stage, pid) in processes {
            let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
            let peak = self.peaks.entry(stage).or_default();
            *peak = field_bytes(&status, "VmHWM:").max(*peak);
            together += field_bytes(&status, "VmRSS:");
        }
        // The highest size of a process may lie between two looks.
        self.together_bytes = self.together_bytes.max(together).max(self.one_process_bytes());
    }

    /// The largest resident size of one process.
    pub fn one_process_bytes(&self) -> u64 {
        self.peaks.values().copied().max().unwrap_or(0)
    }

    /// Whether the system has memory for one more process of `stage` beside `running`, if each grows to the largest size
    /// that was seen of its stage. Always so for the only process, and for a stage of which nothing is known.
    pub fn has_room(&self, stage: Stage, running: impl Iterator<Item = (Stage, u32)>) -> bool {
        let mut needed = self.peaks.get(&stage).copied().unwrap_or(0);
        let mut is_only_one = true;
        for (stage, pid) in running {
            is_only_one = false;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let peak = self.peaks.get(&stage).copied().unwrap_or(0);
            needed += peak.saturating_sub(field_bytes(&status, "VmRSS:"));
        }
        let available =
            std::fs::read_to_string("/proc/meminfo").map(|text| field_bytes(&text, "MemAvailable:"));
        is_only_one || available.map_or(true, |available| needed <= available)
    }
}

/// The value of a line such as `VmRSS:     1024 kB`; 0 where there is none.
fn field_bytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_process() -> impl Iterator<Item = (Stage, u32)> {
        [(Stage::Trainer, std::process::id())].into_iter()
    }

    #[test]
    fn own_memory_is_seen() {
        let mut memory = Memory::default();
        memory.sample(this_process());
        assert!(memory.one_process_bytes() > 100_000 && memory.together_bytes > 100_000, "{memory:?}");
    }

    #[test]
    fn a_missing_field_counts_nothing() {
        assert_eq!(field_bytes("Name:\tx\n", "VmRSS:"), 0);
        assert_eq!(field_bytes("VmRSS:\t  12 kB\n", "VmRSS:"), 12 * 1024);
    }

    #[test]
    fn no_second_process_starts_where_one_like_it_would_not_fit() {
        let mut memory = Memory::default();
        assert!(memory.has_room(Stage::Trainer, this_process()), "nothing is known yet");
        memory.sample(this_process());
        assert!(memory.has_room(Stage::Trainer, this_process()));
        memory.peaks.insert(Stage::Trainer, 1 << 60);
        assert!(!memory.has_room(Stage::Trainer, this_process()));
        // What runs would not leave room for the small one either.
        assert!(!memory.has_room(Stage::Evaluator, this_process()));
        assert!(memory.has_room(Stage::Trainer, std::iter::empty()), "the only one always runs");
    }
}
