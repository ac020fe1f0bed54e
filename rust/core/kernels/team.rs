//! A team of threads that share out the tasks of one call at a time, with little delay between calls.
//!
//! A network of a few milliseconds has dozens of calls: workers look out for the next one for a moment before they sleep,
//! and a call never waits for a worker that has not noticed it.

use super::processors::{self, Processors, Thread};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How often an idle worker looks for work before it sleeps: about two milliseconds, longer than the parts of a network that one
/// thread computes. Who sleeps may wake up on the processor of the thread that calls, and systems take milliseconds to part the
/// two again.
const LOOKS: usize = 100_000;

/// Looks after which a waiting thread lets others run that share its processor.
const LOOKS_PER_YIELD: usize = 256;

/// What a mutex holds; no state of ours is broken by a panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks around once more.
fn look(looks: &mut usize) {
    *looks += 1;
    if looks.is_multiple_of(LOOKS_PER_YIELD) { std::thread::yield_now() } else { std::hint::spin_loop() }
}

/// The next task of one member's share; alone in its cache lines, which members would else take from each other.
#[derive(Default)]
#[repr(align(128))]
struct Next(AtomicUsize);

/// The tasks of one call.
struct Job<'a> {
    body: &'a (dyn Fn(usize) + Sync),
    count: usize,
    /// For each member.
    next: &'a [Next],
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    /// Takes tasks until there are none left, those of `member` first: in calls of the same size a member gets the same part
    /// of the data, which its caches may still hold.
    fn work(&self, member: usize) {
        let members = self.next.len();
        let begin = |m: usize| m * self.count / members;
        for m in (member..members).chain(0..member) {
            loop {
                let task = begin(m) + self.next[m].0.fetch_add(1, SeqCst);
                if task >= begin(m + 1) {
                    break;
                }
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.body)(task))) {
                    locked(&self.panic).get_or_insert(panic);
                }
            }
        }
    }
}

struct Shared {
    /// The job under way, or null.
    job: AtomicPtr<Job<'static>>,
    /// Workers that hold, or are about to look at, the pointer.
    inside: AtomicUsize,
    /// Counts the jobs.
    epoch: AtomicUsize,
    /// The workers that have begun.
    begun: Mutex<Vec<Thread>>,
    /// Where workers may run once they are awake, and how often that was said.
    processors: Mutex<Option<Processors>>,
    parted: AtomicUsize,
    /// Workers that sleep, or are about to.
    sleeping: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
    end: AtomicBool,
}

/// Threads that work together.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the thread whose call is under way: the next tasks of the members.
    turn: Mutex<Vec<Next>>,
}

