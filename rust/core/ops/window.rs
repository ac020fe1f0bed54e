//! Sliding windows: padding, strides and output sizes of convolutions and pools.

use super::Facts;
use crate::error::Result;
use crate::tensor::MAX_ELEMENTS;

/// A window over the spatial dimensions of a tensor. All lists have one entry per spatial dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Taps.
    pub kernel: Vec<usize>,
    /// Steps between windows.
    pub strides: Vec<usize>,
    /// Steps between the taps of one window.
    pub dilations: Vec<usize>,
    /// Padding before the first element.
    pub pads_begin: Vec<usize>,
    /// Padding after the last element.
    pub pads_end: Vec<usize>,
    /// Whether a last window that leaves the padded input still counts.
    pub ceil_mode: bool,
}

/// One attribute with an entry per spatial dimension, each within `least..=2^31`.
pub fn spatial_list(facts: &Facts<'_>, name: &str, rank: usize, least: usize, default: usize) -> Result<Vec<usize>> {
    let Some(list) = facts.node.ints(name)? else { return Ok(vec![default; rank]) };
    if list.len() != rank {
        return Err(facts.invalid(format!("attribute '{name}' has {} entries, expected {rank}", list.len())));
    }
    list.iter()
        .map(|&v| {
            usize::try_from(v)
                .ok()
                .filter(|v| (least..=MAX_ELEMENTS).contains(v))
                .ok_or_else(|| facts.invalid(format!("attribute '{name}' has the entry {v}")))
        })
        .collect()
}

/// Attribute `kernel_shape`, which may be left out where the weights give it (`weights` are their spatial dimensions).
pub fn kernel_shape(facts: &Facts<'_>, weights: &[usize]) -> Result<Vec<usize>> {
    match facts.node.ints("kernel_shape")? {
        Some(list) if !list.iter().map(|&v| usize::try_from(v).ok()).eq(weights.iter().map(|&w| Some(w))) => {
            Err(facts.invalid(format!("kernel_shape {list:?} contradicts weights of {weights:?}")))
        }
        _ if weights.contains(&0) => Err(facts.invalid(format!("a window of {weights:?} has no taps"))),
        _ => Ok(weights.to_vec()),
    }
}

impl Window {
    /// Reads `strides`, `dilations`, `pads` and `auto_pad` of a node whose input has these spatial dimensions.
    ///
    /// `SAME_UPPER` and `SAME_LOWER` give `ceil(input / stride)` windows and put the odd element of padding at the end
    /// and at the beginning; `VALID` pads nothing. Fails where `auto_pad` and non-zero `pads` are both given.
    pub fn from_node(facts: &Facts<'_>, input: &[usize], kernel: &[usize], ceil_mode: bool) -> Result<Self> {
        let rank = input.len();
        let strides = spatial_list(facts, "strides", rank, 1, 1)?;
        let dilations = spatial_list(facts, "dilations", rank, 1, 1)?;
        let pads = spatial_list(facts, "pads", 2 * rank, 0, 0)?;
        let mut window = Window {
            kernel: kernel.to_vec(),
            strides,
            dilations,
            pads_begin: pads[..rank].to_vec(),
            pads_end: pads[rank..].to_vec(),
            ceil_mode,
        };
        let auto_pad = facts.node.string("auto_pad", "NOTSET")?;
        if auto_pad != "NOTSET" && pads.iter().any(|&p| p != 0) {
            return Err(facts.invalid(format!("auto_pad {auto_pad} excludes explicit pads {pads:?}")));
        }
        match auto_pad {
            "NOTSET" | "VALID" => {}
            "SAME_UPPER" | "SAME_LOWER" => {
                for (i, &size) in input.iter().enumerate() {
                    let out = size.div_ceil(window.strides[i]);
                    let reach = window.extent(facts, i)?.saturating_add(out.saturating_sub(1) * window.strides[i]);
                    let total = reach.saturating_sub(size);
                    let small = total / 2;
                    let (begin, end) =
                        if auto_pad == "SAME_UPPER" { (small, total - small) } else { (total - small, small) };
                    window.pads_begin[i] = begin;
                    window.pads_end[i] = end;
                }
            }
            other => return Err(facts.invalid(format!("auto_pad '{other}' is not known"))),
        }
        Ok(window)
    }

    /// Elements from the first to the last tap along dimension `i`.
    pub fn extent(&self, facts: &Facts<'_>, i: usize) -> Result<usize> {
        self.kernel[i]
            .checked_sub(1)
            .and_then(|k| k.checked_mul(self.dilations[i]))
            .and_then(|k| k.checked_add(1))
            .filter(|&k| k <= MAX_ELEMENTS)
            .ok_or_else(|| facts.invalid(format!("a window of {:?} is impossible", self.kernel)))
    }

    /// Number of windows along each dimension: `floor((input + pads - extent) / stride) + 1`, with `ceil` in
    /// `ceil_mode`, where a last window that would start in the padding at the end is dropped.
    pub fn output_dims(&self, facts: &Facts<'_>, input: &[usize]) -> Result<Vec<usize>> {
        (0..input.len())
            .map(|i| {
                let extent = self.extent(facts, i)?;
                let padded = input[i].checked_add(self.pads_begin[i]).and_then(|p| p.checked_add(self.pads_end[i]));
                let room = padded.and_then(|p| p.checked_sub(extent)).ok_or_else(|| {
                    facts.invalid(format!(
                        "a window of extent {extent} does not fit into dimension {i} of {input:?} with pads {} and {}",
                        self.pads_begin[i], self.pads_end[i]
                    ))
                })?;
                let stride = self.strides[i];
                let mut out = room / stride + 1;
                if self.ceil_mode && room % stride != 0 && out * stride < input[i] + self.pads_begin[i] {
                    out += 1;
                }
                Ok(out)
            })
            .collect()
    }

