//! Buffers that kernels need in between. Each thread keeps its own from call to call, so that a run allocates none.

use super::pack::Line;
use std::cell::Cell;
use std::thread::LocalKey;

/// Buffers that a task uses again for each of its tiles.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Accumulators of one block.
    pub acc: Vec<i32>,
    /// Sums of the rows of the left operand.
    pub row_sums: Vec<i32>,
    /// Rows of the left operand that had to be gathered.
    pub bytes: Vec<u8>,
    /// First bytes of rows.
    pub rows: Vec<usize>,
    /// Sums of a line of outputs.
    pub reals: Vec<f32>,
    /// Columns of the activations, interleaved.
    pub lines: Vec<Line>,
}

/// Buffers of a call that all its tasks read.
#[derive(Default)]
pub(crate) struct Call {
    /// Initial accumulators as the kernels start from them.
    pub init: Vec<i32>,
    /// First bytes of the runs of a window.
    pub runs: Vec<usize>,
    /// A tile that tasks share.
    pub scratch: Scratch,
}

thread_local! {
    static TASK: Cell<Scratch> = Cell::default();
    static CALL: Cell<Call> = Cell::default();
}

/// Does `body` with what this thread keeps under `key`; a call within has buffers of its own.
pub(crate) fn with_kept<B: Default, T>(key: &'static LocalKey<Cell<B>>, body: impl FnOnce(&mut B) -> T) -> T {
    let mut kept = key.take();
    let out = body(&mut kept);
    key.set(kept);
    out
}

impl Scratch {
    /// Does `body` with the buffers of this thread's tasks.
    pub(crate) fn with<T>(body: impl FnOnce(&mut Scratch) -> T) -> T {
        with_kept(&TASK, body)
    }
}

impl Call {
    /// Does `body` with the buffers of this thread's calls; `init` and `runs` are empty.
    pub(crate) fn with<T>(body: impl FnOnce(&mut Call) -> T) -> T {
        with_kept(&CALL, |call| {
            call.init.clear();
            call.runs.clear();
            body(call)
        })
    }
}

/// The first `len` elements of `buffer`, which grows where it has fewer; they hold anything.
pub(crate) fn at_least<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}
