//! RoiAlign and NonMaxSuppression.

use super::closure::{kernel, shaped};
use super::{Facts, Inferred, Kernel, Op, floats, signature};
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, MAX_ELEMENTS, Tensor, element_count};

/// RoiAlign: averages or maxima of bilinear samples within the bins of rectangles.
///
/// Positions are computed in float32 where the input is no float64, as runtimes do: the number of samples is a ceiling.
/// Values run in f64 and are rounded once. In mode `max` the largest of the four weighted neighbours of each sample
/// counts, not their sum, as in ONNX's reference.
pub struct RoiAlign;

/// Attributes of a RoiAlign node.
#[derive(Debug, Clone, Copy)]
struct Roi {
    bins: [usize; 2],
    samples: usize,
    scale: f64,
    half_pixel: bool,
    max: bool,
    single: bool,
}

/// A sample: four places and their weights.
type Sample = [(usize, f64); 4];

impl Roi {
    fn from_node(facts: &Facts<'_>) -> Result<Self> {
        let size = |name: &str, least: i64, default: i64| {
            let value = facts.node.int(name, default)?;
            if !(least..=MAX_ELEMENTS as i64).contains(&value) {
                return Err(facts.invalid(format!("{name} is {value}")));
            }
            Ok(value as usize)
        };
        let half_pixel = match facts.node.string("coordinate_transformation_mode", "half_pixel")? {
            "half_pixel" => facts.opset >= 16,
            "output_half_pixel" => false,
            other => return Err(facts.invalid(format!("coordinate_transformation_mode '{other}' is not known"))),
        };
        let max = match facts.node.string("mode", "avg")? {
            "avg" => false,
            "max" => true,
            other => return Err(facts.invalid(format!("mode '{other}' is neither 'avg' nor 'max'"))),
        };
        Ok(Roi {
            bins: [size("output_height", 1, 1)?, size("output_width", 1, 1)?],
            samples: size("sampling_ratio", 0, 0)?,
            scale: facts.node.float("spatial_scale", 1.0)?.into(),
            half_pixel,
            max,
            single: facts.input(0)?.dtype != DType::F64,
        })
    }

    /// Calls `sample(bin, samples in the bin, its neighbours)` for each sample of a rectangle on an image of `size`,
    /// bins in row-major order. Fails where their number is absurd.
    fn samples(&self, rectangle: &[f64], size: [usize; 2], mut sample: impl FnMut(usize, usize, Sample)) -> Result<()> {
        let round = |v: f64| if self.single { f64::from(v as f32) } else { v };
        let offset = if self.half_pixel { 0.5 } else { 0.0 };
        // Per dimension (rows, columns): begin, size of a bin, samples per bin.
        let mut axes = [(0.0, 0.0, 0usize); 2];
        for (i, axis) in axes.iter_mut().enumerate() {
            let edge = |at: usize| round(round(rectangle[at] * self.scale) - offset);
            let (begin, end) = (edge(1 - i), edge(3 - i));
            let mut extent = round(end - begin);
            if !self.half_pixel {
                extent = extent.max(1.0);
            }
            let bin = round(extent / self.bins[i] as f64);
            let samples = if self.samples > 0 { self.samples } else { bin.ceil() as usize };
            *axis = (begin, bin, samples);
        }
        let [rows, columns] = axes;
        let per_bin = rows.2.saturating_mul(columns.2);
        if per_bin.saturating_mul(self.bins[0] * self.bins[1]) > MAX_ELEMENTS {
            return Err(Error::invalid("roi_samples", format!("a rectangle of {rectangle:?} has too many samples")));
        }
        let position = |(begin, bin, samples): (f64, f64, usize), b: usize, s: usize| {
            let within = round(round((s as f64 + 0.5) * bin) / samples as f64);
            round(round(begin + round(b as f64 * bin)) + within)
        };
        for bin in 0..self.bins[0] * self.bins[1] {
            for i in 0..per_bin {
                let y = position(rows, bin / self.bins[1], i / columns.2);
                let x = position(columns, bin % self.bins[1], i % columns.2);
                sample(bin, per_bin, bilinear(y, x, size));
            }
        }
        Ok(())
    }
}

