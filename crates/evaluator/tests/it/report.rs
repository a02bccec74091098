//! The report of a synthetic store: figures are those of the artifacts, and what has not run is said.

use std::path::Path;
use std::time::Instant;

use artifacts::{ArtifactReader, ArtifactWriter, FileContext, MetricRow, PredictionRow, SchemaInfo, Shard};
use evaluator::report::cells::TEST_BEST;
use pipeline_spec::pipeline::ClassSplit;
use pipeline_spec::spec::OtherClasses;
use pipeline_spec::{Plan, StageSpec, Store, Unit};

use crate::synthetic::{OTHERS, fill, plan, plan_with, transfer};

/// The cell of a Markdown table in line `row` and column `column`, of the table under `title`.
fn field(markdown: &str, title: &str, row: &str, column: &str) -> String {
    let table =
        markdown.split(&format!("### {title}\n\n")).nth(1).unwrap_or_else(|| panic!("no table `{title}`"));
    let mut lines = table.lines().take_while(|line| line.starts_with('|'));
    let fields =
        |line: &str| line.trim_matches('|').split('|').map(|f| f.trim().to_owned()).collect::<Vec<_>>();
    let head = fields(lines.next().unwrap());
    let column =
        head.iter().position(|h| h == column).unwrap_or_else(|| panic!("no column `{column}` in {head:?}"));
    let line = lines.map(fields).find(|line| line[0] == row).unwrap_or_else(|| panic!("no line `{row}`"));
    line[column].clone()
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// Whether the artifact belongs to the run of `flier-coupled` at 2 shots with seed 3, or to all but one seed at 16.
fn is_left_out(output: &str) -> bool {
    output.contains("flier-coupled-clip-a-shots2-seed3") || output.contains("linear-probe-clip-a-shots16")
}

fn partly_filled(folder: &Path) -> (Plan, Store) {
    let (plan, store) = (plan(folder), Store::new(folder.join("store")));
    fill(&plan, &store, |unit| !is_left_out(&unit.output().to_string()));
    (plan, store)
}

#[test]
fn figures_of_the_tables_are_those_of_the_artifacts() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = partly_filled(folder.path());
    let out = folder.path().join("report");
    let written = evaluator::report::write(&plan, &store, &out).unwrap();
    // 5 shots x 3 seeds x (2 frozen methods + 2 fine-tuned ones with and without moving average) + zero-shot.
    assert_eq!((written.num_measured, written.num_missing), (91 - 5, 5));
    let markdown = read(&out, "report.md");
    let (test, shift) = ("Accuracy on `test`, clip-a", "Accuracy on `shift`, clip-a");
    // Seeds 1, 2, 3 give 5, 6 and 4 of 10 at 1 shot: mean 0.5, s 0.1; t(0.975, 2) = 4.302653, so half the interval is
    // 4.302653 * 0.1 / sqrt(3) = 0.248414.
    assert_eq!(field(&markdown, test, "tip-adapter-f", "1 shot"), "**50.0 ± 24.8 (3)**");
    assert_eq!(field(&markdown, test, "tip-adapter-f", "no shots"), "–");
    assert_eq!(field(&markdown, test, "zero-shot", "no shots"), "40.0 (1)");
    assert_eq!(field(&markdown, test, "zero-shot", "1 shot"), "–");
    // Seed 3 of 3 at 2 shots has not run: 5 and 6 of 10; t(0.975, 1) = 12.706205 times 0.0707107 / sqrt(2) is 0.635310.
    assert_eq!(field(&markdown, test, "flier-coupled", "2 shots"), "55.0 ± 63.5 (2 of 3)");
    assert_eq!(field(&markdown, test, "linear-probe", "16 shots"), "not run");
    // 3 + 4 + 1 + (1, 2, 0) of 10.
    assert_eq!(field(&markdown, test, "flier-coupled (EMA)", "16 shots"), "**90.0 ± 24.8 (3)**");
    assert_eq!(field(&markdown, test, "flier-coupled (EMA)", "weights"), "ema");
    assert_eq!(field(&markdown, test, "flier-coupled", "selection"), "last");
    assert_eq!(field(&markdown, test, "tip-adapter-f", "selection"), "val-grid");
    // A third of 4, 5 and 6 right images, rounded down, of 4: 1, 2 and 1... at 1 shot 5/3 = 1, 6/3 = 2, 4/3 = 1.
    assert_eq!(field(&markdown, shift, "tip-adapter-f", "1 shot"), "**33.3 ± 35.9 (3)**");
    let domain = "Domain shift at 16 shots, clip-a";
    // 8, 9 and 7 of 10; 2, 3 and 2 of 4.
    assert_eq!(field(&markdown, domain, "flier-coupled", "`test`"), "80.0 ± 24.8 (3)");
    assert_eq!(field(&markdown, domain, "flier-coupled", "`shift` − `test`"), "-21.7");
    assert!(markdown.contains("30 images of `test` and 12 images of `shift`"), "{markdown}");
}

