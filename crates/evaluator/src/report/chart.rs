//! Accuracy over shots as a picture: the form of Figure 2 of the FLIER paper (arXiv 2410.07648).
//!
//! SVG and PNG come from the same drawing code. Text of the PNG is set in DejaVu Sans, which the build brings along, so
//! that a machine without fonts draws the same picture.

use std::f64::consts::{PI, TAU};
use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Error;

/// Name under which text is set. In the SVG it stands for any sans-serif font of the reader.
pub(crate) const FONT: &str = "sans-serif";

/// Width of one panel in pixels, at scale 1.
const PANEL_WIDTH: u32 = 520;
/// Height of one panel in pixels, at scale 1.
const PANEL_HEIGHT: u32 = 400;
/// Panels that stand beside each other.
const MAX_COLUMNS: usize = 2;

/// Colours that people with any kind of colour vision can tell apart (M. Okabe and K. Ito, 2008), brown in place of yellow.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(122, 78, 32),
];

/// Colour of methods that see no shots.
const REFERENCE: RGBColor = RGBColor(70, 70, 70);

/// A figure: panels that share one legend.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The panels, row by row.
    pub panels: Vec<Panel>,
    /// Lines of the legend, in order; series and references refer to them.
    pub legend: Vec<LegendEntry>,
    /// Values of the x axis.
    pub shots: Vec<u32>,
}

/// One line of the legend.
#[derive(Debug, Clone, PartialEq)]
pub struct LegendEntry {
    /// Name of the method.
    pub name: String,
    /// Which colour and marker; entries of one method share it. References have a colour of their own.
    pub color_index: usize,
    /// Whether the line is dashed.
    pub dashed: bool,
    /// Whether it is a horizontal line without markers.
    pub reference: bool,
}

/// One pair of axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Title above it.
    pub title: String,
    /// Methods over shots.
    pub series: Vec<Series>,
    /// Methods that see no shots, as horizontal lines: index into the legend and value in percent.
    pub references: Vec<(usize, f64)>,
}

/// A method over shots.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Index into the legend.
    pub entry: usize,
    /// The points, by shots.
    pub points: Vec<Point>,
}

/// Mean of one method at one number of shots, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Training images per class.
    pub shots: u32,
    /// Mean over seeds.
    pub mean: f64,
    /// Half the 95% interval.
    pub half_width: Option<f64>,
}

/// The figure as SVG text.
///
/// # Errors
///
/// Fails if the figure cannot be drawn.
pub fn svg(figure: &Figure) -> Result<String, Error> {
    register_font()?;
    let layout = Layout::of(figure, 1);
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, layout.size).into_drawing_area();
        draw(figure, &layout, &area).map_err(drawing_error)?;
        area.present().map_err(drawing_error)?;
    }
    Ok(text)
}

/// The figure as a PNG file, at twice the size of the SVG.
///
/// # Errors
///
/// Fails if the figure cannot be drawn.
pub fn png(figure: &Figure) -> Result<Vec<u8>, Error> {
    register_font()?;
    let layout = Layout::of(figure, 2);
    let (width, height) = layout.size;
    let mut pixels = image::RgbImage::new(width, height);
    {
        let area = BitMapBackend::with_buffer(&mut pixels, layout.size).into_drawing_area();
        draw(figure, &layout, &area).map_err(drawing_error)?;
        area.present().map_err(drawing_error)?;
    }
    super::picture::encode_png(&pixels)
}

/// Makes the bundled font known under [`FONT`].
pub(crate) fn register_font() -> Result<(), Error> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let registered = *REGISTERED.get_or_init(|| {
        plotters::style::register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok()
            && plotters::style::register_font(FONT, FontStyle::Bold, dejavu::sans::bold()).is_ok()
    });
    if registered {
        Ok(())
    } else {
        Err(Error::Drawing { reason: "the bundled font is not usable".to_owned() })
    }
}

pub(crate) fn drawing_error(source: impl std::fmt::Display) -> Error {
    Error::Drawing { reason: source.to_string() }
}

/// Sizes in pixels.
struct Layout {
    scale: u32,
    size: (u32, u32),
    columns: usize,
    rows: usize,
    legend_width: u32,
}

