//! Linear equations with a symmetric positive definite matrix, in f64 on the host.

use rayon::prelude::*;

/// Solves `A X = B`; `matrix` is A `[P, P]`, `right` the columns of B, each of P values, one after the other. `None` if A is
/// not positive definite.
pub fn solve(mut matrix: Vec<f64>, right: &[f64]) -> Option<Vec<f64>> {
    let size = matrix.len().isqrt();
    factor(&mut matrix, size)?;
    let lower = |row: usize, column: usize| matrix[row * size + column];
    let mut solution = right.to_vec();
    solution.par_chunks_exact_mut(size).for_each(|x| {
        for row in 0..size {
            let sum = dot(&matrix[row * size..row * size + row], &x[..row]);
            x[row] = (x[row] - sum) / lower(row, row);
        }
        // The transpose of L, by columns: a row of L is taken off everything before it.
        for row in (0..size).rev() {
            x[row] /= lower(row, row);
            let (before, value) = (&matrix[row * size..row * size + row], x[row]);
            x[..row].iter_mut().zip(before).for_each(|(x, l)| *x -= l * value);
        }
    });
    Some(solution)
}

/// Replaces the lower triangle of `matrix` by L with `A = L L^T`.
fn factor(matrix: &mut [f64], size: usize) -> Option<()> {
    for row in 0..size {
        let (done, rest) = matrix.split_at_mut(row * size);
        let current = &mut rest[..size];
        for column in 0..row {
            let above = &done[column * size..column * size + column + 1];
            let sum = dot(&current[..column], &above[..column]);
            current[column] = (current[column] - sum) / above[column];
        }
        let pivot = current[row] - dot(&current[..row], &current[..row]);
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        current[row] = pivot.sqrt();
    }
    Some(())
}

/// With eight partial sums, so that the compiler can use vector registers.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solution_gives_the_right_hand_side_back() {
        let size = 21;
        let factor = |row: usize, column: usize| ((row * 7 + column * 11) % 13) as f64 - 6.0;
        let entry = |row: usize, column: usize| {
            let square: f64 = (0..size).map(|k| factor(row, k) * factor(column, k)).sum();
            square + if row == column { 5.0 } else { 0.0 }
        };
        let matrix: Vec<f64> = (0..size * size).map(|at| entry(at / size, at % size)).collect();
        let right: Vec<f64> = (0..2 * size).map(|i| (i % 5) as f64 - 2.0).collect();
        let solution = solve(matrix, &right).unwrap();
        for (x, b) in solution.chunks_exact(size).zip(right.chunks_exact(size)) {
            for (row, expected) in b.iter().enumerate() {
                let product: f64 = (0..size).map(|column| entry(row, column) * x[column]).sum();
                assert!((product - expected).abs() < 1e-9, "{product} {expected}");
            }
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_refused() {
        assert_eq!(solve(vec![1.0, 2.0, 2.0, 1.0], &[1.0, 1.0]), None);
    }
}
