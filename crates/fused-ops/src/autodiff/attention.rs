//! Attention.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::extension::Training;

#[derive(Debug)]
struct AttentionBackward;

#[derive(Debug, Clone)]
struct AttentionState<B: Training> {
    operands: [NodeId; 3],
    output: FloatTensor<B>,
    num_heads: usize,
    is_causal: bool,
}

impl<B: Training> Backward<B, 3> for AttentionBackward {
    type State = AttentionState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let AttentionState { operands, output, num_heads, is_causal } = ops.state;
        let operands = operands.map(|id| checkpointer.retrieve_node_output(id));
        let all = B::attention_gradients(operands, output, grad, num_heads, is_causal);
        for (parent, grad) in ops.parents.into_iter().zip(all) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

pub(super) fn attention<B: Training, C: CheckpointStrategy>(
    operands: [FloatTensor<Autodiff<B, C>>; 3],
    num_heads: usize,
    is_causal: bool,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = operands.each_ref().map(|operand| operand.node());
    match Backward::<B, 3>::prepare::<C>(AttentionBackward, nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let kept = operands.each_ref().map(|operand| prep.checkpoint(operand));
            let [query, key, value] = operands.map(|operand| operand.into_primitive());
            let output = B::head_attention(query, key, value, num_heads, is_causal);
            let state = AttentionState { operands: kept, output: output.clone(), num_heads, is_causal };
            prep.finish(state, output)
        }
        OpsKind::UnTracked(prep) => {
            let [query, key, value] = operands.map(|operand| operand.into_primitive());
            prep.finish(B::head_attention(query, key, value, num_heads, is_causal))
        }
    }
}
