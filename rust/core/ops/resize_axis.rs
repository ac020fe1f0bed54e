//! One axis of a resize: where each output element lies in the input, and with which weights it reads it.
//!
//! Coordinates are float32, in the order of operations of the ONNX formulas: ties and weights are then those of the
//! runtimes that compute in float32.

use crate::error::{Error, Result};

/// How an index of the output becomes a coordinate of the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Coordinates {
    /// `(o + 1/2) / scale - 1/2`.
    HalfPixel,
    /// As HalfPixel, around the centre of the output before its size is rounded.
    HalfPixelSymmetric,
    /// As HalfPixel; 0 where the output has one element.
    PytorchHalfPixel,
    /// `(o + 1/2) / scale`.
    TfHalfPixelForNn,
    /// `o · (input - 1) / (output - 1)`.
    AlignCorners,
    /// `o / scale`.
    Asymmetric,
    /// Into the region of interest from `start` to `end`, in fractions of the input.
    TfCropAndResize {
        /// First coordinate, as a fraction of `input - 1`.
        start: f32,
        /// Last coordinate, as a fraction of `input - 1`.
        end: f32,
    },
}

/// How a coordinate becomes an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearest {
    /// To nearest, ties down.
    RoundPreferFloor,
    /// To nearest, ties up.
    RoundPreferCeil,
    /// Down.
    Floor,
    /// Up.
    Ceil,
    /// Up where the axis shrinks, towards zero elsewhere: Resize of opset 10.
    Simple,
}

/// How values between elements are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Filter {
    /// The nearest element.
    Nearest(Nearest),
    /// Two taps.
    Linear,
    /// Four taps.
    Cubic {
        /// The coefficient `a` of Keys' kernel.
        a: f32,
        /// Whether taps outside the input are left out and the others scaled to sum to 1.
        exclude_outside: bool,
    },
}

/// One axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    /// Elements of the input.
    pub input: usize,
    /// Elements of the output.
    pub output: usize,
    /// Output elements per input element, before the output's size was rounded.
    pub scale: f32,
    /// Coordinate rule.
    pub coordinates: Coordinates,
    /// Interpolation.
    pub filter: Filter,
    /// Whether the filter widens where the axis shrinks, so that it reads every element.
    pub antialias: bool,
}

/// Index and weight of one element of the input.
pub type Tap = (usize, f32);

impl Axis {
    /// The coordinate of output element `o`.
    pub fn coordinate(&self, o: usize) -> f32 {
        let (x, input, output, scale) = (o as f32, self.input as f32, self.output as f32, self.scale);
        match self.coordinates {
            Coordinates::HalfPixel => (x + 0.5) / scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = output / (scale * input);
                let offset = input / 2.0 * (1.0 - adjustment);
                offset + (x + 0.5) / scale - 0.5
            }
            Coordinates::PytorchHalfPixel if self.output == 1 => 0.0,
            Coordinates::PytorchHalfPixel => (x + 0.5) / scale - 0.5,
            Coordinates::TfHalfPixelForNn => (x + 0.5) / scale,
            Coordinates::AlignCorners if self.output == 1 => 0.0,
            Coordinates::AlignCorners => x * (input - 1.0) / (output - 1.0),
            Coordinates::Asymmetric => x / scale,
            Coordinates::TfCropAndResize { start, end } if self.output == 1 => 0.5 * (start + end) * (input - 1.0),
            Coordinates::TfCropAndResize { start, end } => {
                start * (input - 1.0) + x * (end - start) * (input - 1.0) / (output - 1.0)
            }
        }
    }

    /// The element that a coordinate is nearest to, within the input.
    pub fn nearest(&self, coordinate: f32, mode: Nearest) -> usize {
        let index = match mode {
            Nearest::RoundPreferFloor => (coordinate - 0.5).ceil(),
            Nearest::RoundPreferCeil => (coordinate + 0.5).floor(),
            Nearest::Floor => coordinate.floor(),
            Nearest::Ceil => coordinate.ceil(),
            Nearest::Simple if self.scale < 1.0 => coordinate.ceil(),
            Nearest::Simple => coordinate.trunc(),
        };
        (index.max(0.0) as usize).min(self.input - 1)
    }

    /// The taps of each output element; `None` where the coordinate leaves the input in a crop. The input must have
    /// elements.
    pub fn taps(&self) -> Result<Vec<Option<Vec<Tap>>>> {
        if self.input == 0 {
            return Err(Error::invalid("resize_empty", "an axis without elements cannot be resized"));
        }
        let last = self.input - 1;
        let taps = |o: usize| {
            let coordinate = self.coordinate(o);
            let crop = matches!(self.coordinates, Coordinates::TfCropAndResize { .. });
            if crop && !(0.0..=last as f32).contains(&coordinate) {
                return None;
            }
            Some(match self.filter {
                Filter::Linear | Filter::Cubic { .. } if self.antialias && self.scale < 1.0 => self.wide(coordinate),
                Filter::Nearest(mode) => vec![(self.nearest(coordinate, mode), 1.0)],
                Filter::Linear => {
                    let clamped = coordinate.clamp(0.0, last as f32);
                    let low = (clamped.floor() as usize).min(last);
                    let high = (low + 1).min(last);
                    let fraction = clamped - low as f32;
                    if low == high { vec![(low, 1.0)] } else { vec![(low, 1.0 - fraction), (high, fraction)] }
                }
                Filter::Cubic { a, exclude_outside } => self.cubic(coordinate, a, exclude_outside),
            })
        };
        Ok((0..self.output).map(taps).collect())
    }

    /// The taps of a filter that is stretched by the inverse of the scale, with weights that sum to 1. Elements outside the
    /// input are those at its ends.
    fn wide(&self, coordinate: f32) -> Vec<Tap> {
        let (scale, centre) = (f64::from(self.scale), f64::from(coordinate));
        let (support, exclude_outside) = match self.filter {
            Filter::Cubic { exclude_outside, .. } => (2.0, exclude_outside),
            _ => (1.0, false),
        };
        let weight = |distance: f64| match self.filter {
            Filter::Cubic { a, .. } => keys(distance.abs(), a.into()),
            _ => (1.0 - distance.abs()).max(0.0),
        };
        // The elements that lie nearer than the stretched support, the ones at its border left out: they weigh nothing.
        let (first, end) = ((centre - support / scale).floor() as i64 + 1, (centre + support / scale).ceil() as i64);
        let last = self.input as i64 - 1;
        let inside = |position: &i64| !exclude_outside || (0..=last).contains(position);
        let taps: Vec<(usize, f64)> = (first..end)
            .filter(inside)
            .map(|position| (position.clamp(0, last) as usize, weight(scale * (position as f64 - centre))))
            .collect();
        let sum: f64 = taps.iter().map(|tap| tap.1).sum();
        taps.into_iter().map(|(i, w)| (i, (w / sum) as f32)).collect()
    }

    fn cubic(&self, coordinate: f32, a: f32, exclude_outside: bool) -> Vec<Tap> {
        let floor = coordinate.floor();
        let s = coordinate - floor;
        let far = |t: f32| ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a;
        let near = |t: f32| ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
        let weights = [far(s + 1.0), near(s), near(1.0 - s), far(2.0 - s)];
        let inside = |i: usize| {
            let position = floor as i64 + i as i64 - 1;
            (position >= 0 && position < self.input as i64, position.clamp(0, self.input as i64 - 1) as usize)
        };
        if !exclude_outside {
            return weights.iter().enumerate().map(|(i, &w)| (inside(i).1, w)).collect();
        }
        let kept: Vec<Tap> =
            weights.iter().enumerate().filter(|(i, _)| inside(*i).0).map(|(i, &w)| (inside(i).1, w)).collect();
        let sum: f32 = kept.iter().map(|t| t.1).sum();
        kept.into_iter().map(|(i, w)| (i, w / sum)).collect()
    }
}

