//! The right operand of a product, packed: panels of two vectors of columns, each panel row by row.

use rayon::prelude::*;

use super::simd::lanes;

/// Columns of a panel.
pub(super) fn panel_width() -> usize {
    2 * lanes()
}

/// A packed matrix `[depth, columns]`; columns beyond the last are zeros.
pub(super) struct Panels {
    data: Vec<f32>,
    /// Rows.
    pub(super) depth: usize,
    /// Columns.
    pub(super) columns: usize,
}

/// Where the entry of one tap, one channel and one column lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// The numbers.
    pub data: &'a [f32],
    /// First entry.
    pub offset: usize,
    /// Row r of the matrix is channel `r % channels` of tap `r / channels`.
    pub taps: usize,
    /// Channels of a tap.
    pub channels: usize,
    /// From one tap to the next.
    pub tap_stride: isize,
    /// From one channel to the next.
    pub channel_stride: usize,
    /// From one column to the next.
    pub column_stride: usize,
}

impl<'a> Source<'a> {
    /// The matrix `[depth, ..]` whose rows are `stride` apart.
    pub(super) fn matrix(data: &'a [f32], depth: usize, stride: usize) -> Self {
        let channels = depth;
        Source { data, offset: 0, taps: 1, channels, tap_stride: 0, channel_stride: stride, column_stride: 1 }
    }

    /// The transpose of a matrix `[.., depth]` whose rows are `stride` apart.
    pub(super) fn transposed(data: &'a [f32], depth: usize, stride: usize) -> Self {
        Source { channel_stride: 1, column_stride: stride, ..Source::matrix(data, depth, stride) }
    }
}

impl Panels {
    /// No panels yet.
    pub(super) fn new() -> Self {
        Panels { data: Vec::new(), depth: 0, columns: 0 }
    }

    /// Packs `columns` of `source`, each multiplied by its `scale`.
    pub(super) fn pack(source: &Source<'_>, columns: usize, scale: Option<&[f32]>) -> Self {
        let mut panels = Panels::new();
        let width = panels.reserve(source.taps * source.channels, columns);
        let size = (panels.depth * width).max(1);
        panels.data.par_chunks_mut(size).enumerate().for_each(|(index, panel)| {
            fill(panel, source, index * width, width, columns, scale);
        });
        panels
    }

    /// Packs `columns` of `source` on this thread, in place of what was there.
    pub(super) fn repack(&mut self, source: &Source<'_>, columns: usize) {
        let width = self.reserve(source.taps * source.channels, columns);
        for (index, panel) in self.data.chunks_mut((self.depth * width).max(1)).enumerate() {
            fill(panel, source, index * width, width, columns, None);
        }
    }

    /// Counts the zeros of the last panel as columns, for a target that has room for them.
    pub(super) fn pad(&mut self) {
        self.columns = self.columns.next_multiple_of(panel_width());
    }

    fn reserve(&mut self, depth: usize, columns: usize) -> usize {
        let width = panel_width();
        (self.depth, self.columns) = (depth, columns);
        self.data.clear();
        self.data.resize(columns.div_ceil(width) * depth * width, 0.0);
        width
    }

    /// Number of panels.
    pub(super) fn count(&self) -> usize {
        self.columns.div_ceil(panel_width())
    }

    /// Rows `start ..` of a panel.
    pub(super) fn from(&self, panel: usize, start: usize) -> &[f32] {
        let width = panel_width();
        &self.data[(panel * self.depth + start) * width..(panel + 1) * self.depth * width]
    }
}

fn fill(
    panel: &mut [f32],
    source: &Source<'_>,
    first: usize,
    width: usize,
    columns: usize,
    scale: Option<&[f32]>,
) {
    let valid = width.min(columns - first);
    for tap in 0..source.taps {
        let start = source.offset.wrapping_add_signed(source.tap_stride * tap as isize);
        let start = start + first * source.column_stride;
        let rows = &mut panel[tap * source.channels * width..][..source.channels * width];
        if source.column_stride == 1 {
            for (channel, row) in rows.chunks_exact_mut(width).enumerate() {
                row[..valid]
                    .copy_from_slice(&source.data[start + channel * source.channel_stride..][..valid]);
            }
        } else {
            for column in 0..valid {
                let from = &source.data[start + column * source.column_stride..];
                let to = rows.iter_mut().skip(column).step_by(width);
                for (to, from) in to.zip(from.iter().step_by(source.channel_stride)) {
                    *to = *from;
                }
            }
        }
    }
    if let Some(scale) = scale {
        for row in panel.chunks_exact_mut(width) {
            for (entry, factor) in row.iter_mut().zip(&scale[first..]) {
                *entry *= factor;
            }
        }
    }
}
