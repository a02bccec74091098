//! `kill -9` at random moments loses nothing.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use crate::bench::{Bench, bin_dir, expect_code};

/// Kills of a run: 12 unless `FLIER_TEST_KILLS` says otherwise (the full campaign is 200).
fn num_kills() -> u32 {
    std::env::var("FLIER_TEST_KILLS").map_or(12, |text| text.parse().unwrap())
}

#[test]
fn a_run_killed_at_random_moments_ends_with_the_store_of_an_undisturbed_one() {
    let undisturbed = Bench::smoke();
    expect_code(&undisturbed.reproduce(), 0);
    let disturbed = Bench::smoke();
    let reports = disturbed.folder.path().join("reports");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut kills, mut runs) = (0, 0);
    while kills < num_kills() {
        if runs > 0 && disturbed.contents() == undisturbed.contents() {
            // Finished before the next kill: begin again with what generation and training wrote.
            std::fs::remove_dir_all(disturbed.store().root()).unwrap();
        }
        runs += 1;
        let mut child = disturbed
            .command(
                "reproduce",
                &["--bin-dir", bin_dir().to_str().unwrap(), "--reports", reports.to_str().unwrap()],
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(100 + rng.next_u64() % 3000));
        let group = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
        if child.try_wait().unwrap().is_none() {
            // The whole process group dies at once, stages included.
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
            kills += 1;
        }
        child.wait().unwrap();
    }
    expect_code(&disturbed.reproduce(), 0);
    assert_eq!(disturbed.contents(), undisturbed.contents());
    expect_code(&disturbed.command("verify", &[]).output().unwrap(), 0);
}
