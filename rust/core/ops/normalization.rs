//! Normalizations: Batch (inference), Instance, Group and Layer. Statistics run in order in f64, with the variance as
//! the mean of squared differences; results are rounded once.

use super::closure::{kernel, optional, shaped};
use super::element::{Real, by_class};
use super::parallel::{fill, whole_rows};
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::{DType, Data, Tensor, element_count};

/// Mean and `1 / √(variance + epsilon)` of a row.
pub fn statistics<T: Real>(row: &[T], epsilon: f64) -> (f64, f64) {
    let count = row.len() as f64;
    let mean = row.iter().map(|x| x.to_f64()).sum::<f64>() / count;
    let variance = row.iter().map(|x| (x.to_f64() - mean) * (x.to_f64() - mean)).sum::<f64>() / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// Rewrites each row of `row` elements of a tensor of reals: `f(number of the row, its statistics)` gives the function
/// of column and `(x - mean) / √(variance + epsilon)`. Returns the statistics, too.
fn normalize_rows<F: Fn(usize, f64) -> f64>(
    engine: Engine<'_>,
    data: &Data,
    row: usize,
    epsilon: f64,
    f: impl Fn(usize) -> F + Sync,
) -> Result<(Data, Vec<(f64, f64)>)> {
    fn typed<T: Real, F: Fn(usize, f64) -> f64>(
        engine: Engine<'_>,
        x: &[T],
        row: usize,
        epsilon: f64,
        f: impl Fn(usize) -> F + Sync,
    ) -> (Data, Vec<(f64, f64)>) {
        let row = row.max(1);
        let mut moments = vec![(0.0, 0.0); x.len() / row];
        fill(engine, &mut moments, whole_rows(row) / row, |start, part| {
            for (m, line) in part.iter_mut().zip(x[start * row..].chunks_exact(row)) {
                *m = statistics(line, epsilon);
            }
        });
        let mut y = x.to_vec();
        fill(engine, &mut y, whole_rows(row), |start, part| {
            for (i, line) in part.chunks_exact_mut(row).enumerate() {
                let r = start / row + i;
                let ((mean, inverse), scale) = (moments[r], f(r));
                for (c, y) in line.iter_mut().enumerate() {
                    *y = T::from_f64(scale(c, (y.to_f64() - mean) * inverse));
                }
            }
        });
        (T::wrap(y), moments)
    }
    Ok(by_class!(data, v =>
        real typed(engine, v, row, epsilon, f),
        integer return Err(Error::invalid("tensor_dtype", format!("{} integers, not floats", v.len()))),
        boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans, not floats", v.len()))),
    ))
}

/// Attribute `epsilon`, which must not be negative.
pub(super) fn epsilon(facts: &Facts<'_>) -> Result<f64> {
    let epsilon = facts.node.float("epsilon", 1e-5)?;
    if epsilon >= 0.0 { Ok(epsilon.into()) } else { Err(facts.invalid(format!("epsilon is {epsilon}"))) }
}

/// Batch and channels of `[N, C, …]`.
fn channels(facts: &Facts<'_>) -> Result<usize> {
    let x = facts.input(0)?;
    signature::float(facts, x)?;
    match x.shape.as_slice() {
        [_, c, ..] => Ok(*c),
        other => Err(facts.invalid(format!("'{}' has shape {other:?}: no channels", x.name))),
    }
}

/// BatchNormalization at inference: `(x - mean) / √(variance + epsilon) · scale + bias` per channel.
pub struct BatchNormalization;

impl Op for BatchNormalization {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes: &[&str] = match facts.opset {
            ..7 => return Err(facts.unsupported("BatchNormalization before opset 7 is not supported")),
            7..9 => &["epsilon", "momentum", "spatial"],
            9..14 => &["epsilon", "momentum"],
            _ => &["epsilon", "momentum", "training_mode"],
        };
        if signature::flag(facts, "training_mode", false)? || !signature::flag(facts, "spatial", true)? {
            return Err(facts.unsupported("only inference with one scale per channel is supported"));
        }
        signature::check(facts, 5..=5, 1..=1, attributes)?;
        facts.node.float("momentum", 0.9)?;
        epsilon(facts)?;
        let c = channels(facts)?;
        for i in 1..5 {
            let fact = facts.input(i)?;
            signature::float(facts, fact)?;
            signature::shape(facts, fact, &[c])?;
        }
        let x = facts.input(0)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn typed<T: Real>(engine: Engine<'_>, x: &[T], plane: usize, affine: &[[f64; 4]]) -> Data {
            let mut y = x.to_vec();
            fill(engine, &mut y, plane.max(1), |start, part| {
                let [scale, bias, mean, inverse] = affine[start / plane.max(1) % affine.len()];
                part.iter_mut().for_each(|y| *y = T::from_f64((y.to_f64() - mean) * inverse * scale + bias));
            });
            T::wrap(y)
        }
        let (c, epsilon) = (channels(facts)?, epsilon(facts)?);
        let shape = facts.input(0)?.shape.clone();
        kernel(move |context, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let mut lists = Vec::with_capacity(4);
            for i in 1..5 {
                lists.push(shaped(inputs, i, &[c])?.to_f64());
            }
            let affine: Vec<[f64; 4]> =
                (0..c).map(|i| [lists[0][i], lists[1][i], lists[2][i], 1.0 / (lists[3][i] + epsilon).sqrt()]).collect();
            let plane = shape[2..].iter().product();
            let data = by_class!(x.data(), v =>
                real typed(context.engine(), v, plane, &affine),
                integer return Err(Error::invalid("tensor_dtype", format!("{} integers, not floats", v.len()))),
                boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans, not floats", v.len()))),
            );
            Ok([Tensor::new(shape.clone(), data)?].into())
        })
    }
}

