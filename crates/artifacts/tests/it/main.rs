//! Tests of the `artifacts` crate through its public interface.

mod damage;
mod docs;
mod golden;
mod publish;
mod round_trip;
mod rows;
mod store;
