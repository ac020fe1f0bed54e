//! Average pooling of uint8 codes from differences of a summed-area table.
//!
//! The table holds sums times 256. Beyond an edge it continues so that a window that is cut off there has the whole window's
//! sum times its own mean, to the precision of 15-bit factors. A window's sum is rounded to 16 bits, multiplied by a 15-bit
//! reciprocal of the window's size and rounded to a code. Windows of 3×3 with step 1 pad the image with the mean of its two
//! outermost lines and take a ninth in 15 bits; windows of 2×2 with step 2 across repeat the outermost line. A result of
//! one element per channel is another kernel, which chooses its range from the data.
//! Source: XiaoMi/nnlib@df7ad3c1 hexagon/ops/src/op_avgpool_d32.c, hexagon/{src/integral_buffer.c,
//! include/nn_integral_buffer.h, asm_src/avgpool_d32.S}.

use super::Context;
use super::planes::{PlaneFunction, PlaneKernel};
use super::record::Record;
use crate::error::Result;
use crate::ops::window::Window;
use crate::ops::{Facts, Kernel};

/// One axis of the pool, after what has no effect was removed.
#[derive(Debug, Clone)]
struct Axis {
    input: usize,
    kernel: usize,
    stride: usize,
    before: usize,
    after: usize,
    /// Padding lines farther from the image than any window needs.
    beyond: usize,
    /// `-p / (kernel - p)` for line `p` of the padding, 15 bits.
    factors: Vec<i64>,
}

enum Form {
    /// 3×3, step 1.
    Ninth,
    /// 2×2, step 2 across.
    Quarter,
    Table {
        mantissa: i64,
        shift: u32,
    },
}

struct AveragePool {
    form: Form,
    axes: [Axis; 2],
    /// Columns of the input's rows.
    width: usize,
}

fn ceil_log2(v: usize) -> u32 {
    usize::BITS - (v - 1).leading_zeros()
}

/// `1 / n` with 31 bits, nearest.
fn reciprocal(n: usize) -> i64 {
    match n {
        1 => 0x7FFF_FFFF,
        _ => ((1i64 << 32) / n as i64 + 1) >> 1,
    }
}

impl Axis {
    fn new(input: usize, output: usize, kernel: usize, stride: usize, before: usize, after: usize) -> Axis {
        let mut axis = Axis { input, kernel, stride, before, after, beyond: 0, factors: Vec::new() };
        if output == 1 {
            let used = if after == 0 && stride > 1 { input.min(kernel) } else { input };
            return Axis { input: used, kernel: used, stride: 1, before: 0, after: 0, ..axis };
        }
        let mut beyond = kernel as i64 - 1 - input as i64;
        if beyond > 0 {
            let shrink = kernel as i64 - before.max(after) as i64 - input as i64;
            if shrink > 0 {
                axis.kernel -= 2 * shrink as usize;
                axis.before -= shrink as usize;
                axis.after -= shrink as usize;
                beyond -= 2 * shrink;
            }
        }
        axis.beyond = beyond.max(0) as usize;
        axis.factors = (1..=axis.before.max(axis.after))
            .map(|line| {
                let p = line.max(axis.beyond + 1);
                let rest = axis.kernel - p;
                if rest <= p { -0x8000 } else { -((reciprocal(rest) * p as i64 + 0x8000) >> 16) }
            })
            .collect();
        axis
    }

    /// Continues sums over `0..=input` by the padding on both sides.
    fn continued(&self, sums: &[i64]) -> Vec<i64> {
        let scaled = |v: i64, factor: i64| (v * factor + 0x4000) >> 15;
        let mut out = Vec::with_capacity(self.before + sums.len() + self.after);
        for line in (1..=self.before).rev() {
            out.push(if line <= self.beyond { 0 } else { scaled(sums[self.kernel - line], self.factors[line - 1]) });
        }
        out.extend_from_slice(sums);
        let whole = sums[self.input];
        for line in 1..=self.after {
            let back = self.input.min(self.kernel - line);
            out.push(whole - scaled(whole - sums[self.input - back], self.factors[line - 1]));
        }
        out
    }
}

pub(super) fn prepare(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    super::require_8_bits(facts, [x, y])?;
    if x.signed || !x.same_grid(y) {
        return Err(facts.unsupported("other than uint8 codes, or different encodings of input and output"));
    }
    let shape = &facts.input(0)?.shape;
    let out = facts.outputs[0].as_ref().ok_or_else(|| facts.invalid("no output"))?.shape.clone();
    let kernel = facts.node.ints("kernel_shape")?.ok_or_else(|| facts.invalid("no kernel_shape"))?;
    let kernel: Vec<usize> = kernel.iter().map(|&k| k.max(1) as usize).collect();
    if shape.len() != 4 || kernel.len() != 2 || out.contains(&0) {
        return Err(facts.unsupported("pools over other than two axes"));
    }
    if out[2..] == [1, 1] {
        return Err(facts.unsupported("one output per channel: the kernel chooses the output's range from the data"));
    }
    let window = Window::from_node(facts, &shape[2..], &kernel, facts.node.int("ceil_mode", 0)? != 0)?;
    let padded = window.pads_begin.iter().chain(&window.pads_end).any(|&p| p > 0);
    if window.dilations.iter().any(|&d| d != 1) || (padded && facts.node.int("count_include_pad", 0)? != 0) {
        return Err(facts.unsupported("dilations, and padding that counts"));
    }
    let mut axes = Vec::new();
    for d in 0..2 {
        let (input, output, stride) = (shape[2 + d], out[2 + d], window.strides[d]);
        // The runtime pads not at all, or so that every stride starts an output.
        let whole = ((output - 1) * stride + kernel[d]).saturating_sub(input);
        let same = [whole / 2, whole - whole / 2];
        let pads = [window.pads_begin[d], window.pads_end[d]];
        let fits = match pads {
            [0, 0] => output == (input.max(kernel[d]) - kernel[d]) / stride + 1,
            _ => pads == same && output == input.div_ceil(stride),
        };
        if !fits {
            return Err(facts.unsupported(format!("pads {pads:?}: neither none nor those of SAME")));
        }
        axes.push((input, output, kernel[d], stride, pads[0], pads[1]));
    }
    let [rows, columns] = [axes[0], axes[1]].map(|(i, o, k, s, b, a)| Axis::new(i, o, k, s, b, a));
    let area = rows.kernel * columns.kernel;
    let shift = ceil_log2(area) + 1;
    if shift > 15 {
        return Err(facts.unsupported(format!("a window of {area} elements")));
    }
    let both = |kernel: usize| rows.kernel == kernel && columns.kernel == kernel;
    let form = if both(3) && rows.stride == 1 && columns.stride == 1 && rows.input > 1 && columns.input > 1 {
        Form::Ninth
    } else if both(2) && columns.stride == 2 {
        Form::Quarter
    } else {
        Form::Table { mantissa: (((16384i64 << shift) / area as i64) + 1) >> 1, shift }
    };
    let (plane, width) = (shape[2] * shape[3], shape[3]);
    let function = AveragePool { form, axes: [rows, columns], width };
    Ok(Box::new(PlaneKernel { plane, shape: out, bits: 8, signed: false, function }))
}