#[test]
fn csv_files_hold_every_figure_and_its_interval() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = partly_filled(folder.path());
    let out = folder.path().join("report");
    evaluator::report::write(&plan, &store, &out).unwrap();
    let results = read(&out, "results.csv");
    // Four figures (three classes have no top-5) on each of two splits for each run.
    assert_eq!(results.lines().count(), 1 + 8 * 86);
    assert!(results.contains("toys,clip-a,tip-adapter-f,raw,val-grid,1,2,test,top1,0.6,30,metrics-v1/toys/"));
    let summary = read(&out, "summary.csv");
    let line = summary.lines().find(|l| l.starts_with("toys,clip-a,tip-adapter-f,raw,1,test,top1,")).unwrap();
    let fields: Vec<f64> = line.split(',').skip(7).take(5).map(|f| f.parse().unwrap()).collect();
    for (found, expected) in fields.iter().zip([0.5, 0.251_586, 0.748_414, 3.0, 3.0]) {
        // Expected values have six decimals.
        assert!((found - expected).abs() < 1e-6, "{line}");
    }
    assert!(
        summary.contains("toys,clip-a,zero-shot,raw,,test,top1,0.4,,,1,1,one seed: no interval"),
        "{summary}"
    );
}

#[test]
fn every_table_says_the_same_in_markdown_html_latex_and_csv() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = partly_filled(folder.path());
    let out = folder.path().join("report");
    evaluator::report::write(&plan, &store, &out).unwrap();
    let (markdown, html) = (read(&out, "report.md"), read(&out, "report.html"));
    let csv = read(&out, "tables/accuracy-on-test-clip-a.csv");
    let tex = read(&out, "tables/accuracy-on-test-clip-a.tex");
    assert!(
        csv.starts_with("method,weights,selection,no shots,1 shot,2 shots,4 shots,8 shots,16 shots\n"),
        "{csv}"
    );
    assert!(markdown.contains("| tip-adapter-f | raw | val-grid | – | **50.0 ± 24.8 (3)** |"));
    assert!(csv.contains("tip-adapter-f,raw,val-grid,–,50.0 ± 24.8 (3),"));
    assert!(tex.contains("tip-adapter-f & raw & val-grid & -- & \\textbf{50.0 $\\pm$ 24.8 (3)} &"), "{tex}");
    assert!(html.contains(">50.0 ± 24.8 (3)</a></td>"), "a figure links to its run cards");
    let tables = std::fs::read_dir(out.join("tables")).unwrap().count();
    assert_eq!(tables, 2 * markdown.matches("\n### ").count() - 2, "all but the table of steps");
}

