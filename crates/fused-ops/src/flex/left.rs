//! The left operand of a product: rows that lie in memory as they are, of a matrix or of an image.

use crate::extension::Convolution;

/// The longest run of one row that a tile reads in one go, in numbers.
pub(super) const DEPTH: usize = 256;

/// Channels-last images and the kernel that slides over them.
pub(super) struct Window<'a> {
    image: &'a [f32],
    size: [usize; 2],
    channels: usize,
    output: [usize; 2],
    shape: Convolution,
    /// What lies outside the image.
    zeros: Vec<f32>,
}

impl<'a> Window<'a> {
    /// A kernel over images `[B, height, width, channels]`.
    pub(super) fn new(image: &'a [f32], size: [usize; 2], channels: usize, shape: Convolution) -> Self {
        assert!(image.len().is_multiple_of(size[0] * size[1] * channels), "images of {size:?} x {channels}");
        Window { image, size, channels, output: shape.output_size(size), shape, zeros: vec![0.0; channels] }
    }
}

/// The left operand: row r is the concatenation, over taps, of runs of `channels` numbers.
pub(super) enum Left<'a> {
    /// A matrix, one tap: row r is `data[r * stride ..][.. channels]`.
    Rows {
        /// The numbers.
        data: &'a [f32],
        /// From one row to the next.
        stride: usize,
        /// Numbers in a row.
        channels: usize,
    },
    /// Row r is what the kernel sees of output pixel r, one run per kernel position.
    Window(Window<'a>),
}

impl Left<'_> {
    /// Runs in a row.
    pub(super) fn taps(&self) -> usize {
        match self {
            Left::Rows { .. } => 1,
            Left::Window(window) => window.shape.kernel[0] * window.shape.kernel[1],
        }
    }

    /// Numbers in a run.
    pub(super) fn channels(&self) -> usize {
        match self {
            Left::Rows { channels, .. } => *channels,
            Left::Window(window) => window.channels,
        }
    }

    /// The run of one row at one tap.
    #[inline]
    pub(super) fn run(&self, row: usize, tap: usize) -> &[f32] {
        match self {
            Left::Rows { data, stride, channels } => &data[row * stride..][..*channels],
            Left::Window(window) => {
                let [height, width] = window.size;
                let [rows, columns] = window.output;
                let (pixel, x) = (row / columns, row % columns);
                let (batch, y) = (pixel / rows, pixel % rows);
                let [stride, padding] = [window.shape.stride, window.shape.padding];
                let (down, across) = (tap / window.shape.kernel[1], tap % window.shape.kernel[1]);
                // Above or left of the image the difference wraps around to something larger than any size.
                let y = (y * stride[0] + down).wrapping_sub(padding[0]);
                let x = (x * stride[1] + across).wrapping_sub(padding[1]);
                if y >= height || x >= width {
                    return &window.zeros;
                }
                &window.image[((batch * height + y) * width + x) * window.channels..][..window.channels]
            }
        }
    }
}

/// A stretch of a run that a tile reads in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// The run.
    pub tap: usize,
    /// First number of the run.
    pub start: usize,
    /// Numbers.
    pub len: usize,
}

/// The pieces of a row, in groups of at most [`DEPTH`] numbers: the order in which every product is summed.
pub(super) fn pieces(taps: usize, channels: usize) -> Vec<Vec<Piece>> {
    let mut groups: Vec<Vec<Piece>> = Vec::new();
    let mut room = 0;
    for tap in 0..taps {
        for start in (0..channels).step_by(DEPTH) {
            let len = DEPTH.min(channels - start);
            if len > room {
                groups.push(Vec::new());
                room = DEPTH;
            }
            room -= len;
            if let Some(group) = groups.last_mut() {
                group.push(Piece { tap, start, len });
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_row_follow_each_other_and_fill_it() {
        for (taps, channels) in [(1, 1), (1, 768), (1, 300), (9, 3), (9, 64), (9, 512), (4, 257)] {
            let groups = pieces(taps, channels);
            let mut position = 0;
            for piece in groups.iter().flatten() {
                assert_eq!(piece.tap * channels + piece.start, position);
                position += piece.len;
            }
            assert_eq!(position, taps * channels);
            for group in &groups {
                assert!((1..=DEPTH).contains(&group.iter().map(|piece| piece.len).sum()));
            }
        }
    }
}
