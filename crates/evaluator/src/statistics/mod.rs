//! How sure a figure is: intervals over seeds, paired tests on the same images, correction for many tests.

mod bootstrap;
mod holm;
mod mcnemar;
mod student_t;

pub use bootstrap::{Difference, Paired, RESAMPLES, paired_bootstrap};
pub use holm::holm;
pub use mcnemar::mcnemar_exact;
pub use student_t::two_sided;
