//! Noise schedules and the steps from noise to a clean latent.

mod ddim;

pub use ddim::DdimScheduler;
