//! Writing, and what each version cannot hold.

use super::json::nest;
use super::legacy::{Convention, Offsets, encode, own_producer, unsigned_grid};
use super::placement::source_indices;
use super::v2::implied_decompressed_bitwidth;
use super::{AxisEvidence, EncodingsFile, Entry, FloatKind, Layout, NamedEntry, Section, Version};
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::tensor::strides;
use serde_json::{Map, Value, json};
use std::path::Path;

/// How to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Write what the version can hold and note the rest, where an error would be given otherwise.
    pub lossy: bool,
}

/// Something that the file says less exactly than the entries did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The tensor; `None` for the file as a whole.
    pub tensor: Option<String>,
    /// What was lost or assumed.
    pub message: String,
}

/// A written file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// JSON text.
    pub text: String,
    /// Losses and assumptions.
    pub notes: Vec<Note>,
}

impl EncodingsFile {
    /// The file as JSON of `version`.
    ///
    /// # Errors
    /// `encodings_lossy`, with the tensor, for what the version cannot hold, unless `options.lossy`:
    /// LPBQ and blocks in 0.6.1; axes other than the operator's (or, without a graph, other than 0) and bfloat16 in 0.6.1
    /// and 1.0.0; floats, narrow ranges and scales without known axis in 2.x.
    pub fn write(&self, version: Version, options: &WriteOptions) -> Result<Written> {
        let mut writer = Writer { version, lossy: options.lossy, notes: Vec::new() };
        let value = match version {
            Version::V0_6_1 | Version::V1_0_0 => writer.legacy_file(self)?,
            Version::V2_0_0 | Version::V2_1_0 => writer.onnx_file(self)?,
        };
        let text = serde_json::to_string_pretty(&value)
            .map_err(|e| Error::invalid("encodings_json", format!("the file cannot be written as JSON: {e}")))?;
        Ok(Written { text, notes: writer.notes })
    }

    /// Writes the file to `path` and gives the notes.
    pub fn save(&self, path: impl AsRef<Path>, version: Version, options: &WriteOptions) -> Result<Vec<Note>> {
        let written = self.write(version, options)?;
        let path = path.as_ref();
        std::fs::write(path, written.text).map_err(|e| Error::io(path.display(), &e))?;
        Ok(written.notes)
    }
}

struct Writer {
    version: Version,
    lossy: bool,
    notes: Vec<Note>,
}

/// Block scales with the dimensions of their array.
struct Blocks<'a> {
    values: &'a Encoding,
    dims: Vec<usize>,
    axis: usize,
    block_size: usize,
    channel_axis: Option<usize>,
}

/// A tensor as 0.6.1 and 1.0.0 write it.
struct Row {
    enc_type: &'static str,
    bitwidth: u32,
    grid: Offsets,
    scale: Vec<f64>,
    /// Steps from the lowest to the highest code.
    steps: i64,
    block_size: Option<usize>,
    /// Compressed bitwidth, integer scales, and the channels' scales.
    lpbq: Option<(u32, Vec<u32>, Vec<f64>)>,
}

impl Writer {
    /// An error, or a note where losses are allowed.
    fn loss(&mut self, tensor: &str, message: String, help: &str) -> Result<()> {
        if !self.lossy {
            return Err(Error::invalid("encodings_lossy", format!("version {} cannot hold {message}", self.version))
                .at_tensor(tensor)
                .help(format!("{help}, or allow losses")));
        }
        self.notes.push(Note { tensor: Some(tensor.into()), message: format!("cannot hold {message}") });
        Ok(())
    }

    fn note(&mut self, tensor: Option<&str>, message: String) {
        self.notes.push(Note { tensor: tensor.map(Into::into), message });
    }

    fn header(&self, file: &EncodingsFile, producer: Value) -> Map<String, Value> {
        let mut top = Map::new();
        if !producer.is_null() {
            top.insert("producer".into(), producer);
        }
        top.insert("version".into(), self.version.text().into());
        for (key, value) in &file.extra {
            top.insert(key.clone(), value.clone());
        }
        top
    }

