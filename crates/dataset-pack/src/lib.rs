//! Real images of a data set as `images` artifacts, and the shot lists that few-shot runs draw from them.
//!
//! A data manifest says where the images come from ([`source`]): icon-set archives that are rendered ([`render`]),
//! published benchmarks in the layouts that people have, or one's own folders, CSV and Parquet files. Images may lie in
//! archives ([`container`]). [`pack`] makes the bytes in parallel and in a fixed order, after every image was decoded once
//! ([`photo`]) and perhaps made smaller ([`stored`]); [`stage`] writes them; [`shots`] draws shot lists exactly as CPython
//! does. [`doctor`] compares what is on disk with the manifest, [`init`] writes one for new data.

pub mod container;
pub mod doctor;
pub mod error;
pub mod init;
pub mod item;
pub mod jpeg;
pub mod pack;
pub mod photo;
pub mod render;
pub mod shots;
pub mod source;
pub mod split_file;
pub mod stage;
pub mod stored;

pub use error::Error;
pub use item::{Dataset, Item, Picture};
pub use source::load;
pub use stage::{Job, run};
