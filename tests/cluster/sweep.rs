//! Whole sweeps: chains of arrays, three thousand units, dry runs, two people at once, GPUs.

use crate::scheduler::Lab;
use std::collections::BTreeMap;
use std::fs;

#[test]
fn s1_a_chain_of_arrays_computes_every_unit_once_after_its_inputs() {
    let lab = Lab::with_shards(3, "[cluster.resources]\nmemory = \"100M\"\ncpus = 1\ntime = \"00:10:00\"\n");
    // With the stand-ins shard 3 writes the record.
    fs::create_dir(lab.fixture.path("bin/last-3")).unwrap();
    fs::write(lab.fixture.path("bin/last-3/4"), "").unwrap();
    let jobs = lab.submit(&[]);
    let names: Vec<&str> = jobs.keys().map(String::as_str).collect();
    let expected = ["dataset-pack", "evaluator", "features", "prompt-gen", "sd-latents", "trainer"];
    assert_eq!(names, expected.map(|name| format!("small-{name}")));
    lab.slurm.settle();
    lab.expect_all_done();
    let plan = lab.fixture.plan();
    let started = lab.fixture.started();
    let position =
        |unit: usize| started.iter().position(|line| line.starts_with(&format!("unit-{unit:05} ")));
    for (index, planned) in plan.units.iter().enumerate() {
        // A shard that comes late finds the record that shard 3 wrote.
        let at_most = if planned.output.to_string().starts_with("latents") { 4 } else { 1 };
        assert!((1..=at_most).contains(&lab.starts(index)), "unit {index}: {started:?}");
        assert!(planned.depends_on.iter().all(|&input| position(input) < position(index)), "unit {index}");
    }
    let status = lab.run(&["status"]).expect(0);
    assert!(status.stderr.contains(&format!("{0} of {0} units done", plan.units.len())), "{status:#?}");
    let again = lab.run(&["submit", "--engine", "slurm", "--bin-dir", "bin"]).expect(0);
    assert!(again.stderr.contains("nothing to submit"), "{again:#?}");
}

#[test]
fn s6_three_thousand_units_run_once_each_in_arrays_of_the_allowed_size() {
    let lab = Lab::new(2, "");
    let seeds: Vec<String> = (1..=215).map(|seed| seed.to_string()).collect();
    lab.fixture.edit_pipeline("seeds = [1]", &format!("seeds = [{}]", seeds.join(", ")));
    lab.fixture.prepare();
    let num_units = lab.fixture.plan().units.len();
    assert!(num_units > 3000, "{num_units}");
    let finished = lab.run(&["submit", "--engine", "slurm", "--bin-dir", "bin", "--pack", "40"]).expect(0);
    let rows: Vec<Vec<&str>> =
        finished.stdout.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let evaluators = rows.iter().filter(|row| row[1] == "small-evaluator");
    let sizes: Vec<usize> = evaluators.map(|row| row[2].parse().unwrap()).collect();
    assert_eq!(sizes, [21, 21, 2], "861 pairs of predictions and metrics, 20 in a task: {rows:?}");
    lab.slurm.settle();
    lab.expect_all_done();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in lab.fixture.started() {
        *counts.entry(line).or_default() += 1;
    }
    assert_eq!(counts.len(), num_units);
    assert!(counts.values().all(|&count| count == 1));
}

#[test]
fn s8_two_submissions_at_once_submit_every_unit_once() {
    let lab = Lab::new(2, "");
    let arguments = ["submit", "--engine", "slurm", "--bin-dir", "bin"];
    let [mut first, mut second] = [(), ()].map(|()| lab.command(&arguments).spawn().unwrap());
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    lab.slurm.settle();
    lab.expect_all_done();
    let starts: Vec<usize> = (0..lab.fixture.plan().units.len()).map(|index| lab.starts(index)).collect();
    assert!(starts.iter().all(|&count| count == 1), "{starts:?}");
}

#[test]
fn s10_a_dry_run_prints_every_script_and_submits_nothing() {
    let cluster = "setup = [\"module load cuda/12.4\"]\nlauncher = [\"apptainer\", \"exec\", \"an image.sif\"]\n\
                   [cluster.resources]\naccount = \"vision\"\n[cluster.stages.trainer]\npartition = \"debug\"\n\
                   gpus = 1\ndevice = \"cuda:0\"\nmax_running = 2\n";
    let lab = Lab::new(1, cluster);
    let finished = lab.run(&["submit", "--engine", "slurm", "--bin-dir", "bin", "--dry-run"]).expect(0);
    for part in [
        "#SBATCH --array=0-4%2",
        "#SBATCH --account=vision",
        "#SBATCH --gres=gpu:1",
        "--device cuda:0",
        "module load cuda/12.4",
        "apptainer exec 'an image.sif' ",
        "sbatch --parsable --dependency=afterok:<id of job 1>",
    ] {
        assert!(finished.stdout.contains(part), "no `{part}` in {}", finished.stdout);
    }
    assert_eq!(lab.slurm.tasks(), Vec::<Vec<String>>::new());
    assert!(!lab.fixture.path("store").exists());
}

#[test]
fn s11_no_two_running_tasks_share_a_gpu() {
    let lab = Lab::new(2, "");
    let log = lab.fixture.path("gpus");
    let path = log.display().to_string().replace('\'', r"'\''");
    let note = |what: &str| format!("echo \"$SLURMD_NODENAME:$CUDA_VISIBLE_DEVICES {what}\" >>'{path}'");
    let setup = [
        format!("finish() {{ {}; }}", note("end")),
        "trap finish EXIT".to_owned(),
        note("start"),
        "sleep 0.3".to_owned(),
    ];
    let setup = setup.map(|line| format!("{line:?}")).join(", ");
    let table = format!("[cluster]\nsetup = [{setup}]\n[cluster.resources]\ngpus = 1\n");
    lab.fixture.edit_pipeline("[cluster]\n", &table);
    lab.submit(&[]);
    lab.slurm.settle();
    let text = fs::read_to_string(&log).unwrap();
    let mut used: Vec<&str> = Vec::new();
    let mut most = 0;
    for line in text.lines() {
        let (gpu, what) = line.split_once(' ').unwrap();
        assert!(gpu.ends_with(":0") || gpu.ends_with(":1"), "{line}");
        match what {
            "start" => {
                assert!(!used.contains(&gpu), "{gpu} is used twice:\n{text}");
                used.push(gpu);
            }
            _ => used.retain(|&other| other != gpu),
        }
        most = most.max(used.len());
    }
    assert!(most > 1 && used.is_empty(), "{text}");
}
