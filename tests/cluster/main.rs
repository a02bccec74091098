//! `submit` and `status` on a real Slurm, which `slurm.sh` starts on this machine; `cargo xtask test --slurm` runs them as a step
//! of its own. Stages are the stand-ins of xtask's other tests, but for the pipeline that is compared with a local run.

mod faults;
mod scheduler;
mod smoke;
mod sweep;

#[path = "../../xtask/tests/it/fixture.rs"]
mod fixture;
