//! MaxPool, AveragePool and their global forms. Averages are summed in order in f64 and rounded once; maxima move any
//! numeric type.

use super::closure::{kernel, shaped};
use super::element::{Element, Integer, Real, by_class};
use super::parallel::fill;
use super::window::{Window, lift, spatial_list};
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::{DType, Data, Tensor, element_count};

/// A pooling operator over `[N, C, …]` with one to three spatial dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Whether the mean is taken, not the maximum.
    pub average: bool,
    /// Whether the window is the whole plane.
    pub global: bool,
}

/// Sizes of a pooling node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolShape {
    /// Planes: batch times channels.
    pub planes: usize,
    /// Spatial dimensions of the input, with leading ones.
    pub input: [usize; 3],
    /// Spatial dimensions of the output, with leading ones.
    pub output: [usize; 3],
    /// The window, over three dimensions.
    pub window: Window,
    /// Whether padding counts as elements of an average.
    pub count_include_pad: bool,
    /// The whole output shape.
    pub output_shape: Vec<usize>,
}

impl PoolShape {
    /// The part of dimension `i` that the window at `position` covers: taps whose element lies in the input, as
    /// `(first element, step, count)`, and the number of taps within the input and its padding. A last window that
    /// leaves the padded input (`ceil_mode`) has fewer of them.
    pub fn span(&self, i: usize, position: usize) -> (usize, usize, usize, usize) {
        let w = &self.window;
        let (start, step, pad) = (position * w.strides[i], w.dilations[i], w.pads_begin[i]);
        let before = |limit: usize| limit.saturating_sub(start).div_ceil(step).min(w.kernel[i]);
        let (skipped, inside) = (before(pad), before(self.input[i] + pad));
        let counted = before(self.input[i] + pad + w.pads_end[i]);
        ((start + skipped * step).saturating_sub(pad), step, inside - skipped, counted)
    }
}

impl Pool {
    /// Reads and checks a node.
    pub fn shape(self, facts: &Facts<'_>) -> Result<PoolShape> {
        let x = facts.input(0)?;
        let least = if self.global { 2 } else { 3 };
        if !(least..=5).contains(&x.shape.len()) {
            return Err(facts.unsupported(format!("pooling of {:?}: one to three dimensions are supported", x.shape)));
        }
        let spatial = &x.shape[2..];
        let rank = spatial.len();
        let window = if self.global {
            let (ones, zeros) = (vec![1; rank], vec![0; rank]);
            Window {
                kernel: spatial.to_vec(),
                strides: ones.clone(),
                dilations: ones,
                pads_begin: zeros.clone(),
                pads_end: zeros,
                ceil_mode: false,
            }
        } else {
            if !facts.node.attributes.contains_key("kernel_shape") {
                return Err(facts.invalid("attribute 'kernel_shape' is missing"));
            }
            let kernel = spatial_list(facts, "kernel_shape", rank, 1, 1)?;
            Window::from_node(facts, spatial, &kernel, signature::flag(facts, "ceil_mode", false)?)?
        };
        if spatial.contains(&0) {
            return Err(facts.invalid(format!("'{}' has shape {:?}: nothing to pool", x.name, x.shape)));
        }
        let output = window.output_dims(facts, spatial)?;
        let output_shape = [&x.shape[..2], &output].concat();
        element_count(&output_shape)?;
        let limit = || facts.unsupported("more than three spatial dimensions");
        Ok(PoolShape {
            planes: x.shape[0] * x.shape[1],
            input: lift(spatial).ok_or_else(limit)?,
            output: lift(&output).ok_or_else(limit)?,
            window: window.lifted().ok_or_else(limit)?,
            count_include_pad: signature::flag(facts, "count_include_pad", false)?,
            output_shape,
        })
    }

    fn attributes(self, opset: i64) -> Vec<&'static str> {
        if self.global {
            return Vec::new();
        }
        let mut names = vec!["auto_pad", "kernel_shape", "pads", "strides"];
        let later: &[(i64, &str)] = match self.average {
            true => &[(7, "count_include_pad"), (10, "ceil_mode"), (19, "dilations")],
            false => &[(8, "storage_order"), (10, "ceil_mode"), (10, "dilations")],
        };
        names.extend(later.iter().filter(|l| opset >= l.0).map(|l| l.1));
        names
    }
}

