//! The `nputwin` binary.

fn main() -> std::process::ExitCode {
    nputwin_cli::run(std::env::args().collect()).into()
}
