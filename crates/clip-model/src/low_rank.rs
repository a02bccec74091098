//! Low-rank updates beside the query, key and value projections of both towers (LoRA, arXiv 2106.09685).

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Bool, Tensor};

use crate::encoder::{Attention, Encoder};
use crate::model::{Clip, VisionTower};

/// What is added to a linear layer: `scale * x down up`.
#[derive(Module, Debug)]
pub struct LowRank {
    /// `[D, r]`.
    pub down: Param<Tensor<2>>,
    /// `[r, D]`.
    pub up: Param<Tensor<2>>,
    scale: f64,
    #[module(skip)]
    dropped: Option<Dropped>,
}

/// The updates of one attention.
#[derive(Module, Debug)]
pub struct LowRankAttention {
    /// Beside the query projection.
    pub query: LowRank,
    /// Beside the key projection.
    pub key: LowRank,
    /// Beside the value projection.
    pub value: LowRank,
}

/// Elements of the input that a step of training hides from an update.
#[derive(Debug, Clone)]
pub struct Dropped {
    /// `[B, T, D]`, true where hidden.
    pub mask: Tensor<3, Bool>,
    /// Probability with which an element is kept; the rest of the input is divided by it.
    pub keep: f64,
}

/// Where an attention stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Layer of the text tower, from 0.
    Text(usize),
    /// Layer of the vision transformer, from 0.
    Vision(usize),
}

impl LowRank {
    /// An update from `down` `[D, r]` and `up` `[r, D]`.
    pub fn new(down: Tensor<2>, up: Tensor<2>, scale: f64) -> Self {
        Self { down: Param::from_tensor(down), up: Param::from_tensor(up), scale, dropped: None }
    }

    /// Hides these elements of the next input, or none.
    pub fn set_dropped(&mut self, dropped: Option<Dropped>) {
        self.dropped = dropped;
    }

    /// The update of `x` `[B, T, D]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (x, scale) = match &self.dropped {
            Some(dropped) => (x.mask_fill(dropped.mask.clone(), 0.0), self.scale / dropped.keep),
            None => (x, self.scale),
        };
        let [batch, tokens, width] = x.dims();
        let x = x.reshape([batch * tokens, width]).matmul(self.down.val()).matmul(self.up.val());
        x.mul_scalar(scale).reshape([batch, tokens, width])
    }

    /// `layer` with the update in its weight.
    fn merged(&self, layer: Linear) -> Linear {
        let update = self.down.val().matmul(self.up.val()).mul_scalar(self.scale);
        Linear { weight: layer.weight.map(|weight| weight + update), ..layer }
    }
}

impl LowRankAttention {
    /// The three updates.
    pub fn all_mut(&mut self) -> [&mut LowRank; 3] {
        [&mut self.query, &mut self.key, &mut self.value]
    }
}

impl Clip {
    /// Gives every attention of the text tower, and of a vision transformer, what `update` makes for its place and width D.
    pub fn with_low_rank(mut self, mut update: impl FnMut(Place, usize) -> LowRankAttention) -> Self {
        self.for_each_attention(|place, attention| {
            let [width, _] = attention.q_proj.weight.dims();
            attention.low_rank = Some(update(place, width));
        });
        self
    }

    /// Visits the updates that there are.
    pub fn for_each_low_rank(&mut self, mut visit: impl FnMut(Place, &mut LowRankAttention)) {
        self.for_each_attention(|place, attention| {
            if let Some(low_rank) = &mut attention.low_rank {
                visit(place, low_rank);
            }
        });
    }

    /// The same model with the updates in the weights of the projections, for inference.
    pub fn merge_low_rank(mut self) -> Self {
        self.for_each_attention(|_, attention| {
            if let Some(LowRankAttention { query, key, value }) = attention.low_rank.take() {
                attention.q_proj = query.merged(attention.q_proj.clone());
                attention.k_proj = key.merged(attention.k_proj.clone());
                attention.v_proj = value.merged(attention.v_proj.clone());
            }
        });
        self
    }

    fn for_each_attention(&mut self, mut visit: impl FnMut(Place, &mut Attention)) {
        let mut walk = |encoder: &mut Encoder, place: fn(usize) -> Place| {
            for (index, layer) in encoder.layers.iter_mut().enumerate() {
                visit(place(index), &mut layer.self_attn);
            }
        };
        walk(&mut self.text_model.encoder, Place::Text);
        if let VisionTower::VisionTransformer(tower) = &mut self.vision {
            walk(&mut tower.encoder, Place::Vision);
        }
    }
}
