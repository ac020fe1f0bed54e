//! The nine pure rounding modes, as integer division and as narrowing.
//!
//! A mode maps a rational to one of its two neighbouring integers, and an integer to itself. The modes differ only for
//! non-integers; those named `half_*` differ only at ties.

use std::cmp::Ordering;
use std::fmt;

/// How a rational becomes an integer. What each does to `+0.5` and `-0.5` stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rounding {
    /// Toward minus infinity: 0, -1.
    Floor,
    /// Toward plus infinity: 1, 0.
    Ceil,
    /// Toward zero: 0, 0.
    Trunc,
    /// To nearest, ties toward plus infinity: 1, 0.
    HalfUp,
    /// To nearest, ties toward minus infinity: 0, -1.
    HalfDown,
    /// To nearest, ties away from zero: 1, -1.
    HalfAway,
    /// To nearest, ties toward zero: 0, 0.
    HalfToZero,
    /// To nearest, ties to the even neighbour: 0, 0 (and 1.5 becomes 2).
    HalfEven,
    /// To nearest, ties to the odd neighbour: 1, -1 (and 1.5 becomes 1).
    HalfOdd,
}

impl Rounding {
    /// All modes.
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

    /// Name in specs and programs.
    pub fn name(self) -> &'static str {
        match self {
            Rounding::Floor => "floor",
            Rounding::Ceil => "ceil",
            Rounding::Trunc => "trunc",
            Rounding::HalfUp => "half_up",
            Rounding::HalfDown => "half_down",
            Rounding::HalfAway => "half_away",
            Rounding::HalfToZero => "half_to_zero",
            Rounding::HalfEven => "half_even",
            Rounding::HalfOdd => "half_odd",
        }
    }

    /// The mode of that name.
    pub fn parse(name: &str) -> Option<Rounding> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// What the mode does, in words.
    pub fn words(self) -> &'static str {
        match self {
            Rounding::Floor => "toward minus infinity",
            Rounding::Ceil => "toward plus infinity",
            Rounding::Trunc => "toward zero",
            Rounding::HalfUp => "to nearest, ties toward plus infinity",
            Rounding::HalfDown => "to nearest, ties toward minus infinity",
            Rounding::HalfAway => "to nearest, ties away from zero",
            Rounding::HalfToZero => "to nearest, ties toward zero",
            Rounding::HalfEven => "to nearest, ties to even",
            Rounding::HalfOdd => "to nearest, ties to odd",
        }
    }

    /// Picks `floor` or `floor + 1` for a value strictly between them; `fraction` is the distance to `floor` compared
    /// with one half.
    fn pick(self, floor: i128, fraction: Ordering) -> i128 {
        floor + i128::from(self.goes_up(floor < 0, floor & 1 != 0, fraction))
    }

    /// Whether a value becomes the integer above it; `negative` and `odd` say what the one below it is.
    #[inline]
    fn goes_up(self, negative: bool, odd: bool, fraction: Ordering) -> bool {
        match self {
            Rounding::Floor => false,
            Rounding::Ceil => true,
            Rounding::Trunc => negative,
            nearest => {
                let tie = match nearest {
                    Rounding::HalfUp => true,
                    Rounding::HalfDown => false,
                    Rounding::HalfAway => !negative,
                    Rounding::HalfToZero => negative,
                    Rounding::HalfEven => odd,
                    _ => !odd,
                };
                // Without branches: fractions are as good as random.
                (fraction == Ordering::Greater) | ((fraction == Ordering::Equal) & tie)
            }
        }
    }
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `v / 2^n`, rounded. Exact for every `v` and every `n`, beyond the width of the type too.
#[inline]
pub fn shr_round(v: i128, n: u32, mode: Rounding) -> i128 {
    match i64::try_from(v) {
        Ok(v) if (1..63).contains(&n) => {
            let (floor, rest) = (v >> n, v & ((1 << n) - 1));
            let up = rest != 0 && mode.goes_up(floor < 0, floor & 1 != 0, rest.cmp(&(1 << (n - 1))));
            i128::from(floor) + i128::from(up)
        }
        _ => shr_round_wide(v, n, mode),
    }
}

