//! Resize and Upsample. Nearest moves any type; linear and cubic work on reals: axes one after the other in f64 with
//! float32 weights, rounded once at the end.

use super::closure::{kernel, shaped};
use super::element::{Element, Real, by_class};
use super::grid::{Picks, Sources};
use super::parallel::fill;
use super::resize_axis::{Axis, Coordinates, Filter, Nearest, Tap};
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::map_data;
use crate::tensor::{Data, MAX_ELEMENTS, Tensor, element_count};

/// Which operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// Resize, opset 10 and later.
    Resize,
    /// Upsample, opset 7 to 9: asymmetric coordinates, nearest rounds down.
    Upsample,
}

/// What a node does to each of its dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct ResizePlan {
    /// One entry per dimension; `None` where it stays as it is.
    pub axes: Vec<Option<Axis>>,
    /// The output's shape.
    pub output: Vec<usize>,
    /// Value of elements that a crop reads outside the input.
    pub extrapolation: f32,
    /// Whether elements are moved, not mixed.
    pub nearest: bool,
}

impl ResizePlan {
    /// Whether each scale is the ratio of the sizes, so that the sizes say all about positions.
    pub fn follows_sizes(&self) -> bool {
        self.axes.iter().flatten().all(|a| a.scale == a.output as f32 / a.input as f32)
    }
}

/// Scales and sizes, of which one is given.
type Targets = (Option<Vec<f32>>, Option<Vec<usize>>);

/// A constant input of floats, where it is present and not empty.
fn floats(facts: &Facts<'_>, i: usize) -> Result<Option<Vec<f32>>> {
    if facts.optional(i).is_none() {
        return Ok(None);
    }
    let tensor = facts.constant(i)?;
    let values: Vec<f32> = tensor.to_f64().into_iter().map(|v| v as f32).collect();
    Ok(if values.is_empty() { None } else { Some(values) })
}

