//! The loops of all passes, compiled for each instruction set that matters and chosen at run time.

use super::lanes::Lane;
use crate::program::Vectors;

/// Instruction set that the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// What every machine of the architecture has; on AArch64 that is NEON.
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The richest that the machine has and `widest` allows.
    pub fn of_this_machine(widest: Vectors) -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
            let avx512 = std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512dq")
                && std::arch::is_x86_feature_detected!("avx512vl");
            match (avx2, avx512, widest) {
                (_, _, Vectors::Plain) | (false, ..) => {}
                (true, true, Vectors::Bits512) => return Level::Avx512,
                (true, ..) => return Level::Avx2,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = widest;
        Level::Plain
    }
}

/// Defines a loop `$plain`, the same for each level, and `$name`, which chooses among them.
macro_rules! pass {
    (
        $(#[$doc:meta])*
        $name:ident, $plain:ident, $avx2:ident, $avx512:ident;
        [$($lane:ident),+] ($($type:ident),+) ($f:ident, $out:ident, $($arg:ident: $of:ty),+) $body:block
    ) => {
        #[inline(always)]
        fn $plain<$($lane: Lane,)+ R: Lane>($f: impl Fn($($type),+) -> R, $out: &mut [R], $($arg: $of),+) $body

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn $avx2<$($lane: Lane,)+ R: Lane>($f: impl Fn($($type),+) -> R, $out: &mut [R], $($arg: $of),+) {
            $plain($f, $out, $($arg),+);
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn $avx512<$($lane: Lane,)+ R: Lane>($f: impl Fn($($type),+) -> R, $out: &mut [R], $($arg: $of),+) {
            $plain($f, $out, $($arg),+);
        }

        $(#[$doc])*
        pub(super) fn $name<$($lane: Lane,)+ R: Lane>(
            level: Level,
            $f: impl Fn($($type),+) -> R,
            $out: &mut [R],
            $($arg: $of),+
        ) {
            // 128-bit lanes have no vectors.
            let level = if R::VECTORS $(&& $lane::VECTORS)+ { level } else { Level::Plain };
            match level {
                // SAFETY: `Level::of_this_machine` found the features.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { $avx512($f, $out, $($arg),+) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { $avx2($f, $out, $($arg),+) },
                Level::Plain => $plain($f, $out, $($arg),+),
            }
        }
    };
}

pass! {
    /// `out[i] = f(a[i])`.
    one, one_plain, one_avx2, one_avx512;
    [A] (A) (f, out, a: &[A]) {
        out.iter_mut().zip(a).for_each(|(out, a)| *out = f(*a));
    }
}

pass! {
    /// `out[i] = f(a[i], b[i])`.
    two, two_plain, two_avx2, two_avx512;
    [A, B] (A, B) (f, out, a: &[A], b: &[B]) {
        out.iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = f(*a, *b));
    }
}

pass! {
    /// `out[i] = f(a[i], b)`.
    two_scalar, two_scalar_plain, two_scalar_avx2, two_scalar_avx512;
    [A, B] (A, B) (f, out, a: &[A], b: B) {
        out.iter_mut().zip(a).for_each(|(out, a)| *out = f(*a, b));
    }
}

pass! {
    /// `out[i] = f(a[i], b[i], c[i])`.
    three, three_plain, three_avx2, three_avx512;
    [A, B, C] (A, B, C) (f, out, a: &[A], b: &[B], c: &[C]) {
        out.iter_mut().zip(a).zip(b).zip(c).for_each(|(((out, a), b), c)| *out = f(*a, *b, *c));
    }
}

pass! {
    /// `out[i] = f(a[i], b, c)`.
    three_scalar, three_scalar_plain, three_scalar_avx2, three_scalar_avx512;
    [A, B, C] (A, B, C) (f, out, a: &[A], b: B, c: C) {
        out.iter_mut().zip(a).for_each(|(out, a)| *out = f(*a, b, c));
    }
}
