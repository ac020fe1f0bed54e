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
    "base/hexagon_nn.toml",
    "base/hexagon_nn_signed.toml",
    "base/movement.toml",
    "base/q31.toml",
    "base/q31_single.toml",
    "base/q15.toml",
    "base/correctly_rounded.toml",
    "base/horizon.toml",
    "base/placement_htp.toml",
    "base/placement_j6m.toml",
    "base/placement_j6p.toml",
    "base/placement_htp_v66.toml",
    "base/placement_htp_v68.toml",
    "base/placement_htp_v69.toml",
    "base/placement_quantsim_default.toml",
    "base/placement_quantsim_per_channel.toml",
    "base/placement_quantsim_dsp.toml",
    "base/placement_enpu_v6.toml",
    "base/placement_enpu_v7.toml",
    "base/placement_enpu_v7_per_channel.toml",
    "base/quantsim.toml",
    "base/quantsim_v68.toml",
    "base/quantsim_v73.toml",
    "cmsis_nn.toml",
    "hexagon_nn_v66.toml",
    "float.toml",
    "float16.toml",
    "bfloat16.toml",
    "htp_float16.toml",
    "fake_quant.toml",
    "onnxruntime_cpu.toml",
    "onnxruntime_cpu_avx.toml",
    "onnxruntime_cpu_avx2.toml",
    "tflite_micro.toml",
    "tflite_micro_single.toml",
    "litert_ref.toml",
    "litert_opt_x86.toml",
    "litert_xnnpack_x86.toml",
    "enpu_v6.toml",
    "enpu_v7.toml",
    "enpu_v7_per_channel.toml",
    "horizon_bayes.toml",
    "horizon_bernoulli.toml",
    "horizon_nash_m.toml",
    "horizon_nash_p.toml",
    "htp_v66.toml",
    "htp_v68.toml",
    "htp_v69.toml",
    "htp_v75.toml",
    "tosa.toml",
}

/// File names of the shipped targets (not of the shared parents).
pub fn embedded_names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().filter(|(name, _)| !name.contains('/')).filter_map(|(name, _)| name.strip_suffix(".toml"))
}
