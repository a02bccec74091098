//! How much memory the started processes hold, and whether there is room for another, as Linux tells it.

use pipeline_spec::Stage;
use std::collections::BTreeMap;
use std::path::Path;

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
        is_only_one || available_bytes().is_none_or(|available| needed <= available)
    }
}

/// What the system and the control groups of this process leave; `None` where neither tells.
fn available_bytes() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok();
    let system = system.map(|text| field_bytes(&text, "MemAvailable:"));
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok();
    let groups = groups.and_then(|groups| group_bytes(Path::new("/sys/fs/cgroup"), &groups));
    system.into_iter().chain(groups).min()
}

/// What control groups mounted at `root` leave to a process with this `/proc/self/cgroup`: the least of its groups and those
/// above, where file pages that are not in use count as free. `None` without a limit.
fn group_bytes(root: &Path, groups: &str) -> Option<u64> {
    let left = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let (root, limit, used, idle) = if controllers.is_empty() {
            (root.to_owned(), "memory.max", "memory.current", "inactive_file ")
        } else if controllers.split(',').any(|name| name == "memory") {
            let files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ");
            (root.join("memory"), files.0, files.1, files.2)
        } else {
            return None;
        };
        let left = |folder: &Path| {
            let read = |file| std::fs::read_to_string(root.join(folder).join(file)).ok();
            let number = |text: String| text.trim().parse::<u64>().ok();
            let (limit, used) = (number(read(limit)?)?, number(read(used)?)?);
            let stat = read("memory.stat").unwrap_or_default();
            let idle = stat.lines().find_map(|line| line.strip_prefix(idle)).map(str::to_owned);
            Some(limit.saturating_sub(used.saturating_sub(idle.and_then(number).unwrap_or(0))))
        };
        Path::new(group).ancestors().filter_map(left).min()
    };
    groups.lines().filter_map(left).min()
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
    fn the_narrowest_control_group_counts_and_idle_file_pages_are_free() {
        let root = tempfile::tempdir().unwrap();
        let write = |folder: &str, files: &[(&str, &str)]| {
            let folder = root.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
        };
        let left = |groups| group_bytes(root.path(), groups);
        write("slurm/job_1/step", &[("memory.max", "max\n"), ("memory.current", "10\n")]);
        let stat = ("memory.stat", "anon 300\ninactive_file 250\n");
        write("slurm/job_1", &[("memory.max", "1000\n"), ("memory.current", "600\n"), stat]);
        assert_eq!(left("0::/slurm/job_1/step\n"), Some(650));
        write("slurm", &[("memory.max", "700\n"), ("memory.current", "600\n")]);
        assert_eq!(left("0::/slurm/job_1/step\n"), Some(100));
        assert_eq!(left("0::/other\n"), None);
        let stat = ("memory.stat", "inactive_file 1\ntotal_inactive_file 5\n");
        let files = [("memory.limit_in_bytes", "90\n"), ("memory.usage_in_bytes", "80\n"), stat];
        write("memory/slurm", &files);
        assert_eq!(left("5:cpu:/slurm\n4:memory:/slurm/job_1\n0::/slurm\n"), Some(15), "version 1");
        write(".", &[("memory.max", "50\n"), ("memory.current", "60\n")]);
        assert_eq!(left("0::/\n"), Some(0), "as in a container");
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
