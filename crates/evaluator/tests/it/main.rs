//! The stage and the report, on small made-up stores.

mod binary;
mod predictions;
mod report;
mod synthetic;
