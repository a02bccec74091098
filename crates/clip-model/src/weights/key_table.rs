//! How module paths are spelled in a checkpoint.

/// Rewrites module paths to checkpoint keys and back.
///
/// Field names are the checkpoint's names already; a table holds only what Rust cannot spell, such as
/// `downsample.conv` for `downsample.0` or `to_out` for `to_out.0`. A rule replaces a run of whole dot-separated segments
/// wherever it occurs. Rules are tried in order at each segment, and a replacement is not rewritten again.
///
/// More declarations serve layouts that cut the parameters otherwise: [`KeyTable::with_stack`] for tensors that hold several
/// parameters, [`KeyTable::with_untransposed`] for matrices that PyTorch applies from the right,
/// [`KeyTable::with_pointwise`] for linear layers stored as convolutions.
///
/// Independent of the table, [`crate::load_safetensors`] and [`crate::save_safetensors`] spell the parameters of burn's
/// norms `weight` and `bias`, transpose the weights of [`burn::nn::Linear`] and leave out the variant names of enums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyTable {
    prefix: Vec<String>,
    /// Whether keys that are not below the prefix are left to others.
    is_shared: bool,
    rules: Vec<Rule>,
    scalars: Vec<String>,
    pointwise: Vec<String>,
    untransposed: Vec<String>,
    allowed_extras: Vec<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    module: Vec<String>,
    checkpoint: Vec<String>,
    /// Which part of the checkpoint's tensor the parameter is.
    part: Option<Part>,
}

/// One of several parameters that a checkpoint stores in one tensor, one after the other along the first axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// Counted from 0.
    pub index: usize,
    /// How many parts the tensor has.
    pub count: usize,
}

/// Where a parameter lies in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The tensor.
    pub key: String,
    /// The part of it, `None` for all.
    pub part: Option<Part>,
}

