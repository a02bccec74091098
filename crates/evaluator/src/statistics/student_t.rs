//! Student's t distribution, for intervals over few seeds.

use std::f64::consts::{FRAC_PI_2, PI};

/// The number `t` with `P(|T| <= t) = probability` for `T` of Student's distribution with `degrees` degrees of freedom.
///
/// For example `two_sided(0.95, 2)` = 4.302653: the factor of a 95% interval of the mean of three values.
///
/// # Panics
///
/// Panics unless `degrees > 0` and `0 < probability < 1`.
pub fn two_sided(probability: f64, degrees: u32) -> f64 {
    assert!(
        degrees > 0 && probability > 0.0 && probability < 1.0,
        "degrees {degrees}, probability {probability}"
    );
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    // 60 halvings leave less than one unit in the last place of an angle below pi/2.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if probability_within(middle, degrees) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    (0.5 * (low + high)).tan() * f64::from(degrees).sqrt()
}

/// `P(|T| <= sqrt(degrees) * tan(theta))`: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
fn probability_within(theta: f64, degrees: u32) -> f64 {
    let (sin, cos) = theta.sin_cos();
    if degrees == 1 {
        return 2.0 * theta / PI;
    }
    let even = degrees.is_multiple_of(2);
    let mut term = if even { 1.0 } else { cos };
    let mut sum = term;
    let mut power = if even { 2 } else { 3 };
    while power + 2 <= degrees {
        term *= cos * cos * f64::from(power - 1) / f64::from(power);
        sum += term;
        power += 2;
    }
    if even { sin * sum } else { 2.0 / PI * (theta + sin * sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_those_of_printed_tables() {
        let table = [
            (1, 12.706_205),
            (2, 4.302_653),
            (3, 3.182_446),
            (4, 2.776_445),
            (5, 2.570_582),
            (9, 2.262_157),
            (10, 2.228_139),
            (29, 2.045_230),
            (120, 1.979_930),
        ];
        for (degrees, expected) in table {
            // The table has six decimals.
            let found = two_sided(0.95, degrees);
            assert!((found - expected).abs() < 1e-6, "{degrees} degrees: expected {expected}, found {found}");
        }
        assert!((two_sided(0.99, 2) - 9.924_843).abs() < 1e-6);
    }
}
