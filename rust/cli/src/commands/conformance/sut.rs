//! Somebody else's implementation: a command that reads and writes npy files.

use super::batch::Batch;
use crate::files;
use nputwin::conformance::{Operand, Prepared, Runner};
use nputwin::tensor::Tensor;
use nputwin::{Error, Location, Result, arrays};
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Format of `case.json`.
const FORMAT: &str = "nputwin-sut/1";
/// Where the command writes its result.
pub const OUTPUT: &str = "out.npy";
/// How often a running command is looked after.
const POLL: Duration = Duration::from_millis(2);
/// Bytes of the command's stderr that a report shows.
const SHOWN: usize = 2000;

/// Arguments about the implementation.
#[derive(Debug, clap::Args)]
pub struct SutArgs {
    /// Run this command instead of our runtimes. It gets a folder with case.json and an npy file per input, as `{dir}` or
    /// as its last argument, and writes out.npy there
    #[arg(long, value_name = "COMMAND", group = "implementation")]
    pub sut: Option<String>,
    /// The same with one process for all cases. Per case it reads a line from its standard input, {"id": …, "dir": the
    /// case's folder, "output": where to write out.npy}, and answers with a line on its standard output: {"id": …}, or
    /// {"id": …, "error": "what went wrong"}. Its input ends after the last case
    #[arg(long, value_name = "COMMAND", group = "implementation")]
    pub sut_batch: Option<String>,
    /// Compare with what this target computes, not with the vectors' outputs
    #[arg(long, value_name = "TARGET", requires = "implementation", conflicts_with = "target")]
    pub against_spec: Option<String>,
    /// Seconds that the command may take per case
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, requires = "implementation")]
    timeout: f64,
    /// Keep the cases' folders below this one
    #[arg(long, value_name = "FOLDER", requires = "implementation")]
    keep: Option<PathBuf>,
}

impl SutArgs {
    /// The implementation, where one is given.
    pub fn runner(&self) -> Result<Option<Box<dyn Runner>>> {
        let Some(command) = self.sut.as_ref().or(self.sut_batch.as_ref()) else { return Ok(None) };
        let timeout = Duration::try_from_secs_f64(self.timeout).ok().filter(|t| !t.is_zero());
        let timeout = timeout.ok_or_else(|| Error::invalid("sut_timeout", format!("--timeout {}", self.timeout)))?;
        let words = words(command)?;
        let (root, is_kept) = match &self.keep {
            Some(folder) => (folder.clone(), true),
            None => {
                static COUNTER: AtomicU64 = AtomicU64::new(0);
                let number = COUNTER.fetch_add(1, Ordering::Relaxed);
                (std::env::temp_dir().join(format!("nputwin-sut-{}-{number}", std::process::id())), false)
            }
        };
        files::create_folder(&root)?;
        // Absolute: the command runs in the case's folder.
        let root = root.canonicalize().map_err(|e| Error::io(root.display(), &e))?;
        let folders = Folders { root, is_kept, started: AtomicU64::new(0) };
        Ok(Some(match self.sut_batch {
            Some(_) => Box::new(Batch::new(words, timeout, folders)),
            None => Box::new(Implementation { words, timeout, folders }),
        }))
    }
}

/// Where the cases' folders are.
#[derive(Debug)]
pub struct Folders {
    /// The folder of all.
    pub root: PathBuf,
    is_kept: bool,
    started: AtomicU64,
}

impl Folders {
    /// Calls `compute` with the folder of a case, and reads what it left there.
    pub fn with(&self, case: &Prepared<'_>, compute: impl FnOnce(&Path) -> Result<()>) -> Result<Tensor> {
        // Two ids may have the same name as files.
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let dir = self.root.join(format!("{number:05}_{}", files::file_stem(&case.case.id)));
        files::create_folder(&dir)?;
        let result = write_case(&dir, case).and_then(|()| {
            let output = dir.join(OUTPUT);
            if output.exists() {
                std::fs::remove_file(&output).map_err(|e| Error::io(output.display(), &e))?;
            }
            compute(&dir)?;
            arrays::decode_npy(&arrays::read_file(&output)?, &output.display().to_string())
        });
        if !self.is_kept {
            let _ = std::fs::remove_dir_all(&dir);
        }
        result
    }
}

/// A command that computes one case.
#[derive(Debug)]
struct Implementation {
    words: Vec<String>,
    timeout: Duration,
    folders: Folders,
}

impl Drop for Folders {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed stays in the folder for temporary files.
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

impl Runner for Implementation {
    fn name(&self) -> &str {
        "sut"
    }

    fn needs_target(&self) -> bool {
        false
    }

