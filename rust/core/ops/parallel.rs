//! Filling a slice from several threads, in chunks whose borders do not depend on the number of threads.

use crate::kernels::Engine;

/// Elements per chunk for operators that do little work per element.
pub const CHUNK: usize = 1 << 14;

/// Calls `f(start, part)` for consecutive parts of `out`, `chunk` elements each (the last may be shorter), where
/// `start` is the index of the part's first element.
pub fn fill<T: Send>(engine: Engine<'_>, out: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let chunk = chunk.max(1);
    engine.for_each_chunk(out, chunk, |i, part| f(i * chunk, part));
}

/// A vector of `f(x)` for each element.
pub fn map<A: Copy + Sync, B: Copy + Default + Send>(
    engine: Engine<'_>,
    input: &[A],
    f: impl Fn(A) -> B + Sync,
) -> Vec<B> {
    let mut out = vec![B::default(); input.len()];
    fill(engine, &mut out, CHUNK, |start, part| {
        for (o, &x) in part.iter_mut().zip(&input[start..]) {
            *o = f(x);
        }
    });
    out
}

/// Chunk size that covers whole rows of `row` elements and does not fall below [`CHUNK`] elements where possible.
pub fn whole_rows(row: usize) -> usize {
    let row = row.max(1);
    row * CHUNK.div_ceil(row)
}
