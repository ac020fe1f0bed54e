//! What a user asks for: folders, families and targets, on some runners.

use super::report::Report;
use super::runner::Runner;
use super::{Against, Check, Family, claimants, find_families};
use crate::error::{Error, Result};
use crate::spec::{Spec, nearest_help};
use serde::Serialize;
use std::path::PathBuf;

/// Families of golden vectors under targets.
pub struct Request<'a> {
    /// Folders that are families or hold them.
    pub folders: &'a [PathBuf],
    /// Names of families; all where there are none.
    pub families: &'a [String],
    /// Text that the ids of cases must contain.
    pub only: Option<&'a str>,
    /// Target; without it every shipped target that claims a family, where a runner needs one.
    pub target: Option<Spec>,
    /// What outputs are compared with.
    pub against: Against,
    /// What runs the cases.
    pub runners: &'a [&'a dyn Runner],
    /// Cases that run at the same time; 0 for as many as the machine has threads.
    pub jobs: usize,
}

/// What a request gave.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Whether every case that counts is equal on every runtime.
    pub equal: bool,
    /// Names of the runners.
    pub runtimes: Vec<String>,
    /// One per family and target.
    pub reports: Vec<Report>,
    /// Families that no shipped target claims: nothing ran.
    pub unclaimed: Vec<String>,
}

impl Request<'_> {
    /// Runs the cases. `begin` hears how many there are; `step` is called after each, on this thread, and may stop the run.
    ///
    /// # Errors
    /// `vector_folder`, `family_unknown` and what [`Family::read`] gives; `vector_none` where no case is left; those of `step`.
    pub fn run(&self, begin: &mut dyn FnMut(usize), step: &mut dyn FnMut() -> Result<()>) -> Result<Summary> {
        let families = self.read()?;
        let (pairings, unclaimed) = self.pairings(&families)?;
        let wanted = |id: &str| self.only.is_none_or(|text| id.contains(text));
        let total = pairings.iter().flat_map(|(f, _)| &f.cases).filter(|c| wanted(&c.id)).count();
        if total == 0 {
            let error = Error::invalid("vector_none", "no case is left to run");
            return Err(match unclaimed.is_empty() {
                true => error,
                false => error.help(format!("no shipped target claims {}: name a target", unclaimed.join(", "))),
            });
        }
        begin(total);
        let mut reports = Vec::new();
        for (family, spec) in &pairings {
            let check =
                Check { family, spec: spec.as_ref(), against: self.against, runners: self.runners, jobs: self.jobs };
            reports.push(check.run(&|case| wanted(&case.id), step)?);
        }
        Ok(Summary {
            equal: reports.iter().all(Report::is_equal),
            runtimes: self.runners.iter().map(|r| r.name().to_string()).collect(),
            reports,
            unclaimed,
        })
    }

    fn read(&self) -> Result<Vec<Family>> {
        let mut all = Vec::new();
        for folder in self.folders {
            for family in find_families(folder)? {
                all.push(Family::read(&family)?);
            }
        }
        if let Some(unknown) = self.families.iter().find(|name| all.iter().all(|f| f.name != **name)) {
            let known = all.iter().map(|f| f.name.as_str());
            return Err(Error::invalid("family_unknown", format!("there is no family '{unknown}'"))
                .help(nearest_help(unknown, known)));
        }
        all.retain(|f| self.families.is_empty() || self.families.contains(&f.name));
        Ok(all)
    }

    /// What runs under what, and the families that no target claims.
    #[allow(clippy::type_complexity)]
    fn pairings<'f>(&self, families: &'f [Family]) -> Result<(Vec<(&'f Family, Option<Spec>)>, Vec<String>)> {
        let (mut pairings, mut unclaimed) = (Vec::new(), Vec::new());
        let needs_target = self.against == Against::Target || self.runners.iter().any(|r| r.needs_target());
        for family in families {
            if self.target.is_some() || !needs_target {
                pairings.push((family, self.target.clone()));
                continue;
            }
            let specs = claimants(&family.name)?;
            if specs.is_empty() {
                unclaimed.push(family.name.clone());
            }
            pairings.extend(specs.into_iter().map(|spec| (family, Some(spec))));
        }
        Ok((pairings, unclaimed))
    }
}
