//! What the scripts in `tests/golden` computed.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;

use crate::fixture::device;

/// A safetensors file of a script.
pub struct Golden(Vec<u8>);

impl Golden {
    /// The file `name` of the topic `topic`.
    pub fn open(topic: &str, name: &str) -> Self {
        Self(std::fs::read(folder(topic).join(format!("{name}.safetensors"))).unwrap())
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    pub fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.floats(name), shape), &device())
    }
}

/// Folder of a topic.
pub fn folder(topic: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(topic)
}

/// Fails unless the values differ by at most `tolerance` of the largest expected one.
pub fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale;
    eprintln!("{what}: relative difference {worst:e}");
    assert!(worst <= tolerance, "{what}: {worst:e} of the largest, {scale}: {found:?} {expected:?}");
}