#[test]
fn paired_tests_are_those_of_the_predictions() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = partly_filled(folder.path());
    let out = folder.path().join("report");
    evaluator::report::write(&plan, &store, &out).unwrap();
    let markdown = read(&out, "report.md");
    // Zero-shot is right on images 0 to 3 of each class, tip-adapter-f at 16 shots with seed s on images 0 to 8, 9 or 7:
    // 15, 18 and 12 images that only it gets right; 30 images in all.
    let mcnemar = "McNemar's test against zero-shot on `test`, clip-a";
    let found = field(&markdown, mcnemar, "tip-adapter-f", "16 shots");
    let counts: Vec<&str> =
        found.trim_matches('*').split("; ").map(|t| t.split(' ').next().unwrap()).collect();
    assert_eq!(counts, ["15:0", "18:0", "12:0"], "{found}");
    let difference = "Difference to zero-shot on `test`, clip-a";
    let found = field(&markdown, difference, "tip-adapter-f", "16 shots");
    assert!(found.starts_with("**+50.0 ("), "the mean of 15, 18 and 12 of 30, significant: {found}");
    // Of 3 seeds at 2 shots one has not run: 5 and 6 of 10 against 4.
    assert!(field(&markdown, difference, "flier-coupled", "2 shots").starts_with("+15.0 ("));
    assert_eq!(field(&markdown, difference, "linear-probe", "16 shots"), "–");
    let csv = read(&out, "comparisons.csv");
    let line = csv.lines().find(|l| l.contains(",test,tip-adapter-f,raw,zero-shot,16,1,mcnemar,")).unwrap();
    let fields: Vec<&str> = line.split(',').collect();
    assert_eq!(fields[9..13], ["30", "15", "0", "0.5"], "{line}");
    let p: f64 = fields[15].parse().unwrap();
    // 2 / 2^15.
    assert!((p - 2.0_f64.powi(-14)).abs() < 1e-15, "{line}");
    let num_tests = csv.lines().filter(|l| l.contains(",test,") && l.contains(",mcnemar,")).count();
    let p_holm: f64 = fields[16].parse().unwrap();
    assert!(p_holm >= p && p_holm <= p * num_tests as f64, "{line}");
    assert!(
        markdown.contains(&format!("the family is the {num_tests} tests of this table")),
        "the family is stated"
    );
}

#[test]
fn a_pipeline_may_name_its_reference() {
    let folder = tempfile::tempdir().unwrap();
    let (mut plan, store) = partly_filled(folder.path());
    plan.pipeline.reference = Some("real-only".to_owned());
    let out = folder.path().join("report");
    evaluator::report::write(&plan, &store, &out).unwrap();
    let markdown = read(&out, "report.md");
    let title = "Difference to real-only on `test`, clip-a";
    // Each seed of flier-coupled gets one image of each class more than real-only.
    assert!(field(&markdown, title, "flier-coupled", "1 shot").contains("+10.0 (+"));
    // Zero-shot stands beside every run of the reference: 4 of 10 against 3, 4 and 2.
    assert!(field(&markdown, title, "zero-shot", "1 shot").starts_with("+10.0 ("));
}

#[test]
fn every_figure_has_a_card_with_its_inputs_and_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = partly_filled(folder.path());
    let out = folder.path().join("report");
    let written = evaluator::report::write(&plan, &store, &out).unwrap();
    let cards: serde_json::Value = serde_json::from_str(&read(&out, "run-cards.json")).unwrap();
    let cards = cards.as_array().unwrap();
    assert_eq!(cards.len(), written.num_measured);
    let fits = |card: &&serde_json::Value| card["label"] == "flier-coupled (EMA), clip-a, 4 shots, seed 2";
    let card = cards.iter().find(fits).unwrap();
    assert_eq!(card["shot_list_digest"], "list-of-4-2");
    assert_eq!(card["selection"]["rule"], "last");
    assert_eq!(card["checkpoint_digest"].as_str().unwrap().len(), 64);
    assert_eq!(card["figures"].as_array().unwrap().len(), 8);
    let artifacts: Vec<&str> =
        card["artifacts"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    for kind in
        ["metrics-v1", "predictions-v1", "checkpoints-v1", "fewshot-splits-v1", "latents-v1", "images-v1"]
    {
        assert!(artifacts.iter().any(|a| a.starts_with(kind)), "{kind} is not in {artifacts:?}");
    }
    let command = card["command"].as_str().unwrap();
    let units = command.rsplit_once("--units ").unwrap().1;
    let num_units: usize = units
        .split(',')
        .map(|run| {
            run.split_once("..").map_or(1, |(a, b)| b.parse::<usize>().unwrap() - a.parse::<usize>().unwrap())
        })
        .sum();
    assert_eq!(num_units, artifacts.len(), "the command computes each of them: {command}");
    let html = read(&out, "report.html");
    let anchor = card["anchor"].as_str().unwrap();
    assert!(html.contains(&format!("href=\"#{anchor}\"")) && html.contains(&format!("id=\"{anchor}\"")));
}

