//! Convolution with a norm behind it.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind, OpsPrep, Tracked};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, TensorMetadata};

use crate::composed;
use crate::extension::{Convolution, Maybe, NormState, Recorded, Training};

/// The parents are input, weight, factor and summand of the norm, then the residual if given.
#[derive(Debug)]
struct ConvNormBackward;

#[derive(Debug, Clone)]
enum ConvNormState<B: Training> {
    /// By the back end itself.
    Recorded(Recorded<B>),
    Parts(Box<Parts<B>>),
}

#[derive(Debug, Clone)]
struct Parts<B: Training> {
    x: NodeId,
    weight: NodeId,
    shape: Convolution,
    /// The convolution's output.
    convolved: FloatTensor<B>,
    /// The output, if a rectifier gave it.
    rectified: Option<FloatTensor<B>>,
    mean: FloatTensor<B>,
    inverse_deviation: FloatTensor<B>,
    gamma: FloatTensor<B>,
    of_batch: bool,
}

impl<B: Training, const N: usize> Backward<B, N> for ConvNormBackward {
    type State = ConvNormState<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let state = match ops.state {
            ConvNormState::Parts(parts) => *parts,
            ConvNormState::Recorded(recorded) => {
                let parents = ops.parents.into_iter().zip(B::replay(recorded, grad));
                for (parent, grad) in parents {
                    if let (Some(parent), Some(grad)) = (parent, grad) {
                        grads.register::<B>(parent.id, grad);
                    }
                }
                return;
            }
        };
        let norm = NormState {
            x: state.convolved,
            rectified: state.rectified,
            mean: state.mean,
            inverse_deviation: state.inverse_deviation,
            gamma: state.gamma,
            of_batch: state.of_batch,
        };
        let through = B::norm_gradients(norm, grad);
        let mut parents = ops.parents.into_iter().map(|parent| parent.map(|node| node.id));
        let (x, weight) = (parents.next().flatten(), parents.next().flatten());
        for (id, grad) in parents.zip([through.gamma, through.beta, through.residual]) {
            if let Some(id) = id {
                grads.register::<B>(id, grad);
            }
        }
        let wanted = [x.is_some(), weight.is_some()];
        let kept_x = checkpointer.retrieve_node_output(state.x);
        let kept_weight = checkpointer.retrieve_node_output(state.weight);
        let product = B::convolution_gradients(kept_x, kept_weight, through.x, state.shape, wanted);
        for (id, grad) in [(x, product.x), (weight, product.weight)] {
            if let (Some(id), Some(grad)) = (id, grad) {
                grads.register::<B>(id, grad);
            }
        }
    }
}

/// Input, weight, factor and summand of the norm.
type Operands<B, C> = [FloatTensor<Autodiff<B, C>>; 4];

pub(super) fn affine<B: Training, C: CheckpointStrategy>(
    operands: Operands<B, C>,
    residual: Option<FloatTensor<Autodiff<B, C>>>,
    shape: Convolution,
    relu: bool,
) -> FloatTensor<Autodiff<B, C>> {
    let [x, weight, scale, shift] = operands.each_ref().map(|operand| operand.node());
    match residual {
        Some(residual) => {
            let nodes = [x, weight, scale, shift, residual.node()];
            record_affine::<B, C, 5>(nodes, operands, Maybe::Given(residual.into_primitive()), shape, relu)
        }
        None => record_affine::<B, C, 4>([x, weight, scale, shift], operands, Maybe::Absent, shape, relu),
    }
}

fn record_affine<B: Training, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    operands: Operands<B, C>,
    residual: Maybe<B>,
    shape: Convolution,
    relu: bool,
) -> FloatTensor<Autodiff<B, C>> {
    match Backward::<B, N>::prepare::<C>(ConvNormBackward, nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let residual = residual.into_option();
            if let Some(recorded) = record::<B, C>(&operands, residual.clone(), shape, None, relu) {
                let output = B::output(&recorded);
                return prep.finish(ConvNormState::Recorded(recorded), output);
            }
            let kept = keep(&mut prep, &operands);
            let [x, weight, scale, shift] = operands.map(|operand| operand.into_primitive());
            let one = B::float_ones(scale.shape(), &x.device(), x.dtype().into());
            let zero = B::float_zeros(scale.shape(), &x.device(), x.dtype().into());
            let convolved = B::convolve(x, weight, shape);
            let output = B::affine(convolved.clone(), scale.clone(), shift, residual, relu);
            let state = Parts {
                x: kept[0],
                weight: kept[1],
                shape,
                convolved,
                rectified: relu.then(|| output.clone()),
                mean: zero,
                inverse_deviation: one,
                gamma: scale,
                of_batch: false,
            };
            prep.finish(ConvNormState::Parts(Box::new(state)), output)
        }
        OpsKind::UnTracked(prep) => {
            let [x, weight, scale, shift] = operands.map(|operand| operand.into_primitive());
            prep.finish(B::conv_affine(x, weight, scale, shift, residual, shape, relu))
        }
    }
}