fn round_up(v: i64, shift: u32) -> i64 {
    (v + (1 << (shift - 1))) >> shift
}

impl AveragePool {
    /// The summed-area table with its continuation, row by row.
    fn table(&self, codes: &[i64]) -> Vec<i64> {
        let [rows, columns] = &self.axes;
        let line = columns.before + columns.input + 1 + columns.after;
        let mut lines = vec![vec![0; line]];
        let mut sums = vec![0i64; columns.input + 1];
        for r in 0..rows.input {
            let mut across = 0;
            for c in 0..columns.input {
                across += codes[r * self.width + c] * 256;
                sums[c + 1] += across;
            }
            lines.push(columns.continued(&sums));
        }
        let mut table = vec![0; line * (rows.before + rows.input + 1 + rows.after)];
        for c in 0..line {
            let down: Vec<i64> = lines.iter().map(|l| l[c]).collect();
            for (r, v) in rows.continued(&down).into_iter().enumerate() {
                table[r * line + c] = v;
            }
        }
        table
    }
}

impl PlaneFunction for AveragePool {
    /// The summed-area table; empty where none is needed.
    type Ready = Vec<i64>;

    fn ready(&self, plane: &[i64]) -> Vec<i64> {
        match self.form {
            Form::Table { .. } => self.table(plane),
            _ => Vec::new(),
        }
    }

    fn pixel<R: Record>(&self, plane: &[i64], table: &Vec<i64>, [r, c]: [usize; 2], record: &mut R) -> i64 {
        let [rows, columns] = &self.axes;
        if let Form::Table { mantissa, shift } = self.form {
            let line = columns.before + columns.input + 1 + columns.after;
            let (top, left) = (r * rows.stride * line, c * columns.stride);
            let (bottom, right) = (top + rows.kernel * line, left + columns.kernel);
            let corners = [table[bottom + right], table[top + right], table[bottom + left], table[top + left]];
            let sum = corners[0] - corners[1] - (corners[2] - corners[3]);
            let short = round_up(sum, shift).clamp(-32768, 32767);
            let mean = round_up(short * mantissa, 15).clamp(-32768, 32767);
            record.list("table: bottom right, top right, bottom left, top left", corners);
            record.note("sum of the window, times 256", sum);
            record.note("its right shift", shift);
            record.note("shifted sum, in 16 bits", short);
            record.note("reciprocal of the window's size, in units of 2^-15", mantissa);
            record.note("mean, with 6 fraction bits", mean);
            return round_up(mean, 6).clamp(0, 255);
        }
        let at = |r: usize, c: usize| plane[r * self.width + c];
        let quarter = matches!(self.form, Form::Quarter);
        // A line beyond the edge: the outermost one, or its mean with the one next to it.
        let outside = |before: bool, size: usize, line: &dyn Fn(usize) -> i64| match (quarter, before) {
            (true, true) => line(0),
            (true, false) => line(size - 1),
            (false, true) => (line(0) + line(1) + 1) >> 1,
            (false, false) => (line(size - 1) + line(size - 2) + 1) >> 1,
        };
        let extended = |position: i64, size: usize, line: &dyn Fn(usize) -> i64| match usize::try_from(position) {
            Err(_) => outside(true, size, line),
            Ok(p) if p >= size => outside(false, size, line),
            Ok(p) => line(p),
        };
        let code = |i: usize, j: usize| {
            let y = (r * rows.stride + i) as i64 - rows.before as i64;
            let x = (c * columns.stride + j) as i64 - columns.before as i64;
            let column = |c: usize| extended(y, rows.input, &|r| at(r, c));
            extended(x, columns.input, &column)
        };
        let window = (0..rows.kernel).flat_map(|i| (0..columns.kernel).map(move |j| (i, j)));
        let sum: i64 = window.clone().map(|(i, j)| code(i, j)).sum();
        record.list("codes of the window, padding included", window.map(|(i, j)| code(i, j)));
        record.note("sum of the window", sum);
        if quarter {
            return round_up(sum, 2);
        }
        record.note("times a ninth, in units of 2^-15", sum * 3641);
        round_up(sum * 3641, 15)
    }
}
