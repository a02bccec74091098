//! Golden files: where they lie, how they are read and compared.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

/// A file or folder of `tests/golden`.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The CPU device of the tests.
pub fn device() -> Device {
    backend::test_device()
}

/// The tensors of one golden file.
pub struct Golden(HashMap<String, (Vec<usize>, Dtype, Vec<u8>)>);

impl Golden {
    pub fn open(name: &str) -> Self {
        let bytes = std::fs::read(path(name)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter();
        Golden(tensors.map(|(key, t)| (key, (t.shape().to_vec(), t.dtype(), t.data().to_vec()))).collect())
    }

    pub fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.0.keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    pub fn shape(&self, key: &str) -> &[usize] {
        &self.0[key].0
    }

    pub fn bytes(&self, key: &str) -> &[u8] {
        let (_, dtype, bytes) = &self.0[key];
        assert_eq!(*dtype, Dtype::U8, "{key}");
        bytes
    }

    pub fn floats(&self, key: &str) -> Vec<f32> {
        let (_, dtype, bytes) = &self.0[key];
        assert_eq!(*dtype, Dtype::F32, "{key}");
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    pub fn tensor<const D: usize>(&self, key: &str, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.floats(key), self.shape(key).to_vec()), device)
    }

    pub fn ids(&self, key: &str, device: &Device) -> Tensor<2, Int> {
        let (shape, dtype, bytes) = &self.0[key];
        assert_eq!(*dtype, Dtype::I64, "{key}");
        let ids: Vec<i64> = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        Tensor::from_data(TensorData::new(ids, shape.clone()), device)
    }

    /// Compares with a tensor of this file, prints and returns the largest absolute difference.
    pub fn compare<const D: usize>(&self, key: &str, output: Tensor<D>) -> f32 {
        assert_eq!(output.dims().as_slice(), self.shape(key), "{key}");
        let output = output.into_data().convert::<f32>().try_into_vec::<f32>().unwrap();
        let difference = max_difference(&output, &self.floats(key));
        eprintln!("{key}: max abs difference {difference:.2e}");
        difference
    }
}

/// The largest absolute difference; a value that is not finite counts as infinite.
pub fn max_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    let differences = left.iter().zip(right).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |max, d| if d.is_finite() { f32::max(max, d) } else { f32::INFINITY })
}
