//! Vector drawings as PNG: rendered by resvg on white, with limits on what a drawing may contain.
//!
//! A drawing comes from a package that others write. Only plain shapes, gradients, clips, masks and the
//! simplest filters are accepted, so that nothing is loaded from files or addresses and no text depends on
//! the machine's fonts; what `use` and references expand to is counted before anything is expanded.

use std::collections::HashMap;
use std::io::Cursor;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use resvg::tiny_skia::{Color, Pixmap, Rect, Transform};
use resvg::usvg;
use resvg::usvg::roxmltree::{Document, Node, NodeId, ParsingOptions};

/// Longest SVG document, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Most XML nodes of a document.
const MAX_NODES: u32 = 20_000;
/// Most elements that a document expands to, with every reference followed.
const MAX_EXPANDED: u64 = 20_000;
/// Deepest nesting, with every reference followed.
const MAX_DEPTH: u32 = 32;
/// Largest side of the picture, in pixels.
const MAX_SIDE: u32 = 4096;

/// Furthest that a shape may reach, in sides of the picture.
const MAX_EXTENT: f32 = 100.0;

/// Elements that a drawing may hold.
const ELEMENTS: [&str; 22] = [
    "svg",
    "g",
    "defs",
    "use",
    "path",
    "rect",
    "circle",
    "ellipse",
    "line",
    "polyline",
    "polygon",
    "title",
    "linearGradient",
    "radialGradient",
    "stop",
    "clipPath",
    "mask",
    "filter",
    "feFlood",
    "feOffset",
    "feBlend",
    "feColorMatrix",
];
/// Filters that cost time by their values; few are used at a time.
const BLUR: &str = "feGaussianBlur";

/// Renders a square SVG document on white as an 8-bit RGB PNG of `side` x `side` pixels.
///
/// Equal input gives equal bytes: the encoder's settings are fixed and the PNG has no time stamp.
///
/// # Errors
///
/// Says what is wrong with the drawing: too large, not XML, an element that is not allowed, a missing or
/// circular reference, or nothing to draw.
pub fn render_png(svg: &str, side: u32) -> Result<Vec<u8>, String> {
    if side == 0 || side > MAX_SIDE {
        return Err(format!("expected a side of 1 to {MAX_SIDE} pixels, found {side}"));
    }
    let rgb = rasterize(svg, side)?;
    let mut png = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Adaptive)
        .write_image(&rgb, side, side, ExtendedColorType::Rgb8)
        .map_err(|e| format!("cannot be encoded as PNG: {e}"))?;
    Ok(png.into_inner())
}

/// Pixels of the drawing on white, `side` rows of `side` RGB triples.
fn rasterize(svg: &str, side: u32) -> Result<Vec<u8>, String> {
    if svg.len() > MAX_BYTES {
        return Err(format!("it has {} bytes, expected at most {MAX_BYTES}", svg.len()));
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document =
        Document::parse_with_options(svg, options).map_err(|e| format!("not an SVG document: {e}"))?;
    check(&document)?;
    let tree = usvg::Tree::from_xmltree(&document, &options_without_files())
        .map_err(|e| format!("not an SVG document: {e}"))?;
    if !tree.root().has_children() {
        return Err("it draws nothing".to_owned());
    }
    let size = tree.size();
    let mut pixmap = Pixmap::new(side, side).ok_or("no memory for its pixels")?;
    pixmap.fill(Color::WHITE);
    let scale = Transform::from_scale(side as f32 / size.width(), side as f32 / size.height());
    check_extent(tree.root(), scale, MAX_EXTENT * side as f32)?;
    resvg::render(&tree, scale, &mut pixmap.as_mut());
    Ok(pixmap.data().chunks_exact(4).flat_map(|rgba| [rgba[0], rgba[1], rgba[2]]).collect())
}

/// Refuses shapes, drawn or clipped with, that reach further than `most` pixels from the corner of the picture: the rasterizer
/// loses count of its pixels on numbers beyond all measure, and panics.
fn check_extent(group: &usvg::Group, transform: Transform, most: f32) -> Result<(), String> {
    let transform = transform.pre_concat(group.transform());
    let mut clip = group.clip_path();
    while let Some(path) = clip {
        check_extent(path.root(), transform.pre_concat(path.transform()), most)?;
        clip = path.clip_path();
    }
    let mut mask = group.mask();
    while let Some(shape) = mask {
        check_extent(shape.root(), transform, most)?;
        mask = shape.mask();
    }
    for node in group.children() {
        if let usvg::Node::Group(group) = node {
            check_extent(group, transform, most)?;
            continue;
        }
        let extent = node.stroke_bounding_box().transform(transform);
        let reach = |r: Rect| [r.left(), r.top(), r.right(), r.bottom()].iter().any(|v| v.abs() > most);
        if extent.is_none_or(reach) {
            return Err(format!("a shape reaches more than {most} pixels from the picture's corner"));
        }
    }
    Ok(())
}

fn options_without_files() -> usvg::Options<'static> {
    usvg::Options {
        image_href_resolver: usvg::ImageHrefResolver {
            resolve_data: Box::new(|_, _, _| None),
            resolve_string: Box::new(|_, _| None),
        },
        ..usvg::Options::default()
    }
}

