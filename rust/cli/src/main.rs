//! The `nputwin` binary.

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