    fn legacy_file(&mut self, file: &EncodingsFile) -> Result<Value> {
        let guessed = file.entries().iter().filter(|e| e.section == Section::Unknown).count();
        if guessed > 0 {
            self.note(
                None,
                format!("{guessed} tensors were sorted into activations and parameters by the form of their encodings"),
            );
        }
        let mut convention = Convention::of_producer(&file.producer);
        let mut producer = file.producer.clone();
        let holds = |entry: &NamedEntry| {
            grid_values(entry).is_none_or(|e| e.lpbq.is_some() || encode(e, section(entry), convention).is_some())
        };
        if !file.entries().iter().all(holds) {
            convention = Convention::Signed;
            producer = own_producer(&file.producer);
            self.note(None, "the producer is replaced: the flag of symmetry now means signed codes".into());
        }
        let (mut activations, mut params) = (Vec::new(), Vec::new());
        for entry in file.entries() {
            let Some(value) = self.legacy_entry(entry, convention)? else { continue };
            let list = if section(entry) == Section::Param { &mut params } else { &mut activations };
            list.push((entry.name.clone(), value));
        }
        let mut top = self.header(file, producer);
        let version = self.version;
        let collect = |list: Vec<(String, Value)>| match version {
            Version::V0_6_1 => Value::Object(list.into_iter().collect()),
            _ => list.into_iter().map(|(_, value)| value).collect(),
        };
        top.insert("activation_encodings".into(), collect(activations));
        top.insert("param_encodings".into(), collect(params));
        let excluded = if file.excluded_layers.is_null() { json!([]) } else { file.excluded_layers.clone() };
        top.insert("excluded_layers".into(), excluded);
        if !file.quantizer_args.is_null() {
            top.insert("quantizer_args".into(), file.quantizer_args.clone());
        }
        Ok(Value::Object(top))
    }

    fn legacy_entry(&mut self, entry: &NamedEntry, convention: Convention) -> Result<Option<Value>> {
        let name = entry.name.as_str();
        let old = self.version == Version::V0_6_1;
        if let Entry::Float(kind) = entry.entry {
            if kind == FloatKind::BF16 {
                self.loss(name, "bfloat16; the tensor is left out".into(), "use float16")?;
                return Ok(None);
            }
            let bits = kind.bitwidth();
            return Ok(Some(if old {
                json!([{"bitwidth": bits, "dtype": "float"}])
            } else {
                json!({"name": name, "dtype": "FLOAT", "bw": bits, "enc_type": "PER_TENSOR"})
            }));
        }
        let Some(row) = self.row(entry, convention)? else { return Ok(None) };
        if old {
            if row.enc_type == "LPBQ" || row.enc_type == "PER_BLOCK" {
                let message = format!("{} encodings; they become a plain list of scales", row.enc_type);
                self.loss(name, message, "write version 1.0.0 or newer")?;
            }
            let steps = row.steps;
            let items = row.scale.iter().zip(&row.grid.offset).map(|(&scale, &offset)| {
                json!({
                    "min": grid_point(scale, offset),
                    "max": grid_point(scale, offset + steps),
                    "scale": scale,
                    "offset": offset,
                    "bitwidth": row.bitwidth,
                    "dtype": "int",
                    "is_symmetric": if row.grid.is_symmetric { "True" } else { "False" },
                })
            });
            return Ok(Some(items.collect()));
        }
        let mut value = json!({
            "name": name,
            "dtype": "INT",
            "bw": row.bitwidth,
            "is_sym": row.grid.is_symmetric,
            "scale": row.scale,
            "offset": row.grid.offset,
            "enc_type": row.enc_type,
        });
        if let Some(size) = row.block_size {
            value["block_size"] = size.into();
        }
        if let (
            Some((compressed, ints, channels)),
            Entry::Int(e) | Entry::Unplaced(super::Unplaced { values: e, .. }),
        ) = (row.lpbq, &entry.entry)
        {
            let decompressed = e.lpbq.as_ref().map_or(2 * compressed, |l| l.decompressed_bitwidth);
            value["bw"] = decompressed.into();
            value["compressed_bw"] = compressed.into();
            value["offset"] = vec![-(1i64 << (decompressed - 1)); channels.len()].into();
            value["scale"] = channels.into();
            value["per_block_int_scale"] = ints.into();
        }
        Ok(Some(value))
    }