impl Resize {
    fn attributes(self, opset: i64) -> Vec<&'static str> {
        match (self, opset) {
            (Resize::Upsample, ..9) => vec!["mode", "scales"],
            (Resize::Upsample, _) | (Resize::Resize, ..11) => vec!["mode"],
            (Resize::Resize, _) => {
                let mut names = vec![
                    "coordinate_transformation_mode",
                    "cubic_coeff_a",
                    "exclude_outside",
                    "extrapolation_value",
                    "mode",
                    "nearest_mode",
                ];
                if opset >= 18 {
                    names.extend(["antialias", "axes", "keep_aspect_ratio_policy"]);
                }
                names
            }
        }
    }

    /// Scales as given, sizes as given; exactly one of them is present.
    fn targets(self, facts: &Facts<'_>) -> Result<Targets> {
        let (scales, sizes) = match (self, facts.opset) {
            (Resize::Upsample, ..9) => match facts.node.attributes.get("scales") {
                Some(crate::graph::Attribute::Floats(scales)) => (Some(scales.clone()), None),
                _ => return Err(facts.invalid("attribute 'scales' is missing or no list of floats")),
            },
            (Resize::Upsample, _) | (Resize::Resize, ..11) => (floats(facts, 1)?, None),
            (Resize::Resize, _) => {
                let sizes = match facts.optional(3) {
                    Some(_) => Some(signature::constant_ints(facts, 3)?).filter(|s| !s.is_empty()),
                    None => None,
                };
                (floats(facts, 2)?, sizes)
            }
        };
        if scales.is_some() == sizes.is_some() {
            return Err(facts.invalid("exactly one of scales and sizes is needed"));
        }
        if let Some(bad) = scales.iter().flatten().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(facts.invalid(format!("scale {bad} is not above zero")));
        }
        let size = |&s: &i64| {
            let size = usize::try_from(s).ok().filter(|s| (1..=MAX_ELEMENTS).contains(s));
            size.ok_or_else(|| facts.invalid(format!("size {s} is not possible")))
        };
        Ok((scales, sizes.map(|s| s.iter().map(size).collect()).transpose()?))
    }

    /// Reads and checks a node.
    pub fn plan(self, facts: &Facts<'_>) -> Result<ResizePlan> {
        let shape = &facts.input(0)?.shape;
        let rank = shape.len();
        let axes = match facts.node.ints("axes")? {
            None => (0..rank).collect(),
            Some(list) => axis::normalize_all(facts, list, rank)?,
        };
        let (scales, sizes) = self.targets(facts)?;
        let given = scales.as_ref().map(Vec::len).or(sizes.as_ref().map(Vec::len));
        if given != Some(axes.len()) {
            return Err(facts.invalid(format!("{} scales or sizes are needed for {shape:?}", axes.len())));
        }
        let filter = self.filter(facts)?;
        let antialias = signature::flag(facts, "antialias", false)?;
        if antialias && matches!(filter, Filter::Nearest(_)) {
            return Err(facts.invalid("antialias belongs to modes 'linear' and 'cubic'"));
        }
        let mut output = shape.clone();
        let mut plan_axes = vec![None; rank];
        let mut factors: Vec<f32> = match (&scales, &sizes) {
            (Some(scales), _) => scales.clone(),
            (_, Some(sizes)) => axes.iter().zip(sizes).map(|(&a, &s)| s as f32 / shape[a] as f32).collect(),
            _ => Vec::new(),
        };
        let policy = facts.node.string("keep_aspect_ratio_policy", "stretch")?;
        let kept = match policy {
            "stretch" => None,
            "not_larger" => Some(factors.iter().copied().fold(f32::INFINITY, f32::min)),
            "not_smaller" => Some(factors.iter().copied().fold(0.0, f32::max)),
            other => return Err(facts.invalid(format!("keep_aspect_ratio_policy '{other}' is not known"))),
        };
        for (i, &a) in axes.iter().enumerate() {
            if shape[a] == 0 {
                return Err(facts.invalid(format!("an empty dimension of {shape:?} cannot be resized")));
            }
            let out = match (&sizes, kept) {
                (None, _) => (shape[a] as f32 * factors[i]) as usize,
                (Some(_), Some(scale)) => {
                    factors[i] = scale;
                    (f64::from(scale) * shape[a] as f64 + 0.5).floor() as usize
                }
                (Some(sizes), None) => sizes[i],
            };
            if out == 0 {
                return Err(facts.invalid(format!("dimension {a} of {shape:?} vanishes")));
            }
            output[a] = out;
            let coordinates = self.coordinates(facts, i, axes.len())?;
            let same = out == shape[a] && factors[i] == 1.0;
            if !same || matches!(coordinates, Coordinates::TfCropAndResize { .. }) {
                plan_axes[a] =
                    Some(Axis { input: shape[a], output: out, scale: factors[i], coordinates, filter, antialias });
            }
        }
        element_count(&output)?;
        Ok(ResizePlan {
            axes: plan_axes,
            output,
            extrapolation: facts.node.float("extrapolation_value", 0.0)?,
            nearest: matches!(filter, Filter::Nearest(_)),
        })
    }

    fn filter(self, facts: &Facts<'_>) -> Result<Filter> {
        let exclude_outside = signature::flag(facts, "exclude_outside", false)?;
        let nearest_mode = match (self, facts.opset) {
            (Resize::Upsample, _) => Nearest::Floor,
            (Resize::Resize, ..11) => Nearest::Simple,
            _ => match facts.node.string("nearest_mode", "round_prefer_floor")? {
                "round_prefer_floor" => Nearest::RoundPreferFloor,
                "round_prefer_ceil" => Nearest::RoundPreferCeil,
                "floor" => Nearest::Floor,
                "ceil" => Nearest::Ceil,
                other => return Err(facts.invalid(format!("nearest_mode '{other}' is not known"))),
            },
        };
        let a = facts.node.float("cubic_coeff_a", -0.75)?;
        let filter = match facts.node.string("mode", "nearest")? {
            "nearest" => Filter::Nearest(nearest_mode),
            "linear" => Filter::Linear,
            "cubic" if self == Resize::Resize && facts.opset >= 11 => Filter::Cubic { a, exclude_outside },
            other => return Err(facts.invalid(format!("mode '{other}' is not known"))),
        };
        if exclude_outside && !matches!(filter, Filter::Cubic { .. }) {
            return Err(facts.invalid("exclude_outside belongs to mode 'cubic'"));
        }
        Ok(filter)
    }

    /// The coordinate rule of the `i`-th of `count` resized axes.
    fn coordinates(self, facts: &Facts<'_>, i: usize, count: usize) -> Result<Coordinates> {
        if self == Resize::Upsample || facts.opset < 11 {
            return Ok(Coordinates::Asymmetric);
        }
        Ok(match facts.node.string("coordinate_transformation_mode", "half_pixel")? {
            "half_pixel" => Coordinates::HalfPixel,
            "half_pixel_symmetric" if facts.opset >= 19 => Coordinates::HalfPixelSymmetric,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "tf_half_pixel_for_nn" if facts.opset < 13 => Coordinates::TfHalfPixelForNn,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            "tf_crop_and_resize" => {
                let roi = floats(facts, 1)?.filter(|r| r.len() == 2 * count && r.iter().all(|v| v.is_finite()));
                let roi = roi.ok_or_else(|| facts.invalid(format!("'roi' must have {} entries", 2 * count)))?;
                Coordinates::TfCropAndResize { start: roi[i], end: roi[count + i] }
            }
            other => return Err(facts.invalid(format!("coordinate_transformation_mode '{other}' is not known"))),
        })
    }
}

