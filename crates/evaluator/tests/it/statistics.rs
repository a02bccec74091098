//! Figures and tests against those of scipy, statsmodels and numpy.

use evaluator::accuracy::accuracy;
use evaluator::calibration::calibration;
use evaluator::statistics::{holm, mcnemar_exact, two_sided};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    predictions: Vec<Predictions>,
    mcnemar: Vec<Discordant>,
    holm: Vec<Family>,
    student_t: Vec<Factor>,
}

#[derive(Deserialize)]
struct Predictions {
    classes: usize,
    labels: Vec<u32>,
    logits: Vec<Vec<f32>>,
    top1: f64,
    top5: f64,
    nll: f64,
    ece: f64,
}

#[derive(Deserialize)]
struct Discordant {
    better: u64,
    worse: u64,
    p: f64,
}

#[derive(Deserialize)]
struct Family {
    p: Vec<f64>,
    adjusted: Vec<f64>,
}

#[derive(Deserialize)]
struct Factor {
    degrees: u32,
    factor: f64,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/statistics.json")).unwrap()
}

/// Both sides are computed in f64; sums differ in their order.
fn assert_near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-10, "{what}: expected {expected}, found {found}");
}

#[test]
fn figures_of_predictions_are_those_of_numpy() {
    for case in golden().predictions {
        let pairs = || case.labels.iter().copied().zip(case.logits.iter().map(Vec::as_slice));
        let found = accuracy(pairs(), case.classes).unwrap();
        assert_near(found.top1, case.top1, "top1");
        assert_eq!(found.top5.is_some(), case.classes > 5);
        assert_near(found.top5.unwrap_or(case.top5), case.top5, "top5");
        let found = calibration(pairs()).unwrap();
        assert_near(found.nll, case.nll, "nll");
        assert_near(found.ece, case.ece, "ece");
    }
}

#[test]
fn mcnemar_is_that_of_statsmodels() {
    for Discordant { better, worse, p } in golden().mcnemar {
        let found = mcnemar_exact(better, worse);
        // Small p are compared by their ratio: sums of up to 900 logarithms.
        assert!((found / p - 1.0).abs() < 1e-9, "{better} and {worse}: expected {p}, found {found}");
    }
}

#[test]
fn holm_is_that_of_statsmodels() {
    for family in golden().holm {
        for (found, expected) in holm(&family.p).into_iter().zip(family.adjusted) {
            assert_near(found, expected, "adjusted p");
        }
    }
    assert!(holm(&[]).is_empty());
}

#[test]
fn the_factor_of_intervals_is_that_of_scipy() {
    for Factor { degrees, factor } in golden().student_t {
        // The angle is bisected to the last place; its tangent is steep for one degree.
        assert!((two_sided(0.95, degrees) - factor).abs() < 1e-8, "{degrees}");
    }
}
