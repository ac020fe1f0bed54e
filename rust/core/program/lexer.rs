//! Text to tokens.

use super::syntax::{Site, Text};
use crate::error::Result;
use std::ops::Range;
use std::sync::Arc;

/// Longest program text, in bytes.
pub(super) const MAX_TEXT: usize = 1 << 16;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Int(i128),
    Real(String),
    Name(String),
    Symbol(&'static str),
    /// End of a line, or `;`.
    Break,
    End,
}

/// Longer symbols first.
const SYMBOLS: [&str; 26] = [
    "->", "..", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+", "-", "*", "/", "^", "<", ">", "=", "!", "(", ")",
    "[", "]", ",", ":", "%",
];

/// Tokens with their byte ranges; the last is [`Token::End`]. Line ends inside brackets are no tokens.
pub(super) fn tokens(source: &Arc<Text>) -> Result<Vec<(Token, Range<usize>)>> {
    let text = source.text.as_str();
    let site = |span: Range<usize>| Site { source: source.clone(), span };
    if text.len() > MAX_TEXT {
        return Err(
            site(0..0).error("program_too_long", format!("the text has {} bytes, above {MAX_TEXT}", text.len()))
        );
    }
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        match byte {
            b'#' => at += text[at..].find('\n').unwrap_or(text.len() - at),
            b'\n' | b';' => {
                at += 1;
                if depth == 0 || byte == b';' {
                    out.push((Token::Break, start..at));
                }
            }
            b' ' | b'\t' | b'\r' => at += 1,
            b'0'..=b'9' => {
                let (token, length) = number(&text[at..]).map_err(|m| site(at..at + 1).error("program_number", m))?;
                at += length;
                if bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
                    return Err(site(start..at + 1).error("program_number", "a number runs into a name"));
                }
                out.push((token, start..at));
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
                loop {
                    at += bytes[at..].iter().take_while(|b| part(b)).count();
                    let dotted = bytes.get(at) == Some(&b'.')
                        && bytes.get(at + 1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
                    if !dotted {
                        break;
                    }
                    at += 1;
                }
                if bytes.get(at) == Some(&b'\'') {
                    at += 1;
                }
                out.push((Token::Name(text[start..at].to_string()), start..at));
            }
            _ => {
                let Some(symbol) = SYMBOLS.iter().find(|s| text[at..].starts_with(**s)) else {
                    let character = text[at..].chars().next().unwrap_or('\u{fffd}');
                    let span = at..at + character.len_utf8();
                    return Err(site(span).error("program_character", format!("unexpected character {character:?}")));
                };
                at += symbol.len();
                match *symbol {
                    "(" | "[" => depth += 1,
                    ")" | "]" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                out.push((Token::Symbol(symbol), start..at));
            }
        }
    }
    out.push((Token::End, text.len()..text.len()));
    Ok(out)
}

/// A number at the start of `text`, and its length.
fn number(text: &str) -> Result<(Token, usize), String> {
    let bytes = text.as_bytes();
    let run = |from: usize, hex: bool| {
        bytes[from..]
            .iter()
            .take_while(|b| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() } || **b == b'_')
            .count()
    };
    let clean = |s: &str| s.replace('_', "");
    if text.starts_with("0x") || text.starts_with("0X") {
        let length = 2 + run(2, true);
        let value = i128::from_str_radix(&clean(&text[2..length]), 16)
            .map_err(|_| "not a hexadecimal integer of at most 127 bits".to_string())?;
        return Ok((Token::Int(value), length));
    }
    let mut length = run(0, false);
    let mut real = false;
    if bytes.get(length) == Some(&b'.') && bytes.get(length + 1).is_some_and(u8::is_ascii_digit) {
        real = true;
        length += 1 + run(length + 1, false);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let digits = run(length + 1 + sign, false);
        if digits > 0 {
            real = true;
            length += 1 + sign + digits;
        }
    }
    let digits = clean(&text[..length]);
    if real {
        return match digits.parse::<f64>() {
            Ok(v) if v.is_finite() => Ok((Token::Real(digits), length)),
            _ => Err("not a finite real number".into()),
        };
    }
    let value = digits.parse::<i128>().map_err(|_| "an integer beyond 127 bits".to_string())?;
    Ok((Token::Int(value), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Token> {
        let source = Arc::new(Text::new(text, "t"));
        tokens(&source).unwrap().into_iter().map(|(t, _)| t).collect()
    }

    #[test]
    fn numbers_names_and_symbols() {
        assert_eq!(
            kinds("x.scale*0x1F + 1e-3 # c\n w' 1..2"),
            [
                Token::Name("x.scale".into()),
                Token::Symbol("*"),
                Token::Int(31),
                Token::Symbol("+"),
                Token::Real("1e-3".into()),
                Token::Break,
                Token::Name("w'".into()),
                Token::Int(1),
                Token::Symbol(".."),
                Token::Int(2),
                Token::End
            ]
        );
        assert_eq!(kinds("(\n)"), [Token::Symbol("("), Token::Symbol(")"), Token::End]);
    }

    #[test]
    fn what_is_no_token() {
        for text in ["a $ b", "é", "1x", "0x", "99999999999999999999999999999999999999999", "1e999"] {
            assert!(tokens(&Arc::new(Text::new(text, "t"))).is_err(), "{text}");
        }
        assert!(tokens(&Arc::new(Text::new(" ".repeat(MAX_TEXT + 1), "t"))).is_err());
    }
}
