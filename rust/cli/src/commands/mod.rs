//! One file per subcommand: its arguments, and `execute`.

pub mod bench;
pub mod calibrate;
pub mod check;
pub mod compare;
pub mod conformance;
pub mod convert;
pub mod explain;
pub mod info;
pub mod run;
pub mod spec;
mod stream;