/// The neighbours of a point; all weights are 0 beyond one pixel outside of the image.
fn bilinear(y: f64, x: f64, [height, width]: [usize; 2]) -> Sample {
    let outside = |v: f64, size: usize| !(-1.0..=size as f64).contains(&v);
    if outside(y, height) || outside(x, width) {
        return [(0, 0.0); 4];
    }
    let split = |v: f64, size: usize| {
        let v = v.max(0.0);
        let low = v as usize;
        if low >= size - 1 { (size - 1, size - 1, 0.0) } else { (low, low + 1, v - low as f64) }
    };
    let ((top, bottom, ly), (left, right, lx)) = (split(y, height), split(x, width));
    [
        (top * width + left, (1.0 - ly) * (1.0 - lx)),
        (top * width + right, (1.0 - ly) * lx),
        (bottom * width + left, ly * (1.0 - lx)),
        (bottom * width + right, ly * lx),
    ]
}

impl Op for RoiAlign {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let mut attributes = vec!["mode", "output_height", "output_width", "sampling_ratio", "spatial_scale"];
        if facts.opset >= 16 {
            attributes.push("coordinate_transformation_mode");
        }
        signature::check(facts, 3..=3, 1..=1, &attributes)?;
        let (x, rois, batches) = (facts.input(0)?, facts.input(1)?, facts.input(2)?);
        signature::float(facts, x)?;
        signature::same_dtype(facts, x, rois)?;
        signature::indices(facts, batches)?;
        let roi = Roi::from_node(facts)?;
        let &[_, channels, height, width] = x.shape.as_slice() else {
            return Err(facts.invalid(format!("'{}' has shape {:?}, four dimensions are expected", x.name, x.shape)));
        };
        let count = batches.shape.first().copied().unwrap_or(0);
        signature::shape(facts, batches, &[count])?;
        signature::shape(facts, rois, &[count, 4])?;
        if height * width == 0 {
            return Err(facts.invalid(format!("'{}' has shape {:?}: nothing to read", x.name, x.shape)));
        }
        let shape = vec![count, channels, roi.bins[0], roi.bins[1]];
        element_count(&shape)?;
        Ok(vec![(x.dtype, shape)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let roi = Roi::from_node(facts)?;
        let (shape, count) = (facts.input(0)?.shape.clone(), facts.input(2)?.shape[0]);
        let (channels, size) = (shape[1], [shape[2], shape[3]]);
        let out = vec![count, channels, roi.bins[0], roi.bins[1]];
        kernel(move |_, inputs| {
            let tensor = shaped(inputs, 0, &shape)?;
            let rois = shaped(inputs, 1, &[count, 4])?.to_f64();
            let (x, image) = (tensor.to_f64(), size[0] * size[1]);
            let mut y = Vec::with_capacity(element_count(&out)?);
            for (rectangle, batch) in rois.chunks_exact(4).zip(shaped(inputs, 2, &[count])?.to_i64()?) {
                let batch = usize::try_from(batch).ok().filter(|&b| b < shape[0]);
                let batch = batch.ok_or_else(|| Error::invalid("index_range", "a batch index is outside the batch"))?;
                let bins = roi.bins[0] * roi.bins[1];
                let mut part = vec![if roi.max { f64::NEG_INFINITY } else { 0.0 }; channels * bins];
                let mut empty = true;
                roi.samples(rectangle, size, |bin, count, sample| {
                    empty = false;
                    for c in 0..channels {
                        let x = &x[(batch * channels + c) * image..][..image];
                        let terms = sample.iter().map(|&(place, weight)| weight * x[place]);
                        let y = &mut part[c * bins + bin];
                        *y = match roi.max {
                            true => terms.fold(*y, f64::max),
                            false => *y + terms.sum::<f64>() / count as f64,
                        };
                    }
                })?;
                if empty {
                    part.fill(0.0);
                }
                y.extend(part);
            }
            Ok([floats::write_f64(&out, y, tensor.dtype())?].into())
        })
    }
}

/// NonMaxSuppression, in float32: per batch and class, boxes in falling order of score that no better box overlaps by
/// more than the threshold. The number of boxes follows from values, so all inputs must be known before the run.
pub struct NonMaxSuppression;

/// Corners of a box, lower ones first.
fn corners(b: &[f32], centered: bool) -> [f32; 4] {
    match *b {
        [x, y, w, h] if centered => [y - h / 2.0, x - w / 2.0, y + h / 2.0, x + w / 2.0],
        [y1, x1, y2, x2] => [y1.min(y2), x1.min(x2), y1.max(y2), x1.max(x2)],
        _ => [0.0; 4],
    }
}

/// Whether the intersection of two boxes is more than `threshold` of their union.
fn overlaps(a: [f32; 4], b: [f32; 4], threshold: f32) -> bool {
    let area = |b: [f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let (height, width) = (a[2].min(b[2]) - a[0].max(b[0]), a[3].min(b[3]) - a[1].max(b[1]));
    if height <= 0.0 || width <= 0.0 || area(a) <= 0.0 || area(b) <= 0.0 {
        return false;
    }
    let both = height * width;
    let either = area(a) + area(b) - both;
    either > 0.0 && both / either > threshold
}

impl NonMaxSuppression {
    fn scalar(facts: &Facts<'_>, i: usize) -> Result<Option<Tensor>> {
        if facts.optional(i).is_none() {
            return Ok(None);
        }
        let value = facts.constant(i)?;
        if value.len() != 1 {
            return Err(facts.invalid(format!("input {i} is no scalar")));
        }
        Ok(Some(Tensor::clone(value)))
    }

    fn value(facts: &Facts<'_>) -> Result<Tensor> {
        let (boxes, scores) = (facts.constant(0)?, facts.constant(1)?);
        let (&[batches, count, 4], &[score_batches, classes, score_count]) = (boxes.shape(), scores.shape()) else {
            return Err(facts.invalid(format!("{:?} and {:?} are no boxes and scores", boxes.shape(), scores.shape())));
        };
        if (batches, count) != (score_batches, score_count) {
            return Err(facts.invalid(format!(
                "scores of {:?} do not fit boxes of {:?}",
                scores.shape(),
                boxes.shape()
            )));
        }
        let float =
            |i: usize| -> Result<Option<f32>> { Self::scalar(facts, i)?.map(|t| t.as_f32().map(|v| v[0])).transpose() };
        let most = match Self::scalar(facts, 2)? {
            Some(most) => most.to_i64()?[0].max(0) as usize,
            None => 0,
        };
        let (iou, least) = (float(3)?.unwrap_or(0.0), float(4)?);
        if !(0.0..=1.0).contains(&iou) {
            return Err(facts.invalid(format!("iou_threshold is {iou}")));
        }
        let centered = signature::flag(facts, "center_point_box", false)?;
        let (boxes, scores) = (boxes.as_f32()?, scores.as_f32()?);
        let mut out: Vec<i64> = Vec::new();
        for batch in 0..batches {
            let boxes: Vec<[f32; 4]> =
                boxes[batch * count * 4..][..count * 4].chunks_exact(4).map(|b| corners(b, centered)).collect();
            for class in 0..classes {
                let scores = &scores[(batch * classes + class) * count..][..count];
                let mut order: Vec<usize> = (0..count).filter(|&i| least.is_none_or(|l| scores[i] > l)).collect();
                // Adding zero makes -0 equal to 0.
                order.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
                let mut selected: Vec<usize> = Vec::new();
                for i in order {
                    if selected.len() >= most {
                        break;
                    }
                    if !selected.iter().any(|&s| overlaps(boxes[i], boxes[s], iou)) {
                        selected.push(i);
                        out.extend([batch as i64, class as i64, i as i64]);
                    }
                }
            }
        }
        Tensor::new(vec![out.len() / 3, 3], Data::I64(out.into()))
    }
}

impl Op for NonMaxSuppression {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=5, 1..=1, &["center_point_box"])?;
        Ok(vec![(DType::I64, Self::value(facts)?.shape().to_vec())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let value = Self::value(facts)?;
        kernel(move |_, _| Ok([value.clone()].into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_overlap_by_more_than_the_threshold() {
        let (a, b) = (corners(&[1.0, 1.0, 0.0, 0.0], false), corners(&[0.5, 0.5, 1.0, 0.5], true));
        assert_eq!((a, b), ([0.0, 0.0, 1.0, 1.0], [0.25, 0.0, 0.75, 1.0]));
        assert!(overlaps(a, b, 0.49) && !overlaps(a, b, 0.5));
        assert!(!overlaps(a, [2.0, 2.0, 3.0, 3.0], 0.0) && !overlaps(a, [0.5, 0.5, 0.5, 0.5], 0.0));
    }

    #[test]
    fn samples_stay_within_the_image() {
        assert_eq!(bilinear(-1.5, 0.0, [2, 2]), [(0, 0.0); 4]);
        assert_eq!(bilinear(f64::NAN, 0.0, [2, 2]), [(0, 0.0); 4]);
        assert_eq!(bilinear(2.0, 0.5, [2, 2]), [(2, 0.5), (3, 0.5), (2, 0.0), (3, 0.0)]);
    }
}
