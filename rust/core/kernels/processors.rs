//! On which processors threads run, where the system lets us say (Linux); elsewhere nothing happens.
//!
//! A thread that is woken is often put on the processor of the one that wakes it, and stays there for milliseconds while others
//! idle: as long as a network takes.

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// A thread.
    #[derive(Clone, Copy)]
    pub struct Thread(Pid);

    /// Processors on which a thread may run.
    #[derive(Clone, Copy)]
    pub struct Processors(CpuSet);

    impl Thread {
        /// The calling one.
        pub fn current() -> Thread {
            Thread(gettid())
        }
    }

    /// Where the calling thread may run.
    struct Places {
        allowed: CpuSet,
        /// The processor on which it is.
        own: CpuSet,
        /// The others of those allowed; there are some.
        others: CpuSet,
    }

    impl Places {
        fn now() -> Option<Places> {
            let allowed = sched_getaffinity(None).ok().filter(|set| set.count() > 1)?;
            let place = sched_getcpu();
            if place >= CpuSet::MAX_CPU {
                return None;
            }
            let (mut own, mut others) = (CpuSet::new(), allowed);
            own.set(place);
            others.unset(place);
            Some(Places { allowed, own, others })
        }
    }

    /// Keeps `threads` off the processor of the calling thread, for as long as they do not [`Processors::allow`] themselves more.
    /// Gives the processors on which the calling thread may run; none where they are too few.
    pub fn part_from(threads: &[Thread]) -> Option<Processors> {
        let places = Places::now()?;
        for thread in threads {
            // A thread that stays where it is is slower, not wrong.
            let _ = sched_setaffinity(Some(thread.0), &places.others);
        }
        Some(Processors(places.allowed))
    }

    /// Does `body` on another processor than that on which the calling thread is, where there is one, and comes back.
    /// Threads that `body` starts never run on the one that was left.
    pub fn away<T>(body: impl FnOnce() -> T) -> T {
        let Some(places) = Places::now() else { return body() };
        let _ = sched_setaffinity(None, &places.others);
        let out = body();
        // To the very same processor first: another thread is on this one now.
        for set in [places.own, places.allowed] {
            let _ = sched_setaffinity(None, &set);
        }
        out
    }

    impl Processors {
        /// Lets the calling thread run on these.
        pub fn allow(self) {
            let _ = sched_setaffinity(None, &self.0);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    /// A thread.
    #[derive(Clone, Copy)]
    pub struct Thread;

    /// Processors on which a thread may run.
    #[derive(Clone, Copy)]
    pub struct Processors;

    impl Thread {
        /// The calling one.
        pub fn current() -> Thread {
            Thread
        }
    }

    /// Does nothing on this system.
    pub fn part_from(_: &[Thread]) -> Option<Processors> {
        None
    }

    impl Processors {
        /// Does nothing on this system.
        pub fn allow(self) {}
    }

    /// Does `body`.
    pub fn away<T>(body: impl FnOnce() -> T) -> T {
        body()
    }
}

use std::thread::{Builder, Scope, ScopedJoinHandle};
pub use system::{Processors, Thread, part_from};

/// Starts a thread for work of a few milliseconds, which keeps off the caller's processor where there is another: whenever
/// the caller wakes it up, it would be drawn there. A new thread may run where the one that starts it may, so that one is
/// elsewhere for a moment; a thread that leaves by itself waits for the caller's processor first.
///
/// # Errors
/// Where the system gives no thread.
pub fn spawn_beside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<ScopedJoinHandle<'scope, T>> {
    system::away(|| Builder::new().name(name.into()).spawn_scoped(scope, work))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::thread::{CpuSet, sched_getaffinity};

    #[test]
    fn threads_part_for_a_while() {
        let all = sched_getaffinity(None).unwrap();
        let (started, waits) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<Option<Processors>>());
        let worker = std::thread::spawn(move || {
            started.0.send(Thread::current()).unwrap();
            let allowed = waits.1.recv().unwrap();
            let between = sched_getaffinity(None).unwrap();
            if let Some(allowed) = allowed {
                allowed.allow();
            }
            (between, sched_getaffinity(None).unwrap())
        });
        let allowed = part_from(&[started.1.recv().unwrap()]);
        waits.0.send(allowed).unwrap();
        let (between, after) = worker.join().unwrap();
        let same = |a: &CpuSet, b: &CpuSet| (0..CpuSet::MAX_CPU).all(|cpu| a.is_set(cpu) == b.is_set(cpu));
        assert!(same(&after, &all));
        assert_eq!(between.count(), if all.count() > 1 { all.count() - 1 } else { 1 });
        assert_eq!(allowed.is_some(), all.count() > 1);
    }

    #[test]
    fn a_thread_beside_keeps_off_the_processor_of_its_caller() {
        let all = sched_getaffinity(None).unwrap();
        let beside = std::thread::scope(|scope| {
            spawn_beside(scope, "beside", || sched_getaffinity(None).unwrap()).unwrap().join().unwrap()
        });
        assert_eq!(beside.count(), (all.count() - 1).max(1));
        let now = sched_getaffinity(None).unwrap();
        assert!(
            (0..CpuSet::MAX_CPU)
                .all(|cpu| all.is_set(cpu) == now.is_set(cpu) && (now.is_set(cpu) || !beside.is_set(cpu)))
        );
    }
}
