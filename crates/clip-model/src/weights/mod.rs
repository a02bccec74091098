//! Weight files: safetensors and torch files, whole or in shards, loaded strictly; safetensors saved reproducibly.

mod archive;
mod expected;
mod key_table;
mod load;
mod pickle;
mod save;
mod sharded;
mod tensor_file;
mod torch_file;

pub use archive::ArchiveError;
pub use expected::expected_keys;
pub use key_table::KeyTable;
use key_table::Place;
pub(crate) use load::load_tensors;
pub use load::{key_list, load_safetensors};
pub use pickle::PickleError;
pub use save::{SaveDtype, save_safetensors};
pub use sharded::shard_names;
pub use tensor_file::{Format, TensorFile};

/// Where a traversal stands in the module tree.
#[derive(Default)]
struct Position {
    names: Vec<String>,
    containers: Vec<String>,
}

impl Position {
    fn enter(&mut self, name: &str, container: &str) {
        // An enum's variant is a choice of the configuration, not a part of the key.
        if !container.starts_with("Enum:") {
            self.names.push(name.to_owned());
        }
        self.containers.push(container.to_owned());
    }

    fn exit(&mut self) {
        let container = self.containers.pop();
        if container.is_some_and(|container| !container.starts_with("Enum:")) {
            self.names.pop();
        }
    }

    /// The tensor of the parameter at this position, with PyTorch's names for the parameters of norms.
    fn place(&self, table: &KeyTable) -> Place {
        let container = self.containers.last().map_or("", String::as_str);
        let is_norm = container.strip_prefix("Struct:").is_some_and(|name| {
            ["LayerNorm", "BatchNorm", "GroupNorm", "InstanceNorm", "RmsNorm"].contains(&name)
        });
        let mut path = self.names.join(".");
        if is_norm && let Some((head, last)) = path.rsplit_once('.') {
            let renamed = match last {
                "gamma" => "weight",
                "beta" => "bias",
                other => other,
            };
            path = format!("{head}.{renamed}");
        }
        table.place(&path)
    }

    /// Whether the file stores this parameter as the transpose of burn's: the weight of a linear layer, in most layouts.
    fn is_transposed(&self, table: &KeyTable, key: &str) -> bool {
        self.containers.last().is_some_and(|container| container == "Struct:Linear")
            && self.names.last().is_some_and(|name| name == "weight")
            && !table.is_untransposed(key)
    }
}

/// The shape that the tensor of a parameter has in the file, from the parameter's shape in the module.
fn file_shape(position: &Position, layout: &KeyTable, place: &Place, shape: &[usize]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if position.is_transposed(layout, &place.key) {
        shape.reverse();
    }
    if shape == [1] && layout.is_scalar(&place.key) {
        shape.clear();
    }
    if layout.is_pointwise(&place.key) {
        shape.extend([1, 1]);
    }
    if let (Some(part), Some(rows)) = (place.part, shape.first_mut()) {
        *rows *= part.count;
    }
    shape
}

/// Transposes a row-major matrix of `rows` rows.
fn transposed<T: Copy>(values: &[T], rows: usize) -> Vec<T> {
    let columns = values.len().checked_div(rows).unwrap_or(0);
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| values[row * columns + column]));
    }
    out
}
