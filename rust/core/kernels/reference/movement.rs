//! Twins of the kernels that look up and move.

/// `table[x]` of every code.
pub fn lookup<X: Copy + Into<usize>, T: Copy>(x: &[X], table: &[T]) -> Vec<T> {
    x.iter().map(|&x| table[x.into()]).collect()
}

/// `table[256·a + b]` of every pair of bytes.
pub fn lookup_pairs<T: Copy>(a: &[u8], b: &[u8], table: &[T]) -> Vec<T> {
    a.iter().zip(b).map(|(&a, &b)| table[256 * usize::from(a) + usize::from(b)]).collect()
}

/// Each of `batch` matrices of `rows × columns`, transposed.
pub fn transpose<T: Copy>([batch, rows, columns]: [usize; 3], x: &[T]) -> Vec<T> {
    let mut out = Vec::with_capacity(x.len());
    for b in 0..batch {
        for c in 0..columns {
            for r in 0..rows {
                out.push(x[(b * rows + r) * columns + c]);
            }
        }
    }
    out
}
