//! `kill -9` at random moments loses nothing.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::bench::{Bench, expect_code};

/// Kills of a run: 12 unless `FLIER_TEST_KILLS` says otherwise (the full campaign is 200).
fn num_kills() -> u32 {
    std::env::var("FLIER_TEST_KILLS").map_or(12, |text| text.parse().unwrap())
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
    let stages = children(run.id());
    run.kill().unwrap();
    for stage in &stages {
        // A stage that ended by itself in this moment is gone already.
        let _ = kill_process(Pid::from_raw(stage.cast_signed()).unwrap(), Signal::KILL);
    }
    stages.len()
}

#[test]
fn a_run_killed_at_random_moments_ends_with_the_store_of_an_undisturbed_one() {
    let undisturbed = Bench::smoke();
    expect_code(&undisturbed.reproduce(), 0);
    let disturbed = Bench::smoke();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut num_kills_done, mut num_stages_killed) = (0, 0);
    while num_kills_done < num_kills() {
        let mut run = disturbed.reproduction().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100 + rng.next_u64() % 3000));
        if run.try_wait().unwrap().is_none() {
            num_stages_killed += kill(&mut run);
            num_kills_done += 1;
            run.wait().unwrap();
        } else {
            // It came to its end before the kill: check that, and begin again.
            assert_eq!(disturbed.contents(), undisturbed.contents());
            std::fs::remove_dir_all(disturbed.store().root()).unwrap();
        }
    }
    assert!(num_stages_killed > 0, "{num_kills_done} kills met no stage at work");
    expect_code(&disturbed.reproduce(), 0);
    assert_eq!(disturbed.contents(), undisturbed.contents());
    expect_code(&disturbed.command("verify", &[]).output().unwrap(), 0);
}
