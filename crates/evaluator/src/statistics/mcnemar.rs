//! McNemar's exact test.

/// Two-sided p of McNemar's exact test (McNemar 1947): under equal accuracy, of the images that just one of two
/// classifiers gets right, the number that the first gets right is binomial with probability 1/2.
///
/// `better` counts the images that only the first gets right, `worse` those that only the second does. It is
/// `min(1, 2 P(X <= min(better, worse)))`; 1 if there is no such image.
pub fn mcnemar_exact(better: u64, worse: u64) -> f64 {
    let (n, least) = (better + worse, better.min(worse));
    // ln of C(n, least) / 2^n; the terms below it follow by the ratio of neighbours.
    let largest: f64 = (1..=least).map(|k| ((n - least + k) as f64 / k as f64).ln()).sum::<f64>()
        - n as f64 * std::f64::consts::LN_2;
    let (mut sum, mut term) = (0.0, 1.0);
    for k in (0..=least).rev() {
        sum += term;
        term *= k as f64 / (n - k + 1) as f64;
    }
    (2.0 * largest.exp() * sum).min(1.0)
}
