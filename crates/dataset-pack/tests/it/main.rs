//! Tests of `dataset-pack` over files: archives, drawings, folder trees, shot lists and the emoji benchmark.

mod archive;
mod bad_images;
mod benchmark;
mod benchmark_small;
mod benchmarks;
mod container;
mod doctor;
mod emoji;
mod emoji_small;
mod fewshot;
mod folder;
mod manifest;
mod own_data;
mod render;
mod stage;
mod tools;
