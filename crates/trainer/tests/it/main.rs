//! Integration tests of `trainer`.

mod accumulate;
mod binary;
mod fixture;
mod frozen;
mod golden;
mod held_out;
mod input;
mod methods;
mod resume;
mod texts;
