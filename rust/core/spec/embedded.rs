//! The specs that ship inside the binary.

macro_rules! embed {
    ($($name:literal),* $(,)?) => {
        /// Path below `specs/` and text of every shipped file.
        pub const EMBEDDED: &[(&str, &str)] = &[
            $(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/specs/", $name)))),*
        ];
    };
}

embed! {
    "base/movement.toml",
    "base/q31.toml",
    "base/placement_htp.toml",
    "cmsis_nn.toml",
    "float.toml",
    "float16.toml",
    "bfloat16.toml",
    "htp_float16.toml",
    "fake_quant.toml",
    "onnxruntime_cpu.toml",
    "onnxruntime_cpu_avx2.toml",
    "tflite_micro.toml",
    "htp_v75.toml",
}

/// File names of the shipped targets (not of the shared parents).
pub fn embedded_names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().filter(|(name, _)| !name.contains('/')).filter_map(|(name, _)| name.strip_suffix(".toml"))
}
