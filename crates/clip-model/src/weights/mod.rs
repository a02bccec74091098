//! Checkpoints: safetensors files in PyTorch's layout, loaded strictly and saved reproducibly.

mod expected;
mod key_table;
mod load;
mod save;

pub use expected::expected_keys;
pub use key_table::KeyTable;
pub use load::{key_list, load_safetensors};
pub use save::{SaveDtype, save_safetensors};

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

    /// The key of the parameter at this position, with PyTorch's names for the parameters of norms.
    fn key(&self, table: &KeyTable) -> String {
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
        table.to_checkpoint(&path)
    }

    /// Whether PyTorch stores this parameter as the transpose of burn's: the weight of a linear layer.
    fn is_transposed(&self) -> bool {
        self.containers.last().is_some_and(|container| container == "Struct:Linear")
            && self.names.last().is_some_and(|name| name == "weight")
    }
}

/// The shape that a parameter has in the file, from its shape in the module.
fn file_shape(position: &Position, layout: &KeyTable, key: &str, shape: &[usize]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if position.is_transposed() {
        shape.reverse();
    }
    if shape == [1] && layout.is_scalar(key) {
        shape.clear();
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