    /// The element that a tap of the window at a place of the output reads, both counted row-major in three dimensions;
    /// `None` in the padding. The window must have three dimensions.
    pub fn source(&self, at: usize, tap: usize, input: [usize; 3], output: [usize; 3]) -> Option<usize> {
        let (mut at, mut tap, mut place, mut step) = (at, tap, 0, 1);
        for i in (0..3).rev() {
            let (o, t) = (at % output[i], tap % self.kernel[i]);
            let position = (o * self.strides[i] + t * self.dilations[i]).checked_sub(self.pads_begin[i])?;
            if position >= input[i] {
                return None;
            }
            place += position * step;
            step *= input[i];
            (at, tap) = (at / output[i], tap / self.kernel[i]);
        }
        Some(place)
    }

    /// The same window over three spatial dimensions: leading ones of size 1 are added. `None` beyond three.
    pub fn lifted(&self) -> Option<Window> {
        let missing = 3usize.checked_sub(self.kernel.len())?;
        let lift = |list: &[usize], fill: usize| [vec![fill; missing], list.to_vec()].concat();
        Some(Window {
            kernel: lift(&self.kernel, 1),
            strides: lift(&self.strides, 1),
            dilations: lift(&self.dilations, 1),
            pads_begin: lift(&self.pads_begin, 0),
            pads_end: lift(&self.pads_end, 0),
            ceil_mode: self.ceil_mode,
        })
    }
}

/// Three spatial dimensions from up to three, with leading ones.
pub fn lift(spatial: &[usize]) -> Option<[usize; 3]> {
    match *spatial {
        [] => Some([1, 1, 1]),
        [w] => Some([1, 1, w]),
        [h, w] => Some([1, h, w]),
        [d, h, w] => Some([d, h, w]),
        _ => None,
    }
}

/// The output positions `o` in `0..out` for which the tap at `o · stride + tap - pad` lies in `0..input`.
pub fn valid_range(out: usize, input: usize, stride: usize, tap: usize, pad: usize) -> std::ops::Range<usize> {
    let first = pad.saturating_sub(tap).div_ceil(stride).min(out);
    let end = match (input + pad).checked_sub(tap + 1) {
        Some(last) => (last / stride + 1).min(out),
        None => 0,
    };
    first..end.max(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Node};

    fn node(attributes: &[(&str, Attribute)]) -> Node {
        Node { attributes: attributes.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(), ..Node::default() }
    }

    fn dims(attributes: &[(&str, Attribute)], input: usize, kernel: usize, ceil: bool) -> Result<(Window, usize)> {
        let node = node(attributes);
        let facts = Facts { node: &node, opset: 17, inputs: &[], outputs: &[] };
        let window = Window::from_node(&facts, &[input], &[kernel], ceil)?;
        let out = window.output_dims(&facts, &[input])?[0];
        Ok((window, out))
    }

    #[test]
    fn same_padding_puts_the_odd_element_where_its_name_says() {
        for (mode, begin, end) in [("SAME_UPPER", 0, 1), ("SAME_LOWER", 1, 0)] {
            let attributes = [("auto_pad", Attribute::String(mode.into())), ("strides", Attribute::Ints(vec![2]))];
            let (window, out) = dims(&attributes, 4, 3, false).unwrap();
            assert_eq!((window.pads_begin[0], window.pads_end[0], out), (begin, end, 2));
        }
    }

    #[test]
    fn a_window_that_starts_in_the_end_padding_is_dropped() {
        let attributes = [("strides", Attribute::Ints(vec![2])), ("pads", Attribute::Ints(vec![0, 1]))];
        assert_eq!(dims(&attributes, 3, 1, true).unwrap().1, 2);
        assert_eq!(dims(&attributes, 4, 2, true).unwrap().1, 2);
        assert_eq!(dims(&[("strides", Attribute::Ints(vec![2]))], 4, 3, true).unwrap().1, 2);
        assert_eq!(dims(&[("strides", Attribute::Ints(vec![2]))], 4, 3, false).unwrap().1, 1);
    }

    #[test]
    fn lies_are_refused() {
        let bad = [
            ("strides", Attribute::Ints(vec![0])),
            ("strides", Attribute::Ints(vec![1, 1])),
            ("pads", Attribute::Ints(vec![-1, 0])),
            ("dilations", Attribute::Ints(vec![i64::MAX])),
            ("auto_pad", Attribute::String("SAME".into())),
        ];
        for attribute in bad {
            assert!(dims(std::slice::from_ref(&attribute), 4, 3, false).is_err(), "{attribute:?}");
        }
        assert!(dims(&[], 2, 3, false).is_err());
    }

    #[test]
    fn valid_range_is_the_set_of_taps_inside() {
        for (out, input, stride, tap, pad) in [(5, 5, 1, 0, 1), (3, 4, 2, 2, 1), (2, 1, 3, 4, 1), (4, 9, 2, 1, 0)] {
            let inside: Vec<usize> = (0..out).filter(|o| (pad..input + pad).contains(&(o * stride + tap))).collect();
            assert_eq!(valid_range(out, input, stride, tap, pad).collect::<Vec<_>>(), inside);
        }
    }
}