#[test]
fn a_figure_chosen_on_test_images_is_flagged_never_best_and_kept_out_of_means() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    let is_flagged = |unit: &Unit| {
        matches!(unit.spec, StageSpec::Metrics(_))
            && unit.spec.slug().starts_with("tip-adapter-f-clip-a-shots1-")
    };
    fill(&plan, &store, |unit| !is_flagged(unit));
    for planned in plan.units.iter().filter(|p| is_flagged(&p.unit)) {
        evaluator::metrics::run(&planned.unit, &store, Shard::default()).unwrap();
        let rows: Vec<MetricRow> = ArtifactReader::open(&store, &planned.output).unwrap().rows().unwrap();
        let rows: Vec<_> =
            rows.into_iter().map(|r| MetricRow { select: TEST_BEST.to_owned(), ..r }).collect();
        std::fs::remove_dir_all(store.artifact_dir(&planned.output)).unwrap();
        let writer = ArtifactWriter::open(&store, &planned.unit, 1, FileContext::new("0.0.0")).unwrap();
        writer.write_part(0, &rows, &SchemaInfo::default()).unwrap();
        writer.finish("none", Instant::now()).unwrap();
    }
    let out = folder.path().join("report");
    evaluator::report::write(&plan, &store, &out).unwrap();
    let markdown = read(&out, "report.md");
    let test = "Accuracy on `test`, clip-a";
    assert_eq!(
        field(&markdown, test, "tip-adapter-f", "1 shot"),
        "50.0 ± 24.8 (3) †",
        "best mean, but not bold"
    );
    assert!(field(&markdown, test, "tip-adapter-f", "2 shots").starts_with("**"));
    assert!(markdown.contains("† Chosen on the test images"));
    assert!(read(&out, "results.csv").contains(",tip-adapter-f,raw,test-best,1,"));
    let benchmark = folder.path().join("benchmark");
    evaluator::report::benchmark::write(std::slice::from_ref(&plan), &store, &benchmark).unwrap();
    assert_eq!(
        field(&read(&benchmark, "benchmark.md"), "Mean over 1 data sets, clip-a", "tip-adapter-f", "1 shot"),
        "–"
    );
}

#[test]
fn another_data_set_stands_beside_the_test_split() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_with(folder.path(), |pipeline| pipeline.transfers.push(transfer(OtherClasses::Subset)));
    let store = Store::new(folder.path().join("store"));
    fill(&plan, &store, |_| true);
    let out = folder.path().join("report");
    let written = evaluator::report::write(&plan, &store, &out).unwrap();
    assert_eq!((written.num_measured, written.num_missing), (2 * 91, 0));
    let markdown = read(&out, "report.md");
    let domain = "Domain shift at 16 shots, clip-a";
    // 8, 9 and 7 of 10 on the run's own classes; one less of each class on the other data set.
    assert_eq!(field(&markdown, domain, "flier-coupled", "`test`"), "80.0 ± 24.8 (3)");
    assert_eq!(field(&markdown, domain, "flier-coupled", "`others/test`"), "70.0 ± 24.8 (3)");
    assert_eq!(field(&markdown, domain, "flier-coupled", "`others/test` − `test`"), "-10.0");
    assert!(markdown.contains("20 images of `others/test`"), "{markdown}");
    assert_eq!(read(&out, "results.csv").lines().count(), 1 + 91 * 3 * 4, "three places, four figures");
}

