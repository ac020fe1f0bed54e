//! Running a graph under a target.

mod admission;
pub mod calibrate;
pub mod cost;
pub mod layout;
mod parameters;
mod placement;
mod plan;
mod session;

pub use placement::Note;
pub use plan::{Form, NodeReport, Plan, Source, Step};
pub use session::{Captured, Options, PortInfo, Profile, Report, RunResult, Session};
