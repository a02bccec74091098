//! How well the logits say how sure they are.

/// Bins of the calibration error.
pub const NUM_BINS: usize = 15;

/// Figures over the probabilities (softmax of the logits as they are: no temperature is fitted).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// Expected calibration error, 0 to 1 (Guo, Pleiss, Sun and Weinberger 2017): images are binned by the probability of
    /// the predicted class into [`NUM_BINS`] bins of equal width, open below and closed above; mean over images of the gap
    /// between accuracy and mean probability within their bin.
    pub ece: f64,
    /// Mean of the negative natural logarithm of the probability of the label.
    pub nll: f64,
}

/// Calibration over `(label, logits)` pairs; `None` if there are none. A label outside the classes has the probability of
/// the least likely class.
pub fn calibration<'a>(pairs: impl Iterator<Item = (u32, &'a [f32])>) -> Option<Calibration> {
    let (mut num_images, mut nll) = (0_u64, 0.0);
    // Sum of (right - probability) of each bin: the gap times the number of images.
    let mut gaps = [0.0; NUM_BINS];
    for (label, logits) in pairs {
        num_images += 1;
        let Some(predicted) = crate::accuracy::predicted_class(logits) else { continue };
        let highest = f64::from(logits[predicted]);
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - highest).exp()).sum();
        let lowest = || logits.iter().copied().fold(f32::INFINITY, f32::min);
        let of_label = logits.get(label as usize).copied().unwrap_or_else(lowest);
        nll += sum.ln() + highest - f64::from(of_label);
        let confidence = 1.0 / sum;
        let right = f64::from(u8::from(predicted == label as usize));
        gaps[bin(confidence)] += right - confidence;
    }
    let n = num_images as f64;
    let ece = gaps.iter().map(|gap: &f64| gap.abs()).sum::<f64>() / n;
    (num_images > 0).then_some(Calibration { ece, nll: nll / n })
}

/// Bin of a probability: bin `m` holds those above `m / NUM_BINS` up to `(m + 1) / NUM_BINS`.
fn bin(confidence: f64) -> usize {
    let upper = |m: usize| (m + 1) as f64 / NUM_BINS as f64;
    (0..NUM_BINS - 1).find(|&m| confidence <= upper(m)).unwrap_or(NUM_BINS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_closed_above() {
        assert_eq!((bin(1.0 / 15.0), bin(0.07), bin(0.5), bin(1.0)), (0, 1, 7, 14));
    }

    #[test]
    fn a_sure_and_right_classifier_has_no_error() {
        let logits = [200.0_f32, 0.0, 0.0];
        let found = calibration([(0, &logits[..]), (0, &logits[..])].into_iter()).unwrap();
        assert_eq!(found, Calibration { ece: 0.0, nll: 0.0 });
        let wrong = calibration([(1, &logits[..])].into_iter()).unwrap();
        assert_eq!(wrong, Calibration { ece: 1.0, nll: 200.0 });
        assert_eq!(calibration(std::iter::empty()), None);
    }
}