    fn row(&mut self, entry: &NamedEntry, convention: Convention) -> Result<Option<Row>> {
        let name = entry.name.as_str();
        let Some(values) = grid_values(entry) else { return Ok(None) };
        let grid = match encode(values, section(entry), convention) {
            Some(grid) => grid,
            None => {
                let message = "this grid: its codes would be read as those of another one with the same real numbers";
                self.loss(name, message.into(), "write version 2.0.0 or newer")?;
                unsigned_grid(values)
            }
        };
        let mut row = Row {
            enc_type: "PER_TENSOR",
            bitwidth: values.bitwidth,
            scale: values.scale.clone(),
            steps: values.qmax() - values.qmin(),
            grid,
            block_size: None,
            lpbq: None,
        };
        let order = match (blocks(entry), &entry.entry) {
            (Some(blocks), _) => {
                self.check_axis(entry, blocks.axis, true)?;
                row.block_size = Some(blocks.block_size);
                let channel_axis = blocks.channel_axis.unwrap_or(usize::from(blocks.axis == 0));
                match blocks.channel_major(channel_axis) {
                    Some(order) => order,
                    None => {
                        let message = "scales that vary beside channels and blocks; the tensor is left out";
                        self.loss(name, message.into(), "write version 2.0.0 or newer")?;
                        return Ok(None);
                    }
                }
            }
            (None, Entry::Unplaced(unplaced)) => {
                match unplaced.layout {
                    Layout::ChannelBlocks { block_size } => row.block_size = Some(block_size),
                    _ => row.enc_type = "PER_CHANNEL",
                }
                if unplaced.layout == Layout::List && self.version != Version::V0_6_1 {
                    self.note(Some(name), "the list of scales is taken for one scale per channel".into());
                }
                (0..values.scale.len()).collect()
            }
            (None, _) => {
                match values.granularity {
                    Granularity::PerTensor => {}
                    Granularity::PerChannel { axis } => {
                        row.enc_type = "PER_CHANNEL";
                        self.check_axis(entry, axis, false)?;
                    }
                    Granularity::PerBlock { .. } => {
                        let message = "block scales of a tensor of unknown shape; the tensor is left out";
                        self.loss(name, message.into(), "resolve the axes against the model first")?;
                        return Ok(None);
                    }
                }
                (0..values.scale.len()).collect()
            }
        };
        if row.block_size.is_some() {
            row.enc_type = "PER_BLOCK";
            row.scale = order.iter().map(|&i| values.scale[i]).collect();
            row.grid.offset = order.iter().map(|&i| row.grid.offset[i]).collect();
            if let Some(lpbq) = &values.lpbq {
                row.enc_type = "LPBQ";
                let ints = order.iter().map(|&i| lpbq.per_block_int_scale[i]).collect();
                row.lpbq = Some((lpbq.compressed_bitwidth, ints, lpbq.per_channel_scale.clone()));
            }
        }
        Ok(Some(row))
    }

    /// These versions leave the axis to the operator.
    fn check_axis(&mut self, entry: &NamedEntry, axis: usize, is_block: bool) -> Result<()> {
        let default = if is_block { 1 } else { 0 };
        match entry.place.evidence {
            AxisEvidence::Implied => Ok(()),
            AxisEvidence::Stated if axis == default => Ok(()),
            AxisEvidence::Stated => self.loss(
                &entry.name,
                format!("the axis {axis}, and without the model it is not known whether the operator implies it"),
                "give the model",
            ),
            AxisEvidence::Contradicted => self.loss(
                &entry.name,
                format!("the axis {axis}, which is not the one that the operator implies"),
                "write version 2.0.0 or newer",
            ),
        }
    }

