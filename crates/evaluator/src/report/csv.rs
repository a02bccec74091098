//! The figures as CSV: every cell in long form, and their summary over seeds.

use std::fmt::Write as _;

use super::results::Results;

/// One line for each run, split and figure.
pub fn results(results: &Results<'_>, dataset: &str) -> String {
    let mut out = String::from(
        "dataset,backbone,method,weights,selection,shots,seed,split,metric,value,num_images,artifact\n",
    );
    for cell in results.cells {
        let fields = [
            dataset.to_owned(),
            cell.backbone.clone(),
            cell.method.name.clone(),
            cell.method.weights.clone(),
            cell.select.clone(),
            optional(cell.shots),
            cell.seed.to_string(),
            cell.split.clone(),
            cell.metric.clone(),
            cell.value.to_string(),
            cell.n.to_string(),
            cell.artifact.to_string(),
        ];
        line(&mut out, &fields);
    }
    out
}

/// One line for each method, number of shots, split and figure. The interval is Student's t over seeds; its fields are
/// empty for one seed.
pub fn summary(results: &Results<'_>, dataset: &str) -> String {
    let mut out = String::from(
        "dataset,backbone,method,weights,shots,split,metric,mean,ci95_low,ci95_high,num_seeds,num_planned_seeds,note\n",
    );
    for (group, summary) in &results.summaries {
        let bound = |sign: f64| summary.half_width.map(|half| summary.mean + sign * half);
        let fields = [
            dataset.to_owned(),
            group.backbone.clone(),
            group.method.name.clone(),
            group.method.weights.clone(),
            optional(group.shots),
            group.split.clone(),
            group.metric.clone(),
            summary.mean.to_string(),
            optional(bound(-1.0)),
            optional(bound(1.0)),
            summary.num_seeds.to_string(),
            results.num_planned(group).to_string(),
            if summary.half_width.is_none() { "one seed: no interval".to_owned() } else { String::new() },
        ];
        line(&mut out, &fields);
    }
    out
}

fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or(String::new(), |v| v.to_string())
}

/// One record as RFC 4180 has it.
fn line(out: &mut String, fields: &[String]) {
    let quoted = |field: &String| {
        if field.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    };
    let fields: Vec<String> = fields.iter().map(quoted).collect();
    let _ = writeln!(out, "{}", fields.join(","));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_commas_are_quoted() {
        let mut out = String::new();
        line(&mut out, &["a,b".to_owned(), "say \"c\"".to_owned(), "d".to_owned()]);
        assert_eq!(out, "\"a,b\",\"say \"\"c\"\"\",d\n");
    }
}