impl Op for Resize {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let inputs = match (self, facts.opset) {
            (Resize::Upsample, 10..) => return Err(facts.invalid("Upsample does not exist from opset 10 on")),
            (Resize::Upsample, ..7) => return Err(facts.unsupported("Upsample before opset 7 is not supported")),
            (Resize::Upsample, 7 | 8) => 1..=1,
            (Resize::Resize, ..10) => return Err(facts.invalid("Resize exists from opset 10 on")),
            (Resize::Upsample, _) | (Resize::Resize, ..11) => 2..=2,
            (Resize::Resize, _) => 1..=4,
        };
        signature::check(facts, inputs, 1..=1, &self.attributes(facts.opset))?;
        let plan = self.plan(facts)?;
        let x = facts.input(0)?;
        if !plan.nearest {
            signature::float(facts, x)?;
        }
        Ok(vec![(x.dtype, plan.output)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let plan = self.plan(facts)?;
        let shape = facts.input(0)?.shape.clone();
        let mut taps = Vec::with_capacity(shape.len());
        for axis in &plan.axes {
            taps.push(axis.as_ref().map(Axis::taps).transpose()?);
        }
        if plan.nearest {
            return nearest_kernel(shape, plan, &taps);
        }
        kernel(move |context, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            if let (Data::F32(v), Some((rows, columns))) = (x.data(), planar(&taps)) {
                let out = bilinear(context.engine(), v, &shape, rows, columns, plan.extrapolation);
                return Ok([Tensor::new(plan.output.clone(), Data::F32(out.into()))?].into());
            }
            let data = by_class!(x.data(), v =>
                real interpolate(context.engine(), v, &shape, &taps, plan.extrapolation.into()),
                integer return Err(Error::invalid("tensor_dtype", format!("{} integers, not floats", v.len()))),
                boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans, not floats", v.len()))),
            );
            Ok([Tensor::new(plan.output.clone(), data)?].into())
        })
    }
}

type Taps = Vec<Option<Vec<Tap>>>;

fn nearest_kernel(shape: Vec<usize>, plan: ResizePlan, taps: &[Option<Taps>]) -> Result<Box<dyn Kernel>> {
    let source = |(i, taps): (usize, &Option<Taps>)| match taps {
        None => (0..shape[i]).map(Some).collect(),
        Some(taps) => taps.iter().map(|t| t.as_ref().and_then(|t| t.first()).map(|t| t.0)).collect(),
    };
    let sources: Sources = taps.iter().enumerate().map(source).collect();
    let picks = Picks::new(shape, sources);
    kernel(move |context, inputs| {
        fn fill_value<T: Element>(_: &[T], value: f32) -> T {
            T::view(&Data::F32(vec![value].into())).and_then(|v| v.first().copied()).unwrap_or_default()
        }
        let x = shaped(inputs, 0, picks.shape())?;
        let data = map_data!(x.data(), v => picks.of(context, v, fill_value(v, plan.extrapolation)));
        Ok([Tensor::new(picks.output(), data)?].into())
    })
}