fn segments(path: &str) -> Vec<String> {
    path.split('.').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

/// Rewrites a path, and tells the part of the last rule that has one.
fn rewrite<'a>(
    path: &'a [String],
    rules: &'a [Rule],
    sides: fn(&'a Rule) -> (&'a [String], &'a [String]),
) -> (String, Option<Part>) {
    let mut out: Vec<&str> = Vec::with_capacity(path.len() + 1);
    let mut part = None;
    let mut rest = path;
    while !rest.is_empty() {
        match rules.iter().find(|rule| rest.starts_with(sides(rule).0)) {
            Some(rule) => {
                let (from, to) = sides(rule);
                out.extend(to.iter().map(String::as_str));
                part = rule.part.or(part);
                rest = &rest[from.len()..];
            }
            None => {
                out.push(&rest[0]);
                rest = &rest[1..];
            }
        }
    }
    (out.join("."), part)
}

impl KeyTable {
    /// The identity: no rule, nothing extra allowed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts every key below a prefix, such as `text_model` for a text tower in a file of its own.
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = segments(prefix);
        self
    }

    /// Puts every key below a prefix in a file that holds other modules too: keys that are not below it are not looked at.
    pub fn with_prefix_in_shared_file(self, prefix: &str) -> Self {
        KeyTable { is_shared: true, ..self.with_prefix(prefix) }
    }

    /// Adds a rule: the segments `module` of a module path are `checkpoint` in a key.
    ///
    /// # Panics
    ///
    /// Panics if either side is empty: such a rule could not be undone.
    pub fn with_rule(mut self, module: &str, checkpoint: &str) -> Self {
        self.push_rule(module, checkpoint, None);
        self
    }

    /// Adds a rule for parameters of equal shape that the checkpoint stores in one tensor, one after the other along the first
    /// axis, such as `q_proj.weight`, `k_proj.weight` and `v_proj.weight` in `in_proj_weight`.
    ///
    /// A table with a stack loads; saving with it is refused, for two parameters would map to one key.
    ///
    /// # Panics
    ///
    /// Panics if a side is empty.
    pub fn with_stack(mut self, modules: &[&str], checkpoint: &str) -> Self {
        for (index, module) in modules.iter().enumerate() {
            self.push_rule(module, checkpoint, Some(Part { index, count: modules.len() }));
        }
        self
    }

    fn push_rule(&mut self, module: &str, checkpoint: &str, part: Option<Part>) {
        let rule = Rule { module: segments(module), checkpoint: segments(checkpoint), part };
        assert!(!rule.module.is_empty() && !rule.checkpoint.is_empty(), "a rule needs two sides");
        self.rules.push(rule);
    }

    /// Declares that the linear weight of this key is stored `[input, output]`, not transposed as in a `torch.nn.Linear`.
    pub fn with_untransposed(mut self, key: &str) -> Self {
        self.untransposed.push(key.to_owned());
        self
    }

    /// Declares that the parameter of this key has shape `[1]` in the module and `[]` in the file.
    pub fn with_scalar(mut self, key: &str) -> Self {
        self.scalars.push(key.to_owned());
        self
    }

    /// Declares that the linear weight of this key is stored as that of a 1x1 convolution, `[output, input, 1, 1]`.
    pub fn with_pointwise(mut self, key: &str) -> Self {
        self.pointwise.push(key.to_owned());
        self
    }

    /// Allows tensors that no parameter reads: those whose key holds this run of segments, such as `position_ids`.
    ///
    /// # Panics
    ///
    /// Panics if `segments` is empty: everything would be allowed.
    pub fn with_allowed_extra(mut self, extra: &str) -> Self {
        let extra = segments(extra);
        assert!(!extra.is_empty(), "an allowed extra needs a name");
        self.allowed_extras.push(extra);
        self
    }

    /// The checkpoint key of a module path.
    pub fn to_checkpoint(&self, module_path: &str) -> String {
        self.place(module_path).key
    }

    /// The tensor of a module path, and which part of it.
    pub(super) fn place(&self, module_path: &str) -> Place {
        let path = segments(module_path);
        let (key, part) = rewrite(&path, &self.rules, |rule| (&rule.module, &rule.checkpoint));
        let key = if self.prefix.is_empty() { key } else { format!("{}.{key}", self.prefix.join(".")) };
        Place { key, part }
    }

    /// The module path of a checkpoint key, of its first part for a stack; `None` if the key is not below the prefix.
    pub fn to_module(&self, key: &str) -> Option<String> {
        let path = segments(key);
        let path = path.strip_prefix(&self.prefix[..])?;
        Some(rewrite(path, &self.rules, |rule| (&rule.checkpoint, &rule.module)).0)
    }

    pub(super) fn is_untransposed(&self, key: &str) -> bool {
        self.untransposed.iter().any(|untransposed| untransposed == key)
    }

    pub(super) fn is_scalar(&self, key: &str) -> bool {
        self.scalars.iter().any(|scalar| scalar == key)
    }

    pub(super) fn is_pointwise(&self, key: &str) -> bool {
        self.pointwise.iter().any(|pointwise| pointwise == key)
    }

    /// Whether no parameter needs to read this key.
    pub(super) fn allows_extra(&self, key: &str) -> bool {
        let path = segments(key);
        if self.is_shared && !path.starts_with(&self.prefix) {
            return true;
        }
        self.allowed_extras.iter().any(|extra| path.windows(extra.len()).any(|run| run == extra))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> KeyTable {
        KeyTable::new()
            .with_rule("to_out", "to_out.0")
            .with_rule("ff.proj_in.proj", "ff.net.0.proj")
            .with_rule("ff.proj_out", "ff.net.2")
            .with_rule("downsample.conv", "downsample.0")
    }

    #[test]
    fn keys_survive_a_round_trip() {
        for (path, key) in [
            ("blocks.0.attn1.to_out.weight", "blocks.0.attn1.to_out.0.weight"),
            ("blocks.0.ff.proj_in.proj.bias", "blocks.0.ff.net.0.proj.bias"),
            ("blocks.0.ff.proj_out.bias", "blocks.0.ff.net.2.bias"),
            ("layer1.0.downsample.conv.weight", "layer1.0.downsample.0.weight"),
            ("norm.weight", "norm.weight"),
        ] {
            let prefixed = table().with_prefix("a.b");
            assert_eq!(table().to_checkpoint(path), key);
            assert_eq!(table().to_module(key).as_deref(), Some(path));
            assert_eq!(prefixed.to_checkpoint(path), format!("a.b.{key}"));
            assert_eq!(prefixed.to_module(&format!("a.b.{key}")).as_deref(), Some(path));
            assert_eq!(prefixed.to_module(key), None);
        }
    }

    #[test]
    fn a_rule_matches_whole_segments_only() {
        assert_eq!(table().to_checkpoint("auto_to_out.to_outer.weight"), "auto_to_out.to_outer.weight");
        assert_eq!(table().to_checkpoint("mydownsample.conv.weight"), "mydownsample.conv.weight");
    }

    #[test]
    fn parts_of_a_stack_are_numbered() {
        let table = KeyTable::new()
            .with_rule("attn1", "attention")
            .with_stack(&["attn.q.weight", "attn.k.weight", "attn.v.weight"], "attn.in_weight");
        for (index, name) in ["q", "k", "v"].into_iter().enumerate() {
            let place = table.place(&format!("blocks.0.attn.{name}.weight"));
            assert_eq!(
                place,
                Place { key: "blocks.0.attn.in_weight".into(), part: Some(Part { index, count: 3 }) }
            );
        }
        assert_eq!(table.place("blocks.0.attn1.q.weight").part, None);
        assert_eq!(table.to_module("blocks.0.attn.in_weight").as_deref(), Some("blocks.0.attn.q.weight"));
    }

    #[test]
    fn an_allowed_extra_matches_whole_segments_only() {
        let table = KeyTable::new().with_allowed_extra("position_ids");
        assert!(table.allows_extra("text_model.embeddings.position_ids"));
        assert!(!table.allows_extra("text_model.embeddings.my_position_ids"));
    }
}
