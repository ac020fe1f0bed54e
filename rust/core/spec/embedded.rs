//! The specs that ship inside the binary: every TOML file below `specs/` (listed by `build.rs`).

/// A shipped file.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// Path below `specs/`.
    pub file: &'static str,
    /// Text.
    pub toml: &'static str,
    /// The same tables as JSON.
    pub(super) json: &'static str,
}

/// Every shipped file, sorted by path.
pub const EMBEDDED: &[Embedded] = include!(concat!(env!("OUT_DIR"), "/specs.rs"));

/// File names of the shipped targets (not of the shared parents).
pub fn embedded_names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().filter(|e| !e.file.contains('/')).filter_map(|e| e.file.strip_suffix(".toml"))
}
