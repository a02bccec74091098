//! `[cluster]` of a pipeline file: how its units become jobs of a scheduler. Never hashed into a key.
//!
//! ```toml
//! [cluster]
//! task_minutes = 15                        # short units share a task of about this length
//! setup = ["module load cuda/12.4"]        # shell lines before the work of every task
//!
//! [cluster.resources]                      # of every stage
//! account = "vision"
//! partition = "cpu"
//! time = "01:00:00"
//! cpus = 4
//! memory = "16G"
//!
//! [cluster.stages.trainer]                 # of one stage, instead of those
//! partition = "gpu"
//! gpus = 1
//! device = "cuda:0"
//! max_running = 8
//! ```

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{Error, Stage};

/// How the units of a pipeline run on a cluster. What is absent is left to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterTable {
    /// Units are packed until a task takes at least this many minutes; absent: 10.
    pub task_minutes: Option<f64>,
    /// Shell lines that run before the work of every task; one that fails ends the task.
    #[serde(default)]
    pub setup: Vec<String>,
    /// Words before the program, for example `["apptainer", "exec", "--nv", "flier.sif"]`.
    #[serde(default)]
    pub launcher: Vec<String>,
    /// What a task of any stage gets.
    #[serde(default)]
    pub resources: Resources,
    /// What a task of one stage gets instead; a field that is absent here is taken from `resources`.
    #[serde(default)]
    pub stages: BTreeMap<Stage, Resources>,
}

/// What one task gets; the names are those of `sbatch`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Partition, or several with commas between them.
    pub partition: Option<String>,
    /// Account that is charged.
    pub account: Option<String>,
    /// Quality of service.
    pub qos: Option<String>,
    /// Features that a node must have.
    pub constraint: Option<String>,
    /// Time limit: `MM`, `HH:MM:SS` or `D-HH:MM:SS`.
    pub time: Option<String>,
    /// Cores of a task.
    pub cpus: Option<u32>,
    /// Memory of a task, such as `24G`.
    pub memory: Option<String>,
    /// GPUs of a task. One is what a stage can use; a node with several runs several tasks.
    pub gpus: Option<u32>,
    /// Device of the networks, such as `cuda:0`.
    pub device: Option<String>,
    /// Tasks of one array that run at the same time.
    pub max_running: Option<u32>,
    /// Minutes that one unit takes; absent: measured from the units of its kind that are in the store.
    pub unit_minutes: Option<f64>,
    /// More options of `sbatch`, such as `--exclude=node7`.
    pub options: Option<Vec<String>>,
}

impl ClusterTable {
    /// Minutes that a task shall take at least.
    pub fn task_minutes(&self) -> f64 {
        self.task_minutes.unwrap_or(10.0)
    }

    /// What a task of `stage` gets.
    pub fn resources_of(&self, stage: Stage) -> Resources {
        let all = self.resources.clone();
        let Some(own) = self.stages.get(&stage).cloned() else { return all };
        Resources {
            partition: own.partition.or(all.partition),
            account: own.account.or(all.account),
            qos: own.qos.or(all.qos),
            constraint: own.constraint.or(all.constraint),
            time: own.time.or(all.time),
            cpus: own.cpus.or(all.cpus),
            memory: own.memory.or(all.memory),
            gpus: own.gpus.or(all.gpus),
            device: own.device.or(all.device),
            max_running: own.max_running.or(all.max_running),
            unit_minutes: own.unit_minutes.or(all.unit_minutes),
            options: own.options.or(all.options),
        }
    }

    /// Checks every value: what a scheduler would refuse, and what would end its line in a script.
    ///
    /// # Errors
    ///
    /// Fails with the first field that does not fit.
    pub fn check(&self) -> Result<(), Error> {
        positive("cluster.task_minutes", self.task_minutes)?;
        if self.launcher.iter().any(String::is_empty) {
            return fault("cluster.launcher", "words", "an empty one");
        }
        self.resources.check("cluster.resources")?;
        self.stages.iter().try_for_each(|(stage, own)| own.check(&format!("cluster.stages.{stage}")))
    }
}

impl Resources {
    fn check(&self, table: &str) -> Result<(), Error> {
        let names = [
            ("partition", &self.partition),
            ("account", &self.account),
            ("qos", &self.qos),
            ("constraint", &self.constraint),
            ("device", &self.device),
        ];
        for (name, value) in names {
            if let Some(value) = value
                && !is_word(value)
            {
                return fault(&format!("{table}.{name}"), "a word without blanks and quotes", value);
            }
        }
        for (name, value) in [("cpus", self.cpus), ("max_running", self.max_running)] {
            if value == Some(0) {
                return fault(&format!("{table}.{name}"), "a number above 0", "0");
            }
        }
        positive(&format!("{table}.unit_minutes"), self.unit_minutes)?;
        if let Some(time) = &self.time
            && seconds(time).is_none_or(|seconds| seconds == 0)
        {
            return fault(&format!("{table}.time"), "`MM`, `HH:MM:SS` or `D-HH:MM:SS`", time);
        }
        if let Some(memory) = &self.memory {
            let digits = memory.trim_end_matches(['K', 'M', 'G', 'T']);
            if digits.len() + 1 < memory.len() || digits.parse::<u32>().is_err() {
                return fault(&format!("{table}.memory"), "a number with `K`, `M`, `G` or `T`", memory);
            }
        }
        for option in self.options.iter().flatten() {
            if !option.starts_with("--") || !is_word(option) {
                return fault(&format!("{table}.options"), "options such as `--exclude=node7`", option);
            }
        }
        Ok(())
    }

