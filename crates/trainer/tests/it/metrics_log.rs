//! Figures of a run while it trains.

use trainer::metrics_log::{LINES_FILE, MetricsLog, record, scalar_event, version_event};

/// `tests/golden/events.py`.
const GOLDEN: &[u8] = include_bytes!("../golden/events.bin");

#[test]
fn an_event_file_has_the_bytes_of_tensorboards_own_writer() {
    let figure = |tag: &str, value: f64| (tag.to_owned(), value);
    let events = [
        version_event(1_700_000_000.25),
        scalar_event(1_700_000_001.5, 1, &[figure("loss/real", 3.25), figure("learning_rate", 1e-4)]),
        scalar_event(1_700_000_002.5, 300, &[figure("loss/generated", 0.7)]),
    ];
    let found: Vec<u8> = events.iter().flat_map(|event| record(event)).collect();
    assert!(found == GOLDEN);
}

#[test]
fn a_run_that_goes_on_adds_to_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    for step in 1..=2 {
        let log = MetricsLog::open(folder.path(), "run").unwrap();
        log.step(step, "real", 0.5, 1e-3).unwrap();
    }
    let lines = std::fs::read_to_string(folder.path().join("run").join(LINES_FILE)).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<_> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2]);
}
