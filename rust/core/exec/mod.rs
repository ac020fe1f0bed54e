//! Running a graph under a target.

mod admission;
pub mod calibrate;
pub mod check;
pub mod cost;
pub mod layout;
mod parameters;
mod placement;
mod plan;
pub mod quantizers;
mod session;
mod supergroups;
#[cfg(test)]
mod testing;

pub use placement::{Clamp, Note};
pub use plan::{Form, NodeReport, Plan, Source, Step};
pub use session::{Captured, Options, PortInfo, Profile, Report, RunResult, Session};
