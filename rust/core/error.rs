//! The one public error type.

use std::fmt;
use std::ops::Range;

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The five things that a user must tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user's file, tensor or argument is wrong.
    Invalid,
    /// The target cannot do it, and its spec says so.
    UnsupportedByTarget,
    /// nputwin cannot do it yet.
    UnsupportedByNputwin,
    /// No public source says what the target does here; an assumption lets the user go on.
    Unspecified,
    /// The operating system refused to read or write.
    Io,
}

impl Kind {
    /// Words for messages and `--json`.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Invalid => "invalid",
            Kind::UnsupportedByTarget => "unsupported by the target",
            Kind::UnsupportedByNputwin => "unsupported by nputwin",
            Kind::Unspecified => "unspecified",
            Kind::Io => "input/output",
        }
    }

    /// Exit code of the command line: 2 for wrong input, 3 for what is unsupported or unspecified.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Invalid | Kind::Io => 2,
            Kind::UnsupportedByTarget | Kind::UnsupportedByNputwin | Kind::Unspecified => 3,
        }
    }
}

/// Where an error happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Location {
    /// A file, without a place in it.
    File(String),
    /// A range of bytes in a text; printed as the line with carets below it.
    Text {
        /// File name or key path of the text.
        origin: String,
        /// The text itself.
        text: String,
        /// Byte range of the fault in `text`.
        span: Range<usize>,
    },
    /// A node of the graph.
    Node {
        /// Name of the node, or of its first output where it has none.
        name: String,
        /// ONNX operator.
        op_type: String,
    },
    /// A tensor, and one element of it where that is known.
    Tensor {
        /// Tensor name.
        name: String,
        /// Flat index of the element.
        index: Option<usize>,
    },
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File(path) => write!(f, "in {path}"),
            Location::Node { name, op_type } => write!(f, "at node '{name}' ({op_type})"),
            Location::Tensor { name, index: None } => write!(f, "at tensor '{name}'"),
            Location::Tensor { name, index: Some(i) } => write!(f, "at tensor '{name}', element {i}"),
            Location::Text { origin, text, span } => {
                let start = span.start.min(text.len());
                let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
                let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
                let line_number = text[..start].matches('\n').count() + 1;
                let column = text[line_start..start].chars().count();
                let end = span.end.clamp(start, line_end);
                let width = text[start..end].chars().count().max(1);
                let line = &text[line_start..line_end];
                let gutter = " ".repeat(line_number.to_string().len());
                writeln!(f, "in {origin}:{line_number}:{}", column + 1)?;
                writeln!(f, "{gutter} |")?;
                writeln!(f, "{line_number} | {line}")?;
                write!(f, "{gutter} | {}{}", " ".repeat(column), "^".repeat(width))
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Inner {
    kind: Kind,
    code: &'static str,
    message: String,
    location: Option<Location>,
    help: Option<String>,
}

/// What went wrong, where, and what to do about it.
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

impl Error {
    /// An error of `kind`; `code` is a stable slug such as `encoding_scale`.
    pub fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, code, message: message.into(), location: None, help: None }))
    }

    /// The user's input is wrong.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, code, message)
    }

    /// nputwin cannot do this yet.
    pub fn unsupported(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::UnsupportedByNputwin, code, message)
    }

    /// The operating system refused.
    pub fn io(path: impl fmt::Display, source: &std::io::Error) -> Self {
        Self::new(Kind::Io, "io", source.to_string()).at(Location::File(path.to_string()))
    }

    /// Adds the place, unless a more precise one is known already.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.0.location.get_or_insert(location);
        self
    }

    /// Adds the place of a node.
    #[must_use]
    pub fn at_node(self, name: &str, op_type: &str) -> Self {
        self.at(Location::Node { name: name.into(), op_type: op_type.into() })
    }

    /// Adds the place of a tensor.
    #[must_use]
    pub fn at_tensor(self, name: &str) -> Self {
        self.at(Location::Tensor { name: name.into(), index: None })
    }

    /// Adds a line that says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help.get_or_insert(help.into());
        self
    }

    /// Which of the five kinds.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Stable slug.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The sentence without place and help.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where it happened.
    pub fn location(&self) -> Option<&Location> {
        self.0.location.as_ref()
    }

    /// What to do.
    pub fn help_text(&self) -> Option<&str> {
        self.0.help.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]: {}", self.0.kind.label(), self.0.code, self.0.message)?;
        if let Some(location) = &self.0.location {
            write!(f, "\n  {}", location.to_string().replace('\n', "\n  "))?;
        }
        if let Some(help) = &self.0.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The known name that looks most like `name`, where one is near.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    fn distance(a: &[u8], b: &[u8]) -> usize {
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = i;
            row[0] = i + 1;
            for (j, y) in b.iter().enumerate() {
                let substitute = diagonal + usize::from(x != y);
                diagonal = row[j + 1];
                row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
            }
        }
        row[b.len()]
    }
    if name.len() > 64 {
        return None;
    }
    known
        .map(|candidate| (distance(name.as_bytes(), candidate.as_bytes()), candidate))
        .min()
        .filter(|(d, _)| *d <= 1 + name.len() / 3)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_location_shows_line_and_caret() {
        let error = Error::invalid("x", "unknown key").at(Location::Text {
            origin: "a.toml".into(),
            text: "one\ntwo three\n".into(),
            span: 8..13,
        });
        let shown = error.to_string();
        assert!(shown.contains("a.toml:2:5"), "{shown}");
        assert!(shown.contains("    ^^^^^"), "{shown}");
    }

    #[test]
    fn the_first_location_wins() {
        let error = Error::invalid("x", "m").at_tensor("inner").at_tensor("outer");
        assert_eq!(error.location(), Some(&Location::Tensor { name: "inner".into(), index: None }));
    }
}
