//! Facts about training: recipes, three real steps on the default back end, and exact resumption.

mod fixtures;
mod recipes;
mod training;
