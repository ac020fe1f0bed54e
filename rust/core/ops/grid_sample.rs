//! GridSample and AffineGrid: reading an image at coordinates between -1 and 1.

use super::closure::{kernel, shaped};
use super::parallel::fill;
use super::{Facts, Inferred, Kernel, Op, floats, signature};
use crate::error::Result;
use crate::map_data;
use crate::tensor::{DType, Tensor, element_count, strides};

/// GridSample over two or three spatial dimensions (one to three from opset 20 on).
///
/// Coordinates are computed in float32 where the grid is no float64; interpolation runs in f64 and is rounded once;
/// `nearest` moves any type, and rounds ties to even. A coordinate that is not finite lies far outside.
pub struct GridSample;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// How coordinates become elements.
#[derive(Debug, Clone, Copy)]
struct Sampler {
    mode: Mode,
    padding: Padding,
    align_corners: bool,
    /// Whether coordinates are computed in float32.
    single: bool,
}

/// Up to four elements of a dimension and their weights; `None` reads zero.
type Taps = Vec<(Option<usize>, f64)>;

impl Sampler {
    fn from_node(facts: &Facts<'_>) -> Result<Self> {
        let old = facts.opset < 20;
        let mode = match facts.node.string("mode", if old { "bilinear" } else { "linear" })? {
            "nearest" => Mode::Nearest,
            "bilinear" if old => Mode::Linear,
            "bicubic" if old => Mode::Cubic,
            "linear" if !old => Mode::Linear,
            "cubic" if !old => Mode::Cubic,
            other => return Err(facts.invalid(format!("mode '{other}' is not known"))),
        };
        let padding = match facts.node.string("padding_mode", "zeros")? {
            "zeros" => Padding::Zeros,
            "border" => Padding::Border,
            "reflection" => Padding::Reflection,
            other => return Err(facts.invalid(format!("padding_mode '{other}' is not known"))),
        };
        let single = facts.input(1)?.dtype != DType::F64;
        Ok(Sampler { mode, padding, align_corners: signature::flag(facts, "align_corners", false)?, single })
    }

    /// The first and last coordinate of a dimension.
    fn borders(self, size: usize) -> (f64, f64) {
        if self.align_corners { (0.0, size as f64 - 1.0) } else { (-0.5, size as f64 - 0.5) }
    }

    fn reflect(self, x: f64, size: usize) -> f64 {
        let (lo, hi) = self.borders(size);
        if lo <= x && x <= hi {
            return x;
        }
        if hi <= lo {
            return lo;
        }
        let outside = if x < lo { lo - x } else { x - hi };
        let turns = (outside / (hi - lo)).trunc();
        let rest = outside - turns * (hi - lo);
        if (x < lo) == (turns % 2.0 == 0.0) { lo + rest } else { hi - rest }
    }

    /// Element `i` of a dimension, which may lie outside.
    fn element(self, i: i64, size: usize) -> Option<usize> {
        let last = size as i64 - 1;
        match self.padding {
            _ if (0..=last).contains(&i) => Some(i as usize),
            Padding::Zeros => None,
            Padding::Border => Some(i.clamp(0, last) as usize),
            Padding::Reflection => Some((self.reflect(i as f64, size) as i64).clamp(0, last) as usize),
        }
    }

    /// The elements that coordinate `n` reads in a dimension of `size` elements.
    fn taps(self, n: f64, size: usize) -> Taps {
        let round = |v: f64| if self.single { f64::from(v as f32) } else { v };
        let length = size as f64;
        let mut x = match self.align_corners {
            true => round(round(round(n + 1.0) / 2.0) * (length - 1.0)),
            false => round(round(round(round(n + 1.0) * length) - 1.0) / 2.0),
        };
        if self.mode == Mode::Nearest {
            x = x.round_ties_even();
        }
        let (lo, hi) = self.borders(size);
        if x < lo || x > hi {
            match self.padding {
                Padding::Zeros => {}
                // Weights of four taps are those of the point itself, as torch and runtimes have it.
                Padding::Border if self.mode == Mode::Cubic => {}
                Padding::Border => x = x.clamp(0.0, length - 1.0),
                Padding::Reflection => x = round(self.reflect(x, size)),
            }
        }
        if !x.is_finite() {
            x = -f64::from(1 << 30);
        }
        let floor = x.floor();
        let (first, t) = (floor.clamp(-1e15, 1e15) as i64, x - floor);
        match self.mode {
            Mode::Nearest => vec![(self.element(x.clamp(-1e15, 1e15) as i64, size), 1.0)],
            Mode::Linear => vec![(self.element(first, size), 1.0 - t), (self.element(first + 1, size), t)],
            Mode::Cubic => cubic(t).iter().zip(-1..3).map(|(&w, d)| (self.element(first + d, size), w)).collect(),
        }
    }
}