#[test]
fn base_and_new_classes_have_a_harmonic_mean_for_each_seed() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_with(folder.path(), |pipeline| {
        pipeline.methods.truncate(1);
        pipeline.class_split = Some(ClassSplit::BaseToNew);
        pipeline.evaluation_splits.truncate(1);
    });
    let store = Store::new(folder.path().join("store"));
    for planned in &plan.units {
        // Zero-shot: 3 of 4 base images right, 1 of 2 new ones.
        let rows = |label: u32, right: u32, of: u32| {
            (0..of).map(move |image| PredictionRow {
                sample_id: format!("{label}-{image}"),
                split: "test".to_owned(),
                label,
                logits: if image < right { vec![1.0, 0.0] } else { vec![0.0, 1.0] },
            })
        };
        match &planned.unit.spec {
            StageSpec::Predictions(spec) => {
                let (right, of) = if spec.classes.is_some() { (1, 2) } else { (3, 4) };
                let class_names = vec!["a".to_owned(), "b".to_owned()];
                let info = SchemaInfo { class_names, tensor_shape: vec![2], ..SchemaInfo::default() };
                let writer =
                    ArtifactWriter::open(&store, &planned.unit, 1, FileContext::new("0.0.0")).unwrap();
                writer.write_part(0, &rows(0, right, of).collect::<Vec<_>>(), &info).unwrap();
                writer.finish("cpu", Instant::now()).unwrap();
            }
            _ => fill(&plan, &store, |unit| *unit == planned.unit),
        }
    }
    let out = folder.path().join("report");
    evaluator::report::write(&plan, &store, &out).unwrap();
    let markdown = read(&out, "report.md");
    let title = "Base and new classes, clip-a";
    assert_eq!(field(&markdown, title, "zero-shot", "base"), "75.0 (1)");
    assert_eq!(field(&markdown, title, "zero-shot", "new"), "50.0 (1)");
    // 2 * 0.75 * 0.5 / 1.25.
    assert_eq!(field(&markdown, title, "zero-shot", "H"), "60.0 (1)");
}

#[test]
fn several_data_sets_are_averaged_over_seeds_that_all_have() {
    let folder = tempfile::tempdir().unwrap();
    let toys = plan(folder.path());
    let others =
        plan_with(folder.path(), |pipeline| pipeline.dataset = OTHERS.to_owned().try_into().unwrap());
    let store = Store::new(folder.path().join("store"));
    fill(&toys, &store, |_| true);
    fill(&others, &store, |unit| !unit.spec.slug().starts_with("tip-adapter-f-clip-a-shots2-seed3"));
    let out = folder.path().join("benchmark");
    let plans = [toys, others];
    let files = evaluator::report::benchmark::write(&plans, &store, &out).unwrap();
    assert!(files.iter().all(|file| file.metadata().unwrap().len() > 0));
    let markdown = read(&out, "benchmark.md");
    let mean = "Mean over 2 data sets, clip-a";
    // Seeds give 5, 6 and 4 of 10 on one data set and 4, 5 and 3 on the other.
    assert_eq!(field(&markdown, mean, "tip-adapter-f", "1 shot"), "**45.0 ± 24.8 (3)**");
    // At 2 shots the third seed is missing on one: 6 and 7 of 10 with 5 and 6; t(0.975, 1) * 0.0707107 / sqrt(2) is 0.6353.
    assert_eq!(field(&markdown, mean, "tip-adapter-f", "2 shots"), "**60.0 ± 63.5 (2)**");
    let each = "Every data set at 1 shot, clip-a";
    assert_eq!(field(&markdown, each, "tip-adapter-f", "`toys`"), "**50.0 ± 24.8 (3)**");
    assert_eq!(field(&markdown, each, "tip-adapter-f", "`others`"), "**40.0 ± 24.8 (3)**");
    assert_eq!(field(&markdown, each, "zero-shot", "mean"), "35.0 (1)");
    let svg = read(&out, "datasets-over-shots.svg");
    for panel in ["mean over 2 data sets (clip-a)", "toys (clip-a)", "others (clip-a)"] {
        assert!(svg.contains(panel), "no panel `{panel}`");
    }
    assert!(!read(&out, "average-over-shots.svg").contains("toys (clip-a)"));
    assert!(read(&out, "benchmark.html").contains("<svg"));
    let again = [plans[0].clone(), plans[0].clone()];
    let message = evaluator::report::benchmark::write(&again, &store, &out).unwrap_err().to_string();
    assert!(message.contains("two plans are of data set `toys`"), "{message}");
}

