//! Instruction sets, and the handle that every kernel runs on.
//!
//! All paths give the same bits. The best available set is used; the environment variable `NPUTWIN_ISA` (`scalar`; `avx2`,
//! `avx_vnni`, `avx512_vnni`, `amx_int8`; `neon`, `neon_dot`, `neon_i8mm`) caps it, for measurements and for bisecting a suspected
//! fault.

use super::team::Team;
use crate::error::{Error, Result};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// An instruction set that kernels are written for: portable code, then those of each architecture from the plainest to the
/// richest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable code.
    Scalar,
    /// AVX2 and FMA: 8-bit products through exact 16-bit multiply-add.
    Avx2,
    /// AVX2, FMA and the 256-bit dot product of AVX-VNNI.
    AvxVnni,
    /// AVX-512 F, BW, VL, DQ and VNNI.
    Avx512Vnni,
    /// AVX-512 as above, and tiles of 8-bit matrix products (AMX-INT8).
    AmxInt8,
    /// Advanced SIMD, which every AArch64 machine has: 8-bit products widened to 16 bits and summed in 32.
    Neon,
    /// The 8-bit dot product of signed codes (FEAT_DotProd).
    NeonDot,
    /// FEAT_DotProd, and 8-bit matrix products of any signs (FEAT_I8MM).
    NeonI8mm,
}

impl Isa {
    /// All sets, those of an architecture from the plainest to the richest.
    pub const ALL: [Isa; 8] =
        [Isa::Scalar, Isa::Avx2, Isa::AvxVnni, Isa::Avx512Vnni, Isa::AmxInt8, Isa::Neon, Isa::NeonDot, Isa::NeonI8mm];

    /// Name as in `NPUTWIN_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avx_vnni",
            Isa::Avx512Vnni => "avx512_vnni",
            Isa::AmxInt8 => "amx_int8",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon_dot",
            Isa::NeonI8mm => "neon_i8mm",
        }
    }

    /// The set of that name.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Whether kernels for it are part of this build: whether it is one of the target's architecture.
    pub fn is_of_this_architecture(self) -> bool {
        match self {
            Isa::Scalar => true,
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni | Isa::AmxInt8 => cfg!(target_arch = "x86_64"),
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => cfg!(target_arch = "aarch64"),
        }
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni");
            match self {
                Isa::Scalar => true,
                Isa::Avx2 => avx2,
                Isa::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
                Isa::Avx512Vnni => avx512,
                Isa::AmxInt8 => avx512 && super::avx512::amx::is_available(),
                Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => false,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected;
            // The kernels read words of bytes in little-endian order.
            let neon = cfg!(target_endian = "little") && is_aarch64_feature_detected!("neon");
            let dot = neon && is_aarch64_feature_detected!("dotprod");
            match self {
                Isa::Scalar => true,
                Isa::Neon => neon,
                Isa::NeonDot => dot,
                Isa::NeonI8mm => dot && is_aarch64_feature_detected!("i8mm"),
                Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni | Isa::AmxInt8 => false,
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Isa::Scalar
        }
    }

    /// The sets of this machine, the plainest first. `NPUTWIN_ISA` does not narrow this list.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The richest available set that is not richer than a `cap` of this architecture. No richer one is asked about: to ask for
    /// tile registers is to get them.
    fn richest(is_available: impl Fn(Isa) -> bool, cap: Option<Isa>) -> Isa {
        let cap = cap.filter(|cap| cap.is_of_this_architecture());
        let allowed = Isa::ALL.into_iter().filter(|&isa| cap.is_none_or(|cap| isa <= cap));
        allowed.rev().find(|&isa| is_available(isa)).unwrap_or(Isa::Scalar)
    }
}

/// Proof that this machine has an instruction set: only checked values exist, so vector code may rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simd(Isa);

impl Simd {
    /// The proof for `isa`, where this machine has it.
    pub fn new(isa: Isa) -> Option<Simd> {
        isa.is_available().then_some(Simd(isa))
    }

    /// The best set of this machine that `NPUTWIN_ISA` allows. An unknown name there, or one of another architecture, is
    /// taken for no cap; a front end can tell by [`Isa::from_name`] and [`Isa::is_of_this_architecture`].
    pub fn best() -> Simd {
        static BEST: OnceLock<Simd> = OnceLock::new();
        *BEST.get_or_init(|| {
            let cap = std::env::var("NPUTWIN_ISA").ok().and_then(|name| Isa::from_name(&name));
            Simd(Isa::richest(Isa::is_available, cap))
        })
    }

