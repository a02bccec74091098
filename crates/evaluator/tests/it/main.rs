//! The stage and the report, on small made-up stores.

mod binary;
mod compare;
mod latents;
mod predictions;
mod report;
mod statistics;
mod synthetic;
