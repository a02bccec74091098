//! A stopped run goes on and gives the same bytes.

use std::ops::ControlFlow;

use pipeline_spec::spec::{FineTuneSpec, Select};
use trainer::Ending;

use crate::fixture::{Fixture, fine_tune_spec};

fn spec() -> FineTuneSpec {
    FineTuneSpec { select: Select::ValBest, ..fine_tune_spec() }
}

#[test]
fn a_run_stopped_after_any_step_ends_as_if_undisturbed() {
    let fixture = Fixture::new();
    let unit = fixture.fine_tune_unit(spec());
    // Two epochs of three real and three generated steps.
    fixture.expect_resumed(&unit, 12);
}

#[test]
fn a_damaged_state_is_discarded() {
    let fixture = Fixture::new();
    let unit = fixture.fine_tune_unit(spec());
    let id = fixture.run(&unit).unwrap();
    let undisturbed = fixture.files(&id);
    let weights = fixture.weights();
    let state = fixture.store.work_dir(&id).join("state.bin");
    let damages: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes[2000] ^= 1, |bytes| bytes.truncate(bytes.len() / 2), |bytes| bytes.clear()];
    for damage in damages {
        fixture.forget(&id);
        let mut steps = 0;
        let ending = trainer::run(&unit, &fixture.settings(&weights), &mut |_, _| {
            steps += 1;
            if steps == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(ending.unwrap(), Ending::Stopped);
        let mut bytes = std::fs::read(&state).unwrap();
        damage(&mut bytes);
        std::fs::write(&state, bytes).unwrap();
        let mut first = None;
        trainer::run(&unit, &fixture.settings(&weights), &mut |done, _| {
            first.get_or_insert(done);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(first, Some(1), "the run starts anew");
        assert!(undisturbed == fixture.files(&id));
    }
}
