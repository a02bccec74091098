//! Tests of `sd-model` against diffusers. Golden files are written by the scripts in `tests/golden`.

mod configs;
mod ddim;
mod gaussian;
mod golden;
mod keys;
mod networks;
mod pipeline;
mod schedulers;
mod single_file;
mod training;
mod weight_files;
