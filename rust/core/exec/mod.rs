//! Running a graph under a target.

pub mod calibrate;
pub mod cost;
pub mod layout;
mod narrow;
mod placement;
mod plan;
mod session;
mod step;

pub use placement::{Clamp, Note};
pub use plan::{Form, Plan};
pub use session::{Captured, Options, PortInfo, Profile, Report, RunResult, Session};
pub use step::{NodeReport, Source, Step};
