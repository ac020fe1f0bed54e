//! Tile registers as processor and system provide them.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

/// The operand of `ldtilecfg`: palette, row to start at, bytes of a row and rows of each register.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// Eight whole registers.
static WHOLE: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Makes all tile registers of this thread whole.
///
/// # Safety
/// [`is_available`] holds.
pub(super) unsafe fn configure() {
    // SAFETY: a configuration of palette 1.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, readonly)) }
}

/// Gives the tile registers of this thread up: the system need not save them.
///
/// # Safety
/// [`is_available`] holds.
pub(super) unsafe fn release() {
    // SAFETY: no operands.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// Whether the processor has AMX-TILE and AMX-INT8, and the system lets this process use tile registers, which it must be asked
/// for once.
pub(in super::super::super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_tiles() && are_permitted())
}

/// Bits 24 (AMX-TILE) and 25 (AMX-INT8) of EDX of leaf 7, and in XCR0 bits 17 and 18, the state of tiles.
fn has_tiles() -> bool {
    // Newer compilers know that the instruction is safe: every processor of this architecture has it.
    #[allow(unused_unsafe)]
    let leaf = |leaf: u32| unsafe { __cpuid_count(leaf, 0) };
    let saves_states = leaf(1).ecx >> 27 & 1 == 1;
    if leaf(0).eax < 7 || !saves_states || leaf(7).edx >> 24 & 3 != 3 {
        return false;
    }
    let (low, _high): (u32, u32);
    // SAFETY: OSXSAVE says that the instruction exists.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _high, options(nostack, nomem));
    }
    low >> 17 & 3 == 3
}

/// Asks Linux for the state of tiles (`ARCH_REQ_XCOMP_PERM` of `arch_prctl`).
#[cfg(target_os = "linux")]
fn are_permitted() -> bool {
    const ARCH_PRCTL: isize = 158;
    const REQUEST_STATE: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let result: isize;
    // SAFETY: a system call with two integers.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST_STATE,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// What other systems want to be asked is not known here.
#[cfg(not(target_os = "linux"))]
fn are_permitted() -> bool {
    false
}