/// [`shr_round`] of any value.
fn shr_round_wide(v: i128, n: u32, mode: Rounding) -> i128 {
    if n == 0 || v == 0 {
        return v;
    }
    if n < 127 {
        let floor = v >> n;
        let rest = v & ((1 << n) - 1);
        return if rest == 0 { floor } else { mode.pick(floor, rest.cmp(&(1 << (n - 1)))) };
    }
    // |v| / 2^n is at most 1 for n = 127 and at most 1/2 beyond, reached by i128::MIN only.
    if n == 127 && v == i128::MIN {
        return -1;
    }
    let (floor, magnitude) = if v < 0 { (-1, v.unsigned_abs()) } else { (0, v.unsigned_abs()) };
    let against_half = if n - 1 > 127 { Ordering::Less } else { magnitude.cmp(&(1u128 << (n - 1))) };
    mode.pick(floor, if v < 0 { against_half.reverse() } else { against_half })
}

/// `v / d`, rounded.
///
/// # Panics
/// Where `d` is zero. `i128::MIN / -1` gives `i128::MAX`, the one quotient that does not fit.
pub fn div_round(v: i128, d: i128, mode: Rounding) -> i128 {
    let Some(quotient) = v.checked_div(d) else {
        assert!(d != 0, "div_round: division by zero");
        return i128::MAX;
    };
    let remainder = v % d;
    if remainder == 0 {
        return quotient;
    }
    // Distance from the floor as a fraction of |d|: the remainder, or |d| less it where truncation went up.
    let (rest, divisor) = (remainder.unsigned_abs(), d.unsigned_abs());
    if (v < 0) != (d < 0) {
        mode.pick(quotient - 1, (divisor - rest).cmp(&rest))
    } else {
        mode.pick(quotient, rest.cmp(&(divisor - rest)))
    }
}

/// The low `bits` (1 to 127) of `v`, read as two's complement or as unsigned.
pub fn wrap(v: i128, bits: u32, signed: bool) -> i128 {
    if bits >= 128 {
        return v;
    }
    let unused = 128 - bits;
    if signed { (v << unused) >> unused } else { ((v as u128) << unused >> unused) as i128 }
}