/// Keys' kernel with coefficient `a` at a distance.
fn keys(x: f64, a: f64) -> f64 {
    match x {
        ..=1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        ..2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(input: usize, output: usize, coordinates: Coordinates, filter: Filter) -> Axis {
        Axis { input, output, scale: output as f32 / input as f32, coordinates, filter, antialias: false }
    }

    #[test]
    fn ties_go_where_the_mode_says() {
        let a = axis(4, 4, Coordinates::Asymmetric, Filter::Linear);
        for (mode, expected) in [
            (Nearest::RoundPreferFloor, [0, 0, 1, 3]),
            (Nearest::RoundPreferCeil, [0, 1, 2, 3]),
            (Nearest::Floor, [0, 0, 1, 3]),
            (Nearest::Ceil, [0, 1, 2, 3]),
        ] {
            assert_eq!([-0.5, 0.5, 1.5, 3.5].map(|c| a.nearest(c, mode)), expected, "{mode:?}");
        }
    }

    #[test]
    fn weights_sum_to_one() {
        for filter in [Filter::Linear, Filter::Cubic { a: -0.75, exclude_outside: true }] {
            for taps in axis(5, 13, Coordinates::HalfPixel, filter).taps().unwrap() {
                let sum: f32 = taps.unwrap().iter().map(|t| t.1).sum();
                assert!((sum - 1.0).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_wide_filter_reads_every_element() {
        let mut a = axis(8, 2, Coordinates::HalfPixel, Filter::Linear);
        a.antialias = true;
        // Centre 1.5, four elements to each side; the two outside are the first one.
        let taps = a.taps().unwrap();
        let mut weights = [0.0; 8];
        taps[0].as_ref().unwrap().iter().for_each(|&(i, w)| weights[i] += w);
        let sixteenths: Vec<f32> = weights.iter().map(|w| w * 32.0).collect();
        assert_eq!(sixteenths, [5.0 + 3.0 + 1.0, 7.0, 7.0, 5.0, 3.0, 1.0, 0.0, 0.0]);
        for filter in [Filter::Linear, Filter::Cubic { a: -0.75, exclude_outside: true }] {
            for taps in (Axis { antialias: true, filter, ..axis(9, 4, Coordinates::HalfPixel, filter) }).taps().unwrap()
            {
                let sum: f32 = taps.unwrap().iter().map(|t| t.1).sum();
                assert!((sum - 1.0).abs() < 1e-6);
            }
        }
        // An axis that grows has the plain filter.
        let grows = axis(4, 8, Coordinates::HalfPixel, Filter::Linear);
        assert_eq!(Axis { antialias: true, ..grows }.taps().unwrap(), grows.taps().unwrap());
    }

    #[test]
    fn corners_meet_corners() {
        let a = axis(3, 5, Coordinates::AlignCorners, Filter::Linear);
        assert_eq!((a.coordinate(0), a.coordinate(1), a.coordinate(4)), (0.0, 0.5, 2.0));
    }
}
