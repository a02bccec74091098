//! Which layer a parameter belongs to, for layer-wise learning-rate decay, and which parameters are decayed.

/// The layers of an encoder, from the input to the classifier.
///
/// A ViT of `D` blocks has `D + 2` layers: embeddings and first norm are 0, block `j` is `j + 1`, the last norm, the
/// projection and the classifier are `D + 1`, as in FT-CLIP (arXiv 2212.06138). A ResNet has 6: the stem is 0,
/// `layer1` to `layer4` are 1 to 4, attention pooling and classifier are 5 (our choice: the released code gives no
/// ResNet). The latent branch counts as classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// A vision transformer with this many blocks.
    VisionTransformer {
        /// Number of blocks.
        num_blocks: usize,
    },
    /// CLIP's modified ResNet.
    ModifiedResNet,
}

impl Layers {
    /// Layer of the classifier, the highest.
    pub fn head(self) -> usize {
        match self {
            Self::VisionTransformer { num_blocks } => num_blocks + 1,
            Self::ModifiedResNet => 5,
        }
    }

    /// Layer of the parameter at `path` (module names joined by dots).
    pub fn layer_id(self, path: &str) -> usize {
        if path.split('.').next() != Some("vision") {
            return self.head();
        }
        let segments: Vec<&str> = path.split('.').collect();
        match self {
            Self::VisionTransformer { .. } => vit_layer(&segments).unwrap_or(self.head()),
            Self::ModifiedResNet => resnet_layer(&segments).unwrap_or(self.head()),
        }
    }

    /// Factor on the learning rate of the parameter at `path`: `decay ^ (head - layer)`.
    pub fn learning_rate_scale(self, path: &str, decay: f64) -> f64 {
        decay.powi((self.head() - self.layer_id(path)) as i32)
    }
}

/// `None` for what stands behind the blocks.
fn vit_layer(segments: &[&str]) -> Option<usize> {
    if segments.iter().any(|s| *s == "embeddings" || s.starts_with("pre_layernorm") || *s == "pre_layrnorm") {
        return Some(0);
    }
    let at = segments.iter().position(|s| *s == "layers")?;
    segments.get(at + 1)?.parse::<usize>().ok().map(|block| block + 1)
}

/// `None` for the attention pooling.
fn resnet_layer(segments: &[&str]) -> Option<usize> {
    if segments.contains(&"attnpool") {
        return None;
    }
    let stage = segments.iter().find_map(|s| s.strip_prefix("layer")?.parse::<usize>().ok());
    Some(stage.unwrap_or(0))
}

/// Whether weight decay applies to the parameter at `path` with `rank` axes: not to vectors (norms and biases), nor to
/// class and position embeddings.
pub fn is_decayed(path: &str, rank: usize) -> bool {
    let embedding = path
        .split('.')
        .any(|s| matches!(s, "class_embedding" | "position_embedding" | "positional_embedding"));
    rank > 1 && !embedding
}

/// Whether the parameter at `path` is the first convolution: the ViT's patch convolution or the ResNet stem's `conv1`.
pub fn is_patch_conv(path: &str) -> bool {
    let segments: Vec<&str> = path.split('.').collect();
    let stem_conv = segments.contains(&"conv1") && !segments.iter().any(|s| s.starts_with("layer"));
    segments.first() == Some(&"vision") && (segments.contains(&"patch_embedding") || stem_conv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rate_scales_of_twelve_blocks_are_those_of_the_released_code() {
        let layers = Layers::VisionTransformer { num_blocks: 12 };
        let mut scales = vec![layers.learning_rate_scale("vision.embeddings.class_embedding", 0.7)];
        for block in 0..12 {
            let path = format!("vision.encoder.layers.{block}.mlp.fc1.weight");
            scales.push(layers.learning_rate_scale(&path, 0.7));
        }
        scales.push(layers.learning_rate_scale("head.weight", 0.7));
        let expected = [
            0.0097, 0.0138, 0.0198, 0.0282, 0.0404, 0.0576, 0.0824, 0.1176, 0.1681, 0.2401, 0.343, 0.49, 0.7,
            1.0,
        ];
        for (scale, expected) in scales.iter().zip(expected) {
            // The oracle is rounded to four decimals.
            assert!((scale - expected).abs() < 6e-5, "{scale} {expected}");
        }
        assert_eq!(layers.layer_id("norm.gamma"), 13);
        assert_eq!(layers.layer_id("latent_encoder.conv1.weight"), 13);
    }

    #[test]
    fn resnet_layers_run_from_stem_to_head() {
        let layers = Layers::ModifiedResNet;
        let ids: Vec<usize> = [
            "vision.conv1.weight",
            "vision.bn3.gamma",
            "vision.layer1.0.conv1.weight",
            "vision.layer4.2.bn3.beta",
            "vision.attnpool.q_proj.weight",
            "head.bias",
        ]
        .iter()
        .map(|path| layers.layer_id(path))
        .collect();
        assert_eq!(ids, [0, 0, 1, 4, 5, 5]);
    }

    #[test]
    fn vectors_and_embeddings_are_not_decayed() {
        assert!(is_decayed("vision.encoder.layers.0.mlp.fc1.weight", 2));
        assert!(!is_decayed("vision.encoder.layers.0.mlp.fc1.bias", 1));
        assert!(!is_decayed("vision.embeddings.position_embedding.weight", 2));
        assert!(!is_decayed("vision.embeddings.class_embedding", 1));
    }

    #[test]
    fn only_the_first_convolution_counts_as_patch_convolution() {
        assert!(is_patch_conv("vision.embeddings.patch_embedding.weight"));
        assert!(is_patch_conv("vision.conv1.weight"));
        assert!(!is_patch_conv("vision.layer1.0.conv1.weight"));
        assert!(!is_patch_conv("latent_encoder.conv1.weight"));
    }
}
