//! Rendering: right pixels, equal bytes, and drawings that must be refused.

use std::time::{Duration, Instant};

use dataset_pack::render::render_png;

const HEAD: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
                    width=\"8\" height=\"8\" viewBox=\"0 0 8 8\">";

fn svg(body: &str) -> String {
    format!("{HEAD}{body}</svg>")
}

fn refusal(body: &str) -> String {
    let started = Instant::now();
    let problem = render_png(&svg(body), 64).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
    problem
}

#[test]
fn shapes_are_drawn_on_white_and_bytes_are_equal() {
    let drawing = svg("<rect x=\"4\" width=\"4\" height=\"8\" fill=\"#f00\"/>");
    let png = render_png(&drawing, 16).unwrap();
    assert_eq!(png, render_png(&drawing, 16).unwrap());
    let picture = image::load_from_memory(&png).unwrap();
    assert!(matches!(picture, image::DynamicImage::ImageRgb8(_)));
    let picture = picture.to_rgb8();
    assert_eq!(picture.dimensions(), (16, 16));
    assert_eq!(picture.get_pixel(0, 0).0, [255, 255, 255]);
    assert_eq!(picture.get_pixel(15, 15).0, [255, 0, 0]);
}

#[test]
fn exponential_expansion_is_refused_quickly() {
    let mut body = String::from("<g id=\"a0\"><path d=\"M0 0h1v1z\"/></g>");
    for i in 1..25 {
        let uses = format!("<use href=\"#a{}\"/>", i - 1).repeat(10);
        body += &format!("<g id=\"a{i}\">{uses}</g>");
    }
    let problem = refusal(&body);
    assert!(problem.contains("expands to") || problem.contains("deep"), "{problem}");
    let wide = format!("<g id=\"a\">{}</g>{}", "<path/>".repeat(200), "<use href=\"#a\"/>".repeat(200));
    assert!(refusal(&wide).contains("expands to"));
}

#[test]
fn circles_and_depth_are_refused() {
    assert!(
        refusal("<g id=\"a\"><use href=\"#b\"/></g><g id=\"b\"><use href=\"#a\"/></g>")
            .contains("refers to itself")
    );
    assert!(
        refusal("<clipPath id=\"a\" clip-path=\"url(#a)\"><path/></clipPath>").contains("refers to itself")
    );
    assert!(refusal(&format!("{}<path/>{}", "<g>".repeat(40), "</g>".repeat(40))).contains("deep"));
}

#[test]
fn files_addresses_text_and_scripts_are_refused() {
    for body in [
        "<image href=\"file:///etc/passwd\"/>",
        "<image href=\"data:image/svg+xml;base64,AAAA\"/>",
        "<text>a</text>",
        "<script/>",
        "<style>@import 'a.css'</style>",
        "<foreignObject/>",
        "<feTurbulence numOctaves=\"9999\"/>",
        "<pattern id=\"a\"/>",
    ] {
        assert!(refusal(body).contains("is not allowed"), "{body}");
    }
    assert!(refusal("<use href=\"other.svg#a\"/>").contains("expected an element of the same drawing"));
    assert!(
        refusal("<path fill=\"url(http://example.org/a)\"/>")
            .contains("expected an element of the same drawing")
    );
}

#[test]
fn oversized_malformed_and_empty_drawings_are_refused() {
    assert!(refusal(&" ".repeat(2 << 20)).contains("bytes"));
    assert!(refusal("<path").contains("not an SVG document"));
    assert!(refusal(&"<g/>".repeat(30_000)).contains("not an SVG document"));
    assert!(refusal("").contains("draws nothing"));
    let entity = "<!DOCTYPE svg [<!ENTITY a \"aaaa\">]><svg xmlns=\"http://www.w3.org/2000/svg\">&a;</svg>";
    assert!(render_png(entity, 8).unwrap_err().contains("not an SVG document"));
    assert!(render_png(&svg("<path d=\"M0 0h1v1z\"/>"), 0).is_err());
    assert!(render_png(&svg("<path d=\"M0 0h1v1z\"/>"), 5000).is_err());
}

#[test]
fn extreme_numbers_end_in_time() {
    let bodies = [
        "<path d=\"M0 0L1e9 1e9\" stroke=\"#000\" stroke-width=\"1e8\" stroke-dasharray=\"0.0001\"/>".to_owned(),
        format!("<path d=\"M0 0{}\" stroke=\"#000\"/>", "a1 9 0 1 1 3 3".repeat(20_000)),
        "<filter id=\"f\"><feGaussianBlur stdDeviation=\"1e6\"/></filter><rect width=\"1e6\" height=\"1e6\" filter=\"url(#f)\"/>"
            .to_owned(),
    ];
    for body in bodies {
        let started = Instant::now();
        // Drawn or refused: both are fine, but it must end.
        let _ = render_png(&svg(&body), 64);
        assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
    }
}

#[test]
fn shapes_beyond_all_measure_are_refused() {
    // Found by fuzzing: the rasterizer loses count of its pixels at a scale of 3e14, and panics where nothing can catch it.
    for digits in 4..38 {
        let scale = "3".repeat(digits);
        let rect = format!(
            "<rect width=\"8\" height=\"4\" transform=\"rotate(30) scale(1.5 {scale}.5)\" fill=\"#0a0\"/>"
        );
        assert!(refusal(&rect).contains("pixels from the picture's corner"), "{digits}");
        for container in ["clipPath", "mask"] {
            let clipped = format!(
                "<{container} id=\"a\">{rect}</{container}><rect width=\"8\" height=\"8\" {}=\"url(#a)\"/>",
                if container == "mask" { "mask" } else { "clip-path" }
            );
            assert!(refusal(&clipped).contains("pixels from the picture's corner"), "{container} {digits}");
        }
    }
}