/// Checks elements, references, and what they expand to.
fn check(document: &Document<'_>) -> Result<(), String> {
    let mut ids = HashMap::new();
    let mut blurs = 0;
    for node in document.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        blurs += u32::from(name == BLUR);
        if !ELEMENTS.contains(&name) && name != BLUR || blurs > 8 {
            return Err(format!("element `{name}` is not allowed in a drawing, or not that often"));
        }
        if let Some(id) = node.attribute("id") {
            ids.insert(id, node.id());
        }
    }
    let mut counter = Counter { document, ids, sizes: HashMap::new() };
    let (elements, _) = counter.size(document.root_element(), MAX_DEPTH)?;
    if elements > MAX_EXPANDED {
        return Err(format!("it expands to {elements} elements, expected at most {MAX_EXPANDED}"));
    }
    Ok(())
}

/// Counts what every element expands to, each element once.
struct Counter<'a, 'input> {
    document: &'a Document<'input>,
    ids: HashMap<&'a str, NodeId>,
    sizes: HashMap<NodeId, (u64, u32)>,
}

impl Counter<'_, '_> {
    /// Elements that `node` expands to, and its depth; `left` is the depth that is still allowed.
    fn size(&mut self, node: Node<'_, '_>, left: u32) -> Result<(u64, u32), String> {
        let too_deep = || format!("it is nested more than {MAX_DEPTH} deep, or refers to itself");
        if let Some(&(elements, depth)) = self.sizes.get(&node.id()) {
            return if depth <= left { Ok((elements, depth)) } else { Err(too_deep()) };
        }
        let next = left.checked_sub(1).ok_or_else(too_deep)?;
        let mut targets: Vec<NodeId> = node.children().filter(Node::is_element).map(|c| c.id()).collect();
        for attribute in node.attributes() {
            for id in references(attribute.name(), attribute.value())? {
                // A reference to nothing draws nothing; resvg ignores it and so do we.
                targets.extend(self.ids.get(id));
            }
        }
        let (mut elements, mut depth) = (1_u64, 0);
        for target in targets {
            let target = self.document.get_node(target).ok_or("a reference is broken")?;
            let (more, deep) = self.size(target, next)?;
            elements = elements.saturating_add(more);
            depth = depth.max(deep);
        }
        self.sizes.insert(node.id(), (elements, depth + 1));
        Ok((elements, depth + 1))
    }
}

/// Ids that an attribute refers to: `href="#id"`, and `url(#id)` in any other.
fn references<'v>(name: &str, value: &'v str) -> Result<Vec<&'v str>, String> {
    if name == "href" {
        return match value.trim().strip_prefix('#') {
            Some(id) => Ok(vec![id]),
            None => {
                Err(format!("it refers to `{value}`; expected an element of the same drawing, such as `#a`"))
            }
        };
    }
    let mut ids = Vec::new();
    for part in value.split("url(").skip(1) {
        let target = part.split(')').next().unwrap_or_default().trim().trim_matches(['\'', '"']);
        match target.strip_prefix('#') {
            Some(id) => ids.push(id),
            None => return Err(format!("it refers to `{target}`; expected an element of the same drawing")),
        }
    }
    Ok(ids)
}
