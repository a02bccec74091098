//! The report of a synthetic store: figures are those of the artifacts, and what has not run is said.

use std::path::Path;

use pipeline_spec::{Plan, StageSpec, Store};

use crate::synthetic::{fill, plan};

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
    // Two figures on each of two splits for each run.
    assert_eq!(results.lines().count(), 1 + 4 * 86);
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
    let expected = [
        "accuracy-over-shots.svg",
        "accuracy-over-shots.png",
        "domain-shift.svg",
        "domain-shift.png",
        "contact-sheet.png",
        "latents.png",
        "results.csv",
        "summary.csv",
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
