//! What several targets share: the input as a file, and a weight file read to its last tensor.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use backend::DeviceSpec;
use burn::module::{Module, Param, ParamId};
use burn::tensor::{FloatDType, Tensor};
use clip_model::{KeyTable, TensorFile};

/// Most elements of a tensor that is read: larger ones cost time and show nothing new.
const MAX_ELEMENTS: usize = 1 << 20;

/// A folder of this process; set `TMPDIR` to one in memory.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("flier-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the input");
    folder
});

/// The folder in which the input lies as a file.
pub fn folder() -> &'static Path {
    &FOLDER
}

/// Writes the input as the file `name` and gives its path.
pub fn file(name: &str, data: &[u8]) -> PathBuf {
    let path = FOLDER.join(name);
    fs::write(&path, data).expect("a file with the input");
    path
}

#[derive(Module, Debug)]
struct OneTensor<const D: usize> {
    weight: Param<Tensor<D>>,
}

/// Opens a weight file and reads every tensor of it that is a float of one to four axes.
pub fn read_weights(path: &Path) {
    let _ = clip_model::key_list(path);
    let Ok(file) = TensorFile::open(path) else { return };
    let shapes: Vec<(String, Vec<usize>)> =
        file.shapes().map(|(key, shape)| (key.to_owned(), shape.to_vec())).collect();
    for (key, shape) in shapes.iter().take(16) {
        match shape[..] {
            [a] => read_tensor(&file, key, [a]),
            [a, b] => read_tensor(&file, key, [a, b]),
            [a, b, c] => read_tensor(&file, key, [a, b, c]),
            [a, b, c, d] => read_tensor(&file, key, [a, b, c, d]),
            _ => {}
        }
    }
}

fn read_tensor<const D: usize>(file: &TensorFile, key: &str, shape: [usize; D]) {
    let is_small = shape
        .iter()
        .try_fold(1_usize, |product, &axis| product.checked_mul(axis))
        .is_some_and(|n| n <= MAX_ELEMENTS);
    if !is_small || shape.contains(&0) || key.split('.').any(str::is_empty) {
        return;
    }
    let device = DeviceSpec::Cpu.open().expect("the CPU");
    let module = OneTensor { weight: Param::initialized(ParamId::new(), Tensor::<D>::zeros(shape, &device)) };
    // Tensors that the module lacks are an error after this one was read.
    let _ = file.load(module, &KeyTable::new().with_rule("weight", key), FloatDType::F32);
}
