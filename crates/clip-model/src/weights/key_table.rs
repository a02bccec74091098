//! How module paths are spelled in a checkpoint.

/// Rewrites module paths to checkpoint keys and back.
///
/// Field names are the checkpoint's names already; a table holds only what Rust cannot spell, such as
/// `downsample.conv` for `downsample.0` or `to_out` for `to_out.0`. A rule replaces a run of whole dot-separated segments
/// wherever it occurs. Rules are tried in order at each segment, and a replacement is not rewritten again.
///
/// Independent of the table, [`crate::load_safetensors`] and [`crate::save_safetensors`] spell the parameters of burn's
/// norms `weight` and `bias`, transpose the weights of [`burn::nn::Linear`] and leave out the variant names of enums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyTable {
    prefix: Vec<String>,
    rules: Vec<Rule>,
    scalars: Vec<String>,
    allowed_extras: Vec<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    module: Vec<String>,
    checkpoint: Vec<String>,
}

fn segments(path: &str) -> Vec<String> {
    path.split('.').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

fn rewrite<'a>(path: &'a [String], rules: impl Fn() -> Vec<(&'a [String], &'a [String])>) -> String {
    let rules = rules();
    let mut out: Vec<&str> = Vec::with_capacity(path.len() + 1);
    let mut rest = path;
    while !rest.is_empty() {
        match rules.iter().find(|(from, _)| rest.starts_with(from)) {
            Some((from, to)) => {
                out.extend(to.iter().map(String::as_str));
                rest = &rest[from.len()..];
            }
            None => {
                out.push(&rest[0]);
                rest = &rest[1..];
            }
        }
    }
    out.join(".")
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

    /// Adds a rule: the segments `module` of a module path are `checkpoint` in a key.
    ///
    /// # Panics
    ///
    /// Panics if either side is empty: such a rule could not be undone.
    pub fn with_rule(mut self, module: &str, checkpoint: &str) -> Self {
        let rule = Rule { module: segments(module), checkpoint: segments(checkpoint) };
        assert!(!rule.module.is_empty() && !rule.checkpoint.is_empty(), "a rule needs two sides");
        self.rules.push(rule);
        self
    }

    /// Declares that the parameter of this key has shape `[1]` in the module and `[]` in the file.
    pub fn with_scalar(mut self, key: &str) -> Self {
        self.scalars.push(key.to_owned());
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
        let path = segments(module_path);
        let key = rewrite(&path, || self.rules.iter().map(|r| (&r.module[..], &r.checkpoint[..])).collect());
        if self.prefix.is_empty() { key } else { format!("{}.{key}", self.prefix.join(".")) }
    }

    /// The module path of a checkpoint key, `None` if the key is not below the prefix.
    pub fn to_module(&self, key: &str) -> Option<String> {
        let path = segments(key);
        let path = path.strip_prefix(&self.prefix[..])?;
        Some(rewrite(path, || self.rules.iter().map(|r| (&r.checkpoint[..], &r.module[..])).collect()))
    }

    pub(super) fn is_scalar(&self, key: &str) -> bool {
        self.scalars.iter().any(|scalar| scalar == key)
    }

    pub(super) fn allows_extra(&self, key: &str) -> bool {
        let path = segments(key);
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
    fn an_allowed_extra_matches_whole_segments_only() {
        let table = KeyTable::new().with_allowed_extra("position_ids");
        assert!(table.allows_extra("text_model.embeddings.position_ids"));
        assert!(!table.allows_extra("text_model.embeddings.my_position_ids"));
    }
}
