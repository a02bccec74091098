//! Holm's correction for many tests.

/// Adjusted p of each test of one family (Holm 1979): the i-th smallest of m is multiplied by m - i + 1, none falls below
/// a smaller one, none exceeds 1. Rejecting where it is below 0.05 keeps the chance of any false rejection below 5%.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let (mut adjusted, mut highest) = (vec![1.0; p.len()], 0.0_f64);
    for (rank, &index) in order.iter().enumerate() {
        highest = highest.max((p.len() - rank) as f64 * p[index]).min(1.0);
        adjusted[index] = highest;
    }
    adjusted
}
