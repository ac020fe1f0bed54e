//! A run allocates nothing per step: as many blocks of memory for a network of four blocks as for one.

mod support;

use nputwin::exec::{Options, Session};
use nputwin::graph::{Attribute, TensorId, TensorInfo};
use nputwin::kernels::Isa;
use nputwin::spec::Spec;
use nputwin::tensor::{Data, Tensor};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Builder, ints, per_tensor};

/// Blocks that were allocated, by any thread.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SHAPE: [usize; 4] = [1, 24, 9, 10];

/// A network under construction, all of whose values have one encoding.
struct Network {
    b: Builder,
    signed: bool,
}

impl Network {
    fn node(&mut self, op: &str, inputs: &[TensorId], attributes: &[(&str, Attribute)]) -> TensorId {
        let encoding = per_tensor(0.0625, if self.signed { 3 } else { 131 }, 8, self.signed);
        self.b.node(op, inputs, attributes, Some(encoding))
    }

    fn conv(&mut self, x: TensorId, groups: usize, kernel: usize) -> TensorId {
        let channels = SHAPE[1];
        let scales: Vec<f64> = (1..=channels).map(|i| f64::from(0.001 * i as f32)).collect();
        let weights = self.b.weights(&[channels, channels / groups, kernel, kernel], &scales, 8, 0);
        let attributes = [("group", Attribute::Int(groups as i64)), ("pads", ints(&[(kernel / 2) as i64; 4]))];
        self.node("Conv", &[x, weights], &attributes)
    }

    fn pool(&mut self, op: &str, x: TensorId) -> TensorId {
        self.node(op, &[x], &[("kernel_shape", ints(&[3, 3])), ("pads", ints(&[1, 1, 1, 1]))])
    }

    fn integers(&mut self, values: &[i64]) -> TensorId {
        self.b.constant(Tensor::new(&[values.len()][..], Data::I64(values.to_vec().into())).unwrap(), None)
    }

    fn shuffled(&mut self, x: TensorId) -> TensorId {
        let [n, c, h, w] = SHAPE.map(|d| d as i64);
        let groups = self.integers(&[n, 2, c / 2, h, w]);
        let x = self.node("Reshape", &[x, groups], &[]);
        let x = self.node("Transpose", &[x], &[("perm", ints(&[0, 2, 1, 3, 4]))]);
        let joined = self.integers(&[n, c, h, w]);
        self.node("Reshape", &[x, joined], &[])
    }

    /// Both halves of the channels, exchanged.
    fn exchanged(&mut self, x: TensorId) -> TensorId {
        let first = self.node("Split", &[x], &[("axis", Attribute::Int(1))]);
        let encoding = self.b.graph.tensors[first].encoding.clone();
        let info = TensorInfo { name: format!("second half {first}"), encoding, ..TensorInfo::default() };
        let second = self.b.graph.add_tensor(info);
        self.b.graph.nodes.last_mut().unwrap().outputs.push(Some(second));
        self.node("Concat", &[second, first], &[("axis", Attribute::Int(1))])
    }

    /// A row more above, and a convolution that takes it away again.
    fn padded(&mut self, x: TensorId) -> TensorId {
        let pads = self.integers(&[0, 0, 1, 0, 0, 0, 0, 0]);
        let x = self.node("Pad", &[x, pads], &[]);
        let weights = self.b.weights(&[SHAPE[1], SHAPE[1], 2, 1], &[0.004], 8, 0);
        self.node("Conv", &[x, weights], &[])
    }
}

type Block = fn(&mut Network, TensorId) -> TensorId;

const BLOCKS: [(&str, Block); 13] = [
    ("pointwise convolution", |n, x| n.conv(x, 1, 1)),
    ("convolution", |n, x| n.conv(x, 1, 3)),
    ("grouped convolution", |n, x| n.conv(x, 2, 3)),
    ("depthwise convolution", |n, x| n.conv(x, SHAPE[1], 3)),
    ("large depthwise convolution", |n, x| n.conv(x, SHAPE[1], 5)),
    ("residual sum", |n, x| {
        let y = n.conv(x, 1, 1);
        n.node("Add", &[x, y], &[])
    }),
    ("gate", |n, x| {
        let gate = n.node("GlobalAveragePool", &[x], &[]);
        let gate = n.conv(gate, 1, 1);
        n.node("Mul", &[x, gate], &[])
    }),
    ("activation", |n, x| n.node("HardSwish", &[x], &[])),
    ("largest element", |n, x| n.pool("MaxPool", x)),
    ("average", |n, x| n.pool("AveragePool", x)),
    ("channel shuffle", Network::shuffled),
    ("halves", Network::exchanged),
    ("padding", Network::padded),
];

/// Blocks of memory that a run of `count` blocks takes once all threads have their buffers; the error where the target refuses
/// the network.
fn allocations(target: &Spec, signed: bool, count: usize, block: Block, options: Options) -> Result<usize, String> {
    let mut network = Network { b: Builder::new(1), signed };
    let encoding = per_tensor(0.0625, if signed { 3 } else { 131 }, 8, signed);
    let x = network.b.input(&SHAPE, Some(encoding));
    let mut y = network.conv(x, 1, 1);
    for _ in 0..count {
        y = block(&mut network, y);
    }
    network.b.output(y);
    let graph = network.b.graph;
    let name = graph.inputs[0].name.clone();
    let input = Tensor::f32(&SHAPE, (0..SHAPE.iter().product()).map(|i: usize| (i % 97) as f32 * 0.1 - 4.0).collect());
    let threads = options.threads;
    let session = Session::new(graph, target.clone(), options).map_err(|e| e.to_string())?;
    let mut least = usize::MAX;
    // A thread that meets a kind of step for the first time allocates the buffers for it.
    for _ in 0..if threads == 1 { 3 } else { 40 } {
        let before = ALLOCATED.load(Ordering::Relaxed);
        session.run(&[(&name, &input)]).map_err(|e| e.to_string())?;
        least = least.min(ALLOCATED.load(Ordering::Relaxed) - before);
    }
    Ok(least)
}

#[test]
fn steps_allocate_nothing() {
    let (mut compared, mut more) = (0, Vec::new());
    for (target, signed) in
        [("onnxruntime_cpu", false), ("htp_v75", false), ("litert_xnnpack_x86", true), ("tflite_micro", true)]
    {
        let spec = Spec::load(target).unwrap();
        let sets = Isa::available().into_iter().map(|isa| (Some(isa), 1)).chain([(None, 2)]);
        for (isa, threads) in sets {
            for (name, block) in BLOCKS {
                let count =
                    |blocks| allocations(&spec, signed, blocks, block, Options { threads, isa, ..Options::default() });
                let [one, four] = [count(1), count(4)];
                let what = format!("{target}, {isa:?}, {threads} threads, {name}");
                match (one, four) {
                    (Ok(one), Ok(four)) if one == four => compared += 1,
                    (one, four) => more.push(format!("{what}: {one:?}, {four:?}")),
                }
            }
        }
    }
    assert!(more.is_empty() && compared >= 4 * 2 * BLOCKS.len(), "{compared} are equal; {more:#?}");
}
