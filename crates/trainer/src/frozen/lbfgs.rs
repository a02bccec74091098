//! Multinomial logistic regression by L-BFGS, in f64 on the host: the same result on every device.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::products::{AddProducts, Columns, Lines};

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
/// Samples whose logits are in memory at a time.
const ROWS: usize = 512;
/// Samples that a thread takes at a time.
const ROWS_PER_TASK: usize = 32;
/// Classes whose gradient a thread takes at a time.
const CLASSES_PER_TASK: usize = 16;

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
///
/// Every sum runs over features, classes or samples in their order, whatever the number of threads or the processor.
fn objective(samples: Samples<'_>, c: f64, x: &[f64]) -> (f64, Vec<f64>) {
    let Samples { features, labels, width, num_classes } = samples;
    let (weights, biases) = x.split_at(num_classes * width);
    let columns = class_columns(weights, width, num_classes);
    let mut value = 0.5 * dot(weights, weights);
    let mut gradient = weights.to_vec();
    gradient.resize(x.len(), 0.0);
    let (weight_gradient, bias_gradient) = gradient.split_at_mut(num_classes * width);
    for (rows, labels) in features.chunks(width * ROWS).zip(labels.chunks(ROWS)) {
        let mut errors = vec![0.0; labels.len() * num_classes];
        let parts = errors.par_chunks_mut(num_classes * ROWS_PER_TASK);
        let parts = parts.zip(rows.par_chunks(width * ROWS_PER_TASK)).zip(labels.par_chunks(ROWS_PER_TASK));
        let losses = parts.map(|((errors, rows), labels)| {
            logits_of(rows, &columns, biases, errors);
            let rows = errors.chunks_exact_mut(num_classes).zip(labels);
            rows.map(|(logits, label)| into_errors(logits, *label, c)).collect::<Vec<f64>>()
        });
        let losses: Vec<Vec<f64>> = losses.collect();
        losses.into_iter().flatten().for_each(|loss| value += loss);
        for errors in errors.chunks_exact(num_classes) {
            bias_gradient.iter_mut().zip(errors).for_each(|(gradient, error)| *gradient += error);
        }
        let columns = Columns::new(width, labels.len(), |at, row| f64::from(rows[row * width + at]));
        let classes = weight_gradient.par_chunks_mut(width * CLASSES_PER_TASK).enumerate();
        classes.for_each(|(task, sums)| {
            let first = task * CLASSES_PER_TASK;
            let error = |class: usize, row: usize| errors[row * num_classes + first + class];
            let lines = &Lines::new(sums.len() / width, labels.len(), error);
            pulp::Arch::new().dispatch(AddProducts { lines, columns: &columns, sums });
        });
    }
    (value, gradient)
}

/// Turns logits of a sample into the loss's gradient at them; gives the loss.
fn into_errors(logits: &mut [f64], label: usize, c: f64) -> f64 {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = highest + logits.iter().map(|l| (l - highest).exp()).sum::<f64>().ln();
    let loss = c * (log_sum - logits[label]);
    for (class, logit) in logits.iter_mut().enumerate() {
        *logit = c * ((*logit - log_sum).exp() - f64::from(u8::from(class == label)));
    }
    loss
}

/// Logits `[R, N]` of `rows` `[R, P]` by the weights `columns`.
fn logits_of(rows: &[f32], columns: &Columns, biases: &[f64], logits: &mut [f64]) {
    let (num_classes, num_rows) = (biases.len(), logits.len() / biases.len());
    let width = rows.len() / num_rows;
    logits.fill(0.0);
    let lines = Lines::new(num_rows, width, |row, at| f64::from(rows[row * width + at]));
    pulp::Arch::new().dispatch(AddProducts { lines: &lines, columns, sums: logits });
    for logits in logits.chunks_exact_mut(num_classes) {
        logits.iter_mut().zip(biases).for_each(|(logit, bias)| *logit += bias);
    }
}

/// Weights `[N, P]` as the columns of a product.
fn class_columns(weights: &[f64], width: usize, num_classes: usize) -> Columns {
    Columns::new(num_classes, width, |class, at| weights[class * width + at])
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
        let columns = class_columns(self.weights(), self.width, self.num_classes);
        let classify = |rows: &[f32]| {
            let mut logits = vec![0.0; rows.len() / self.width * self.num_classes];
            logits_of(rows, &columns, self.biases(), &mut logits);
            let highest = |row: &[f64]| {
                (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best })
            };
            logits.chunks_exact(self.num_classes).map(highest).collect::<Vec<usize>>()
        };
        features.par_chunks(self.width * ROWS_PER_TASK).flat_map_iter(classify).collect()
    }

    /// Mean cross entropy over `samples`.
    pub fn loss(&self, samples: Samples<'_>) -> f64 {
        let penalty = 0.5 * dot(self.weights(), self.weights());
        (objective(samples, 1.0, &self.parameters).0 - penalty) / samples.labels.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_and_gradient_are_those_of_one_sample_after_the_other() {
        let (samples, width, num_classes) = (700, 9, 5);
        let features: Vec<f32> =
            (0..samples * width).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
        let labels: Vec<usize> = (0..samples).map(|i| i * 7 % num_classes).collect();
        let x: Vec<f64> = (0..num_classes * (width + 1)).map(|i| (i * 29 % 83) as f64 / 40.0 - 1.0).collect();
        let c = 0.3;
        let (weights, biases) = x.split_at(num_classes * width);
        let mut value = 0.5 * dot(weights, weights);
        let mut gradient = weights.to_vec();
        gradient.resize(x.len(), 0.0);
        for (row, &label) in features.chunks_exact(width).zip(&labels) {
            let product =
                |weights: &[f64]| weights.iter().zip(row).map(|(w, f)| w * f64::from(*f)).sum::<f64>();
            let mut errors: Vec<f64> =
                weights.chunks_exact(width).zip(biases).map(|(w, bias)| bias + product(w)).collect();
            value += into_errors(&mut errors, label, c);
            for (class, error) in errors.iter().enumerate() {
                gradient[num_classes * width + class] += error;
                let target = &mut gradient[class * width..][..width];
                target.iter_mut().zip(row).for_each(|(g, f)| *g += error * f64::from(*f));
            }
        }
        let samples = Samples { features: &features, labels: &labels, width, num_classes };
        let found = objective(samples, c, &x);
        // The same bits: a parallel sum that depends on the machine would not repeat.
        assert_eq!(found.0.to_bits(), value.to_bits());
        assert_eq!(found.1, gradient);
    }
}
