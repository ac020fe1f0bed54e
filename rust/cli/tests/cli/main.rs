//! The command line from outside: files, exit codes, JSON. The models are made by `tests/models/make_models.py`.

mod commands;
mod conformance;
mod errors;
mod placement;
mod running;
mod specs;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Elements of one input of the models: 3×6×6.
pub(crate) const INPUT: usize = 108;

/// A folder that goes away, and the program run in it.
pub(crate) struct Sandbox {
    dir: tempfile::TempDir,
}

/// What the program gave.
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    fn of(output: Output) -> Finished {
        Finished {
            code: output.status.code().expect("the program was not killed"),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }

    /// Checks for success.
    pub(crate) fn succeeds(&self) {
        assert_eq!(self.code, 0, "{}", self.stderr);
    }

    /// Checks for success and gives stdout as JSON.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.json_of(0)
    }

    /// Checks the exit code and gives stdout as JSON.
    pub(crate) fn json_of(&self, code: i32) -> Value {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).expect("stdout is one JSON document")
    }

    /// The error object on stderr.
    pub(crate) fn error(&self) -> Value {
        assert!(self.stdout.is_empty(), "{}", self.stdout);
        serde_json::from_str(&self.stderr).unwrap_or_else(|_| panic!("stderr is no JSON: {}", self.stderr))
    }
}

impl Sandbox {
    pub(crate) fn new() -> Sandbox {
        Sandbox { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).expect("the folder can be written");
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Runs the program in the folder; words are separated by blanks, `@name` is a model.
    pub(crate) fn run(&self, line: &str) -> Finished {
        let output = self.command(line).output().expect("the binary runs");
        Finished::of(output)
    }

    /// Starts the program in the folder, as [`Sandbox::run`] does, without a word from it.
    pub(crate) fn spawn(&self, line: &str) -> Child {
        let mut command = self.command(line);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the binary runs")
    }

    fn command(&self, line: &str) -> Command {
        let words = line.split_whitespace().map(|word| match word.strip_prefix('@') {
            Some(name) => model(name).display().to_string(),
            None => word.to_string(),
        });
        self.command_of(&words.collect::<Vec<_>>())
    }

    /// Runs the program in the folder with these words.
    pub(crate) fn run_words(&self, words: &[impl AsRef<std::ffi::OsStr>]) -> Finished {
        Finished::of(self.command_of(words).output().expect("the binary runs"))
    }

    fn command_of(&self, words: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nputwin"));
        command.args(words).current_dir(self.dir.path());
        command
    }

    /// A sandbox with the samples `x0.npy`, `x0.raw`, … and a list of all of them.
    pub(crate) fn with_samples(count: usize) -> Sandbox {
        let sandbox = Sandbox::new();
        let mut list = String::from("# samples\n\n");
        for i in 0..count {
            let values = sample(i);
            sandbox.write(&format!("x{i}.npy"), npy(&[1, 3, 6, 6], &values));
            sandbox.write(&format!("x{i}.raw"), raw(&values));
            list.push_str(&if i % 2 == 0 { format!("x:=x{i}.raw\n") } else { format!("x{i}.raw\n") });
        }
        sandbox.write("list.txt", list);
        sandbox
    }
}

/// Path of a model beside the tests.
pub(crate) fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)
}

/// The values of sample `i`: a fixed sequence over about -2 to 2.
pub(crate) fn sample(i: usize) -> Vec<f32> {
    let mut state = 12345u32 + i as u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 22) as f32 - 2.0
    };
    (0..INPUT).map(|_| next()).collect()
}

/// Elements as little-endian bytes.
pub(crate) fn raw(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A numpy file.
pub(crate) fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    npy_of("<f4", shape, &raw(values))
}

/// A numpy file of any type.
pub(crate) fn npy_of(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let dims: String = shape.iter().map(|d| format!("{d},")).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(data);
    out
}