    fn run(&self, case: &Prepared<'_>) -> Result<Tensor> {
        self.folders.with(case, |dir| self.run_in(dir))
    }
}

impl Implementation {
    fn run_in(&self, dir: &Path) -> Result<()> {
        let (stdout, stderr) = (dir.join("stdout.txt"), dir.join("stderr.txt"));
        let create = |path: &Path| File::create(path).map_err(|e| Error::io(path.display(), &e));
        let mut command = self.command(dir);
        command.stdin(Stdio::null()).stdout(create(&stdout)?).stderr(create(&stderr)?);
        let child = command.spawn().map_err(|e| Error::io(&self.words[0], &e))?;
        let Some(status) = wait(child, self.timeout)? else {
            let text = format!("the command did not end within {} s", self.timeout.as_secs_f64());
            return Err(Error::invalid("sut_timeout", text).help("--timeout gives it more time"));
        };
        if !status.success() {
            let said = tail(&stderr, 0);
            return Err(Error::invalid("sut_status", format!("the command ended with {status}{said}")));
        }
        require_output(dir, &stderr, 0)
    }

    fn command(&self, dir: &Path) -> Command {
        let folder = dir.display().to_string();
        let mut arguments: Vec<String> = self.words[1..].iter().map(|w| w.replace("{dir}", &folder)).collect();
        if !self.words.iter().any(|w| w.contains("{dir}")) {
            arguments.push(folder);
        }
        command(&self.words[0], &arguments)
    }
}

/// A program that is started in a group of its own, so that what it starts ends with it.
pub fn command(program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

/// Ends a child and what it started.
pub fn stop(child: &mut Child) -> std::io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    #[cfg(unix)]
    {
        let group = format!("-{}", child.id());
        // The child itself is killed below, whatever becomes of its own children.
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    }
    child.kill()?;
    child.wait()
}

/// Fails where the command left no result, with what it said behind byte `from` of its stderr.
pub fn require_output(dir: &Path, stderr: &Path, from: u64) -> Result<()> {
    match dir.join(OUTPUT).is_file() {
        true => Ok(()),
        false => {
            let said = tail(stderr, from);
            Err(Error::invalid("sut_output", format!("the command wrote no {OUTPUT}{said}")))
        }
    }
}

/// The end of a child; None where it had to be stopped.
fn wait(mut child: Child, timeout: Duration) -> Result<Option<ExitStatus>> {
    let io = |e: std::io::Error| Error::io("the command", &e);
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(io)? {
            return Ok(Some(status));
        }
        if started.elapsed() >= timeout {
            stop(&mut child).map_err(io)?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// The inputs as npy files, and `case.json`.
fn write_case(dir: &Path, case: &Prepared<'_>) -> Result<()> {
    let named = |o: &Operand, file: String| {
        json!({
            "role": o.role, "file": file, "dtype": o.dtype, "shape": o.shape,
            "scale": o.scale, "zero_point": o.zero_point, "axis": o.axis,
        })
    };
    let mut stems = files::Stems::default();
    let mut inputs = Vec::new();
    for operand in &case.case.inputs {
        let file = format!("{}.npy", stems.take(&operand.role));
        let tensor = case.arrays.get(&operand.array);
        let tensor = tensor.ok_or_else(|| Error::invalid("vector_array", "no such array").at_tensor(&operand.role))?;
        files::write_bytes(&dir.join(&file), &arrays::encode_npy(tensor))?;
        inputs.push(named(operand, file));
    }
    let c = case.case;
    let document = json!({
        "format": FORMAT,
        "id": c.id,
        "op": c.op,
        "domain": c.domain,
        "attributes": c.attributes,
        "inputs": inputs,
        "outputs": [named(c.output()?, OUTPUT.into())],
        "activation": c.activation,
        "kernel_variant": c.kernel_variant,
        "kernel_params": c.kernel_params,
        "tags": c.tags,
        "note": c.note,
    });
    files::write_bytes(&dir.join("case.json"), format!("{document:#}\n").as_bytes())
}

/// The last lines of what the command said behind byte `from` of a file.
pub fn tail(path: &Path, from: u64) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let bytes = bytes.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SHOWN)..]);
    match text.trim() {
        "" => String::new(),
        text => format!("; it said:\n{text}"),
    }
}

/// The words of a command, as a shell would split them: quotes hold blanks, a backslash takes what follows it as it is.
fn words(command: &str) -> Result<Vec<String>> {
    let fault = |text: &str| Error::invalid("sut_command", text).at(Location::File(command.to_string()));
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\\', None | Some('"')) => {
                let next = chars.next().ok_or_else(|| fault("the command ends in a backslash"))?;
                word.get_or_insert_default().push(next);
            }
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(fault("a quote in the command is not closed"));
    }
    words.extend(word);
    match words.is_empty() {
        true => Err(fault("the command is empty")),
        false => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_command_splits_as_in_a_shell() {
        let split = |text: &str| words(text).unwrap();
        assert_eq!(
            split("python3 'my model.py'  --x \"a b\" c\\ d ''"),
            ["python3", "my model.py", "--x", "a b", "c d", ""]
        );
        for wrong in ["", "  ", "a 'b", "a \\"] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }
}
