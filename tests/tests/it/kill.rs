//! SIGKILL at random moments loses nothing.
//!
//! Every kind of work in turn: an artifact is removed, its unit is started again, killed after a random part of the time that it
//! takes, and so on until it is finished; then its files are compared with those of the undisturbed run. The full campaign:
//!
//! ```text
//! FLIER_TEST_KILLS=40 cargo nextest run --release -p integration-tests --no-capture killed
//! ```

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pipeline_spec::{ArtifactId, ArtifactKind, Digest, Store, Unit};

use crate::bench::{Bench, bin_dir, expect_code, files_of};

/// Kills of each kind of work: 3 unless `FLIER_TEST_KILLS` says otherwise.
fn num_kills() -> u32 {
    std::env::var("FLIER_TEST_KILLS").map_or(3, |text| text.parse().unwrap())
}

/// Parts of the artifact that is nothing but published.
const NUM_PARTS: u32 = 60;

/// A way to make artifacts, killed again and again.
struct Work {
    /// What is made; all of it is removed before a new start.
    outputs: Vec<ArtifactId>,
    command: Command,
    /// Time that it takes undisturbed, about.
    time: Duration,
}

/// What the kills of a kind of work did.
#[derive(Default)]
struct Tally {
    kills: u32,
    /// Kills that met a process that computes or writes.
    met: u32,
    /// Files that were published before a kill and not there after a later one.
    lost: usize,
    /// Files that were there with other content than in the undisturbed store.
    corrupt: usize,
    /// Rows more than in the undisturbed store, and files that no record lists.
    doubled: u64,
}

/// What a store should hold: files of every artifact, and its rows.
struct Expected {
    files: BTreeMap<ArtifactId, BTreeMap<String, Digest>>,
    rows: BTreeMap<ArtifactId, u64>,
}

impl Expected {
    fn of(store: &Store, ids: &[ArtifactId]) -> Self {
        let files = ids.iter().map(|id| (id.clone(), files_of(store, id))).collect();
        let rows = ids.iter().map(|id| (id.clone(), store.record(id).unwrap().rows)).collect();
        Self { files, rows }
    }

    /// Adds to `tally` what differs in `outputs`; gives the names of the files that are there.
    fn compare(
        &self,
        store: &Store,
        outputs: &[ArtifactId],
        tally: &mut Tally,
    ) -> BTreeSet<(ArtifactId, String)> {
        let mut present = BTreeSet::new();
        for id in outputs {
            for (name, digest) in files_of(store, id) {
                tally.corrupt += usize::from(self.files[id].get(&name) != Some(&digest));
                present.insert((id.clone(), name));
            }
            let Ok(record) = store.record(id) else {
                // A record that is there can be read.
                tally.corrupt += usize::from(store.record_path(id).exists());
                continue;
            };
            tally.doubled += record.rows.saturating_sub(self.rows[id]);
            tally.lost +=
                record.parts.iter().filter(|part| part.verify(&store.data_dir(id)).is_err()).count();
        }
        present
    }
}

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let entries =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = entries.filter_map(|name| name.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1).and_then(|ppid| ppid.parse().ok()) == Some(parent)
    })
    .collect()
}

/// Kills a run with the stages it started, as a power cut would; tells how many stages died.
fn kill(run: &mut Child) -> usize {
    // It must not start another one in this moment.
    kill_process(Pid::from_child(run), Signal::STOP).unwrap();
    let stages = children(run.id());
    run.kill().unwrap();
    for stage in &stages {
        // A stage that ended by itself in this moment is gone already.
        let _ = kill_process(Pid::from_raw(stage.cast_signed()).unwrap(), Signal::KILL);
    }
    run.wait().unwrap();
    stages.len()
}