impl Layout {
    fn of(figure: &Figure, scale: u32) -> Self {
        let columns = figure.panels.len().clamp(1, MAX_COLUMNS);
        let rows = figure.panels.len().div_ceil(columns).max(1);
        let longest = figure.legend.iter().map(|e| e.name.chars().count()).max().unwrap_or(0);
        // A character of 14 pixels is 8 wide at most on average; 60 for the line and the margins.
        let legend_width = scale * (60 + 8 * u32::try_from(longest).unwrap_or(u32::MAX / 64));
        let columns_width = scale * PANEL_WIDTH * u32::try_from(columns).unwrap_or(1);
        let panels_height = scale * PANEL_HEIGHT * u32::try_from(rows).unwrap_or(1);
        let legend_height = scale * (40 + 20 * u32::try_from(figure.legend.len()).unwrap_or(0));
        Self {
            scale,
            size: (columns_width + legend_width, panels_height.max(legend_height)),
            columns,
            rows,
            legend_width,
        }
    }

    fn px(&self, pixels: i32) -> i32 {
        pixels * self.scale.cast_signed()
    }

    fn font(&self, pixels: i32) -> TextStyle<'static> {
        (FONT, self.px(pixels)).into_font().color(&RGBColor(40, 40, 40))
    }
}

type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn draw<B: DrawingBackend>(figure: &Figure, layout: &Layout, area: &DrawingArea<B, Shift>) -> Drawn<B> {
    area.fill(&WHITE)?;
    let (width, _) = layout.size;
    let (panels, legend) = area.split_horizontally(width - layout.legend_width);
    let height = layout.scale * PANEL_HEIGHT * u32::try_from(layout.rows).unwrap_or(1);
    let (panels, _) = panels.split_vertically(height);
    for (panel, cell) in figure.panels.iter().zip(panels.split_evenly((layout.rows, layout.columns))) {
        draw_panel(figure, panel, layout, &cell)?;
    }
    draw_legend(figure, layout, &legend)
}

fn draw_panel<B: DrawingBackend>(
    figure: &Figure,
    panel: &Panel,
    layout: &Layout,
    area: &DrawingArea<B, Shift>,
) -> Drawn<B> {
    let ticks: Vec<f64> = figure.shots.iter().map(|&s| f64::from(s).log2()).collect();
    let first = ticks.iter().copied().reduce(f64::min).unwrap_or(0.0);
    let last = ticks.iter().copied().reduce(f64::max).unwrap_or(0.0);
    let (low, high) = value_range(panel);
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, layout.font(17))
        .margin(layout.px(10))
        .margin_right(layout.px(18))
        .x_label_area_size(layout.px(42))
        .y_label_area_size(layout.px(54))
        .build_cartesian_2d(ShotsAxis { range: (first - 0.3, last + 0.3), ticks }, low..high)?;
    let shots_label = |x: &f64| format!("{:.0}", x.exp2());
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(RGBColor(110, 110, 110))
        .x_label_formatter(&shots_label)
        .y_labels(8)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(layout.font(14))
        .axis_desc_style(layout.font(14))
        .x_desc("labelled training images per class (shots)")
        .y_desc("accuracy (%)")
        .draw()?;
    for &(entry, value) in &panel.references {
        let color = color_of(figure, entry);
        let line = [(first - 0.3, value), (last + 0.3, value)];
        let style = color.stroke_width(layout.scale + layout.scale / 2);
        chart.draw_series(DashedLineSeries::new(line, layout.px(6), layout.px(4), style))?;
    }
    let count = panel.series.len();
    for (index, series) in panel.series.iter().enumerate() {
        // Methods stand a little beside each other, so that their error bars can be told apart.
        let shift = 0.035 * (index as f64 - (count as f64 - 1.0) / 2.0);
        draw_series(figure, series, shift, (low, high), layout, &mut chart)?;
    }
    Ok(())
}

/// A pair of axes: log2 of the shots, and percent.
type Axes<'a, B> = ChartContext<'a, B, Cartesian2d<ShotsAxis, RangedCoordf64>>;

