//! Methods over shots: the lines of tables and curves, and their figures.

use super::cells::MethodId;
use super::chart::{LegendEntry, Panel, Point, Series};
use super::summary::Summary;

/// A line of a table or a chart.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Method and weights.
    pub method: MethodId,
    /// Rule that chose the weights.
    pub select: &'static str,
    /// Whether it has a figure for each number of shots, or one.
    pub sees_shots: bool,
    /// Position of the method among those of the pipeline.
    pub index: usize,
}

/// The legend of `lines`; methods that see no shots have no colour of their own.
pub(super) fn legend(lines: &[Line]) -> Vec<LegendEntry> {
    let mut over_shots: Vec<usize> = lines.iter().filter(|l| l.sees_shots).map(|l| l.index).collect();
    over_shots.dedup();
    let entry = |line: &Line| LegendEntry {
        name: line.method.label(),
        color_index: over_shots.iter().position(|&index| index == line.index).unwrap_or(0),
        dashed: line.method.weights == "ema",
        reference: !line.sees_shots,
    };
    lines.iter().map(entry).collect()
}

/// A panel of `lines` over `shots`; `at` gives the figure of a line.
pub(super) fn panel(
    title: &str,
    lines: &[Line],
    shots: &[u32],
    at: impl Fn(&Line, Option<u32>) -> Option<Summary>,
) -> Panel {
    let (mut series, mut references) = (Vec::new(), Vec::new());
    for (entry, line) in lines.iter().enumerate() {
        if line.sees_shots {
            let point = |&shots: &u32| {
                let summary = at(line, Some(shots))?;
                let half_width = summary.half_width.map(|half| 100.0 * half);
                Some(Point { shots, mean: 100.0 * summary.mean, half_width })
            };
            let points: Vec<Point> = shots.iter().filter_map(point).collect();
            if !points.is_empty() {
                series.push(Series { entry, points });
            }
        } else if let Some(summary) = at(line, None) {
            references.push((entry, 100.0 * summary.mean));
        }
    }
    let nothing = if series.is_empty() && references.is_empty() { ": not run" } else { "" };
    Panel { title: format!("{title}{nothing}"), series, references }
}

/// Name of a column.
pub(super) fn shots_text(shots: Option<u32>) -> String {
    match shots {
        None => "no shots".to_owned(),
        Some(1) => "1 shot".to_owned(),
        Some(shots) => format!("{shots} shots"),
    }
}