impl Team {
    /// A team of `threads`, of which the caller of [`Team::run`] is one. Where the system has no more threads to give, the
    /// team is smaller.
    pub fn new(threads: usize) -> Team {
        let shared = Arc::new(Shared {
            job: AtomicPtr::new(std::ptr::null_mut()),
            inside: AtomicUsize::new(0),
            epoch: AtomicUsize::new(0),
            begun: Mutex::new(Vec::new()),
            processors: Mutex::new(None),
            parted: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            end: AtomicBool::new(false),
        });
        let spawn = |i: usize| {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("nputwin-team-{i}")).spawn(move || shared.serve(i)).ok()
        };
        let workers: Vec<JoinHandle<()>> = (1..threads).map_while(spawn).collect();
        let next = (0..=workers.len()).map(|_| Next::default()).collect();
        Team { shared, workers, turn: Mutex::new(next) }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(0..count)`, on all threads in any order, and returns when all calls have. A call from inside another, or
    /// from a second thread meanwhile, runs on the caller alone. Panics where a call does.
    pub fn run(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        let turn = if self.workers.is_empty() || count < 2 { None } else { self.turn.try_lock().ok() };
        let Some(turn) = turn else { return (0..count).for_each(body) };
        turn.iter().for_each(|next| next.0.store(0, SeqCst));
        let job = Job { body, count, next: &turn, panic: Mutex::new(None) };
        let shared = &*self.shared;
        shared.job.store(std::ptr::from_ref(&job).cast_mut().cast(), SeqCst);
        shared.epoch.fetch_add(1, SeqCst);
        if shared.sleeping.load(SeqCst) > 0 {
            *locked(&shared.processors) = processors::part_from(&locked(&shared.begun));
            shared.parted.fetch_add(1, SeqCst);
            drop(locked(&shared.bed));
            shared.bell.notify_all();
        }
        job.work(0);
        // From here on no worker takes the pointer up; those that hold it are waited for.
        shared.job.store(std::ptr::null_mut(), SeqCst);
        let mut looks = 0;
        while shared.inside.load(SeqCst) > 0 {
            look(&mut looks);
        }
        let panic = job.panic.into_inner();
        drop(turn);
        if let Some(panic) = panic.unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// What a worker, the `member` of that number, does until the team ends.
    fn serve(&self, member: usize) {
        let mut seen = 0;
        let mut looks = 0;
        let mut parted = 0;
        locked(&self.begun).push(Thread::current());
        while !self.end.load(SeqCst) {
            let epoch = self.epoch.load(SeqCst);
            if epoch != seen {
                (seen, looks) = (epoch, 0);
                let times = self.parted.load(SeqCst);
                if times != parted {
                    parted = times;
                    let processors = *locked(&self.processors);
                    processors.into_iter().for_each(Processors::allow);
                }
                self.inside.fetch_add(1, SeqCst);
                let job = self.job.load(SeqCst);
                // SAFETY: `run` clears the pointer and then waits until `inside` is zero before the job ends; a pointer
                // read after `inside` was raised is therefore that of a job that waits for this worker.
                if let Some(job) = unsafe { job.as_ref() } {
                    job.work(member);
                }
                self.inside.fetch_sub(1, SeqCst);
            } else if looks < LOOKS {
                look(&mut looks);
            } else {
                looks = 0;
                let bed = locked(&self.bed);
                self.sleeping.fetch_add(1, SeqCst);
                if self.epoch.load(SeqCst) == seen && !self.end.load(SeqCst) {
                    drop(self.bell.wait(bed));
                }
                self.sleeping.fetch_sub(1, SeqCst);
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.end.store(true, SeqCst);
        drop(locked(&self.shared.bed));
        self.shared.bell.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so it ends in peace.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_begins_with_its_own_part_and_leaves_nothing_undone() {
        for (members, count) in (1..=8).flat_map(|m| (0..=20).map(move |count| (m, count))) {
            for member in 0..members {
                let next: Vec<Next> = (0..members).map(|_| Next::default()).collect();
                let order = Mutex::new(Vec::new());
                let body = |task| locked(&order).push(task);
                let job = Job { body: &body, count, next: &next, panic: Mutex::new(None) };
                job.work(member);
                // Nothing is left for the others.
                (0..members).for_each(|m| job.work(m));
                let order = order.into_inner().unwrap();
                let own = member * count / members..(member + 1) * count / members;
                assert!(order.starts_with(&own.clone().collect::<Vec<_>>()), "{member} of {members}: {order:?}");
                let mut all = order;
                all.sort_unstable();
                assert!(all.into_iter().eq(0..count), "{count} tasks of {members}");
            }
        }
    }

    #[test]
    fn every_task_runs_once_however_often_the_team_is_called() {
        for threads in [1, 2, 7] {
            let team = Team::new(threads);
            assert_eq!(team.threads(), threads);
            for round in 0..500 {
                let seen: Vec<AtomicUsize> = (0..round % 23).map(|_| AtomicUsize::new(0)).collect();
                team.run(seen.len(), &|i| {
                    seen[i].fetch_add(1, SeqCst);
                });
                assert!(seen.iter().all(|s| s.load(SeqCst) == 1), "{threads} threads, round {round}");
                if round % 100 == 0 {
                    // Long enough for the workers to fall asleep.
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
        }
    }

    #[test]
    fn calls_inside_and_beside_another_run_too() {
        let team = Team::new(3);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        team.run(4, &|_| {
                            team.run(3, &|_| {
                                sum.fetch_add(1, SeqCst);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.load(SeqCst), 4 * 50 * 12);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let team = Team::new(2);
        let panic = catch_unwind(AssertUnwindSafe(|| team.run(8, &|i| assert!(i != 5, "task five"))));
        assert!(panic.is_err());
        let count = AtomicUsize::new(0);
        team.run(8, &|_| {
            count.fetch_add(1, SeqCst);
        });
        assert_eq!(count.load(SeqCst), 8);
    }
}
