//! The commands on a small repository whose stages are stand-ins.

mod bundle;
mod fixture;
mod plan;
mod reproduce;
mod run;
mod store;
mod submit;
