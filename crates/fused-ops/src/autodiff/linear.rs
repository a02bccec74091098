//! Linear layers and activations.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::register;
use crate::extension::{Activation, Maybe, Training};

/// The parents are input and weight, then bias and residual if given.
#[derive(Debug)]
struct LinearBackward;

#[derive(Debug, Clone)]
struct LinearState<B: Training> {
    /// For the weight's gradient.
    x: Option<NodeId>,
    /// For the input's gradient.
    weight: Option<NodeId>,
    /// What the activation was applied to.
    activated: Option<FloatTensor<B>>,
    activation: Activation,
    has_bias: bool,
}

impl<B: Training, const N: usize> Backward<B, N> for LinearBackward {
    type State = LinearState<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let state = ops.state;
        let mut parents = ops.parents.into_iter().map(|parent| parent.map(|node| node.id));
        let mut parent = |given: bool| if given { parents.next().flatten() } else { None };
        let (x, weight) = (parent(true), parent(true));
        let (bias, residual) = (parent(state.has_bias), parent(N == 3 + usize::from(state.has_bias)));
        let grad = grads.consume::<B>(&ops.node);
        let grad = match state.activated {
            Some(z) => B::activate_gradient(z, grad, state.activation),
            None => grad,
        };
        register::<B>(grads, bias, || B::column_sums(grad.clone()));
        register::<B>(grads, residual, || grad.clone());
        let mut saved = |id: Option<NodeId>| id.map(|id| checkpointer.retrieve_node_output(id));
        let product = B::linear_gradients(saved(state.x), saved(state.weight), grad);
        for (id, grad) in [(x, product.x), (weight, product.weight)] {
            if let (Some(id), Some(grad)) = (id, grad) {
                grads.register::<B>(id, grad);
            }
        }
    }
}

pub(super) fn linear<B: Training, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
    residual: Option<FloatTensor<Autodiff<B, C>>>,
    activation: Activation,
) -> FloatTensor<Autodiff<B, C>> {
    let (first, second) = (x.node(), weight.node());
    let rest = (bias.as_ref().map(|bias| bias.node()), residual.as_ref().map(|residual| residual.node()));
    let given = |tensor: Option<FloatTensor<Autodiff<B, C>>>| {
        tensor.map_or(Maybe::Absent, |tensor| Maybe::Given(tensor.into_primitive()))
    };
    let operands = Operands::<B, C> {
        x,
        weight,
        has_bias: rest.0.is_some(),
        bias: given(bias),
        residual: given(residual),
    };
    match rest {
        (None, None) => record([first, second], operands, activation),
        (Some(third), None) | (None, Some(third)) => record([first, second, third], operands, activation),
        (Some(third), Some(fourth)) => record([first, second, third, fourth], operands, activation),
    }
}

struct Operands<B: Training, C: CheckpointStrategy> {
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    has_bias: bool,
    bias: Maybe<B>,
    residual: Maybe<B>,
}

fn record<B: Training, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    operands: Operands<B, C>,
    activation: Activation,
) -> FloatTensor<Autodiff<B, C>> {
    let Operands { x, weight, has_bias, bias, residual } = operands;
    match Backward::<B, N>::prepare::<C>(LinearBackward, nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let kept_x = weight.is_tracked().then(|| prep.checkpoint(&x));
            let kept_weight = x.is_tracked().then(|| prep.checkpoint(&weight));
            let (x, weight) = (x.into_primitive(), weight.into_primitive());
            let mut state =
                LinearState { x: kept_x, weight: kept_weight, activated: None, activation, has_bias };
            let y = B::fused_linear(x, weight, bias, residual, Activation::Identity);
            if activation == Activation::Identity {
                return prep.finish(state, y);
            }
            state.activated = Some(y.clone());
            prep.finish(state, B::activate(y, activation))
        }
        OpsKind::UnTracked(prep) => {
            let (x, weight) = (x.into_primitive(), weight.into_primitive());
            prep.finish(B::fused_linear(x, weight, bias, residual, activation))
        }
    }
}

#[derive(Debug)]
struct ActivateBackward;

impl<B: Training> Backward<B, 1> for ActivateBackward {
    type State = (NodeId, Activation);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (x, activation) = ops.state;
        register::<B>(grads, parent.map(|node| node.id), || {
            B::activate_gradient(checkpointer.retrieve_node_output(x), grad, activation)
        });
    }
}

pub(super) fn activate<B: Training, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    activation: Activation,
) -> FloatTensor<Autodiff<B, C>> {
    match Backward::<B, 1>::prepare::<C>(ActivateBackward, [x.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let state = (prep.checkpoint(&x), activation);
            prep.finish(state, B::activate(x.into_primitive(), activation))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::activate(x.into_primitive(), activation)),
    }
}
