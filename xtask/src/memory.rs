//! How much memory the started processes hold, as Linux tells it.

/// The highest figures seen, in bytes. Both are zero where the system has no `/proc`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeakMemory {
    /// The largest resident size of one process.
    pub one_process_bytes: u64,
    /// The largest sum over the processes that ran at the same time.
    pub together_bytes: u64,
}

impl PeakMemory {
    /// Takes one look at the processes `pids`.
    pub fn sample(&mut self, pids: impl Iterator<Item = u32>) {
        let mut together = 0;
        for pid in pids {
            let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
            self.one_process_bytes = self.one_process_bytes.max(field_bytes(&status, "VmHWM:"));
            together += field_bytes(&status, "VmRSS:");
        }
        // The highest size of a process may lie between two looks.
        self.together_bytes = self.together_bytes.max(together).max(self.one_process_bytes);
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

    #[test]
    fn own_memory_is_seen() {
        let mut peak = PeakMemory::default();
        peak.sample([std::process::id()].into_iter());
        assert!(peak.one_process_bytes > 100_000 && peak.together_bytes > 100_000, "{peak:?}");
    }

    #[test]
    fn a_missing_field_counts_nothing() {
        assert_eq!(field_bytes("Name:\tx\n", "VmRSS:"), 0);
        assert_eq!(field_bytes("VmRSS:\t  12 kB\n", "VmRSS:"), 12 * 1024);
    }
}
