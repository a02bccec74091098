//! Real images of a data set as `images` artifacts, and the shot lists that few-shot runs draw from them.
//!
//! A data manifest says where the images come from ([`source`]): icon-set archives that are rendered
//! ([`render`]), or a folder per class whose files keep their bytes ([`photo`]). [`pack`] makes the bytes in
//! parallel and in a fixed order; [`stage`] writes them; [`fewshot`] draws shot lists exactly as CPython does
//! ([`python_random`]).

pub mod archive;
pub mod error;
pub mod fewshot;
pub mod item;
pub mod pack;
pub mod photo;
pub mod python_random;
pub mod render;
pub mod source;
pub mod stage;

pub use error::Error;
pub use fewshot::{ShotList, draw};
pub use item::{Dataset, Item, Picture};
pub use source::load;
pub use stage::{Job, run};
