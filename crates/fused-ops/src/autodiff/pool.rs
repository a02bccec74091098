//! Average pooling.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};

use super::register;
use crate::extension::Training;

#[derive(Debug)]
struct PoolBackward;

impl<B: Training> Backward<B, 1> for PoolBackward {
    /// The window's size, rows and columns of the input.
    type State = (usize, [usize; 2]);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (size, image) = ops.state;
        register::<B>(grads, parent.map(|node| node.id), || B::average_pool_gradient(grad, size, image));
    }
}

pub(super) fn average_pool<B: Training, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    size: usize,
) -> FloatTensor<Autodiff<B, C>> {
    let [_, height, width, _] = x.shape().dims();
    match Backward::<B, 1>::prepare::<C>(PoolBackward, [x.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            prep.finish((size, [height, width]), B::average_pool(x.into_primitive(), size))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::average_pool(x.into_primitive(), size)),
    }
}
