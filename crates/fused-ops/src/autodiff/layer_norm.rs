//! Layer norm.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::extension::Training;

#[derive(Debug)]
struct LayerNormBackward;

impl<B: Training> Backward<B, 3> for LayerNormBackward {
    type State = ([NodeId; 2], f64);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let ([x, gamma], epsilon) = ops.state;
        let x = checkpointer.retrieve_node_output(x);
        let gamma = checkpointer.retrieve_node_output(gamma);
        let all = B::layer_norm_gradients(x, gamma, grad, epsilon);
        for (parent, grad) in ops.parents.into_iter().zip(all) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

pub(super) fn layer_norm<B: Training, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    gamma: FloatTensor<Autodiff<B, C>>,
    beta: FloatTensor<Autodiff<B, C>>,
    epsilon: f64,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = [x.node(), gamma.node(), beta.node()];
    match Backward::<B, 3>::prepare::<C>(LayerNormBackward, nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let state = ([prep.checkpoint(&x), prep.checkpoint(&gamma)], epsilon);
            let [x, gamma, beta] = [x, gamma, beta].map(|tensor| tensor.into_primitive());
            prep.finish(state, B::fused_layer_norm(x, gamma, beta, epsilon))
        }
        OpsKind::UnTracked(prep) => {
            let [x, gamma, beta] = [x, gamma, beta].map(|tensor| tensor.into_primitive());
            prep.finish(B::fused_layer_norm(x, gamma, beta, epsilon))
        }
    }
}
