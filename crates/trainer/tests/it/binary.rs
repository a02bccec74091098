//! The binary: exit codes, signals, `kill -9`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pipeline_spec::spec::{Coupling, FineTuneSpec, GeneratedUse, HeadInit, LatentControl, Pool};
use pipeline_spec::{Digest, StageSpec, Unit};

use crate::fixture::{Fixture, fine_tune_spec};

fn write_unit(fixture: &Fixture, unit: &Unit) -> PathBuf {
    let path = fixture.weights().join(format!("{}.json", unit.output().key));
    std::fs::write(&path, serde_json::to_vec(unit).unwrap()).unwrap();
    path
}

fn start(fixture: &Fixture, unit_file: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["--save-every-steps", "1", "--spec"])
        .arg(unit_file)
        .arg("--store")
        .arg(fixture.store.root())
        .arg("--weights")
        .arg(fixture.weights())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Enough steps that a signal arrives while training.
fn long_unit(fixture: &Fixture) -> Unit {
    let mut spec = fine_tune_spec();
    spec.optimizer.epochs = 40;
    fixture.fine_tune_unit(spec)
}

fn signal(child: &Child, name: &str) {
    assert!(
        Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap().success()
    );
}

/// Waits until the run has written a training state, or ended.
fn wait_for_state(fixture: &Fixture, unit: &Unit, child: &mut Child) {
    let state = fixture.store.work_dir(&unit.output()).join("state.bin");
    let started = Instant::now();
    while !state.exists() && child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "no state after a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_run_ends_as_if_undisturbed() {
    let fixture = Fixture::new();
    let unit = long_unit(&fixture);
    let id = fixture.run(&unit).unwrap();
    let undisturbed = fixture.files(&id);
    fixture.forget(&id);
    let unit_file = write_unit(&fixture, &unit);
    let mut kills = 0;
    loop {
        let mut child = start(&fixture, &unit_file);
        wait_for_state(&fixture, &unit, &mut child);
        // A different moment each time, from within the first steps on.
        std::thread::sleep(Duration::from_millis(40 + 37 * kills));
        if kills < 5 && child.try_wait().unwrap().is_none() {
            signal(&child, "KILL");
            child.wait().unwrap();
            kills += 1;
            continue;
        }
        assert!(child.wait().unwrap().success());
        break;
    }
    assert!(kills > 0, "the run ended before it could be killed");
    assert!(undisturbed == fixture.files(&id));
}

#[test]
fn units_of_one_process_leave_what_a_process_each_leaves_and_a_bad_one_harms_no_other() {
    let fixture = Fixture::new();
    let latents = |control| GeneratedUse::ImagesAndLatents {
        per_class: None,
        latent_factor: 0.5,
        control,
        latent_scale: None,
    };
    let spec = fine_tune_spec();
    let good = [
        FineTuneSpec { generated: latents(Some(LatentControl::Shuffled)), ..spec.clone() },
        FineTuneSpec { generated: latents(None), coupling: Coupling::FeatureAdd, ..spec.clone() },
        FineTuneSpec { head_init: HeadInit::ZeroShotText, pool: Pool::Projected, ..spec.clone() },
        FineTuneSpec { generated: GeneratedUse::None, ..spec },
    ];
    let mut units = good.map(|spec| fixture.fine_tune_unit(spec)).to_vec();
    let expected: Vec<_> = units.iter().map(|unit| fixture.files(&fixture.run(unit).unwrap())).collect();
    units.iter().for_each(|unit| fixture.forget(&unit.output()));
    let mut bad = units[0].clone();
    let StageSpec::Checkpoints(spec) = &mut bad.spec else { unreachable!() };
    spec.backbone.digest = Digest::blake3(b"another");
    units.insert(1, bad.clone());

    let mut child = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["--spec", "-", "--unit-logs", "--store"])
        .arg(fixture.store.root())
        .arg("--weights")
        .arg(fixture.weights())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> =
        units.iter().map(|unit| format!("{}\n", write_unit(&fixture, unit).display())).collect();
    child.stdin.take().unwrap().write_all(lines.concat().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n65\n0\n0\n0\n");
    assert_eq!(output.status.code(), Some(65));
    units.remove(1);
    for (unit, expected) in units.iter().zip(&expected) {
        assert!(*expected == fixture.files(&unit.output()), "{}", unit.output());
    }
    let log = |unit: &Unit| std::fs::read_to_string(fixture.store.log_path(&unit.output())).unwrap();
    assert!(log(&bad).contains("`backbone.digest`") && !log(&units[0]).contains("error"), "{}", log(&bad));
}

#[test]
fn sigterm_ends_with_143_and_keeps_the_state() {
    let fixture = Fixture::new();
    let unit = long_unit(&fixture);
    let unit_file = write_unit(&fixture, &unit);
    let mut child = start(&fixture, &unit_file);
    wait_for_state(&fixture, &unit, &mut child);
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fixture.store.work_dir(&unit.output()).join("state.bin").exists());
}

#[test]
fn bad_input_has_its_exit_code_and_one_line() {
    let fixture = Fixture::new();
    let mut unit = long_unit(&fixture);
    let StageSpec::Checkpoints(spec) = &mut unit.spec else { panic!() };
    spec.backbone.digest = Digest::blake3(b"another");
    let output = start(&fixture, &write_unit(&fixture, &unit)).wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{stderr}");
    let line = stderr.lines().last().unwrap();
    assert!(line.starts_with("error: ") && line.contains("`backbone.digest`"), "{stderr}");
}
