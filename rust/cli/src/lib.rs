//! Command line of nputwin.

/// Runs the command line and gives the exit code.
pub fn run(_args: Vec<String>) -> u8 {
    2
}
