//! Mean and 95% interval over seeds.

use std::collections::BTreeMap;

use super::cells::{Cell, MethodId};
use crate::statistics::two_sided;

/// What identifies a line of the summary: everything but the seed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// CLIP checkpoint.
    pub backbone: String,
    /// Method and which of its weights.
    pub method: MethodId,
    /// Evaluated split.
    pub split: String,
    /// Name of the figure, for example `accuracy`.
    pub metric: String,
    /// Training images per class; `None` for a method that sees none.
    pub shots: Option<u32>,
}

/// Mean and spread of one figure over the seeds that have run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Mean over the seeds.
    pub mean: f64,
    /// Half the width of the 95% interval: Student's t with n-1 degrees times s/sqrt(n). `None` for one seed.
    pub half_width: Option<f64>,
    /// Seeds that have run.
    pub num_seeds: u32,
}

/// Summarises `values`, one for each seed; `None` if there are none.
pub fn summarise(values: &[f64]) -> Option<Summary> {
    let num_seeds = u32::try_from(values.len()).ok().filter(|&n| n > 0)?;
    let n = f64::from(num_seeds);
    let mean = values.iter().sum::<f64>() / n;
    let half_width = (num_seeds > 1).then(|| {
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        two_sided(0.95, num_seeds - 1) * (variance / n).sqrt()
    });
    Some(Summary { mean, half_width, num_seeds })
}

/// One summary for each group of cells that differ by seed only.
pub fn over_seeds(cells: &[Cell]) -> BTreeMap<Group, Summary> {
    let mut values: BTreeMap<Group, Vec<f64>> = BTreeMap::new();
    for cell in cells {
        values.entry(cell.group()).or_default().push(cell.value);
    }
    values.into_iter().filter_map(|(group, values)| Some((group, summarise(&values)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_of_three_values_is_that_of_the_t_distribution() {
        // By hand: mean 0.5, s = 0.1, s/sqrt(3) = 0.0577350, times 4.3026527.
        let summary = summarise(&[0.4, 0.5, 0.6]).unwrap();
        assert!((summary.mean - 0.5).abs() < 1e-12);
        assert!((summary.half_width.unwrap() - 0.248_413_77).abs() < 1e-7);
    }

    #[test]
    fn one_seed_has_no_interval() {
        assert_eq!(summarise(&[0.25]), Some(Summary { mean: 0.25, half_width: None, num_seeds: 1 }));
        assert_eq!(summarise(&[]), None);
    }
}