/// Statistics over groups of channels of each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupNormalization {
    /// InstanceNormalization: each channel is a group.
    Instance,
    /// GroupNormalization: `num_groups` groups; scale and bias per group before opset 21, per channel from then on.
    Group,
}

impl GroupNormalization {
    /// Groups, and entries of scale and bias.
    fn groups(self, facts: &Facts<'_>) -> Result<(usize, usize)> {
        let c = channels(facts)?;
        if self == GroupNormalization::Instance {
            return Ok((c, c));
        }
        let groups = facts.node.int("num_groups", 0)?;
        let groups = usize::try_from(groups)
            .ok()
            .filter(|&g| g > 0 && c % g == 0)
            .ok_or_else(|| facts.invalid(format!("{c} channels do not divide into {groups} groups")))?;
        Ok((groups, if facts.opset < 21 { groups } else { c }))
    }
}

impl Op for GroupNormalization {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes: &[&str] = match self {
            GroupNormalization::Instance => &["epsilon"],
            GroupNormalization::Group if facts.opset < 21 => &["epsilon", "num_groups"],
            GroupNormalization::Group => &["epsilon", "num_groups", "stash_type"],
        };
        signature::check(facts, 3..=3, 1..=1, attributes)?;
        stash_type(facts)?;
        epsilon(facts)?;
        let (_, entries) = self.groups(facts)?;
        let x = facts.input(0)?;
        for i in 1..3 {
            signature::same_dtype(facts, x, facts.input(i)?)?;
            signature::shape(facts, facts.input(i)?, &[entries])?;
        }
        if x.shape.contains(&0) {
            return Err(facts.invalid(format!("'{}' has shape {:?}: nothing to normalize", x.name, x.shape)));
        }
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (epsilon, (groups, entries)) = (epsilon(facts)?, self.groups(facts)?);
        let shape = facts.input(0)?.shape.clone();
        kernel(move |context, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let (scale, bias) = (shaped(inputs, 1, &[entries])?.to_f64(), shaped(inputs, 2, &[entries])?.to_f64());
            let row = shape[1..].iter().product::<usize>() / groups;
            let entry_size = shape[1..].iter().product::<usize>() / entries;
            let (data, _) = normalize_rows(context.engine(), x.data(), row, epsilon, |r| {
                let first = r % groups * row;
                let (scale, bias) = (&scale, &bias);
                move |c, v| {
                    let entry = (first + c) / entry_size;
                    v * scale[entry] + bias[entry]
                }
            })?;
            Ok([Tensor::new(shape.clone(), data)?].into())
        })
    }
}

