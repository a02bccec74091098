//! Integration tests of `trainer`.
#![allow(clippy::print_stderr)] // measured differences, shown when asked for

mod accumulate;
mod augment;
mod binary;
mod class_means;
mod expected;
mod fixture;
mod frozen;
mod golden;
mod golden_methods;
mod golden_towers;
mod held_out;
mod input;
mod latent_only;
mod methods;
mod metrics_log;
mod resume;
mod texts;
mod towers;
mod trajectory;