    /// The proof for the set that a user asked for, or for [`Simd::best`].
    ///
    /// # Errors
    /// `isa_unavailable` where this machine does not have it.
    pub fn wanted(isa: Option<Isa>) -> Result<Simd> {
        let Some(isa) = isa else { return Ok(Simd::best()) };
        Simd::new(isa).ok_or_else(|| {
            let known: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
            Error::unsupported("isa_unavailable", format!("this machine does not have {}", isa.name()))
                .help(format!("it has: {}", known.join(", ")))
        })
    }

    /// Which set.
    pub fn isa(self) -> Isa {
        self.0
    }

    /// Whether products apply epilogues in registers.
    pub fn fuses_epilogues(self) -> bool {
        self.vectors() == Isa::Avx512Vnni
    }

    /// The set for everything that is no matrix product.
    pub fn vectors(self) -> Isa {
        if self.0 == Isa::AmxInt8 { Isa::Avx512Vnni } else { self.0 }
    }
}

/// Threads and instruction set of a computation. Results depend on neither.
#[derive(Clone, Copy)]
pub struct Engine<'a> {
    threads: Threads<'a>,
    simd: Simd,
}

#[derive(Clone, Copy)]
enum Threads<'a> {
    One,
    Team(&'a Team),
}

impl<'a> Engine<'a> {
    /// Runs on the threads of `team` with the best instruction set.
    pub fn of_team(team: &'a Team) -> Self {
        Engine { threads: Threads::Team(team), simd: Simd::best() }
    }

    /// Runs on the calling thread with the best instruction set.
    pub fn single() -> Self {
        Engine { threads: Threads::One, simd: Simd::best() }
    }

    /// The same with another instruction set.
    #[must_use]
    pub fn with(self, simd: Simd) -> Self {
        Engine { simd, ..self }
    }

    /// Instruction set.
    pub fn simd(&self) -> Simd {
        self.simd
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        match self.threads {
            Threads::One => 1,
            Threads::Team(team) => team.threads(),
        }
    }

    /// Units of work per task when `units` of them are shared out in multiples of `grain`: as many tasks per thread, up to four,
    /// as leave the largest share of a thread as small as it can be.
    pub(crate) fn share(&self, units: usize, grain: usize) -> usize {
        if self.threads() == 1 {
            return units.max(1);
        }
        let grains = units.div_ceil(grain.max(1)).max(1);
        let per_task = |tasks: usize| grains.div_ceil(self.threads() * tasks);
        let best = (1..=4).rev().map(per_task).min_by_key(|&per| self.largest_share(grains, per));
        best.unwrap_or(grains) * grain.max(1)
    }

    /// Units that the busiest thread gets when tasks have `per_task` of `units`.
    pub(crate) fn largest_share(&self, units: usize, per_task: usize) -> usize {
        (units.div_ceil(per_task.max(1)).div_ceil(self.threads()) * per_task).min(units)
    }

    /// Calls `body(0..count)`, in any order.
    pub(crate) fn for_each_task(&self, count: usize, body: impl Fn(usize) + Sync) {
        match self.threads {
            Threads::Team(team) => team.run(count, &body),
            Threads::One => (0..count).for_each(body),
        }
    }

    /// Calls `body(index, chunk)` for each run of `chunk` elements of `data`, the last of which may be shorter.
    pub(crate) fn for_each_chunk<T: Send>(&self, data: &mut [T], chunk: usize, body: impl Fn(usize, &mut [T]) + Sync) {
        let (chunk, len, start) = (chunk.max(1), data.len(), Shared::new(data));
        self.for_each_task(len.div_ceil(chunk), |i| {
            // SAFETY: every task is run once, and the chunks of different tasks do not overlap; `data` is borrowed until all
            // tasks have ended.
            let part = unsafe { std::slice::from_raw_parts_mut(start.at(i * chunk), chunk.min(len - i * chunk)) };
            body(i, part);
        });
    }

