//! The inferences of a list: on all threads at once, one in memory per thread, and only those that are not finished yet.
//!
//! An inference is finished when its folder holds `result.json`, which is written last and carries a hash over everything
//! that the outputs depend on. An interrupted run, however it ended, is taken up by the same command.

use crate::files::{sha256_of, write_bytes};
use crate::inputs::Samples;
use nputwin::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The file that marks a finished inference.
const RESULT: &str = "result.json";

/// Runs `compute(sample, folder)` for every sample that is not finished, on `workers` threads, and gives the entries of all
/// of them in order. `identity` says what the outputs depend on besides the inputs. The error is that of the first sample
/// that has one, among those that were begun.
pub fn run_all(
    samples: &Samples,
    directory: &Path,
    identity: &Value,
    workers: usize,
    compute: &(dyn Fn(usize, &str) -> Result<Map<String, Value>> + Sync),
    done: &(dyn Fn() + Sync),
) -> Result<Vec<Value>> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let entries: Mutex<Vec<Option<Result<Value>>>> = Mutex::new((0..samples.len()).map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, samples.len().max(1)) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let sample = next.fetch_add(1, Ordering::Relaxed);
                    if sample >= samples.len() {
                        return;
                    }
                    let entry = one(samples, directory, identity, sample, compute);
                    stop.fetch_or(entry.is_err(), Ordering::Relaxed);
                    entries.lock().unwrap_or_else(PoisonError::into_inner)[sample] = Some(entry);
                    done();
                }
            });
        }
    });
    let entries = entries.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Where one failed, later ones may not have begun.
    entries.into_iter().map_while(|entry| entry).collect()
}

fn one(
    samples: &Samples,
    directory: &Path,
    identity: &Value,
    sample: usize,
    compute: &(dyn Fn(usize, &str) -> Result<Map<String, Value>> + Sync),
) -> Result<Value> {
    let folder = format!("Result_{sample}");
    let marker = directory.join(&folder).join(RESULT);
    let provenance = samples.provenance(sample)?;
    let inputs: Vec<(&String, &Value)> =
        provenance.as_object().into_iter().flatten().map(|(n, p)| (n, &p["sha256"])).collect();
    let key = sha256_of(json!([identity, inputs]).to_string().as_bytes());
    if let Some(mut entry) = finished(directory, &marker, &key) {
        entry.insert("inputs".into(), provenance);
        return Ok(Value::Object(entry));
    }
    // Outputs of another model must not pass for finished while they are replaced.
    match std::fs::remove_file(&marker) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(marker.display(), &e)),
        _ => {}
    }
    let mut entry = compute(sample, &folder)?;
    write_bytes(&marker, format!("{:#}\n", json!({ "key": key, "entry": entry })).as_bytes())?;
    entry.insert("inputs".into(), provenance);
    Ok(Value::Object(entry))
}

/// What a finished inference wrote, where it is the same one and its files are there.
fn finished(directory: &Path, marker: &Path, key: &str) -> Option<Map<String, Value>> {
    let found: Value = serde_json::from_slice(&std::fs::read(marker).ok()?).ok()?;
    if found["key"] != key {
        return None;
    }
    let there = |file: &Value| file.as_str().is_some_and(|f| directory.join(f).is_file());
    let tensors = &found["entry"]["tensors"];
    let dumps = ["float", "int"].iter().filter_map(|kind| tensors.get(kind));
    let outputs = found["entry"]["outputs"].as_object()?.values().map(|o| &o["file"]);
    outputs.chain(dumps).all(there).then(|| found["entry"].as_object().cloned()).flatten()
}