/// Output, mean and biased variance; only the output is differentiable.
type Normalised<B, C> =
    (FloatTensor<Autodiff<B, C>>, FloatTensor<Autodiff<B, C>>, FloatTensor<Autodiff<B, C>>);

pub(super) fn batch_norm<B: Training, C: CheckpointStrategy>(
    operands: Operands<B, C>,
    residual: Option<FloatTensor<Autodiff<B, C>>>,
    shape: Convolution,
    epsilon: f64,
    relu: bool,
) -> Normalised<B, C> {
    let [x, weight, gamma, beta] = operands.each_ref().map(|operand| operand.node());
    match residual {
        Some(residual) => {
            let nodes = [x, weight, gamma, beta, residual.node()];
            let residual = Maybe::Given(residual.into_primitive());
            record_batch_norm::<B, C, 5>(nodes, operands, residual, shape, epsilon, relu)
        }
        None => record_batch_norm::<B, C, 4>(
            [x, weight, gamma, beta],
            operands,
            Maybe::Absent,
            shape,
            epsilon,
            relu,
        ),
    }
}

fn record_batch_norm<B: Training, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    operands: Operands<B, C>,
    residual: Maybe<B>,
    shape: Convolution,
    epsilon: f64,
    relu: bool,
) -> Normalised<B, C> {
    let constant = <Autodiff<B, C> as AutodiffBackend>::from_inner;
    let primitives = operands.each_ref().map(|operand| operand.primitive().clone());
    match Backward::<B, N>::prepare::<C>(ConvNormBackward, nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let residual = residual.into_option();
            if let Some(recorded) = record::<B, C>(&operands, residual.clone(), shape, Some(epsilon), relu)
                && let Some([mean, variance]) = recorded.moments.clone()
            {
                let output = B::output(&recorded);
                let output = prep.finish(ConvNormState::Recorded(recorded), output);
                return (output, constant(mean), constant(variance));
            }
            let kept = keep(&mut prep, &operands);
            let [x, weight, gamma, beta] = primitives;
            let convolved = B::convolve(x, weight, shape);
            let [mean, variance] = B::moments(convolved.clone());
            let (scale, shift) =
                composed::folded::<B>(gamma.clone(), beta, mean.clone(), variance.clone(), epsilon);
            let output = B::affine(convolved.clone(), scale, shift, residual, relu);
            let shifted = B::float_add_scalar(variance.clone(), epsilon.into());
            let state = Parts {
                x: kept[0],
                weight: kept[1],
                shape,
                convolved,
                rectified: relu.then(|| output.clone()),
                mean: mean.clone(),
                inverse_deviation: B::float_recip(B::float_sqrt(shifted)),
                gamma,
                of_batch: true,
            };
            let output = prep.finish(ConvNormState::Parts(Box::new(state)), output);
            (output, constant(mean), constant(variance))
        }
        OpsKind::UnTracked(prep) => {
            let [x, weight, gamma, beta] = primitives;
            let (output, mean, variance) =
                B::conv_batch_norm(x, weight, gamma, beta, residual, shape, epsilon, relu);
            (prep.finish(output), constant(mean), constant(variance))
        }
    }
}

/// The record of a back end that has an autograd of its own.
fn record<B: Training, C: CheckpointStrategy>(
    operands: &Operands<B, C>,
    residual: Option<FloatTensor<B>>,
    shape: Convolution,
    epsilon: Option<f64>,
    relu: bool,
) -> Option<Recorded<B>> {
    let tracked = operands.each_ref().map(|operand| operand.is_tracked());
    let operands = operands.each_ref().map(|operand| operand.primitive().clone());
    B::record_conv_norm(operands, residual, tracked, shape, epsilon, relu)
}

/// Keeps input and weight for the backward pass.
fn keep<B: Training, C: CheckpointStrategy, const N: usize>(
    prep: &mut OpsPrep<ConvNormBackward, B, ConvNormState<B>, C, N, Tracked>,
    operands: &Operands<B, C>,
) -> [NodeId; 2] {
    [prep.checkpoint(&operands[0]), prep.checkpoint(&operands[1])]
}