impl Op for Pool {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let outputs = if self.average || self.global { 1 } else { 2 };
        signature::check(facts, 1..=1, 1..=outputs, &self.attributes(facts.opset))?;
        signature::flag(facts, "storage_order", false)?;
        let x = facts.input(0)?;
        if self.average {
            signature::float(facts, x)?;
        } else if x.dtype == DType::Bool {
            return Err(facts.invalid("booleans have no maximum"));
        }
        let shape = self.shape(facts)?.output_shape;
        let all = [(x.dtype, shape.clone()), (DType::I64, shape)];
        Ok(all.into_iter().take(facts.node.outputs.len()).collect())
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let pool = self.shape(facts)?;
        let shape = facts.input(0)?.shape.clone();
        if self.average {
            return kernel(move |context, inputs| {
                let x = shaped(inputs, 0, &shape)?;
                let data = by_class!(x.data(), v =>
                    real average(context.engine(), &pool, v),
                    integer return Err(Error::invalid("tensor_dtype", format!("{} integers, not floats", v.len()))),
                    boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans, not floats", v.len()))),
                );
                Ok([Tensor::new(pool.output_shape.clone(), data)?].into())
            });
        }
        let indices = facts.node.outputs.len() > 1;
        let columns_first = signature::flag(facts, "storage_order", false)?;
        kernel(move |context, inputs| {
            fn reals<T: Real>(engine: Engine<'_>, pool: &PoolShape, x: &[T]) -> (Data, Vec<usize>) {
                let (y, at) = maximum(engine, pool, x, T::from_f64(f64::NEG_INFINITY));
                (T::wrap(y), at)
            }
            fn integers<T: Integer>(engine: Engine<'_>, pool: &PoolShape, x: &[T]) -> (Data, Vec<usize>) {
                let unsigned = T::wrapping_from(-1).to_i128() > 0;
                let lowest = if unsigned { 0 } else { -1i128 << (8 * T::DTYPE.size() - 1) };
                let (y, at) = maximum(engine, pool, x, T::wrapping_from(lowest));
                (T::wrap(y), at)
            }
            let x = shaped(inputs, 0, &shape)?;
            let (data, at) = by_class!(x.data(), v =>
                real reals(context.engine(), &pool, v),
                integer integers(context.engine(), &pool, v),
                boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans have no maximum", v.len()))),
            );
            let mut out = vec![Tensor::new(pool.output_shape.clone(), data)?];
            if indices {
                let [d, h, w] = pool.input;
                let place = |i: usize| match columns_first {
                    false => i,
                    true => i / (d * h * w) * (d * h * w) + (i % w * h + i / w % h) * d + i / (w * h) % d,
                };
                let at = at.into_iter().map(|i| place(i) as i64).collect();
                out.push(Tensor::new(pool.output_shape.clone(), Data::I64(at))?);
            }
            Ok(out.into())
        })
    }
}

/// Calls `f(index in the output's plane, spans)` for each window of a plane.
pub(super) fn windows(pool: &PoolShape, mut f: impl FnMut(usize, [(usize, usize, usize, usize); 3])) {
    let columns: Vec<_> = (0..pool.output[2]).map(|o| pool.span(2, o)).collect();
    let mut at = 0;
    for z in 0..pool.output[0] {
        for r in 0..pool.output[1] {
            let (depth, rows) = (pool.span(0, z), pool.span(1, r));
            for &c in &columns {
                f(at, [depth, rows, c]);
                at += 1;
            }
        }
    }
}

/// Calls `f(index in the plane)` for each element of a window.
pub(super) fn taps(pool: &PoolShape, [d, r, c]: [(usize, usize, usize, usize); 3], mut f: impl FnMut(usize)) {
    for z in 0..d.2 {
        for y in 0..r.2 {
            let line = ((d.0 + z * d.1) * pool.input[1] + r.0 + y * r.1) * pool.input[2] + c.0;
            for x in 0..c.2 {
                f(line + x * c.1);
            }
        }
    }
}

fn average<T: Real>(engine: Engine<'_>, pool: &PoolShape, x: &[T]) -> Data {
    let (plane, source): (usize, usize) = (pool.output.iter().product(), pool.input.iter().product());
    let mut y = vec![T::default(); pool.planes * plane];
    fill(engine, &mut y, plane, |start, part| {
        let x = &x[start / plane * source..][..source];
        windows(pool, |at, spans| {
            let mut sum = 0.0;
            taps(pool, spans, |i| sum += x[i].to_f64());
            let count: usize = spans.iter().map(|s| if pool.count_include_pad { s.3 } else { s.2 }).product();
            part[at] = T::from_f64(sum / count.max(1) as f64);
        });
    });
    T::wrap(y)
}

/// Maxima and where they lie in the input: the first of equal ones; NaN counts as largest. A window without elements
/// gives `lowest`.
fn maximum<T: Element>(engine: Engine<'_>, pool: &PoolShape, x: &[T], lowest: T) -> (Vec<T>, Vec<usize>) {
    let (plane, source): (usize, usize) = (pool.output.iter().product(), pool.input.iter().product());
    let mut y = vec![(lowest, 0usize); pool.planes * plane];
    fill(engine, &mut y, plane, |start, part| {
        let base = start / plane * source;
        let x = &x[base..][..source];
        windows(pool, |at, spans| {
            let mut best: Option<usize> = None;
            taps(pool, spans, |i| {
                // NaN is not equal to itself.
                #[allow(clippy::eq_op)]
                let larger = best.is_none_or(|b| x[i] > x[b] || (x[i] != x[i] && x[b] == x[b]));
                if larger {
                    best = Some(i);
                }
            });
            part[at] = best.map_or((lowest, base), |i| (x[i], base + i));
        });
    });
    y.into_iter().unzip()
}