/// Removes what was made, and the training states.
fn remove(store: &Store, outputs: &[ArtifactId]) {
    for folder in outputs.iter().flat_map(|id| [store.artifact_dir(id), store.work_dir(id)]) {
        if folder.exists() {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}

/// Kills `works` one after the other until there were `num_kills` kills.
fn campaign(
    store: &Store,
    expected: &Expected,
    mut next: impl FnMut(&mut ChaCha8Rng) -> Work,
    rng: &mut ChaCha8Rng,
) -> Tally {
    let mut tally = Tally::default();
    while tally.kills < num_kills() {
        let Work { outputs, mut command, time } = next(rng);
        remove(store, &outputs);
        let mut published = BTreeSet::new();
        loop {
            let mut run = command.stdout(Stdio::null()).spawn().unwrap();
            let micros = u64::try_from(time.as_micros()).unwrap();
            if tally.kills < num_kills() {
                std::thread::sleep(Duration::from_micros(rng.next_u64() % micros.max(1)));
            } else {
                run.wait().unwrap();
            }
            let status = run.try_wait().unwrap();
            if status.is_none() {
                tally.kills += 1;
                tally.met += u32::from(
                    kill(&mut run) > 0 || command.get_program().to_string_lossy().ends_with("publisher"),
                );
            }
            let present = expected.compare(store, &outputs, &mut tally);
            tally.lost += published.difference(&present).count();
            published = present;
            if let Some(status) = status {
                assert!(status.success(), "{command:?} ended with {status}");
                break;
            }
        }
        for id in &outputs {
            tally.lost += usize::from(!store.contains(id));
            assert_eq!(files_of(store, id), expected.files[id], "{id}");
        }
    }
    tally
}

#[test]
fn runs_killed_at_random_moments_end_with_the_store_of_an_undisturbed_one() {
    let bench = Bench::smoke();
    expect_code(&bench.reproduce(), 0);
    let (store, plan) = (bench.store(), bench.plan());
    let ids: Vec<ArtifactId> = plan.units.iter().map(|planned| planned.output.clone()).collect();
    let expected = Expected::of(&store, &ids);
    let time_of = |id: &ArtifactId| {
        let record = store.record(id).unwrap();
        Duration::from_millis(record.provenance.elapsed_ms + 50)
    };
    let times: BTreeMap<ArtifactId, Duration> = ids.iter().map(|id| (id.clone(), time_of(id))).collect();
    let one_of = |kinds: &'static [ArtifactKind]| {
        let units: Vec<usize> = (0..ids.len()).filter(|&index| kinds.contains(&ids[index].kind)).collect();
        let (bench, ids, times, plan_id) = (&bench, &ids, &times, plan.id());
        move |rng: &mut ChaCha8Rng| {
            let index = units[rng.next_u64() as usize % units.len()];
            let unit = bench.unit_command(&plan_id, index);
            Work { outputs: vec![ids[index].clone()], command: unit, time: times[&ids[index]] }
        }
    };
    // A random choice of everything, by the command that people use.
    let anything = |rng: &mut ChaCha8Rng| {
        let outputs: Vec<ArtifactId> =
            ids.iter().filter(|_| rng.next_u64().is_multiple_of(8)).cloned().collect();
        let time = outputs.iter().map(|id| times[id]).sum::<Duration>();
        Work { outputs, command: bench.reproduction(), time }
    };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let kinds: [(&str, &'static [ArtifactKind]); 5] = [
        ("packing", &[ArtifactKind::Images, ArtifactKind::FewshotSplits]),
        ("prompt generation", &[ArtifactKind::Prompts]),
        ("latents generation", &[ArtifactKind::Latents]),
        ("training", &[ArtifactKind::Features, ArtifactKind::Checkpoints]),
        ("evaluation", &[ArtifactKind::Predictions, ArtifactKind::Metrics]),
    ];
    let mut tallies: Vec<(&str, Tally)> = kinds
        .into_iter()
        .map(|(name, kinds)| (name, campaign(&store, &expected, one_of(kinds), &mut rng)))
        .collect();
    tallies.push(("whole pipeline", campaign(&store, &expected, anything, &mut rng)));
    let prompts = plan.units.iter().find(|planned| planned.output.kind == ArtifactKind::Prompts).unwrap();
    tallies.push(("publishing", publishing(bench.folder.path(), &prompts.unit, &mut rng)));

    report(&tallies);
    for (name, tally) in &tallies {
        assert_eq!((tally.lost, tally.corrupt, tally.doubled), (0, 0, 0), "{name}");
    }
    assert!(tallies.iter().map(|(_, tally)| tally.met).sum::<u32>() > 0, "no kill met a stage at work");
    assert_eq!(Expected::of(&store, &ids).files, expected.files);
    expect_code(&bench.command("verify", &[]).output().unwrap(), 0);
    // What the dead left behind, which nothing reads, goes.
    expect_code(&bench.command("gc", &["--age", "0s", "--delete"]).output().unwrap(), 0);
    assert_eq!(std::fs::read_dir(store.tmp_dir()).unwrap().count(), 0);
}

/// Kills a program that does nothing but publish small parts.
fn publishing(folder: &Path, unit: &Unit, rng: &mut ChaCha8Rng) -> Tally {
    let unit_file = folder.join("published.json");
    std::fs::write(&unit_file, serde_json::to_vec(unit).unwrap()).unwrap();
    let publisher = |store: &Store| {
        let mut command = Command::new(bin_dir().join("publisher"));
        command.arg(&unit_file).arg(store.root()).args([&NUM_PARTS.to_string(), "0/1"]);
        command
    };
    let (undisturbed, disturbed) =
        (Store::new(folder.join("undisturbed")), Store::new(folder.join("disturbed")));
    let start = std::time::Instant::now();
    assert!(publisher(&undisturbed).status().unwrap().success());
    let (time, output) = (start.elapsed(), unit.output());
    let expected = Expected::of(&undisturbed, std::slice::from_ref(&output));
    let next =
        |_: &mut ChaCha8Rng| Work { outputs: vec![output.clone()], command: publisher(&disturbed), time };
    campaign(&disturbed, &expected, next, rng)
}

/// The table of the campaign, on stderr.
fn report(tallies: &[(&str, Tally)]) {
    let mut text = "| work | kills | met work | lost files | corrupt files | doubled rows |\n|---|---|---|---|---|---|\n".to_owned();
    for (name, Tally { kills, met, lost, corrupt, doubled }) in tallies {
        text += &format!("| {name} | {kills} | {met} | {lost} | {corrupt} | {doubled} |\n");
    }
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}
