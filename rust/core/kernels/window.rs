//! Activations as the 8-bit kernels read them: bytes with the padding around them, so that the window of every output pixel
//! is the same set of runs of neighbouring bytes, seen from its first one.

use super::isa::Engine;
use super::shape::ConvShape;
use std::cell::Cell;

/// Bytes up to which padding is written out in any case.
const SMALL: usize = 1 << 22;

/// How the windows of a convolution fall into runs of neighbouring bytes: their number and length.
pub(crate) fn runs(shape: &ConvShape) -> [usize; 2] {
    if shape.groups == 1 && (shape.dilation[1] == 1 || shape.kernel[1] == 1) {
        [shape.kernel[0], shape.kernel[1] * shape.in_channels]
    } else {
        [shape.taps(), shape.group_in()]
    }
}

/// Whether each window is one pixel of the images, all channels of it.
fn single_pixels(shape: &ConvShape) -> bool {
    shape.pads == [0; 4] && shape.taps() == 1 && shape.groups == 1
}

thread_local! {
    /// The copy of the activations of the last convolution on this thread, for its memory.
    static COPY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Images with their padding.
pub(crate) struct Padded<'a> {
    bytes: &'a [u8],
    copy: Vec<u8>,
    /// Bytes from one row of an image to the next, and from one image to the next.
    pitch: [usize; 2],
    shape: &'a ConvShape,
    output: [usize; 2],
}

impl<'a> Padded<'a> {
    /// The images `x` (NHWC) with `pad` around them, all bytes XORed with `flip`. `None` where windows are better gathered: those
    /// of one pixel that must be copied anyway, and where the padding outgrows the images beyond reason.
    pub(crate) fn new(engine: Engine<'_>, shape: &'a ConvShape, x: &'a [u8], pad: u8, flip: u8) -> Option<Self> {
        assert_eq!(x.len(), shape.input_len(), "activations and their shape");
        let [top, left, bottom, right] = shape.pads;
        let [height, width] = shape.input;
        let rows = height.checked_add(top)?.checked_add(bottom)?;
        let row = width.checked_add(left)?.checked_add(right)?.checked_mul(shape.in_channels)?;
        let image = rows.checked_mul(row)?;
        let total = image.checked_mul(shape.batch)?.checked_add(3)?;
        let output = shape.output();
        let whole_groups = runs(shape)[1].is_multiple_of(4);
        if shape.pads == [0; 4] && flip == 0 && whole_groups {
            return Some(Padded { bytes: x, copy: Vec::new(), pitch: [row, image], shape, output });
        }
        if single_pixels(shape) || total > SMALL.max(x.len().saturating_mul(8)) {
            return None;
        }
        let mut copy = COPY.take();
        copy.resize(total, 0);
        let (from_row, begin) = (width * shape.in_channels, left * shape.in_channels);
        let pad = pad ^ flip;
        let per_task = engine.share(shape.batch * rows, 1);
        engine.for_each_chunk(&mut copy[..image * shape.batch], per_task * row, |task, part| {
            for (i, to) in part.chunks_exact_mut(row).enumerate() {
                let (image, y) = ((task * per_task + i) / rows, (task * per_task + i) % rows);
                if y < top || y >= top + height {
                    to.fill(pad);
                    continue;
                }
                let from = &x[(image * height + y - top) * from_row..][..from_row];
                to[..begin].fill(pad);
                to[begin + from_row..].fill(pad);
                let to = &mut to[begin..begin + from_row];
                if flip == 0 {
                    to.copy_from_slice(from);
                } else {
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = from ^ flip);
                }
            }
        });
        Some(Padded { bytes: &[], copy, pitch: [row, image], shape, output })
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.copy.is_empty() { self.bytes } else { &self.copy }
    }

    /// Bytes from one row of an image to the next.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(crate) fn pitch(&self) -> usize {
        self.pitch[0]
    }

    /// First byte of the window of the output pixel in this image, row and column.
    pub(crate) fn start(&self, image: usize, at: [usize; 2]) -> usize {
        let [sy, sx] = self.shape.stride;
        image * self.pitch[1] + at[0] * sy * self.pitch[0] + at[1] * sx * self.shape.in_channels
    }

    /// First bytes of the windows of `count` output pixels from flat pixel `first` on.
    pub(crate) fn starts(&self, first: usize, count: usize, starts: &mut Vec<usize>) {
        starts.clear();
        let step = self.shape.stride[1] * self.shape.in_channels;
        let mut pixel = first;
        while pixel < first + count {
            let (image, at) = self.shape.locate(self.output, pixel);
            let start = self.start(image, at);
            let line = (self.output[1] - at[1]).min(first + count - pixel);
            starts.extend((0..line).map(|i| start + i * step));
            pixel += line;
        }
    }

    /// Appends the first bytes of the runs of a window of `group`, relative to that of the window.
    pub(crate) fn runs(&self, group: usize, starts: &mut Vec<usize>) {
        let shape = self.shape;
        let per_row = runs(shape)[0] / shape.kernel[0];
        let offset = |i: usize| {
            let (ky, kx) = (i / per_row, i % per_row);
            ky * shape.dilation[0] * self.pitch[0] + kx * shape.dilation[1] * shape.in_channels
        };
        starts.extend((0..runs(shape)[0]).map(|i| offset(i) + group * shape.group_in()));
    }
}

impl Drop for Padded<'_> {
    fn drop(&mut self) {
        if !self.copy.is_empty() {
            COPY.set(std::mem::take(&mut self.copy));
        }
    }
}

/// Gathers `count` windows of `group` from output pixel `first` on, `stride` bytes apart: the runs one after the other,
/// each from a multiple of four on.
pub(crate) fn gather(
    shape: &ConvShape,
    x: &[u8],
    [pad, flip]: [u8; 2],
    group: usize,
    first: usize,
    count: usize,
    rows: &mut Vec<u8>,
) -> usize {
    let [per_window, run] = runs(shape);
    let stride = per_window * run.next_multiple_of(4);
    let (output, channels) = (shape.output(), shape.group_in());
    rows.clear();
    if single_pixels(shape) && shape.stride == [1, 1] && stride == shape.in_channels {
        rows.extend(x[first * stride..][..count * stride].iter().map(|b| b ^ flip));
        return stride;
    }
    rows.resize(count * stride, 0);
    for (r, row) in rows.chunks_exact_mut(stride).enumerate() {
        let (image, at) = shape.locate(output, first + r);
        let lines =
            row.chunks_exact_mut(run.next_multiple_of(4)).flat_map(|run_of| run_of[..run].chunks_exact_mut(channels));
        for (tap, to) in lines.enumerate() {
            match shape.source(image, at, [tap / shape.kernel[1], tap % shape.kernel[1]]) {
                Some(pixel) => to.copy_from_slice(&x[pixel * shape.in_channels + group * channels..][..channels]),
                None => to.fill(pad),
            }
        }
        row.iter_mut().for_each(|b| *b ^= flip);
    }
    stride
}
