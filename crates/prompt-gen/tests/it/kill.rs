//! `kill -9` and SIGTERM in the middle of the requests.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use pipeline_spec::spec::LanguageModelSpec;

use crate::fault_server::{Act, FaultServer};
use crate::place::{KEY, Place, spec, stderr};

const CONCURRENCY: usize = 8;

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// Waits until so many answers are in the file.
fn wait_for_answers(server: &FaultServer, count: usize) {
    let started = Instant::now();
    while server.answers().values().sum::<usize>() < count {
        assert!(started.elapsed() < Duration::from_secs(60), "too few answers after a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The answers that are whole in the file, whatever stands at its end.
fn stored(place: &Place) -> Vec<String> {
    let bytes = std::fs::read(place.journal_path()).unwrap_or_default();
    let whole = bytes.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n"));
    let texts = whole.map(|line| {
        let entry: serde_json::Value = serde_json::from_slice(line).unwrap();
        entry["answer"]["text"].as_str().unwrap().to_owned()
    });
    texts.collect()
}

#[test]
fn after_kill_9_no_stored_answer_is_asked_for_again() {
    let place = Place::new(100);
    let server = FaultServer::start(KEY, |_| Act::AnswerAfter(Duration::from_millis(3)));
    let unit = place.unit(LanguageModelSpec { answers_per_command: 4, ..spec() });
    let more = ["--concurrency", &CONCURRENCY.to_string()];
    // How often each question was answered when its answer was first seen in the file.
    let mut kept: HashMap<String, usize> = HashMap::new();
    let mut kills = 0;
    for wanted in [1, 40, 41, 120, 200, 260, 330] {
        let mut child = place.start(&unit, &server.url(), &more);
        wait_for_answers(&server, wanted);
        signal(&child, "KILL");
        child.wait().unwrap();
        kills += 1;
        let answers = server.answers();
        for question in stored(&place).iter().map(|text| text.replace(" seen as number ", "#")) {
            let count = answers[&question];
            kept.entry(question).or_insert(count);
        }
    }
    assert!(kept.len() >= 200 && kept.len() < 400, "{}", kept.len());
    stderr(&place.run(&unit, &server.url(), &more), 0);
    let after = server.answers();
    for (question, count) in &kept {
        assert_eq!(after[question], *count, "{question} was asked for again");
    }
    assert_eq!((place.rows(&unit).len(), after.len()), (400, 400));
    // Only what was under way at a kill can have been asked for twice.
    let extra = after.values().sum::<usize>() - 400;
    assert!(extra <= kills * CONCURRENCY, "{extra} answers too many after {kills} kills");
}

#[test]
fn sigterm_keeps_the_answers_and_ends_soon_with_143() {
    let place = Place::new(50);
    // The first twenty are answered, the others never.
    let server = FaultServer::start(KEY, |request| if request.number < 20 { Act::Answer } else { Act::Hang });
    let unit = place.unit(spec());
    let child = place.start(&unit, &server.url(), &["--concurrency", "4"]);
    let began = Instant::now();
    while stored(&place).len() < 20 {
        assert!(began.elapsed() < Duration::from_secs(60), "too few answers after a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    let started = Instant::now();
    signal(&child, "TERM");
    let log = stderr(&child.wait_with_output().unwrap(), 143);
    // The time-out of the requests that hang is two minutes.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(stored(&place).len(), 20, "{log}");
}
