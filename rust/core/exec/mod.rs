//! Running a graph under a target.

mod admission;
mod budget;
pub mod calibrate;
pub mod check;
pub mod cost;
mod explain;
mod float_table;
pub mod layout;
mod narrow;
mod parameters;
mod placement;
mod places;
mod plan;
pub mod quantizers;
mod scaling;
mod session;
mod step;
mod supergroups;
#[cfg(test)]
mod testing;

pub use budget::{MAX_THREADS, check_threads, parse_bytes};
pub use placement::Note;
pub use plan::{Form, Plan};
pub use session::{Captured, Options, PortInfo, Profile, Report, RunResult, Session};
pub use step::{NodeReport, Source, Step};