/// LayerNormalization over all dimensions from `axis` on.
pub struct LayerNormalization;

/// Type of the statistics that the node gives out.
pub(super) fn stash_type(facts: &Facts<'_>) -> Result<()> {
    match facts.node.int("stash_type", 1)? {
        1 => Ok(()),
        other => Err(facts.unsupported(format!("stash_type {other} is not supported, only 1 (float32)"))),
    }
}

impl LayerNormalization {
    fn axis(facts: &Facts<'_>) -> Result<usize> {
        axis::normalize(facts, facts.node.int("axis", -1)?, facts.input(0)?.shape.len())
    }

    /// Shape of mean and inverse deviation.
    fn reduced(shape: &[usize], axis: usize) -> Vec<usize> {
        shape.iter().enumerate().map(|(i, &d)| if i < axis { d } else { 1 }).collect()
    }
}

impl Op for LayerNormalization {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=3, 1..=3, &["axis", "epsilon", "stash_type"])?;
        stash_type(facts)?;
        epsilon(facts)?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        let axis = Self::axis(facts)?;
        if x.shape[axis..].contains(&0) {
            return Err(facts.invalid(format!("'{}' has shape {:?}: nothing to normalize", x.name, x.shape)));
        }
        for fact in [Some(facts.input(1)?), facts.optional(2)].into_iter().flatten() {
            signature::same_dtype(facts, x, fact)?;
            let (scale, row) = (&fact.shape, &x.shape[axis..]);
            let inner = &scale[scale.len().saturating_sub(row.len())..];
            let outer = &scale[..scale.len() - inner.len()];
            let fits = inner.iter().rev().zip(row.iter().rev()).all(|(a, b)| a == b || *a == 1);
            if !fits || outer.iter().any(|&d| d != 1) {
                return Err(facts.unsupported(format!("'{}' of {scale:?} does not fit rows of {row:?}", fact.name)));
            }
        }
        let reduced = Self::reduced(&x.shape, axis);
        let all = [(x.dtype, x.shape.clone()), (DType::F32, reduced.clone()), (DType::F32, reduced)];
        Ok(all.into_iter().take(facts.node.outputs.len()).collect())
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (epsilon, axis, outputs) = (epsilon(facts)?, Self::axis(facts)?, facts.node.outputs.len());
        let shape = facts.input(0)?.shape.clone();
        kernel(move |context, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let row_shape = &shape[axis..];
            let row = element_count(row_shape)?;
            let spread = |tensor: Option<&Tensor>| -> Result<Option<Vec<f64>>> {
                let Some(tensor) = tensor else { return Ok(None) };
                let plan = super::broadcast::Broadcast::new(&[tensor.shape(), row_shape])?;
                let values = tensor.to_f64();
                if plan.len() != row {
                    return Err(Error::invalid(
                        "run_shape",
                        format!("{:?} does not fit {row_shape:?}", tensor.shape()),
                    ));
                }
                Ok(Some((0..row).map(|i| values[plan.index(0, i)]).collect()))
            };
            let scale = spread(optional(inputs, 1))?.unwrap_or_else(|| vec![1.0; row]);
            let bias = spread(optional(inputs, 2))?.unwrap_or_else(|| vec![0.0; row]);
            let (data, moments) = normalize_rows(context.engine(), x.data(), row, epsilon, |_| {
                let (scale, bias) = (&scale, &bias);
                move |c: usize, v: f64| v * scale[c] + bias[c]
            })?;
            let reduced = Self::reduced(&shape, axis);
            let mut out = vec![Tensor::new(shape.clone(), data)?];
            let (mean, inverse): (Vec<f32>, Vec<f32>) = moments.iter().map(|&(m, i)| (m as f32, i as f32)).unzip();
            for extra in [mean, inverse].into_iter().take(outputs.saturating_sub(1)) {
                out.push(Tensor::new(reduced.clone(), Data::F32(extra.into()))?);
            }
            Ok(out.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_of_the_population() {
        let (mean, inverse) = statistics(&[1f32, 3.0], 0.0);
        assert_eq!((mean, inverse), (2.0, 1.0));
        assert_eq!(statistics(&[5f32; 3], 0.25), (5.0, 2.0));
    }
}
