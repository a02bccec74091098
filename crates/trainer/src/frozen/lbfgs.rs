//! Multinomial logistic regression by L-BFGS, in f64 on the host: the same result on every device.

use std::collections::VecDeque;

/// Pairs of steps and gradient changes that are kept.
const MEMORY: usize = 10;
/// The search stops when no component of the gradient exceeds this.
const GRADIENT_TOLERANCE: f64 = 1e-5;
/// The search stops when the objective falls by less than this, relative to its size.
const RELATIVE_TOLERANCE: f64 = 1e-10;
/// Armijo's constant.
const SUFFICIENT_DECREASE: f64 = 1e-4;
/// Halvings of one step before the search stops.
const HALVINGS: usize = 40;

/// Samples of a regression.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    /// Row-major `[M, P]`.
    pub features: &'a [f32],
    /// Class of each row.
    pub labels: &'a [usize],
    /// Width P.
    pub width: usize,
    /// Number of classes N.
    pub num_classes: usize,
}

/// A fitted regression.
#[derive(Debug, Clone, PartialEq)]
pub struct Regression {
    /// Row-major `[N, P]`, then `[N]` biases.
    parameters: Vec<f64>,
    width: usize,
    num_classes: usize,
    /// Iterations that were made.
    pub iterations: u32,
}

/// Minimises `0.5 * ||W||^2 + c * sum of cross entropies` (scikit-learn's form; the bias is not penalised) from zero.
pub fn fit(samples: Samples<'_>, c: f64, max_iterations: u32) -> Regression {
    let size = samples.num_classes * (samples.width + 1);
    let mut x = vec![0.0; size];
    let (mut value, mut gradient) = objective(samples, c, &x);
    let mut history: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
    let mut iterations = 0;
    while iterations < max_iterations && gradient.iter().any(|g| g.abs() > GRADIENT_TOLERANCE) {
        let mut direction = descent_direction(&gradient, &history);
        if dot(&direction, &gradient) >= 0.0 {
            history.clear();
            direction = gradient.iter().map(|g| -g).collect();
        }
        let first = history.is_empty();
        let start = if first { 1.0 / gradient.iter().map(|g| g.abs()).sum::<f64>().max(1.0) } else { 1.0 };
        let Some((next, next_value, next_gradient)) =
            line_search(samples, c, &x, value, &gradient, &direction, start)
        else {
            break;
        };
        iterations += 1;
        let step: Vec<f64> = next.iter().zip(&x).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&step, &change);
        if curvature > 1e-12 {
            if history.len() == MEMORY {
                history.pop_front();
            }
            history.push_back((step, change, 1.0 / curvature));
        }
        let decrease = value - next_value;
        (x, value, gradient) = (next, next_value, next_gradient);
        if decrease <= RELATIVE_TOLERANCE * value.abs().max(1.0) {
            break;
        }
    }
    Regression { parameters: x, width: samples.width, num_classes: samples.num_classes, iterations }
}

/// Two-loop recursion.
fn descent_direction(gradient: &[f64], history: &VecDeque<(Vec<f64>, Vec<f64>, f64)>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(history.len());
    for (step, change, rho) in history.iter().rev() {
        let alpha = rho * dot(step, &q);
        add_scaled(&mut q, change, -alpha);
        alphas.push(alpha);
    }
    if let Some((step, change, _)) = history.back() {
        let scale = dot(step, change) / dot(change, change);
        q.iter_mut().for_each(|v| *v *= scale);
    }
    for ((step, change, rho), alpha) in history.iter().zip(alphas.into_iter().rev()) {
        let beta = rho * dot(change, &q);
        add_scaled(&mut q, step, alpha - beta);
    }
    q
}

/// Backtracking to Armijo's condition; `None` if no step lowers the objective.
fn line_search(
    samples: Samples<'_>,
    c: f64,
    x: &[f64],
    value: f64,
    gradient: &[f64],
    direction: &[f64],
    start: f64,
) -> Option<(Vec<f64>, f64, Vec<f64>)> {
    let slope = dot(gradient, direction);
    let mut length = start;
    for _ in 0..HALVINGS {
        let mut next = x.to_vec();
        add_scaled(&mut next, direction, length);
        let (next_value, next_gradient) = objective(samples, c, &next);
        if next_value.is_finite() && next_value <= value + SUFFICIENT_DECREASE * length * slope {
            return Some((next, next_value, next_gradient));
        }
        length *= 0.5;
    }
    None
}

/// Value and gradient.
fn objective(samples: Samples<'_>, c: f64, x: &[f64]) -> (f64, Vec<f64>) {
    let Samples { features, labels, width, num_classes } = samples;
    let (weights, biases) = x.split_at(num_classes * width);
    let mut value = 0.5 * dot(weights, weights);
    let mut gradient = weights.to_vec();
    gradient.resize(x.len(), 0.0);
    let (weight_gradient, bias_gradient) = gradient.split_at_mut(num_classes * width);
    let mut logits = vec![0.0; num_classes];
    for (row, &label) in features.chunks_exact(width).zip(labels) {
        logits_of(row, weights, biases, &mut logits);
        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = highest + logits.iter().map(|l| (l - highest).exp()).sum::<f64>().ln();
        value += c * (log_sum - logits[label]);
        for (class, logit) in logits.iter().enumerate() {
            let error = c * ((logit - log_sum).exp() - f64::from(u8::from(class == label)));
            bias_gradient[class] += error;
            let target = &mut weight_gradient[class * width..][..width];
            target.iter_mut().zip(row).for_each(|(g, f)| *g += error * f64::from(*f));
        }
    }
    (value, gradient)
}

fn logits_of(row: &[f32], weights: &[f64], biases: &[f64], logits: &mut [f64]) {
    for ((logit, weights), bias) in logits.iter_mut().zip(weights.chunks_exact(row.len())).zip(biases) {
        *logit = bias + weights.iter().zip(row).map(|(w, f)| w * f64::from(*f)).sum::<f64>();
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(target: &mut [f64], direction: &[f64], factor: f64) {
    target.iter_mut().zip(direction).for_each(|(t, d)| *t += factor * d);
}

impl Regression {
    /// Row-major weights `[N, P]`.
    pub fn weights(&self) -> &[f64] {
        &self.parameters[..self.num_classes * self.width]
    }

    /// Biases `[N]`.
    pub fn biases(&self) -> &[f64] {
        &self.parameters[self.num_classes * self.width..]
    }

    /// The most likely class of each row of `features` `[M, P]`; the lowest of equals.
    pub fn predict(&self, features: &[f32]) -> Vec<usize> {
        let mut logits = vec![0.0; self.num_classes];
        let classify = |row: &[f32]| {
            logits_of(row, self.weights(), self.biases(), &mut logits);
            let mut best = 0;
            for class in 1..logits.len() {
                if logits[class] > logits[best] {
                    best = class;
                }
            }
            best
        };
        features.chunks_exact(self.width).map(classify).collect()
    }

    /// Mean cross entropy over `samples`.
    pub fn loss(&self, samples: Samples<'_>) -> f64 {
        let penalty = 0.5 * dot(self.weights(), self.weights());
        (objective(samples, 1.0, &self.parameters).0 - penalty) / samples.labels.len() as f64
    }
}
