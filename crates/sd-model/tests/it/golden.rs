//! Golden tensors and the distance to them.

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use std::path::PathBuf;

/// A file or folder of `tests/golden`.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The tensors of one golden file.
pub struct Golden {
    bytes: Vec<u8>,
    device: Device,
}

impl Golden {
    pub fn open(name: &str, device: &Device) -> Self {
        Self { bytes: std::fs::read(path(name)).unwrap(), device: device.clone() }
    }

    pub fn values(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), safetensors::Dtype::F32, "{name}");
        let values = view.data().chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap()));
        (values.collect(), view.shape().to_vec())
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).unwrap().data().to_vec()
    }

    pub fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (values, shape) = self.values(name);
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }
}

/// Largest absolute difference; equal shapes and finite values are required.
pub fn distance<const D: usize>(found: Tensor<D>, expected: Tensor<D>) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let values = (found - expected).abs().try_into_vec_as::<f32>().unwrap();
    values.into_iter().fold(0.0, |largest, d| if d.is_nan() { f32::INFINITY } else { largest.max(d) })
}

/// Fails if `found` is farther than `tolerance` from `expected`; prints the distance.
#[allow(clippy::print_stderr)]
pub fn assert_close<const D: usize>(what: &str, found: Tensor<D>, expected: Tensor<D>, tolerance: f32) {
    let largest = expected.clone().abs().max().into_scalar::<f32>();
    let distance = distance(found, expected);
    eprintln!(
        "{what}: max abs difference {distance:.2e} (tolerance {tolerance:.0e}, largest value {largest:.2})"
    );
    assert!(distance <= tolerance, "{what}: {distance} > {tolerance}");
}
