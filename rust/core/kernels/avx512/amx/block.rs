//! One block: up to 32 rows by two panels, through all of `k`.

use super::super::super::pack::PANEL;
use std::arch::asm;

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile.
pub(super) const TILE_BYTES: usize = 64;
/// Rows of a block.
pub(super) const ROWS: usize = 2 * TILE_ROWS;
/// Columns of a block.
pub(super) const COLUMNS: usize = 2 * PANEL;

/// What computes with tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super::super) enum Tiles {
    /// AMX-INT8.
    Hardware,
    /// Portable code, for tests on other machines.
    #[cfg(test)]
    Twin,
}

/// The sums of a block.
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [[i32; COLUMNS]; ROWS]);

/// Operands of a block of sixteen or 32 rows by one or two panels.
pub(super) struct Block<'a> {
    /// The first row.
    pub(super) rows: *const u8,
    /// Bytes from one row to the next.
    pub(super) stride: usize,
    /// First of each 64 bytes of a row that meet a tile of the weights.
    pub(super) steps: &'a [usize],
    /// The first line of the first panel, and bytes from one panel to the next.
    pub(super) lines: *const i8,
    pub(super) panel: usize,
    /// Initial accumulators of the panels.
    pub(super) init: *const i32,
}

impl Block<'_> {
    /// The sums of `rows · 16` rows and `panels` panels, both one or two; steps are at least one.
    ///
    /// # Safety
    /// The extents of the operands, and tiles as `system::configure` makes them.
    pub(super) unsafe fn multiply(&self, tiles: Tiles, [rows, panels]: [usize; 2], sums: &mut Sums) {
        // SAFETY: the caller's.
        unsafe {
            match tiles {
                Tiles::Hardware => match (rows, panels) {
                    (1, 1) => self.one_by_one(sums),
                    (1, _) => self.one_by_two(sums),
                    (_, 1) => self.two_by_one(sums),
                    _ => self.two_by_two(sums),
                },
                #[cfg(test)]
                Tiles::Twin => self.twin([rows, panels], sums),
            }
        }
    }

    /// What the hardware computes.
    #[cfg(test)]
    unsafe fn twin(&self, [rows, panels]: [usize; 2], sums: &mut Sums) {
        for (r, c) in (0..rows * TILE_ROWS).flat_map(|r| (0..panels * PANEL).map(move |c| (r, c))) {
            // SAFETY: the caller's.
            unsafe {
                let mut sum = *self.init.add(c);
                for (tile, step) in self.steps.iter().enumerate() {
                    for k in 0..TILE_BYTES {
                        let line = (tile * TILE_BYTES + k) / 4;
                        let w = *self.lines.add(c / PANEL * self.panel + line * TILE_BYTES + c % PANEL * 4 + k % 4);
                        let x = *self.rows.add(r * self.stride + step + k);
                        sum = sum.wrapping_add(i32::from(x) * i32::from(w));
                    }
                }
                sums.0[r][c] = sum;
            }
        }
    }
}

/// Defines a method of [`Block`] on tiles: the sums begin as the initial accumulators (a stride of zero repeats their row), are
/// summed over all steps, and are stored.
macro_rules! product_of_tiles {
    ($name:ident: load $($load:literal),+; step $($step:literal),+; store $($store:literal),+) => {
        impl Block<'_> {
            /// # Safety
            /// As [`Block::multiply`].
            unsafe fn $name(&self, sums: &mut Sums) {
                // SAFETY: what the tiles read is the caller's; the sums are 32 rows of 128 bytes. The compiler uses no tile
                // registers.
                unsafe {
                    asm!(
                        $($load,)+
                        "2:",
                        "mov {a0}, [{step}]",
                        "lea {a1}, [{upper} + {a0}]",
                        "add {a0}, {lower}",
                        $($step,)+
                        "add {step}, 8",
                        "add {b0}, 1024",
                        "add {b1}, 1024",
                        "dec {count}",
                        "jnz 2b",
                        "mov {a0}, 128",
                        $($store,)+
                        // The initial accumulators and the stride of zero, and the rows after that.
                        a0 = inout(reg) self.init => _,
                        a1 = inout(reg) 0usize => _,
                        b0 = inout(reg) self.lines => _,
                        b1 = inout(reg) self.lines.wrapping_add(self.panel) => _,
                        step = inout(reg) self.steps.as_ptr() => _,
                        count = inout(reg) self.steps.len() => _,
                        lower = in(reg) self.rows,
                        upper = in(reg) self.rows.wrapping_add(TILE_ROWS * self.stride),
                        stride = in(reg) self.stride,
                        line = in(reg) TILE_BYTES,
                        sums = in(reg) sums.0.as_mut_ptr(),
                        options(nostack)
                    );
                }
            }
        }
    };
}

product_of_tiles!(one_by_one:
    load "tileloadd tmm0, [{a0} + {a1}*1]";
    step
        "tileloadd tmm6, [{b0} + {line}*1]",
        "tileloadd tmm4, [{a0} + {stride}*1]",
        "tdpbusd tmm0, tmm4, tmm6";
    store "tilestored [{sums} + {a0}*1], tmm0");

product_of_tiles!(one_by_two:
    load
        "tileloadd tmm0, [{a0} + {a1}*1]",
        "tileloadd tmm1, [{a0} + {a1}*1 + 64]";
    step
        "tileloadd tmm6, [{b0} + {line}*1]",
        "tileloadd tmm4, [{a0} + {stride}*1]",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b1} + {line}*1]",
        "tdpbusd tmm1, tmm4, tmm7";
    store
        "tilestored [{sums} + {a0}*1], tmm0",
        "tilestored [{sums} + {a0}*1 + 64], tmm1");

product_of_tiles!(two_by_one:
    load
        "tileloadd tmm0, [{a0} + {a1}*1]",
        "tileloadd tmm2, [{a0} + {a1}*1]";
    step
        "tileloadd tmm6, [{b0} + {line}*1]",
        "tileloadd tmm4, [{a0} + {stride}*1]",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm5, [{a1} + {stride}*1]",
        "tdpbusd tmm2, tmm5, tmm6";
    store
        "tilestored [{sums} + {a0}*1], tmm0",
        "tilestored [{sums} + {a0}*1 + 2048], tmm2");

product_of_tiles!(two_by_two:
    load
        "tileloadd tmm0, [{a0} + {a1}*1]",
        "tileloadd tmm1, [{a0} + {a1}*1 + 64]",
        "tileloadd tmm2, [{a0} + {a1}*1]",
        "tileloadd tmm3, [{a0} + {a1}*1 + 64]";
    step
        "tileloadd tmm6, [{b0} + {line}*1]",
        "tileloadd tmm4, [{a0} + {stride}*1]",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b1} + {line}*1]",
        "tdpbusd tmm1, tmm4, tmm7",
        "tileloadd tmm5, [{a1} + {stride}*1]",
        "tdpbusd tmm2, tmm5, tmm6",
        "tdpbusd tmm3, tmm5, tmm7";
    store
        "tilestored [{sums} + {a0}*1], tmm0",
        "tilestored [{sums} + {a0}*1 + 64], tmm1",
        "tilestored [{sums} + {a0}*1 + 2048], tmm2",
        "tilestored [{sums} + {a0}*1 + 2112], tmm3");
