//! The binary: exit codes, interruption and kill.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use pipeline_spec::{StageSpec, Store, Unit};

use crate::{PROMPTS, Place, parts};

const PARTS: u32 = 24;

/// A unit of a few hundred samples, some seconds of work, and its file.
pub fn long_unit(place: &Place, name: &str) -> (Store, Unit, PathBuf) {
    let (store, unit) = place.unit(name, &PROMPTS, PARTS);
    let StageSpec::Latents(mut spec) = unit.spec else { unreachable!() };
    spec.samples_per_prompt = 80;
    let unit = Unit { spec: StageSpec::Latents(spec), inputs: unit.inputs };
    let path = store.root().join("unit.json");
    std::fs::write(&path, serde_json::to_vec(&unit).unwrap()).unwrap();
    (store, unit, path)
}

pub fn command(spec: &Path, store: &Store, weights: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sd-latents"));
    command.arg("--spec").arg(spec).arg("--store").arg(store.root()).arg("--weights").arg(weights);
    command.args(["--batch", "5"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits until at least `count` parts are committed or the process has ended.
fn wait_for_parts(child: &mut Child, store: &Store, unit: &Unit, count: usize) {
    let folder = store.commit_dir(&unit.output());
    while child.try_wait().unwrap().is_none() {
        if std::fs::read_dir(&folder).is_ok_and(|entries| entries.count() >= count) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bytes() {
    let place = Place::new();
    let (store, unit, spec) = long_unit(&place, "whole");
    let output = command(&spec, &store, &place.weights()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
    assert!(output.stdout.is_empty(), "stdout is for data");
    let expected = parts(&store, &unit);

    let (store, unit, spec) = long_unit(&place, "disturbed");
    let mut child = command(&spec, &store, &place.weights()).spawn().unwrap();
    wait_for_parts(&mut child, &store, &unit, 2);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", message(&output));
    assert!(!store.contains(&unit.output()), "an interrupted run leaves no artifact");
    let kept = std::fs::read_dir(store.data_dir(&unit.output())).unwrap().count();
    assert!((2..PARTS as usize).contains(&kept), "{kept} parts were kept");
    let output = command(&spec, &store, &place.weights()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
    assert_eq!(parts(&store, &unit), expected);
}

#[test]
fn faults_have_their_exit_codes() {
    let place = Place::new();
    let (store, unit, spec) = long_unit(&place, "store");
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code().unwrap(), message(&output))
    };
    let (code, text) =
        run(Command::new(env!("CARGO_BIN_EXE_sd-latents")).args(["--batch", "0", "--spec", "x"]));
    assert_eq!(code, 2, "{text}");
    let (code, text) = run(command(&spec, &store, &place.weights()).args(["--device", "gpu"]));
    assert!(code != 0 && text.contains("unknown device `gpu`"), "{code}: {text}");
    let (code, text) = run(&mut command(&spec, &place.store("empty"), &place.weights()));
    assert!(code == 65 && text.contains("prompts-v1/animals/"), "{code}: {text}");
    let (code, text) = run(&mut command(&spec, &store, &place.folder.path().join("nowhere")));
    assert!(code == 65 && text.contains("nowhere"), "{code}: {text}");
    let mut show = Command::new(env!("CARGO_BIN_EXE_sd-latents"));
    show.arg("show").arg("--store").arg(store.root()).args(["--out", "sheet.png", "--artifact"]);
    let (code, text) = run(show.arg(unit.output().to_string()));
    assert!(code == 65 && text.contains("latents-v1/animals/"), "{code}: {text}");
}