    /// The time limit in seconds.
    pub fn time_seconds(&self) -> Option<u64> {
        seconds(self.time.as_deref()?)
    }
}

/// Seconds of a time limit as Slurm writes it; `None` if it is none of the three forms.
fn seconds(text: &str) -> Option<u64> {
    let number = |text: &str| {
        Some(text).filter(|t| t.len() <= 6 && t.bytes().all(|b| b.is_ascii_digit()))?.parse::<u64>().ok()
    };
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (number(days)?, clock),
        None => (0, text),
    };
    let fields: Vec<u64> = clock.split(':').map(number).collect::<Option<_>>()?;
    match *fields {
        [minutes] if days == 0 => Some(minutes * 60),
        [hours, minutes, seconds] => Some(((days * 24 + hours) * 60 + minutes) * 60 + seconds),
        _ => None,
    }
}

/// Whether `text` can stand in a line of a script as it is.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !r#"'"\`$#;"#.contains(c))
}

fn positive(field: &str, value: Option<f64>) -> Result<(), Error> {
    match value {
        Some(value) if !(value.is_finite() && value > 0.0) => fault(field, "a number above 0", value),
        _ => Ok(()),
    }
}

fn fault(field: &str, expected: &str, found: impl std::fmt::Display) -> Result<(), Error> {
    Err(Error::Field { field: field.to_owned(), problem: format!("expected {expected}, found `{found}`") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> ClusterTable {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_stage_takes_what_it_does_not_say_from_the_table_for_all() {
        let table = table(
            "[resources]\npartition = \"cpu\"\ncpus = 4\n[stages.trainer]\npartition = \"gpu\"\ngpus = 1\n",
        );
        let trainer = table.resources_of(Stage::Trainer);
        assert_eq!(
            (trainer.partition.as_deref(), trainer.cpus, trainer.gpus),
            (Some("gpu"), Some(4), Some(1))
        );
        let evaluator = table.resources_of(Stage::Evaluator);
        assert_eq!((evaluator.partition.as_deref(), evaluator.gpus), (Some("cpu"), None));
    }

    #[test]
    fn unknown_fields_and_stages_are_refused() {
        for text in [
            "partition = \"gpu\"",
            "[resources]\nmem = \"3G\"",
            "[stages.train]\ncpus = 1",
            "[stages.trainer]\ncpu = 1",
        ] {
            assert!(toml::from_str::<ClusterTable>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_that_a_script_could_not_hold_are_refused_by_name() {
        for (text, field) in [
            ("task_minutes = 0.0", "cluster.task_minutes"),
            ("launcher = [\"\"]", "cluster.launcher"),
            ("[resources]\npartition = \"a b\"", "cluster.resources.partition"),
            ("[resources]\naccount = \"a\\n#SBATCH --nice\"", "cluster.resources.account"),
            ("[resources]\ncpus = 0", "cluster.resources.cpus"),
            ("[resources]\ntime = \"soon\"", "cluster.resources.time"),
            ("[resources]\ntime = \"1:30\"", "cluster.resources.time"),
            ("[resources]\nmemory = \"16 G\"", "cluster.resources.memory"),
            ("[resources]\nmemory = \"G\"", "cluster.resources.memory"),
            ("[stages.trainer]\noptions = [\"-x\"]", "cluster.stages.trainer.options"),
            ("[stages.trainer]\noptions = [\"--a b\"]", "cluster.stages.trainer.options"),
        ] {
            let message = table(text).check().unwrap_err().to_string();
            assert!(message.contains(field), "{text}: {message}");
        }
        let good = "setup = [\"module load 'a b'\"]\n[resources]\ntime = \"1-00:00:00\"\nmemory = \"16G\"\ngpus = 0\n\
                    options = [\"--exclude=n[1-3]\"]\nconstraint = \"a100|h100\"";
        table(good).check().unwrap();
    }

    #[test]
    fn time_limits_are_read_as_slurm_reads_them() {
        assert_eq!(seconds("90"), Some(5400));
        assert_eq!(seconds("01:30:05"), Some(5405));
        assert_eq!(seconds("2-01:00:00"), Some(176_400));
        for text in ["", "1-", "1:2", "1-5", "a", "1:2:3:4", "-1", "99999999999999999999"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