/// The taps of the last two axes, where they alone are resized with at most two taps each.
fn planar(taps: &[Option<Taps>]) -> Option<(&Taps, &Taps)> {
    let [outer @ .., Some(rows), Some(columns)] = taps else { return None };
    let linear = |taps: &Taps| taps.iter().flatten().all(|t| t.len() <= 2);
    (outer.iter().all(Option::is_none) && linear(rows) && linear(columns)).then_some((rows, columns))
}

/// Bilinear interpolation as runtimes do it in float32: the four products `(w_x · w_y) · x`, summed along x first.
fn bilinear(
    engine: Engine<'_>,
    x: &[f32],
    shape: &[usize],
    rows: &Taps,
    columns: &Taps,
    extrapolation: f32,
) -> Vec<f32> {
    let (height, width) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    let plane = rows.len() * columns.len();
    let mut out = vec![0f32; x.len() / (height * width).max(1) * plane];
    fill(engine, &mut out, plane.max(1), |start, part| {
        let source = &x[start / plane * height * width..][..height * width];
        for (line, row) in part.chunks_exact_mut(columns.len()).zip(rows) {
            for (o, column) in line.iter_mut().zip(columns) {
                let (Some(row), Some(column)) = (row, column) else {
                    *o = extrapolation;
                    continue;
                };
                let terms = row.iter().flat_map(|&(r, wy)| column.iter().map(move |&(c, wx)| (r * width + c, wx * wy)));
                *o = terms.map(|(i, w)| w * source[i]).reduce(|a, b| a + b).unwrap_or(0.0);
            }
        }
    });
    out
}

fn interpolate<T: Real>(
    engine: Engine<'_>,
    x: &[T],
    shape: &[usize],
    taps: &[Option<Taps>],
    extrapolation: f64,
) -> Data {
    if x.is_empty() {
        return T::wrap(Vec::new());
    }
    let mut current: Vec<f64> = x.iter().map(|v| v.to_f64()).collect();
    let mut dims = shape.to_vec();
    // The last axis first: the passes over outer axes then work on whole rows.
    for (a, taps) in taps.iter().enumerate().rev() {
        let Some(taps) = taps else { continue };
        let (outer, size, inner) = axis::around(&dims, a);
        let mut next = vec![0f64; outer * taps.len() * inner];
        fill(engine, &mut next, (taps.len() * inner).max(1), |start, part| {
            let base = start / (taps.len() * inner) * size * inner;
            for (line, taps) in part.chunks_exact_mut(inner).zip(taps) {
                for &(i, w) in taps.iter().flatten() {
                    let source = &current[base + i * inner..][..inner];
                    line.iter_mut().zip(source).for_each(|(o, &v)| *o += f64::from(w) * v);
                }
            }
        });
        dims[a] = taps.len();
        current = next;
    }
    // Elements outside a crop in any axis hold the extrapolation value.
    for (a, taps) in taps.iter().enumerate() {
        let (_, size, inner) = axis::around(&dims, a);
        for o in taps.iter().flat_map(|t| t.iter().enumerate()).filter(|t| t.1.is_none()).map(|t| t.0) {
            for block in current.chunks_exact_mut((size * inner).max(1)) {
                block[o * inner..][..inner].fill(extrapolation);
            }
        }
    }
    T::wrap(current.into_iter().map(T::from_f64).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_that_are_no_ratio_of_sizes_are_told_apart() {
        let plan = |scale| {
            let axis = Axis {
                input: 3,
                output: 4,
                scale,
                coordinates: Coordinates::Asymmetric,
                filter: Filter::Linear,
                antialias: false,
            };
            ResizePlan { axes: vec![None, Some(axis)], output: vec![1, 4], extrapolation: 0.0, nearest: false }
        };
        assert!(plan(4.0 / 3.0).follows_sizes() && !plan(1.5).follows_sizes());
    }
}
