//! CLIP's text tower, also the text encoder of Stable Diffusion; keys as below `text_model.` in transformers.

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Int, Tensor};

use crate::config::TextConfig;
use crate::encoder::{Encoder, EncoderConfig};

/// The end token id of files written before transformers corrected it; it selects pooling at the highest id.
const LEGACY_EOS_TOKEN_ID: u32 = 2;

/// Token and position embeddings.
#[derive(Module, Debug)]
pub struct TextEmbeddings {
    /// One row per token id.
    pub token_embedding: Embedding,
    /// One row per position.
    pub position_embedding: Embedding,
}

/// The text tower.
#[derive(Module, Debug)]
pub struct TextTransformer {
    /// Token and position embeddings.
    pub embeddings: TextEmbeddings,
    /// Causal encoder.
    pub encoder: Encoder,
    /// Norm after the last layer.
    pub final_layer_norm: LayerNorm,
    #[module(skip)]
    eos_token_id: u32,
}

/// What the text tower gives.
#[derive(Debug, Clone)]
pub struct TextOutput {
    /// All tokens after the final norm, `[B, T, D]`.
    pub last_hidden_state: Tensor<3>,
    /// The end token's state, `[B, D]`.
    pub pooled: Tensor<2>,
}

impl TextConfig {
    /// A text tower of this shape with random weights, drawn as transformers draws them.
    pub fn init(&self, device: &Device) -> TextTransformer {
        let embedding = |rows| {
            let initializer = Initializer::Normal { mean: 0.0, std: 0.02 };
            EmbeddingConfig::new(rows, self.hidden_size).with_initializer(initializer).init(device)
        };
        TextTransformer {
            embeddings: TextEmbeddings {
                token_embedding: embedding(self.vocab_size),
                position_embedding: embedding(self.max_position_embeddings),
            },
            encoder: EncoderConfig {
                hidden_size: self.hidden_size,
                intermediate_size: self.intermediate_size,
                num_hidden_layers: self.num_hidden_layers,
                num_attention_heads: self.num_attention_heads,
                hidden_act: self.hidden_act,
                layer_norm_eps: self.layer_norm_eps,
                is_causal: true,
            }
            .init(device),
            final_layer_norm: LayerNormConfig::new(self.hidden_size)
                .with_epsilon(self.layer_norm_eps)
                .init(device),
            eos_token_id: self.eos_token_id,
        }
    }
}

impl TextEmbeddings {
    /// Sum of token and position embeddings.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[B, T]`
    /// - output: `[B, T, D]`
    ///
    /// # Panics
    ///
    /// Panics if T exceeds `max_position_embeddings`: the tokenizer's context length must not.
    pub fn forward(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.with_positions(self.token_embedding.forward(input_ids))
    }

    /// Embeddings of tokens `[B, T, D]` plus those of their positions.
    fn with_positions(&self, tokens: Tensor<3>) -> Tensor<3> {
        let [_, count, _] = tokens.dims();
        let [positions, _] = self.position_embedding.weight.dims();
        assert!(count <= positions, "{count} tokens in a text tower of {positions} positions");
        tokens + self.position_embedding.weight.val().narrow(0, 0, count).unsqueeze()
    }
}

impl TextTransformer {
    /// Encodes token ids.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[B, T]`
    ///
    /// # Panics
    ///
    /// Panics if T exceeds `max_position_embeddings`.
    pub fn forward(&self, input_ids: Tensor<2, Int>) -> TextOutput {
        let tokens = self.embeddings.token_embedding.forward(input_ids.clone());
        self.forward_embedded(tokens, input_ids)
    }

    /// Encodes embeddings of tokens, which may be other ones than those of `input_ids`: learned prompts.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[B, T, D]`, without positions
    /// - `input_ids`: `[B, T]`, where the end tokens stand
    ///
    /// # Panics
    ///
    /// Panics if T exceeds `max_position_embeddings`.
    pub fn forward_embedded(&self, tokens: Tensor<3>, input_ids: Tensor<2, Int>) -> TextOutput {
        let x = self.encoder.forward(self.embeddings.with_positions(tokens));
        let last_hidden_state = self.final_layer_norm.forward(x); // [B, T, D]
        let [batch, tokens, width] = last_hidden_state.dims();
        let rows = last_hidden_state.clone().reshape([batch * tokens, width]);
        let pooled = rows.select(0, self.flat_end_positions(input_ids));
        TextOutput { last_hidden_state, pooled }
    }

    /// Embeddings and the output of every layer, none of them normalised: `num_hidden_layers + 1` tensors `[B, T, D]`,
    /// as transformers' `hidden_states`. The penultimate layer is at `len() - 2`.
    ///
    /// # Panics
    ///
    /// Panics if T exceeds `max_position_embeddings`.
    pub fn hidden_states(&self, input_ids: Tensor<2, Int>) -> Vec<Tensor<3>> {
        self.encoder.hidden_states(self.embeddings.forward(input_ids))
    }

    /// Row of each text's end token among `B * T` rows, by transformers' two rules: the first position of the highest id
    /// if `eos_token_id` is the legacy 2, else the first position of `eos_token_id`; 0 if there is none.
    fn flat_end_positions(&self, input_ids: Tensor<2, Int>) -> Tensor<1, Int> {
        let device = input_ids.device();
        let [batch, tokens] = input_ids.dims();
        let is_end = if self.eos_token_id == LEGACY_EOS_TOKEN_ID {
            input_ids.clone().max_dim(1).expand([batch, tokens]).equal(input_ids)
        } else {
            input_ids.equal_elem(i64::from(self.eos_token_id))
        };
        let range = |end: usize| Tensor::<1, Int>::arange(0..end as i64, &device);
        // The smallest position that matches, found by hiding the others: an argmax need not give the first one.
        let position = range(tokens).unsqueeze::<2>().expand([batch, tokens]);
        let first = position.mask_fill(is_end.bool_not(), tokens as i64).min_dim(1); // [B, 1]
        let none = first.clone().equal_elem(tokens as i64);
        let first = first.mask_fill(none, 0);
        range(batch) * tokens as i64 + first.squeeze_dim(1)
    }
}
