//! How many bytes the values of a run may take: a model of a few bytes can ask for many gigabytes.

use super::step::Step;
use crate::error::{Error, Result};
use std::fs::read_to_string;

/// Bytes that are assumed to be available where the system does not say.
const UNKNOWN: u64 = 8 << 30;
/// Largest sum of the bytes of values that planning computes once and for all.
const FOLDED: u64 = 1 << 30;
/// Most threads of a session, and most cases of golden vectors at a time.
pub const MAX_THREADS: usize = 1024;

/// A limit on the bytes that values take at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget(u64);

impl Budget {
    /// The limit that a user set; without one half of what the machine has available now, since kernels need room for what
    /// they compute in between.
    pub fn new(bytes: Option<u64>) -> Budget {
        Budget(bytes.unwrap_or_else(|| available().unwrap_or(UNKNOWN) / 2))
    }

    /// Largest sum of the bytes of folded values.
    pub fn folded(self) -> u64 {
        self.0.min(FOLDED)
    }

    /// Whether the limit allows so many bytes.
    pub fn allows(self, bytes: u64) -> bool {
        bytes <= self.0
    }

    /// Refuses more bytes than the limit.
    ///
    /// # Errors
    /// `memory_limit`.
    pub fn check(self, bytes: u64) -> Result<()> {
        if self.allows(bytes) {
            return Ok(());
        }
        let message = format!("a run needs {} for its values, {} may be used", shown(bytes), shown(self.0));
        Err(Error::invalid("memory_limit", message)
            .help("use smaller inputs, or raise the limit: --max-memory 64GiB, max_memory=64 << 30 in Python"))
    }

    /// Refuses steps whose slots, of these sizes, take more than the limit at one time besides `besides`. The error comes with
    /// the step.
    pub fn check_steps(self, steps: &[Step], sizes: &[u64], besides: u64) -> Result<(), (usize, Error)> {
        let sum = |slots: &mut dyn Iterator<Item = usize>| slots.map(|slot| sizes[slot]).fold(0, u64::saturating_add);
        let mut live = besides;
        for (s, step) in steps.iter().enumerate() {
            live = live.saturating_add(sum(&mut step.outputs.iter().flatten().copied()));
            self.check(live).map_err(|error| (s, error))?;
            live = live.saturating_sub(sum(&mut step.frees.iter().copied()));
        }
        Ok(())
    }
}

/// A number of threads, or an error where nobody can want so many.
///
/// # Errors
/// `threads`.
pub fn check_threads(threads: usize) -> Result<usize> {
    match threads <= MAX_THREADS {
        true if threads == 0 => Ok(std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)),
        true => Ok(threads),
        false => Err(Error::invalid("threads", format!("{threads} threads: at most {MAX_THREADS} are started"))
            .help("0 takes as many as the machine has")),
    }
}

/// Bytes from a text such as `4GiB`, `512MiB` or `1000000`.
///
/// # Errors
/// `memory_size`.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let fault = || {
        Error::invalid("memory_size", format!("'{text}' is no number of bytes"))
            .help("a whole number, and KiB, MiB, GiB or TiB behind it")
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(fault()),
    };
    let number: u64 = digits.trim_end().parse().map_err(|_| fault())?;
    number.checked_mul(1 << shift).ok_or_else(fault)
}

/// Bytes for people.
fn shown(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{bytes} bytes"),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// What the system says is available, and the room that a container's limit leaves.
fn available() -> Option<u64> {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text));
    [machine, container()].into_iter().flatten().min()
}

fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The room below the memory limit of the control group, caches of files not counted: version 2, else version 1.
fn container() -> Option<u64> {
    let number = |path: &str| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let cached = |path: &str, key: &str| {
        let text = read_to_string(path).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok())
    };
    let (limit, used, cached) = match number("/sys/fs/cgroup/memory.max") {
        Some(limit) => {
            (limit, number("/sys/fs/cgroup/memory.current")?, cached("/sys/fs/cgroup/memory.stat", "inactive_file "))
        }
        None => (
            number("/sys/fs/cgroup/memory/memory.limit_in_bytes")?,
            number("/sys/fs/cgroup/memory/memory.usage_in_bytes")?,
            cached("/sys/fs/cgroup/memory/memory.stat", "total_inactive_file "),
        ),
    };
    Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_bytes("1000").unwrap(), 1000);
        assert_eq!(parse_bytes("4GiB").unwrap(), 4 << 30);
        assert_eq!(parse_bytes("512 MiB").unwrap(), 512 << 20);
        for wrong in ["", "GiB", "4GB", "-1", "1.5GiB", "99999999999TiB", "４GiB"] {
            assert_eq!(parse_bytes(wrong).unwrap_err().code(), "memory_size", "{wrong}");
        }
    }

    #[test]
    fn what_is_available_is_read_in_bytes() {
        assert_eq!(meminfo("MemTotal: 9 kB\nMemAvailable:    3 kB\n"), Some(3072));
        assert_eq!(meminfo("MemTotal: 9 kB\n"), None);
        assert!(Budget::new(None).0 > 0);
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        Budget::new(Some(10)).check(10).unwrap();
        let error = Budget::new(Some(10)).check(3 << 30).unwrap_err();
        assert!(error.to_string().contains("needs 3.0 GiB") && error.to_string().contains("10 bytes"), "{error}");
        assert_eq!(Budget::new(Some(10)).folded(), 10);
        assert_eq!(check_threads(1 << 40).unwrap_err().code(), "threads");
    }
}
