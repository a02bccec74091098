//! Tests of `sd-model` against diffusers. Golden files are written by the scripts in `tests/golden`.

mod configs;
mod ddim;
mod gaussian;
mod golden;
mod networks;
mod pipeline;
mod schedulers;
mod training;
