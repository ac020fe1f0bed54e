//! numpy's archive of arrays.

use super::npy;
use crate::tensor::Tensor;
use crate::{Error, Location, Result};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use zip::CompressionMethod;
use zip::write::FileOptions;

/// Largest array that is unpacked; the size that an archive states is not believed beyond it.
const MAX_BYTES: u64 = 1 << 33;

/// An archive that is open for reading.
pub struct Npz {
    origin: String,
    archive: zip::ZipArchive<BufReader<File>>,
}

impl Npz {
    /// Opens an archive.
    ///
    /// # Errors
    /// `npz_archive` for what is no zip file.
    pub fn open(path: &Path) -> Result<Npz> {
        let origin = path.display().to_string();
        let file = File::open(path).map_err(|e| Error::io(&origin, &e))?;
        let archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| {
            Error::invalid("npz_archive", format!("not an npz archive: {e}"))
                .at(Location::File(origin.clone()))
                .help("write it with numpy.savez")
        })?;
        Ok(Npz { origin, archive })
    }

    /// Names of the arrays.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.archive.file_names().filter_map(|n| n.strip_suffix(".npy")).map(String::from).collect();
        names.sort();
        names
    }

    /// One array.
    ///
    /// # Errors
    /// `npz_missing` where there is none of this name, else as for an npy file.
    pub fn array(&mut self, name: &str) -> Result<Tensor> {
        let place = |e: Error| e.at(Location::File(format!("{}:{name}", self.origin)));
        let names = self.names();
        if !names.iter().any(|n| n == name) {
            return Err(place(
                Error::invalid("npz_missing", format!("the archive has no array '{name}'"))
                    .help(format!("it has: {}", names.join(", "))),
            ));
        }
        let origin = format!("{}:{name}", self.origin);
        let broken = |e: String| Error::invalid("npz_archive", e).at(Location::File(origin.clone()));
        let entry = self.archive.by_name(&format!("{name}.npy")).map_err(|e| broken(e.to_string()))?;
        let mut bytes = Vec::new();
        entry.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| broken(e.to_string()))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(broken(format!("the array unpacks to more than {MAX_BYTES} bytes")));
        }
        npy::decode(&bytes, &origin)
    }
}

/// Writes arrays one after the other, uncompressed and without dates: equal arrays give equal files.
pub struct NpzWriter<'a> {
    archive: zip::ZipWriter<&'a mut BufWriter<File>>,
}

impl<'a> NpzWriter<'a> {
    /// An archive in a file.
    pub fn new(file: &'a mut BufWriter<File>) -> Self {
        NpzWriter { archive: zip::ZipWriter::new(file) }
    }

    /// Adds an array. Its name must be new.
    pub fn add(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let bytes = npy::encode(tensor);
        let options = FileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(bytes.len() as u64 >= u64::from(u32::MAX));
        let failed = |e: String| Error::invalid("npz_write", e).at_tensor(name);
        self.archive.start_file(format!("{name}.npy"), options).map_err(|e| failed(e.to_string()))?;
        self.archive.write_all(&bytes).map_err(|e| Error::io(name, &e))
    }

    /// Writes the directory of the archive.
    pub fn finish(mut self) -> Result<()> {
        self.archive.finish().map(|_| ()).map_err(|e| Error::invalid("npz_write", e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_survive_a_round_trip_and_equal_arrays_give_equal_files() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().join("a.npz"), dir.path().join("b.npz")];
        let x = Tensor::f32(&[2], vec![1.0, 2.0]);
        for path in &paths {
            let mut file = BufWriter::new(File::create(path).unwrap());
            let mut npz = NpzWriter::new(&mut file);
            npz.add("/a/x", &x).unwrap();
            npz.add("n", &Tensor::i64(&[], vec![7])).unwrap();
            npz.finish().unwrap();
        }
        let mut npz = Npz::open(&paths[0]).unwrap();
        assert_eq!(npz.names(), ["/a/x", "n"]);
        assert_eq!(npz.array("/a/x").unwrap(), x);
        assert_eq!(npz.array("y").unwrap_err().code(), "npz_missing");
        assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
        std::fs::write(&paths[1], b"PK not really").unwrap();
        assert_eq!(Npz::open(&paths[1]).err().unwrap().code(), "npz_archive");
    }
}
