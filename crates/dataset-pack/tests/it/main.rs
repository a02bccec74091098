//! Tests of `dataset-pack` over files: archives, drawings, folder trees, shot lists and the emoji benchmark.

mod archive;
mod emoji;
mod emoji_small;
mod fewshot;
mod folder;
mod manifest;
mod render;
mod stage;
