//! Transposes between the channel-first order of ONNX and the channel-last order of the kernels.

use super::isa::Engine;

/// Rows and columns of one block: 32 × 32 elements of four bytes are a cache-friendly 4 KiB.
const BLOCK: usize = 32;

/// From `batch × channels × pixels` to `batch × pixels × channels`. Panics where lengths disagree.
pub fn to_channels_last<T: Copy + Send + Sync>(
    engine: Engine<'_>,
    [batch, channels, pixels]: [usize; 3],
    x: &[T],
    out: &mut [T],
) {
    transpose(engine, [batch, channels, pixels], x, out);
}

/// From `batch × pixels × channels` to `batch × channels × pixels`. Panics where lengths disagree.
pub fn to_channels_first<T: Copy + Send + Sync>(
    engine: Engine<'_>,
    [batch, channels, pixels]: [usize; 3],
    x: &[T],
    out: &mut [T],
) {
    transpose(engine, [batch, pixels, channels], x, out);
}

/// Transposes each of `batch` row-major matrices of `rows × columns`. Panics where lengths disagree.
pub fn transpose<T: Copy + Send + Sync>(
    engine: Engine<'_>,
    [batch, rows, columns]: [usize; 3],
    x: &[T],
    out: &mut [T],
) {
    assert!(x.len() == batch * rows * columns && out.len() == x.len(), "tensors and their shapes");
    if rows == 1 || columns == 1 {
        out.copy_from_slice(x);
        return;
    }
    if x.is_empty() {
        return;
    }
    // Tasks are runs of output rows (input columns) that do not cross from one matrix to the next.
    let width = if rows <= 4 { 1 << 12 } else { BLOCK };
    let bands = columns.div_ceil(width);
    if batch >= engine.threads() || bands == 1 {
        let matrices = engine.share(batch, 1);
        engine.for_each_chunk(out, matrices * rows * columns, |i, out| {
            let x = x[i * matrices * rows * columns..].chunks_exact(rows * columns);
            for (x, out) in x.zip(out.chunks_exact_mut(rows * columns)) {
                for (b, out) in out.chunks_mut(width * rows).enumerate() {
                    band(x, rows, columns, b * width, out);
                }
            }
        });
        return;
    }
    for (x, out) in x.chunks_exact(rows * columns).zip(out.chunks_exact_mut(rows * columns)) {
        engine.for_each_chunk(out, width * rows, |b, out| band(x, rows, columns, b * width, out));
    }
}

/// Writes the output rows of the input columns from `first` on.
fn band<T: Copy>(x: &[T], rows: usize, columns: usize, first: usize, out: &mut [T]) {
    match rows {
        2 => return interleave::<T, 2>(x, columns, first, out),
        3 => return interleave::<T, 3>(x, columns, first, out),
        4 => return interleave::<T, 4>(x, columns, first, out),
        _ => {}
    }
    #[cfg(target_arch = "x86_64")]
    if size_of::<T>() == 1 && columns >= SQUARE && rows >= SQUARE {
        return band_of_bytes(x, rows, columns, first, out);
    }
    for block in (0..rows).step_by(BLOCK) {
        let end = (block + BLOCK).min(rows);
        for (c, out) in out.chunks_exact_mut(rows).enumerate() {
            for (o, x) in out[block..end].iter_mut().zip(x[block * columns..].iter().skip(first + c).step_by(columns)) {
                *o = *x;
            }
        }
    }
}

/// Rows and columns of the squares that bytes are transposed in.
#[cfg(target_arch = "x86_64")]
const SQUARE: usize = 16;

/// [`band`] for elements of one byte, of which there is at least one square.
#[cfg(target_arch = "x86_64")]
fn band_of_bytes<T: Copy>(x: &[T], rows: usize, columns: usize, first: usize, out: &mut [T]) {
    let count = out.len() / rows;
    assert!(size_of::<T>() == 1 && rows >= SQUARE && columns >= SQUARE && first + count <= columns);
    assert!(x.len() >= rows * columns);
    if count < SQUARE {
        for (c, out) in out.chunks_exact_mut(rows).enumerate() {
            out.iter_mut().zip(x[first + c..].iter().step_by(columns)).for_each(|(o, x)| *o = *x);
        }
        return;
    }
    // The last square of a side overlaps the one before, so that every element lies in one.
    let starts = |n: usize| (0..n).step_by(SQUARE).map(move |i| i.min(n - SQUARE));
    for c in starts(count) {
        for r in starts(rows) {
            // SAFETY: sixteen rows of sixteen bytes, all within the slices.
            unsafe {
                let from = x.as_ptr().add(r * columns + first + c).cast();
                transpose_square(from, columns, out.as_mut_ptr().add(c * rows + r).cast(), rows);
            }
        }
    }
}

/// Transposes 16 × 16 bytes.
///
/// # Safety
/// Sixteen bytes may be read at each of sixteen rows from `from` on, and written likewise.
#[cfg(target_arch = "x86_64")]
unsafe fn transpose_square(from: *const u8, from_step: usize, to: *mut u8, to_step: usize) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's; every machine of the architecture has SSE2.
    unsafe {
        let mut rows: [__m128i; 16] = std::array::from_fn(|r| _mm_loadu_si128(from.add(r * from_step).cast()));
        // Four rounds of a perfect shuffle of the rows' bytes bring byte c of row r to byte r of row c.
        for _ in 0..4 {
            rows = std::array::from_fn(|i| {
                let (a, b) = (rows[i / 2], rows[i / 2 + 8]);
                if i % 2 == 0 { _mm_unpacklo_epi8(a, b) } else { _mm_unpackhi_epi8(a, b) }
            });
        }
        for (r, row) in rows.into_iter().enumerate() {
            _mm_storeu_si128(to.add(r * to_step).cast(), row);
        }
    }
}

/// [`band`] for a few rows: the planes of an image.
fn interleave<T: Copy, const ROWS: usize>(x: &[T], columns: usize, first: usize, out: &mut [T]) {
    let count = out.len() / ROWS;
    let planes: [&[T]; ROWS] = std::array::from_fn(|r| &x[r * columns + first..][..count]);
    for (i, to) in out.chunks_exact_mut(ROWS).enumerate() {
        for (to, plane) in to.iter_mut().zip(planes) {
            *to = plane[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::testing::on_every_engine;
    use super::*;

    fn check<T: Copy + Send + Sync + PartialEq + Default>(make: impl Fn(usize) -> T) {
        for sizes in [
            [1, 3, 70],
            [2, 33, 65],
            [9, 4, 4],
            [1, 1, 50],
            [3, 50, 1],
            [0, 3, 3],
            [1, 100, 200],
            [1, 16, 16],
            [2, 17, 31],
            [1, 2, 9000],
        ] {
            let [batch, channels, pixels] = sizes;
            let x: Vec<T> = (0..batch * channels * pixels).map(&make).collect();
            let expected = reference::transpose(sizes, &x);
            on_every_engine(|engine| {
                let mut out = vec![T::default(); x.len()];
                to_channels_last(engine, sizes, &x, &mut out);
                assert!(out == expected, "{sizes:?}");
                let mut back = vec![T::default(); x.len()];
                to_channels_first(engine, sizes, &out, &mut back);
                assert!(back == x, "{sizes:?}");
            });
        }
    }

    #[test]
    fn equals_its_twin_and_goes_back() {
        check(|i| (i * 37) as u8);
        check(|i| i as u16);
        check(|i| i as u32);
    }
}