/// `v` clamped to `lo..=hi`; `hi` wins where they cross.
pub fn sat(v: i128, lo: i128, hi: i128) -> i128 {
    v.max(lo).min(hi)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition over rationals: candidates by Euclidean division, ties by comparing doubled distances.
    fn rational(v: i128, d: i128, mode: Rounding) -> i128 {
        let (v, d) = if d < 0 { (-v, -d) } else { (v, d) };
        let floor = v.div_euclid(d);
        if floor * d == v {
            return floor;
        }
        let ceil = floor + 1;
        let (below, above) = (v - floor * d, ceil * d - v);
        let nearest = |tie: i128| {
            if below < above {
                floor
            } else if above < below {
                ceil
            } else {
                tie
            }
        };
        let toward_zero = if v > 0 { floor } else { ceil };
        let away = if v > 0 { ceil } else { floor };
        let even = if floor % 2 == 0 { floor } else { ceil };
        let odd = if floor % 2 == 0 { ceil } else { floor };
        match mode {
            Rounding::Floor => floor,
            Rounding::Ceil => ceil,
            Rounding::Trunc => toward_zero,
            Rounding::HalfUp => nearest(ceil),
            Rounding::HalfDown => nearest(floor),
            Rounding::HalfAway => nearest(away),
            Rounding::HalfToZero => nearest(toward_zero),
            Rounding::HalfEven => nearest(even),
            Rounding::HalfOdd => nearest(odd),
        }
    }

    fn interesting() -> Vec<i128> {
        let mut values: Vec<i128> = (-4200..=4200).collect();
        for k in 0..=100u32 {
            for d in -1..=1 {
                values.extend([(1i128 << k) + d, -(1i128 << k) + d, 3 * (1i128 << k) + d, -3 * (1i128 << k) + d]);
            }
        }
        values.extend([i64::MIN as i128, i64::MAX as i128, i32::MIN as i128, i32::MAX as i128]);
        values
    }

    #[test]
    fn shifts_equal_the_rational_definition() {
        for mode in Rounding::ALL {
            for v in interesting() {
                for n in [0, 1, 2, 3, 7, 8, 12, 15, 31, 32, 33, 62, 63, 64, 65, 99, 100, 101] {
                    assert_eq!(shr_round(v, n, mode), rational(v, 1 << n, mode), "{mode} {v} >> {n}");
                }
            }
        }
    }

    #[test]
    fn divisions_equal_the_rational_definition() {
        for mode in Rounding::ALL {
            for v in interesting() {
                for d in [1, -1, 2, -2, 3, -3, 4, 7, -7, 9, 10, 49, -64, 255, 1 << 31, (1 << 40) + 1] {
                    assert_eq!(div_round(v, d, mode), rational(v, d, mode), "{mode} {v} / {d}");
                }
            }
        }
    }

    #[test]
    fn shifts_beyond_the_width() {
        for mode in Rounding::ALL {
            for n in 101..=300 {
                for v in [1, -1, 77, -77, i128::from(i64::MIN), i128::from(i64::MAX)] {
                    let expected = rational(v.signum(), 1 << 20, mode);
                    assert_eq!(shr_round(v, n, mode), expected, "{mode} {v} >> {n}");
                }
            }
            assert_eq!(shr_round(i128::MIN, 127, mode), -1);
            assert_eq!(shr_round(i128::MIN, 128, mode), rational(-1, 2, mode), "{mode}");
            assert_eq!(shr_round(i128::MIN, 129, mode), rational(-1, 4, mode), "{mode}");
            assert_eq!(shr_round(i128::MAX, 127, mode), rational((1 << 20) - 1, 1 << 20, mode), "{mode}");
            assert_eq!(shr_round(i128::MIN + 1, 127, mode), rational(1 - (1 << 20), 1 << 20, mode), "{mode}");
        }
    }

    #[test]
    fn documented_ties() {
        let table = [
            (Rounding::Floor, 0, -1),
            (Rounding::Ceil, 1, 0),
            (Rounding::Trunc, 0, 0),
            (Rounding::HalfUp, 1, 0),
            (Rounding::HalfDown, 0, -1),
            (Rounding::HalfAway, 1, -1),
            (Rounding::HalfToZero, 0, 0),
            (Rounding::HalfEven, 0, 0),
            (Rounding::HalfOdd, 1, -1),
        ];
        for (mode, plus, minus) in table {
            assert_eq!((shr_round(1, 1, mode), shr_round(-1, 1, mode)), (plus, minus), "{mode}");
            assert_eq!(Rounding::parse(mode.name()), Some(mode));
        }
        assert_eq!(Rounding::parse("nearest"), None);
    }

    #[test]
    fn narrowing() {
        assert_eq!(wrap(128, 8, true), -128);
        assert_eq!(wrap(-129, 8, true), 127);
        assert_eq!(wrap(-1, 8, false), 255);
        assert_eq!(wrap(i128::from(i32::MAX) + 1, 32, true), i32::MIN.into());
        assert_eq!(wrap(-1, 64, false), u64::MAX.into());
        assert_eq!(wrap(5, 1, true), -1);
        assert_eq!(sat(300, -128, 127), 127);
        assert_eq!(sat(-300, -128, 127), -128);
        assert_eq!(div_round(i128::MIN, -1, Rounding::Floor), i128::MAX);
    }
}
