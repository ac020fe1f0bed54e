//! Which code computes programs.

/// How the elements of a program are computed. All ways give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Evaluator {
    /// Vector code and tables where there are any, else the tile executor.
    #[default]
    Fast,
    /// The tile executor alone.
    Tile,
    /// [`Compiled::eval`](super::Compiled::eval), element by element.
    Reference,
}

/// The widest vectors that the tile executor may use; narrower where the machine has none of this width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Vectors {
    /// What every machine of the architecture has: SSE2 on x86-64, NEON on AArch64.
    Plain,
    /// AVX2.
    Bits256,
    /// AVX-512.
    #[default]
    Bits512,
}

/// What a program is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Executor {
    /// How elements are computed.
    pub evaluator: Evaluator,
    /// Limit of the tile executor.
    pub vectors: Vectors,
}