/// Weights of Keys's cubic convolution with -0.75 at a fraction `t`.
fn cubic(t: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// All places of an image that one point reads, with their weights, from the taps of each dimension.
fn places(taps: &[Taps], steps: &[usize]) -> Vec<(usize, f64)> {
    let mut all = vec![(0, 1.0)];
    for (dimension, step) in taps.iter().zip(steps) {
        let inside = || dimension.iter().filter_map(|&(i, w)| Some((i? * step, w)));
        all = all.iter().flat_map(|&(place, weight)| inside().map(move |(p, w)| (place + p, weight * w))).collect();
    }
    all
}

impl Op for GridSample {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &["align_corners", "mode", "padding_mode"])?;
        let (x, grid) = (facts.input(0)?, facts.input(1)?);
        signature::float(facts, grid)?;
        let sampler = Sampler::from_node(facts)?;
        let spatial = x.shape.len().saturating_sub(2);
        let fits = (1..=3).contains(&spatial)
            && (spatial == 2 || facts.opset >= 20)
            && grid.shape.len() == x.shape.len()
            && grid.shape[0] == x.shape[0]
            && grid.shape[spatial + 1] == spatial;
        if !fits {
            return Err(facts.invalid(format!("a grid of {:?} does not fit {:?}", grid.shape, x.shape)));
        }
        if !x.dtype.is_float() && sampler.mode != Mode::Nearest {
            return Err(facts.unsupported(format!("interpolation of {}", x.dtype)));
        }
        let shape = [&x.shape[..2], &grid.shape[1..=spatial]].concat();
        if element_count(&shape)? > 0 && x.shape.contains(&0) {
            return Err(facts.invalid(format!("'{}' has shape {:?}: nothing to read", x.name, x.shape)));
        }
        Ok(vec![(x.dtype, shape)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let sampler = Sampler::from_node(facts)?;
        let (shape, grid_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
        let spatial = shape.len() - 2;
        let out = [&shape[..2], &grid_shape[1..=spatial]].concat();
        kernel(move |context, inputs| {
            let (x, grid) = (shaped(inputs, 0, &shape)?, shaped(inputs, 1, &grid_shape)?.to_f64());
            let image = &shape[2..];
            let (steps, pixels) = (strides(image), image.iter().product::<usize>());
            let (channels, points) = (shape[1], out[2..].iter().product::<usize>());
            let mut reads = vec![Vec::new(); shape[0] * points];
            if channels > 0 {
                fill(context.engine(), &mut reads, 1024, |start, part| {
                    for (read, point) in part.iter_mut().zip(grid[start * spatial..].chunks_exact(spatial)) {
                        // The grid names the last dimension first.
                        let taps: Vec<Taps> =
                            image.iter().zip(point.iter().rev()).map(|(&d, &n)| sampler.taps(n, d)).collect();
                        *read = places(&taps, &steps);
                    }
                });
            }
            let read = |i: usize| (i / points / channels, &reads[i / points / channels * points + i % points]);
            let base = |i: usize| i / points * pixels;
            let count = element_count(&out)?;
            if sampler.mode == Mode::Nearest {
                let data = map_data!(x.data(), v => {
                    let value = |i: usize| read(i).1.first().map_or_else(Default::default, |p| v[base(i) + p.0]);
                    (0..count).map(value).collect()
                });
                return Ok([Tensor::new(out.clone(), data)?].into());
            }
            let v = x.to_f64();
            let mut y = vec![0.0; count];
            fill(context.engine(), &mut y, 4096, |start, part| {
                for (i, y) in part.iter_mut().enumerate() {
                    let i = start + i;
                    *y = read(i).1.iter().map(|&(p, w)| w * v[base(i) + p]).sum();
                }
            });
            Ok([floats::write_f64(&out, y, x.dtype())?].into())
        })
    }
}

/// AffineGrid: the coordinates of a regular grid, transformed by a matrix per batch; for GridSample.
pub struct AffineGrid;

impl AffineGrid {
    fn shape(facts: &Facts<'_>) -> Result<Vec<usize>> {
        let (theta, size) = (facts.input(0)?, signature::constant_ints(facts, 1)?);
        let size: Vec<usize> = size
            .iter()
            .map(|&d| usize::try_from(d).map_err(|_| facts.invalid(format!("size {size:?} is not possible"))))
            .collect::<Result<_>>()?;
        if !matches!(size.len(), 4 | 5) {
            return Err(facts.invalid(format!("size {size:?} has neither two nor three spatial dimensions")));
        }
        let spatial = size.len() - 2;
        signature::shape(facts, theta, &[size[0], spatial, spatial + 1])?;
        let shape = [&size[..1], &size[2..], &[spatial]].concat();
        element_count(&shape)?;
        Ok(shape)
    }
}

impl Op for AffineGrid {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &["align_corners"])?;
        signature::flag(facts, "align_corners", false)?;
        let theta = facts.input(0)?;
        signature::float(facts, theta)?;
        Ok(vec![(theta.dtype, Self::shape(facts)?)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (shape, theta_shape) = (Self::shape(facts)?, facts.input(0)?.shape.clone());
        let aligned = signature::flag(facts, "align_corners", false)?;
        let image = shape[1..shape.len() - 1].to_vec();
        let coordinate = move |i: usize, size: usize| match (aligned, size) {
            (true, 1) => -1.0,
            (true, _) => 2.0 * i as f64 / (size as f64 - 1.0) - 1.0,
            (false, _) => (2.0 * i as f64 + 1.0) / size as f64 - 1.0,
        };
        kernel(move |_, inputs| {
            let tensor = shaped(inputs, 0, &theta_shape)?;
            let (theta, spatial) = (tensor.to_f64(), image.len());
            let points: usize = image.iter().product();
            let mut y = Vec::with_capacity(element_count(&shape)?);
            for i in 0..shape[0] * points {
                let (mut rest, mut point) = (i % points, vec![1.0; spatial + 1]);
                // The last dimension comes first.
                for (d, &size) in image.iter().rev().enumerate() {
                    point[d] = coordinate(rest % size, size);
                    rest /= size;
                }
                let matrix = &theta[i / points * spatial * (spatial + 1)..][..spatial * (spatial + 1)];
                y.extend(
                    matrix.chunks_exact(spatial + 1).map(|r| r.iter().zip(&point).map(|(a, b)| a * b).sum::<f64>()),
                );
            }
            Ok([floats::write_f64(&shape, y, tensor.dtype())?].into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_folds_at_the_borders() {
        let sampler =
            |align_corners| Sampler { mode: Mode::Linear, padding: Padding::Reflection, align_corners, single: false };
        let folded: Vec<f64> = [-3.0, -1.0, 0.0, 2.0, 3.0, 5.0].map(|x| sampler(true).reflect(x, 3)).to_vec();
        assert_eq!(folded, [1.0, 1.0, 0.0, 2.0, 1.0, 1.0]);
        assert_eq!(sampler(false).reflect(-1.0, 3), 0.0);
        assert_eq!(sampler(false).reflect(3.0, 3), 2.0);
        assert_eq!(sampler(true).reflect(5.0, 1), 0.0);
    }

    #[test]
    fn cubic_weights_are_those_of_keys() {
        assert_eq!(cubic(0.0), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(cubic(0.5), [-0.09375, 0.59375, 0.59375, -0.09375]);
    }

    #[test]
    fn no_coordinate_is_out_of_reach() {
        for padding in [Padding::Zeros, Padding::Border, Padding::Reflection] {
            for mode in [Mode::Nearest, Mode::Linear, Mode::Cubic] {
                for n in [f64::NAN, f64::INFINITY, -1e300, 1e300, 0.0] {
                    let sampler = Sampler { mode, padding, align_corners: false, single: true };
                    let taps = sampler.taps(n, 2);
                    assert!(taps.iter().all(|t| t.0.is_none_or(|i| i < 2) && t.1.is_finite()), "{padding:?} {n}");
                }
            }
        }
    }
}
