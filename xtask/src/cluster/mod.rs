//! The missing units of a plan as jobs: array tasks of Slurm, or processes on this machine.
//!
//! [`jobs`] decides what runs together, [`script`] writes it down, [`slurm`] and [`local`] run it, [`records`] remembers
//! what was submitted. A task is `xtask run` on a few units, so nothing depends on the scheduler for correctness: a task
//! that is started twice, or without its inputs, does no harm.

pub mod jobs;
pub mod local;
pub mod records;
pub mod script;
pub mod slurm;
