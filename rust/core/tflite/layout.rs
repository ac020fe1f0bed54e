//! Which tensors the graph holds with their channels in front.
//!
//! A file holds images as `N H W C`, the graph as `N C H W`. Tensors that meet in an operator without an order of its own
//! (Add, Concat, Pad …) are of one class, and a class that a spatial operator reads or writes is turned. All other tensors
//! stay as they are in the file; where an operator reads or writes a turned tensor in the file's order (Reshape, Softmax
//! …), the importer puts a Transpose between them.

use super::reader::{File, Operator};

/// The order in which an operator takes its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Channels in front.
    Spatial,
    /// Any, as long as all have the same.
    Same,
    /// The file's.
    File,
}

/// What an operator demands of its images.
pub fn demand(file: &File<'_>, op: &Operator<'_>) -> Demand {
    let same = match op.kind {
        "CONV_2D"
        | "DEPTHWISE_CONV_2D"
        | "TRANSPOSE_CONV"
        | "AVERAGE_POOL_2D"
        | "MAX_POOL_2D"
        | "RESIZE_BILINEAR"
        | "RESIZE_NEAREST_NEIGHBOR"
        | "DEPTH_TO_SPACE"
        | "SPACE_TO_DEPTH" => return Demand::Spatial,
        "ADD" | "SUB" | "MUL" | "DIV" | "MAXIMUM" | "MINIMUM" | "POW" | "SQUARED_DIFFERENCE" | "PRELU" | "RELU"
        | "RELU6" | "RELU_N1_TO_1" | "RELU_0_TO_1" | "LEAKY_RELU" | "LOGISTIC" | "TANH" | "HARD_SWISH" | "ELU"
        | "GELU" | "ABS" | "NEG" | "EXP" | "LOG" | "SQRT" | "RSQRT" | "SQUARE" | "SIN" | "COS" | "FLOOR" | "CEIL"
        | "ROUND" | "SIGN" | "CAST" | "CONCATENATION" | "PAD" | "PADV2" | "MIRROR_PAD" | "QUANTIZE" | "DEQUANTIZE"
        | "SPLIT" | "SPLIT_V" | "SLICE" | "L2_NORMALIZATION" => true,
        "STRIDED_SLICE" => op
            .options::<super::schema::StridedSliceOptions<'_>>()
            .is_ok_and(|o| o.new_axis_mask() | o.shrink_axis_mask() | o.ellipsis_mask() == 0),
        "MEAN" | "SUM" | "REDUCE_MAX" | "REDUCE_MIN" => keeps_order(file, op),
        _ => false,
    };
    let reduces = matches!(op.kind, "MEAN" | "SUM" | "REDUCE_MAX" | "REDUCE_MIN");
    let moved = |t: usize| !file.tensors[t].is_constant();
    let activations = op.inputs.iter().flatten().copied().filter(|&t| moved(t));
    let results = op.outputs.iter().copied().filter(|_| !reduces);
    match same && activations.chain(results).all(|t| file.tensors[t].rank() == 4) {
        true => Demand::Same,
        false => Demand::File,
    }
}

/// Whether the axes that a reduction leaves stand in the same order whether channels are in front or behind.
fn keeps_order(file: &File<'_>, op: &Operator<'_>) -> bool {
    let keeps = op.options::<super::schema::ReducerOptions<'_>>().is_ok_and(|o| o.keep_dims());
    let axes = op.optional(1).and_then(|t| file.tensors[t].integers().ok()).unwrap_or_default();
    let reduced = |axis: i64| axes.contains(&axis) || axes.contains(&(axis - 4));
    keeps || reduced(3) || (reduced(1) && reduced(2))
}

/// For each tensor, whether its channels are in front in the graph.
pub fn channels_in_front(file: &File<'_>) -> Vec<bool> {
    let image = |t: usize| file.tensors[t].rank() == 4 && !file.tensors[t].is_constant();
    let mut class: Vec<usize> = (0..file.tensors.len()).collect();
    let mut spatial = vec![false; file.tensors.len()];
    for op in &file.operators {
        let images: Vec<usize> = op.inputs.iter().flatten().chain(&op.outputs).copied().filter(|&t| image(t)).collect();
        match demand(file, op) {
            Demand::File => {}
            Demand::Spatial => images.iter().for_each(|&t| spatial[t] = true),
            Demand::Same => {
                for pair in images.windows(2) {
                    let (a, b) = (root(&mut class, pair[0]), root(&mut class, pair[1]));
                    class[a] = b;
                }
            }
        }
    }
    let mut turned = vec![false; file.tensors.len()];
    for (t, &wanted) in spatial.iter().enumerate() {
        turned[root(&mut class, t)] |= wanted;
    }
    (0..file.tensors.len()).map(|t| turned[root(&mut class, t)]).collect()
}

/// The representative of a class; the way to it is shortened.
fn root(class: &mut [usize], mut t: usize) -> usize {
    while class[t] != t {
        class[t] = class[class[t]];
        t = class[t];
    }
    t
}
