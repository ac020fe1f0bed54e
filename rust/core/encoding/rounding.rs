//! Float → integer rounding for quantization.

/// What happens to a number between two integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Towards -∞.
    Floor,
    /// Towards +∞.
    Ceil,
    /// Towards zero.
    Trunc,
    /// Nearest; ties towards +∞ (-0.5 → 0).
    HalfUp,
    /// Nearest; ties towards -∞ (-0.5 → -1).
    HalfDown,
    /// Nearest; ties away from zero (-0.5 → -1).
    HalfAway,
    /// Nearest; ties towards zero (-0.5 → 0).
    HalfToZero,
    /// Nearest; ties to the even neighbour (-0.5 → 0).
    HalfEven,
    /// Nearest; ties to the odd neighbour (-0.5 → -1).
    HalfOdd,
}

impl Rounding {
    /// Every mode.
    pub const ALL: [Rounding; 9] = [
        Rounding::Floor,
        Rounding::Ceil,
        Rounding::Trunc,
        Rounding::HalfUp,
        Rounding::HalfDown,
        Rounding::HalfAway,
        Rounding::HalfToZero,
        Rounding::HalfEven,
        Rounding::HalfOdd,
    ];

    /// Rounds exactly: the distance to the truncated value has no rounding error of its own. ±∞ stay.
    pub fn round_f64(self, x: f64) -> f64 {
        let toward_zero = x.trunc();
        if toward_zero == x {
            return x;
        }
        let away = toward_zero + 1f64.copysign(x);
        let distance = (x - toward_zero).abs();
        let nearest = |tie_goes_away: bool| {
            if distance > 0.5 || (distance == 0.5 && tie_goes_away) { away } else { toward_zero }
        };
        match self {
            Rounding::Floor => x.floor(),
            Rounding::Ceil => x.ceil(),
            Rounding::Trunc => toward_zero,
            Rounding::HalfUp => nearest(x > 0.0),
            Rounding::HalfDown => nearest(x < 0.0),
            Rounding::HalfAway => nearest(true),
            Rounding::HalfToZero => nearest(false),
            Rounding::HalfEven => nearest(toward_zero % 2.0 != 0.0),
            Rounding::HalfOdd => nearest(toward_zero % 2.0 == 0.0),
        }
    }
}
