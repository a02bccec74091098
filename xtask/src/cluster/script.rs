//! The script of one array: what `sbatch` gets, and what the local engine runs.

use pipeline_spec::{ClusterTable, Plan};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::cluster::jobs::{Job, Task};
use crate::stage_command::{StageSettings, quoted};

/// Starts of a task before it is given up, the first one not counted.
const MAX_RESTARTS: u32 = 5;

/// The job id of the local engine, which starts no task again.
pub const LOCAL_ID: &str = "local";

/// What all scripts of a submission share.
pub struct Scripts<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Its file.
    pub plan_file: PathBuf,
    /// The pipeline's table.
    pub cluster: &'a ClusterTable,
    /// How to start a stage; all its paths are absolute.
    pub stages: &'a StageSettings,
    /// Folder of the stages' binaries.
    pub bin_dir: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// Folder where the tool runs, for relative paths of a pipeline.
    pub folder: PathBuf,
}

/// Name of a job.
pub fn job_name(plan: &Plan, job: &Job) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let pipeline = plan.pipeline.name.replace(|c| !is_plain(c), "-");
    format!("{pipeline}-{}", job.group.name())
}

/// File name of a task's log, with the place-holders of `sbatch`.
const LOG_PATTERN: &str = "logs/%x-%A_%a.log";

/// File of the log of task `index` of the job with this name and id, below the folder of the plan's jobs.
pub fn log_file(name: &str, id: &str, index: usize) -> PathBuf {
    Path::new("logs").join(format!("{name}-{id}_{index}.log"))
}

impl Scripts<'_> {
    /// The script of `job`, which is number `index` of `count`.
    pub fn text(&self, job: &Job, index: usize, count: usize) -> String {
        let num_units = job.tasks.iter().map(|task| task.units.len()).sum::<usize>();
        let mut text = String::from("#!/bin/bash\n");
        let (name, plan_id) = (&self.plan.pipeline.name.replace(char::is_control, " "), self.plan.id());
        let (number, group, num_tasks) = (index + 1, job.group.name(), job.tasks.len());
        let _ = writeln!(
            text,
            "# Job {number} of {count}, {group}: {num_units} units in {num_tasks} tasks; pipeline {name}, plan {plan_id}."
        );
        for option in self.options(job) {
            let _ = writeln!(text, "#SBATCH {option}");
        }
        if !self.cluster.setup.is_empty() {
            let _ = writeln!(text, "\n# From [cluster] of the pipeline.\nset -e");
            for line in &self.cluster.setup {
                let _ = writeln!(text, "{line}");
            }
            let _ = writeln!(text, "set +e");
        }
        let _ = writeln!(text, "\ncd {} || exit 1", quoted_path(&self.folder));
        let _ = writeln!(text, "\n# What each task computes, by its index in the array.\ntasks=(");
        for task in &job.tasks {
            let _ = writeln!(text, "    '{}'", arguments(task));
        }
        let _ = write!(text, ")\n{START}\n\n# The words of a task are separate arguments.\n");
        let _ = writeln!(text, "{} $task \\", self.words(&[quoted_path(&self.program), "run".to_owned()]));
        for (option, value) in self.run_options(job) {
            let _ = writeln!(text, "    {option} {} \\", quoted(&value));
        }
        let _ = write!(text, "    &\n{}", end());
        text
    }

    fn options(&self, job: &Job) -> Vec<String> {
        let resources = self.cluster.resources_of(job.group.stage());
        let throttle = resources.max_running.map_or(String::new(), |max| format!("%{max}"));
        // Time to finish a part or a training state before the limit, and no more than a part of a short one.
        let notice = resources.time_seconds().map_or(120, |limit| (limit / 10).clamp(1, 120));
        let mut options = vec![
            format!("--job-name={}", job_name(self.plan, job)),
            format!("--array=0-{}{throttle}", job.tasks.len() - 1),
            format!("--output={LOG_PATTERN}"),
            "--open-mode=append".to_owned(),
            "--requeue".to_owned(),
            format!("--signal=B:TERM@{notice}"),
            "--kill-on-invalid-dep=yes".to_owned(),
            // Tasks get nothing of the shell that submits them, keys of services least of all.
            "--export=NONE".to_owned(),
        ];
        let mut add = |option: &str, value: Option<String>| {
            options.extend(value.map(|value| format!("--{option}={value}")));
        };
        add("partition", resources.partition);
        add("account", resources.account);
        add("qos", resources.qos);
        add("constraint", resources.constraint);
        add("time", resources.time);
        add("cpus-per-task", resources.cpus.map(|n| n.to_string()));
        add("mem", resources.memory);
        add("gres", resources.gpus.filter(|&n| n > 0).map(|n| format!("gpu:{n}")));
        options.extend(resources.options.into_iter().flatten());
        options
    }

    /// The launcher and `words` as a shell reads them.
    fn words(&self, words: &[String]) -> String {
        let launcher = self.cluster.launcher.iter().map(|word| quoted(word));
        launcher.chain(words.iter().cloned()).collect::<Vec<_>>().join(" ")
    }

    fn run_options(&self, job: &Job) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let device = self.cluster.resources_of(job.group.stage()).device.or(self.stages.device.clone());
        let mut options = vec![
            ("--plan", path(&self.plan_file)),
            ("--store", path(self.stages.store.root())),
            ("--weights", path(&self.stages.weights)),
            ("--manifests", path(&self.stages.manifests)),
            ("--data", path(&self.stages.data)),
            ("--bin-dir", path(&self.bin_dir)),
        ];
        options.extend(device.map(|device| ("--device", device)));
        options
    }
}

/// The arguments of `xtask run` that choose the units of a task.
fn arguments(task: &Task) -> String {
    let units: Vec<String> = task.units.iter().map(ToString::to_string).collect();
    match task.shard {
        Some(shard) => format!("--units {} --shard {}/{}", units.join(","), shard.index, shard.count),
        None => format!("--units {}", units.join(",")),
    }
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

const START: &str = r#"task=${tasks[SLURM_ARRAY_TASK_ID]}
id=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}
restarts=${SLURM_RESTART_COUNT:-0}
export RAYON_NUM_THREADS=${RAYON_NUM_THREADS:-${SLURM_CPUS_ON_NODE:-1}}
echo "$(date '+%F %T') $SLURM_JOB_NAME $id, start $((restarts + 1)) on $(hostname): $task""#;

fn end() -> String {
    format!(
        r#"child=$!
# The scheduler's notice goes on to the work, which drops or finishes its part.
trap 'kill -TERM "$child" 2>/dev/null' TERM
while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
echo "$(date '+%F %T') exit code $code"
# Once more after a passing fault (75) or the notice before the time limit (143). A task that was cancelled, or that the
# scheduler requeues by itself, is not running any more and is left alone. A busy controller may need to be asked again.
if [ "$SLURM_ARRAY_JOB_ID" != {LOCAL_ID} ] && [ "$restarts" -lt {MAX_RESTARTS} ] && {{ [ "$code" = 75 ] || [ "$code" = 143 ]; }}; then
    for pause in 0 5 20; do
        sleep "$pause"
        state=$(scontrol show job --oneliner "$id") || continue
        case $state in *JobState=RUNNING\ *) scontrol requeue "$id" && sleep 60 ;; *) break ;; esac
    done
fi
exit "$code"
"#
    )
}
