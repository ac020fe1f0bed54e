//! Somebody else's implementation as one process that serves many cases, line by line.

use super::sut::{Folders, OUTPUT, command, require_output, stop, tail};
use nputwin::conformance::{Prepared, Runner};
use nputwin::tensor::Tensor;
use nputwin::{Error, Result};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// How long the process may take to end once its input or output has.
const GRACE: Duration = Duration::from_secs(5);
/// How often an ending process is looked after.
const POLL: Duration = Duration::from_millis(5);

/// A process that computes cases one after the other. It is started for the first case, and again after one at which it
/// died, hung or said what is no answer.
pub struct Batch {
    words: Vec<String>,
    timeout: Duration,
    process: Mutex<Option<Process>>,
    folders: Folders,
}

impl Batch {
    /// A process that is not started yet.
    pub fn new(words: Vec<String>, timeout: Duration, folders: Folders) -> Batch {
        Batch { words, timeout, process: Mutex::new(None), folders }
    }

    fn stderr(&self) -> PathBuf {
        self.folders.root.join("stderr.txt")
    }

    fn start(&self) -> Result<Process> {
        let path = self.stderr();
        let stderr = OpenOptions::new().create(true).append(true).open(&path);
        let stderr = stderr.map_err(|e| Error::io(path.display(), &e))?;
        let mut command = command(&self.words[0], &self.words[1..]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().map_err(|e| Error::io(&self.words[0], &e))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::invalid("sut_pipe", "the command has no standard input or output"));
        };
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            loop {
                let mut line = Vec::new();
                let read = output.by_ref().take(MAX_ANSWER).read_until(b'\n', &mut line);
                if !matches!(read, Ok(1..)) || sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Process { child, input: Some(input), answers })
    }

    /// Has one case computed; the process is of no more use after an error that is not the case's own.
    fn serve(&self, process: &mut Process, id: &str, dir: &Path, heard: u64) -> Result<Served> {
        let request = json!({ "id": id, "dir": dir, "output": dir.join(OUTPUT) });
        let stderr = self.stderr();
        let Some(input) = &mut process.input else { return Err(Error::invalid("sut_pipe", "the input is closed")) };
        // A process that is gone says so below, by the end of its output.
        let _ = writeln!(input, "{request}").and_then(|()| input.flush());
        let line = match process.answers.recv_timeout(self.timeout) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                let text = format!(
                    "the command did not answer case '{id}' within {} s{}",
                    self.timeout.as_secs_f64(),
                    tail(&stderr, heard)
                );
                return Err(Error::invalid("sut_timeout", text).help("--timeout gives it more time"));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = process.end(GRACE).map_err(|e| Error::io(&self.words[0], &e))?;
                let text = format!("the command ended with {status} at case '{id}'{}", tail(&stderr, heard));
                return Err(Error::invalid("sut_status", text));
            }
        };
        let text = String::from_utf8_lossy(&line);
        let answer: serde_json::Value = serde_json::from_slice(&line).unwrap_or_default();
        if answer["id"].as_str() != Some(id) {
            let shown: String = text.trim().chars().take(200).collect();
            let text = format!("the command answered case '{id}' with '{shown}'");
            let help = "a line of JSON with the case's \"id\", and nothing else on the standard output";
            return Err(Error::invalid("sut_answer", text).help(help));
        }
        match answer.get("error") {
            None | Some(serde_json::Value::Null) => Ok(Served::Done),
            Some(said) => {
                let said = said.as_str().map_or_else(|| said.to_string(), str::to_string);
                Ok(Served::Refused(Error::invalid("sut_error", format!("the command refuses case '{id}': {said}"))))
            }
        }
    }
}

enum Served {
    Done,
    /// The case cannot be computed; the process goes on.
    Refused(Error),
}

impl Runner for Batch {
    fn name(&self) -> &str {
        "sut"
    }

    fn needs_target(&self) -> bool {
        false
    }

    fn run(&self, case: &Prepared<'_>) -> Result<Tensor> {
        let stderr = self.stderr();
        self.folders.with(case, |dir| {
            let mut slot = self.process.lock().unwrap_or_else(PoisonError::into_inner);
            let heard = std::fs::metadata(&stderr).map_or(0, |m| m.len());
            let mut process = match slot.take() {
                Some(process) => process,
                None => self.start()?,
            };
            let served = self.serve(&mut process, &case.case.id, dir, heard).inspect_err(|_| {
                // The next case starts another one.
                let _ = process.end(Duration::ZERO);
            })?;
            *slot = Some(process);
            match served {
                Served::Done => require_output(dir, &stderr, heard),
                Served::Refused(error) => Err(error),
            }
        })
    }
}

struct Process {
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<Vec<u8>>,
}

impl Process {
    /// Waits until the process ends, and ends it where it does not in time.
    fn end(&mut self, grace: Duration) -> std::io::Result<ExitStatus> {
        self.input = None;
        let started = Instant::now();
        while started.elapsed() < grace {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        stop(&mut self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whether it can be stopped or not, nothing more can be done.
        let _ = self.end(GRACE);
    }
}
