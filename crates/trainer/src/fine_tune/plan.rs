//! The passes of a training run, in order.

use pipeline_spec::spec::{GeneratedUse, OptimizerSpec, Schedule};

use crate::random::{shuffle, stream};
use crate::schedule::learning_rate;

/// Which samples a pass goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// Real images of the shot list.
    Real,
    /// Generated samples.
    Generated,
    /// Both; the generated samples count after the real images.
    Mixed,
}

/// One pass over one set of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Which samples.
    pub kind: PassKind,
    /// Epoch of the run, from 0.
    pub epoch: u32,
    /// Epoch of the learning-rate schedule, from 0.
    pub schedule_epoch: u32,
    /// Whether the epoch ends with it.
    pub ends_epoch: bool,
}

impl PassKind {
    /// Name in messages and streams.
    pub fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Generated => "generated",
            Self::Mixed => "mixed",
        }
    }
}

/// All passes of a run.
///
/// [`Schedule::Alternate`]: a real pass, then a generated one, in every epoch; both use the same slice of the learning-rate
/// schedule. [`Schedule::Sequential`]: all real epochs, then all generated ones; each stage runs through the whole
/// schedule, so that both orders make the same number of steps at the same rates. [`Schedule::Mixed`]: one pass over both in
/// every epoch. [`GeneratedUse::OnlyImages`] has no real passes.
pub fn passes(schedule: Schedule, generated: GeneratedUse, epochs: u32) -> Vec<Pass> {
    let pass = |kind, epoch, schedule_epoch, ends_epoch| Pass { kind, epoch, schedule_epoch, ends_epoch };
    let mut all = Vec::new();
    match (generated, schedule) {
        (GeneratedUse::None, _) => all.extend((0..epochs).map(|e| pass(PassKind::Real, e, e, true))),
        (GeneratedUse::OnlyImages { .. }, _) => {
            all.extend((0..epochs).map(|e| pass(PassKind::Generated, e, e, true)));
        }
        (_, Schedule::Alternate) => {
            for e in 0..epochs {
                all.push(pass(PassKind::Real, e, e, false));
                all.push(pass(PassKind::Generated, e, e, true));
            }
        }
        (_, Schedule::Mixed) => all.extend((0..epochs).map(|e| pass(PassKind::Mixed, e, e, true))),
        (_, Schedule::Sequential) => {
            all.extend((0..epochs).map(|e| pass(PassKind::Real, e, e, true)));
            all.extend((0..epochs).map(|e| pass(PassKind::Generated, epochs + e, e, true)));
        }
    }
    all
}

/// Batches of a pass: indices of samples in a fresh order; the last batch may be smaller and is never dropped.
pub fn batches(pass: Pass, num_samples: usize, batch_size: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..num_samples).collect();
    shuffle(&mut order, &mut stream(seed, "order", &[pass.kind.name(), &pass.epoch.to_string()]));
    order.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// Learning rate of the classifier at step `step` of `pass`, which has `num_steps`.
pub fn rate_of(optimizer: &OptimizerSpec, pass: Pass, num_steps: usize, step: usize) -> f64 {
    learning_rate(optimizer, num_steps, pass.schedule_epoch as usize * num_steps + step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternate_and_sequential_make_the_same_passes_in_another_order() {
        let generated = GeneratedUse::Images { per_class: None };
        let kinds = |schedule| -> Vec<(PassKind, u32)> {
            passes(schedule, generated, 2).iter().map(|p| (p.kind, p.schedule_epoch)).collect()
        };
        use PassKind::{Generated, Real};
        assert_eq!(kinds(Schedule::Alternate), [(Real, 0), (Generated, 0), (Real, 1), (Generated, 1)]);
        assert_eq!(kinds(Schedule::Sequential), [(Real, 0), (Real, 1), (Generated, 0), (Generated, 1)]);
    }

    #[test]
    fn the_only_batch_and_the_last_batch_are_never_dropped() {
        let pass = passes(Schedule::Alternate, GeneratedUse::None, 1)[0];
        let sizes = |n, size| batches(pass, n, size, 1).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(3, 64), [3]);
        assert_eq!(sizes(70, 32), [32, 32, 6]);
        let mut all = batches(pass, 70, 32, 1).concat();
        all.sort_unstable();
        assert_eq!(all, (0..70).collect::<Vec<_>>());
    }
}
