//! Tests of the contract: keys, units, plans, records.

mod fixture;
mod key;
mod pipeline;
mod plan;
mod prompts;
mod record;
mod repository;
