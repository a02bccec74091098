//! The contract between the stages: what can be computed, how a result is named, and where it lies.
//!
//! A [`Unit`] is one thing to compute: a [`StageSpec`] (*what*) and the artifacts it reads. Its key is a digest of
//! both, so the whole [`Plan`] of a [`Pipeline`] is known before anything runs. This crate knows neither Arrow nor
//! Burn nor the command line, so that `xtask` stays quick to build.

pub mod cluster;
pub mod data_manifest;
pub mod digest;
pub mod error;
pub mod ids;
pub mod key;
pub mod kind;
pub mod layout;
pub mod pipeline;
pub mod plan;
pub mod record;
pub mod spec;
pub mod unit;

pub use cluster::ClusterTable;
pub use digest::{Digest, checkpoint_digest, file_blake3, file_digests, prompts_digest};
pub use error::Error;
pub use ids::{CheckpointRef, DatasetId, Key, Seed, Shots};
pub use kind::{ArtifactKind, Stage};
pub use layout::{ArtifactId, Store};
pub use pipeline::Pipeline;
pub use plan::{Plan, PlannedUnit};
pub use record::{ArtifactRecord, PartRecord, Provenance};
pub use spec::StageSpec;
pub use unit::Unit;
