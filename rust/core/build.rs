//! Lists the spec files, so that a new one ships without a line of code, and spells each as JSON, which is read several times as
//! fast as TOML.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("specs");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let mut list = String::from("&[\n");
    for path in &files {
        let name = path.strip_prefix(&root).expect("files stand below specs/").to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(path)?;
        let json = match toml::from_str::<serde_json::Value>(&text) {
            Ok(value) => value.to_string(),
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let place = path.display().to_string();
        writeln!(list, "    Embedded {{ file: {name:?}, toml: include_str!({place:?}), json: {json:?} }},")
            .expect("strings take text");
    }
    list.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("specs.rs"), list)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    Ok(())
}
