//! The form in which the bytes of activations meet the weights.

use super::isa::{Isa, Simd};

/// How the 8-bit products of an instruction set read codes as bytes.
///
/// Weights are signed. The x86 dot products take unsigned bytes beside them, those of FEAT_DotProd and the widening
/// products of NEON signed ones, those of FEAT_I8MM either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteForm {
    /// Whether the bytes are two's complement.
    pub signed: bool,
    /// XORed to the byte of each code.
    pub flip: u8,
    /// What each byte exceeds its code by.
    pub excess: i32,
}

impl ByteForm {
    /// The form for codes that are signed, or are not.
    pub(crate) fn new(simd: Simd, signed: bool) -> ByteForm {
        let read_signed = match simd.vectors() {
            Isa::Scalar | Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni | Isa::AmxInt8 => false,
            Isa::Neon | Isa::NeonDot => true,
            Isa::NeonI8mm => signed,
        };
        let (flip, excess) = match (signed, read_signed) {
            (true, false) => (0x80, 128),
            (false, true) => (0x80, -128),
            _ => (0, 0),
        };
        ByteForm { signed: read_signed, flip, excess }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_exceed_their_codes_by_as_much_as_it_says() {
        for simd in Isa::available().into_iter().filter_map(Simd::new) {
            for signed in [false, true] {
                let form = ByteForm::new(simd, signed);
                for byte in 0..=u8::MAX {
                    let value = |byte: u8, signed: bool| if signed { i32::from(byte as i8) } else { byte.into() };
                    let read = value(byte ^ form.flip, form.signed);
                    assert_eq!(read - form.excess, value(byte, signed), "{simd:?} {signed} {byte}");
                }
            }
        }
    }
}