#[test]
fn what_has_not_run_is_named_with_its_artifact() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = partly_filled(folder.path());
    let out = folder.path().join("report");
    evaluator::report::write(&plan, &store, &out).unwrap();
    let (markdown, html) = (read(&out, "report.md"), read(&out, "report.html"));
    for planned in plan.units.iter().filter(|p| matches!(p.unit.spec, StageSpec::Metrics(_))) {
        let output = planned.output.to_string();
        let line = format!("(`{output}`)");
        assert_eq!(markdown.contains(&line), is_left_out(&output), "{output}");
    }
    assert!(
        markdown.contains("- flier-coupled (EMA), clip-a, 2 shots, seed 3 (`metrics-v1/toys/"),
        "{markdown}"
    );
    assert!(html.contains("5 runs of the plan have no figures"));
}

#[test]
fn the_page_stands_alone_and_shows_what_every_step_was() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = partly_filled(folder.path());
    let out = folder.path().join("report");
    let written = evaluator::report::write(&plan, &store, &out).unwrap();
    let html = read(&out, "report.html");
    assert!(
        html.contains("Figures that a test made up: &lt;not&gt; measured &amp; not real."),
        "text is escaped"
    );
    let loads = ["<script", "<link", "src=\"http", "href=\"http", "url(http", "@import"];
    assert!(loads.iter().all(|text| !html.contains(text)), "the page must load nothing");
    assert_eq!(html.matches("<svg").count(), 2);
    assert_eq!(html.matches("src=\"data:image/png;base64,").count(), 2);
    for planned in &plan.units {
        assert!(html.contains(planned.output.key.as_str()), "{}", planned.output);
    }
    assert!(html.contains("guidance_scale = 3.0") && html.contains("[inputs]"), "settings are shown");
    for path in &written.files {
        assert!(path.metadata().unwrap().len() > 0, "{}", path.display());
    }
    let names: Vec<_> = written.files.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
    let (tables, names): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| name.ends_with(".tex") || name.contains("-clip-a"));
    assert!(
        tables.contains(&"accuracy-on-test-clip-a.csv") && tables.contains(&"accuracy-on-test-clip-a.tex")
    );
    let expected = [
        "accuracy-over-shots.svg",
        "accuracy-over-shots.png",
        "domain-shift.svg",
        "domain-shift.png",
        "contact-sheet.png",
        "latents.png",
        "results.csv",
        "summary.csv",
        "comparisons.csv",
        "run-cards.json",
        "report.md",
        "report.html",
    ];
    assert_eq!(names, expected);
}

#[test]
fn charts_have_a_tick_for_each_number_of_shots_and_text_in_the_png() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = partly_filled(folder.path());
    let out = folder.path().join("report");
    evaluator::report::write(&plan, &store, &out).unwrap();
    let svg = read(&out, "accuracy-over-shots.svg");
    let texts: Vec<&str> =
        svg.split("<text").skip(1).filter_map(|t| t.split_once(">\n")?.1.lines().next()).collect();
    for text in ["1", "2", "4", "8", "16", "flier-coupled (EMA)", "accuracy (%)"] {
        assert!(texts.contains(&text), "`{text}` is not among {texts:?}");
    }
    let png = image::open(out.join("accuracy-over-shots.png")).unwrap().to_rgb8();
    // The strip right of the markers of the legend holds nothing but text.
    let (width, _) = png.dimensions();
    let legend = image::imageops::crop_imm(&png, width - 2 * 150, 40, 2 * 100, 200).to_image();
    assert!(
        legend.pixels().filter(|p| p.0.iter().all(|&v| v < 120)).count() > 100,
        "the legend's text is dark on white"
    );
}

#[test]
fn an_empty_store_gives_a_report_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    let out = folder.path().join("report");
    let written = evaluator::report::write(&plan, &store, &out).unwrap();
    assert_eq!((written.num_measured, written.num_missing), (0, 91));
    let markdown = read(&out, "report.md");
    assert!(markdown.contains("runs with figures: 0 of 91"), "{markdown}");
    assert!(markdown.contains("A picture is missing or incomplete because `latents-v1/toys/"), "{markdown}");
}
