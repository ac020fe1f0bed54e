//! The specs that ship inside the binary: every TOML file below `specs/` (listed by `build.rs`).

/// Path below `specs/` and text of every shipped file, sorted by path.
pub const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/specs.rs"));

/// File names of the shipped targets (not of the shared parents).
pub fn embedded_names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().filter(|(name, _)| !name.contains('/')).filter_map(|(name, _)| name.strip_suffix(".toml"))
}