    /// The values of `body(0..count)`, in order.
    pub(crate) fn map<R: Send>(&self, count: usize, body: impl Fn(usize) -> R + Sync) -> Vec<R> {
        let mut values: Vec<Option<R>> = Vec::new();
        values.resize_with(count, || None);
        let chunk = self.share(count, 1);
        self.for_each_chunk(&mut values, chunk, |i, values| {
            values.iter_mut().enumerate().for_each(|(j, value)| *value = Some(body(i * chunk + j)));
        });
        values.into_iter().map(|v| v.expect("every value is computed")).collect()
    }
}

/// A slice of which tasks write disjoint elements.
pub(crate) struct Shared<'a, T>(*mut T, PhantomData<&'a mut [T]>);

// SAFETY: who dereferences a pointer vouches that no other task uses its element; elements may be sent to other threads.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// The elements of `slice`, which stays borrowed.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Shared(slice.as_mut_ptr(), PhantomData)
    }

    /// Element `i`.
    pub(crate) fn at(&self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
}

/// Compiles a function body once per instruction set, so that the compiler's vectoriser may use each, and calls the
/// one that the leading [`Simd`] argument proves to be there. No path may contract `a * b + c`: rustc never does.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($g:ident : $bound:ident),+>)? ($simd:ident: Simd $(, $arg:ident : $ty:ty)* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($g: $bound),+>)? ($simd: $crate::kernels::isa::Simd $(, $arg: $ty)*) {
            #[inline(always)]
            fn body $(<$($g: $bound),+>)? ($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$($g: $bound),+>)? ($($arg: $ty),*) { body($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")]
            fn avx512 $(<$($g: $bound),+>)? ($($arg: $ty),*) { body($($arg),*) }
            match $simd.vectors() {
                // SAFETY: a `Simd` exists only for an instruction set that this machine has.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::isa::Isa::Avx512Vnni => unsafe { avx512($($arg),*) },
                // SAFETY: as above; AVX-VNNI machines have AVX2 and FMA.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::isa::Isa::Avx2 | $crate::kernels::isa::Isa::AvxVnni => unsafe { avx2($($arg),*) },
                // What every machine of an architecture has is what the compiler assumes anyway: NEON among it.
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use multiversion;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_scalar_is_everywhere() {
        for isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()), Some(isa));
        }
        assert_eq!(Isa::from_name("sse9"), None);
        assert_eq!(Isa::available().first(), Some(&Isa::Scalar));
        assert!(Simd::best().isa().is_available());
        assert!(Isa::available().into_iter().all(Isa::is_of_this_architecture));
    }

    #[test]
    fn a_cap_of_another_architecture_is_none() {
        let own: Vec<Isa> = Isa::ALL.into_iter().filter(|isa| isa.is_of_this_architecture()).collect();
        let richest = *own.last().unwrap();
        for cap in Isa::ALL {
            let expected = if cap.is_of_this_architecture() { cap } else { richest };
            assert_eq!(Isa::richest(|isa| own.contains(&isa), Some(cap)), expected);
            assert_eq!(Isa::richest(|isa| isa == Isa::Scalar, Some(cap)), Isa::Scalar);
        }
        assert_eq!(Isa::richest(|isa| own.contains(&isa), None), richest);
    }

    #[test]
    fn chunks_cover_everything_once_for_any_number_of_threads() {
        for threads in [1, 2, 7] {
            let team = Team::new(threads);
            let engine = Engine::of_team(&team);
            let mut data = vec![0usize; 1003];
            let chunk = engine.share(1003, 8);
            engine.for_each_chunk(&mut data, chunk, |i, part| {
                for (j, v) in part.iter_mut().enumerate() {
                    *v += i * chunk + j + 1;
                }
            });
            assert!(data.iter().enumerate().all(|(i, &v)| v == i + 1));
            assert_eq!(engine.map(5, |i| i * i), [0, 1, 4, 9, 16]);
            for (units, grain) in (0..200usize).flat_map(|units| [(units, 1), (units, 14)]) {
                let grains = usize::max(units.div_ceil(grain), 1);
                let least = (1..=4).map(|k| engine.largest_share(grains, grains.div_ceil(threads * k))).min().unwrap();
                let share = engine.share(units, grain);
                assert!(threads == 1 || share.is_multiple_of(grain));
                assert!(threads == 1 || engine.largest_share(grains, share / grain) == least, "{units} by {grain}");
            }
        }
    }
}
