//! Gradients of a step whose samples do not go through the model at once.

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use flier_model::FlierModel;

use crate::Error;
use crate::backbone::to_vec;

/// Gradients of a step's mean loss, and the loss.
pub struct Accumulated {
    /// By parameter.
    pub gradients: GradientsParams,
    /// Mean over the samples.
    pub loss: f64,
    /// The latent branch's share before weighting.
    pub latent_loss: f64,
}

/// Sums the gradients of parts of `samples`, each of at most `micro_batch_size`; `loss` gives a part's mean loss and the latent
/// branch's share of it. A part counts by its number of samples, so the sum is the gradient of the mean over all, up to rounding;
/// the graph of one part is in memory at a time.
///
/// Batch norms do not see the parts: fine-tuning keeps their statistics ([`crate::parameters::freeze`]).
///
/// # Errors
///
/// Fails as `loss`, or if the device does not give a value.
pub fn accumulate(
    model: &FlierModel,
    samples: &[usize],
    micro_batch_size: usize,
    loss: impl Fn(&[usize]) -> Result<(Tensor<1>, f64), Error>,
) -> Result<Accumulated, Error> {
    let mut accumulator = GradientsAccumulator::new();
    let mut sums = (0.0, 0.0);
    for part in samples.chunks(micro_batch_size.max(1)) {
        // One part alone counts 1, and 1 changes no bit.
        let share = part.len() as f64 / samples.len() as f64;
        let (part_loss, latent_loss) = loss(part)?;
        let part_loss = part_loss.mul_scalar(share);
        sums.0 += scalar(part_loss.clone())?;
        sums.1 += latent_loss * share;
        accumulator.accumulate(model, GradientsParams::from_grads(part_loss.backward(), model));
    }
    Ok(Accumulated { gradients: accumulator.grads(), loss: sums.0, latent_loss: sums.1 })
}

/// The value of a tensor with one element.
pub(crate) fn scalar(tensor: Tensor<1>) -> Result<f64, Error> {
    Ok(to_vec(tensor)?.first().copied().map_or(f64::NAN, f64::from))
}