    fn onnx_file(&mut self, file: &EncodingsFile) -> Result<Value> {
        let mut list = Vec::with_capacity(file.entries().len());
        for entry in file.entries() {
            list.extend(self.onnx_entry(entry)?);
        }
        let mut top = self.header(file, file.producer.clone());
        top.insert("encodings".into(), Value::Array(list));
        for (key, value) in [("excluded_layers", &file.excluded_layers), ("quantizer_args", &file.quantizer_args)] {
            let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if !empty {
                self.note(None, format!("'{key}' has no place in version {} and is left out", self.version));
            }
        }
        Ok(Value::Object(top))
    }

    fn onnx_entry(&mut self, entry: &NamedEntry) -> Result<Option<Value>> {
        let name = entry.name.as_str();
        let Some(values) = grid_values(entry) else {
            self.loss(name, "float types; the tensor is left out".into(), "write version 1.0.0")?;
            return Ok(None);
        };
        if !values.signed && values.bitwidth > 16 {
            self.loss(name, "unsigned codes above 16 bits; the tensor is left out".into(), "write version 1.0.0")?;
            return Ok(None);
        }
        if values.narrow_range {
            self.loss(name, "a narrow range; the lowest code becomes usable".into(), "write version 1.0.0")?;
        }
        let mut value = json!({
            "name": name,
            "output_dtype": format!("{}int{}", if values.signed { "" } else { "u" }, values.bitwidth),
        });
        let has_zero_point = values.zero_point.iter().any(|&z| z != 0);
        if let Some(blocks) = blocks(entry) {
            self.onnx_blocks(name, &blocks, &mut value)?;
            return Ok(Some(value));
        }
        match (&entry.entry, &values.granularity) {
            (Entry::Unplaced(_), _) => {
                let message = "scales without an axis; the tensor is left out".into();
                self.loss(name, message, "give the model, so that the axis can be resolved")?;
                return Ok(None);
            }
            (_, Granularity::PerBlock { .. }) => {
                let message = "block scales of a tensor of unknown shape; the tensor is left out".into();
                self.loss(name, message, "resolve the axes against the model first")?;
                return Ok(None);
            }
            (_, Granularity::PerTensor) => {
                value["y_scale"] = values.scale[0].into();
                if has_zero_point {
                    value["y_zero_point"] = values.zero_point[0].into();
                }
            }
            (_, Granularity::PerChannel { axis }) => {
                value["y_scale"] = values.scale.clone().into();
                if has_zero_point {
                    value["y_zero_point"] = values.zero_point.clone().into();
                }
                value["axis"] = (*axis).into();
            }
        }
        Ok(Some(value))
    }

    fn onnx_blocks(&mut self, name: &str, blocks: &Blocks<'_>, value: &mut Value) -> Result<()> {
        let values = blocks.values;
        let (dims, order) = blocks.collapsed()?;
        let nested = |leaf: &dyn Fn(usize) -> Value| {
            let leaves: Vec<Value> = order.iter().map(|&i| leaf(i)).collect();
            nest(&dims, &leaves)
        };
        if let Some(lpbq) = &values.lpbq {
            let ints = nested(&|i| lpbq.per_block_int_scale[i].into());
            let implied = implied_decompressed_bitwidth(lpbq.compressed_bitwidth, &lpbq.per_block_int_scale);
            if implied != lpbq.decompressed_bitwidth {
                let message = format!("{} decompressed bits (readers assume {implied})", lpbq.decompressed_bitwidth);
                self.loss(name, message, "write version 1.0.0")?;
            }
            if self.version == Version::V2_0_0 {
                let mut channel_dims = vec![1; dims.len()];
                channel_dims[lpbq.channel_axis] = lpbq.per_channel_scale.len();
                let leaves: Vec<Value> = lpbq.per_channel_scale.iter().map(|&s| s.into()).collect();
                value["per_block_int_scale"] = ints;
                value["per_channel_float_scale"] = nest(&channel_dims, &leaves);
            } else {
                value["y_scale"] = json!({"x": ints, "x_scale": lpbq.per_channel_scale, "axis": lpbq.channel_axis});
            }
        } else {
            value["y_scale"] = nested(&|i| values.scale[i].into());
            if values.zero_point.iter().any(|&z| z != 0) {
                value["y_zero_point"] = nested(&|i| values.zero_point[i].into());
            }
        }
        value["axis"] = blocks.axis.into();
        value["block_size"] = blocks.block_size.into();
        Ok(())
    }
}