fn draw_series<B: DrawingBackend>(
    figure: &Figure,
    series: &Series,
    shift: f64,
    (low, high): (f64, f64),
    layout: &Layout,
    chart: &mut Axes<'_, B>,
) -> Drawn<B> {
    let color = color_of(figure, series.entry);
    let at = |point: &Point| f64::from(point.shots).log2() + shift;
    let style = color.stroke_width(layout.scale * 2);
    let line = series.points.iter().map(|p| (at(p), p.mean));
    if figure.legend[series.entry].dashed {
        chart.draw_series(DashedLineSeries::new(line, layout.px(4), layout.px(3), style))?;
    } else {
        chart.draw_series(LineSeries::new(line, style))?;
    }
    let bar = color.stroke_width(layout.scale);
    for point in &series.points {
        let Some(half) = point.half_width else { continue };
        let (bottom, top) = ((point.mean - half).max(low), (point.mean + half).min(high));
        let x = at(point);
        chart.draw_series([
            PathElement::new(vec![(x, bottom), (x, top)], bar),
            PathElement::new(vec![(x - 0.03, bottom), (x + 0.03, bottom)], bar),
            PathElement::new(vec![(x - 0.03, top), (x + 0.03, top)], bar),
        ])?;
    }
    let shape = figure.legend[series.entry].color_index;
    chart.draw_series(series.points.iter().map(|p| {
        let corners = marker(shape, layout.px(4), (0, 0));
        EmptyElement::at((at(p), p.mean)) + Polygon::new(corners, color.filled())
    }))?;
    Ok(())
}

fn draw_legend<B: DrawingBackend>(
    figure: &Figure,
    layout: &Layout,
    area: &DrawingArea<B, Shift>,
) -> Drawn<B> {
    for (index, entry) in figure.legend.iter().enumerate() {
        let y = layout.px(34 + 20 * i32::try_from(index).unwrap_or(0));
        let (left, right) = (layout.px(4), layout.px(34));
        let color = color_of(figure, index);
        let width = if entry.reference { layout.scale + layout.scale / 2 } else { layout.scale * 2 };
        if entry.reference || entry.dashed {
            let mut x = left;
            while x < right {
                let end = (x + layout.px(5)).min(right);
                area.draw(&PathElement::new(vec![(x, y), (end, y)], color.stroke_width(width)))?;
                x = end + layout.px(4);
            }
        } else {
            area.draw(&PathElement::new(vec![(left, y), (right, y)], color.stroke_width(width)))?;
        }
        if !entry.reference {
            let center = (i32::midpoint(left, right), y);
            area.draw(&Polygon::new(marker(entry.color_index, layout.px(4), center), color.filled()))?;
        }
        let style = layout.font(14).pos(Pos::new(HPos::Left, VPos::Center));
        let text = Text::new(entry.name.clone(), (layout.px(40), y), style);
        area.draw(&text)?;
    }
    Ok(())
}

/// The x axis: log2 of the number of shots, with a tick at each number that was run.
struct ShotsAxis {
    range: (f64, f64),
    ticks: Vec<f64>,
}

impl Ranged for ShotsAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.0) / (self.range.1 - self.range.0);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.0..self.range.1
    }
}

/// Range of the y axis: every mean and interval, in whole percent, within 0 to 100.
fn value_range(panel: &Panel) -> (f64, f64) {
    let points = panel.series.iter().flat_map(|s| &s.points);
    let ends = points.flat_map(|p| {
        let half = p.half_width.unwrap_or(0.0);
        [p.mean - half, p.mean + half]
    });
    let ends: Vec<f64> = ends.chain(panel.references.iter().map(|r| r.1)).collect();
    let low = ends.iter().copied().reduce(f64::min).unwrap_or(0.0);
    let high = ends.iter().copied().reduce(f64::max).unwrap_or(100.0);
    let low = ((low - 2.0) / 5.0).floor() * 5.0;
    let high = ((high + 2.0) / 5.0).ceil() * 5.0;
    (low.max(0.0), high.min(100.0).max(low.max(0.0) + 5.0))
}

fn color_of(figure: &Figure, entry: usize) -> RGBColor {
    let entry = &figure.legend[entry];
    if entry.reference { REFERENCE } else { COLORS[entry.color_index % COLORS.len()] }
}

/// Corners of a filled marker around `center`: circle, square, triangle or diamond.
fn marker(shape: usize, radius: i32, center: (i32, i32)) -> Vec<(i32, i32)> {
    let r = f64::from(radius);
    let (count, first, r): (u32, f64, f64) = match shape % 4 {
        0 => (20, 0.0, r),
        1 => (4, PI / 4.0, r * 1.3),
        2 => (3, -PI / 2.0, r * 1.45),
        _ => (4, 0.0, r * 1.4),
    };
    let corner = |k: u32| {
        let angle = first + TAU * f64::from(k) / f64::from(count);
        (center.0 + (r * angle.cos()).round() as i32, center.1 + (r * angle.sin()).round() as i32)
    };
    (0..count).map(corner).collect()
}
