//! The `nputwin` binary.

/// Puts weights and values in huge pages: with small ones, page faults take as long as all else that prepares a model.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let args: Result<Vec<String>, _> = std::env::args_os().map(std::ffi::OsString::into_string).collect();
    match args {
        Ok(args) => nputwin_cli::run(args).into(),
        Err(arg) => {
            eprintln!("invalid [argument_utf8]: argument {arg:?} is not UTF-8");
            2.into()
        }
    }
}