impl Blocks<'_> {
    fn same(&self, a: usize, b: usize) -> bool {
        let v = self.values;
        v.scale[a] == v.scale[b]
            && v.zero_point[a] == v.zero_point[b]
            && v.lpbq.as_ref().is_none_or(|l| l.per_block_int_scale[a] == l.per_block_int_scale[b])
    }

    /// Sources of the scales channel by channel, where nothing varies along the other axes.
    fn channel_major(&self, channel_axis: usize) -> Option<Vec<usize>> {
        let (&channels, &along) = (self.dims.get(channel_axis)?, self.dims.get(self.axis)?);
        let own = strides(&self.dims);
        let mut order = vec![usize::MAX; channels * along];
        for flat in 0..self.values.scale.len() {
            let slot = flat / own[channel_axis] % channels * along + flat / own[self.axis] % along;
            if order[slot] == usize::MAX {
                order[slot] = flat;
            } else if !self.same(order[slot], flat) {
                return None;
            }
        }
        (channel_axis != self.axis).then_some(order)
    }

    /// Dimensions and sources of the scales after axes along which nothing varies shrank to 1. Without a known channel
    /// axis all dimensions stay.
    fn collapsed(&self) -> Result<(Vec<usize>, Vec<usize>)> {
        let own = strides(&self.dims);
        let mut dims = self.dims.clone();
        if let Some(channel_axis) = self.channel_axis {
            for i in (0..dims.len()).filter(|&i| i != channel_axis && i != self.axis) {
                let constant = (0..self.values.scale.len())
                    .all(|flat| self.same(flat, flat - flat / own[i] % self.dims[i] * own[i]));
                if constant {
                    dims[i] = 1;
                }
            }
        }
        let order = source_indices(&dims, &own)?;
        Ok((dims, order))
    }
}

/// Scales and grid of an integer entry, placed or not.
fn grid_values(entry: &NamedEntry) -> Option<&Encoding> {
    match &entry.entry {
        Entry::Int(encoding) => Some(encoding),
        Entry::Unplaced(unplaced) => Some(&unplaced.values),
        Entry::Float(_) => None,
    }
}

/// The blocks of an entry whose array of scales has known dimensions.
fn blocks(entry: &NamedEntry) -> Option<Blocks<'_>> {
    match &entry.entry {
        Entry::Unplaced(unplaced) => match &unplaced.layout {
            Layout::Shaped { dims, axis, block_size } => Some(Blocks {
                values: &unplaced.values,
                dims: dims.clone(),
                axis: *axis,
                block_size: *block_size,
                channel_axis: entry.place.channel_axis,
            }),
            _ => None,
        },
        Entry::Int(encoding) => match encoding.granularity {
            Granularity::PerBlock { axis, block_size } => Some(Blocks {
                values: encoding,
                dims: entry.place.block_dims.clone().filter(|d| d.iter().product::<usize>() == encoding.scale.len())?,
                axis,
                block_size,
                channel_axis: entry.place.channel_axis,
            }),
            _ => None,
        },
        Entry::Float(_) => None,
    }
}

/// The section of an entry; one of a 2.x file is taken for a parameter where it has several scales, 32 bits or signed
/// codes.
fn section(entry: &NamedEntry) -> Section {
    match (entry.section, grid_values(entry)) {
        (Section::Unknown, Some(e)) => {
            let placed_per_tensor = matches!(entry.entry, Entry::Int(_)) && e.granularity == Granularity::PerTensor;
            if !placed_per_tensor || e.bitwidth == 32 || e.signed { Section::Param } else { Section::Activation }
        }
        (Section::Unknown, None) => Section::Activation,
        (known, _) => known,
    }
}

/// The real number of a grid point, in f32 as producers compute it where the scale is an f32.
fn grid_point(scale: f64, steps: i64) -> f64 {
    if f64::from(scale as f32) == scale { f64::from(scale as f32 * steps as f32) } else { scale * steps as f64 }
}
