//! The demo's tables as text.

use super::Row;
use super::measure::{Difference, FirstDifference};
use std::fmt::Write as _;

/// Right-aligned columns under two lines of headings.
fn grid(groups: &[(&str, usize)], headings: &[&str], rows: &[Vec<String>]) -> String {
    let columns = headings.len();
    let mut widths: Vec<usize> = headings.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut column = 0;
    for (title, span) in groups {
        let inner: usize = widths[column..column + span].iter().sum::<usize>() + 2 * (span - 1);
        let missing = title.chars().count().saturating_sub(inner);
        widths[column] += missing;
        column += span;
    }
    debug_assert_eq!(column, columns);
    let mut out = String::from("  ");
    let mut column = 0;
    for (title, span) in groups {
        let inner: usize = widths[column..column + span].iter().sum::<usize>() + 2 * (span - 1);
        let _ = write!(out, "{title:^inner$}  ");
        column += span;
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::from("  ");
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(text, "{cell:>width$}  ");
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    };
    out += &line(&mut headings.iter().copied());
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
    }
    out
}

/// Four significant digits, in the notation of the published tables.
pub fn number(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else if value.abs() < 1e-3 {
        format!("{value:.3e}")
    } else {
        format!("{value:.4}")
    }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), number)
}

/// The seed's table: published numbers beside the ones computed here.
pub fn comparison(rows: &[&Row]) -> String {
    let groups = [("", 1), ("MSE", 2), ("MSE (normalized)", 2), ("L1", 2), ("L1 (normalized)", 2), ("off by N", 2)];
    let mut headings = vec!["layers"];
    headings.extend(["published", "here"].repeat(5));
    let cells = |row: &&Row| {
        let published = row.published;
        let pair = |get: fn(&super::Published) -> Option<f64>, here: f64| {
            [optional(published.as_ref().and_then(get)), number(here)]
        };
        let d = &row.device;
        let mut cells = vec![row.depth.to_string()];
        cells.extend(pair(|p| Some(p.mse), d.mse));
        cells.extend(pair(|p| p.mse_normalized, d.mse_normalized));
        cells.extend(pair(|p| Some(p.l1), d.l1));
        cells.extend(pair(|p| p.l1_normalized, d.l1_normalized));
        let off = published.and_then(|p| p.off_by_n).map_or_else(|| "-".into(), |n| n.to_string());
        cells.extend([off, d.off_by_n.to_string()]);
        cells
    };
    grid(&groups, &headings, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// The advice's table: the input quantized on the device and on the host.
pub fn advice(rows: &[&Row]) -> String {
    let groups = [("", 1), ("MSE (normalized)", 3), ("L1 (normalized)", 2), ("off by N", 2)];
    let headings = ["layers", "device", "host", "host/device", "device", "host", "device", "host"];
    let cells = |row: &&Row| {
        let Row { device, host, .. } = row;
        let share = |f: fn(&Difference) -> f64| match f(device) {
            0.0 => "-".into(),
            d => format!("{:.2}", f(host) / d),
        };
        vec![
            row.depth.to_string(),
            number(device.mse_normalized),
            number(host.mse_normalized),
            share(|d| d.mse_normalized),
            number(device.l1_normalized),
            number(host.l1_normalized),
            device.off_by_n.to_string(),
            host.off_by_n.to_string(),
        ]
    };
    grid(&groups, &headings, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// Where an emulation leaves the simulation, in words.
pub fn first_difference(first: Option<&FirstDifference>) -> String {
    match first {
        None => "no tensor of the first layers differs".into(),
        Some(f) => format!("'{}' ({:.3} % of its codes, by {} at most)", f.tensor, f.share * 100.0, f.off_by_n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_wide_enough_for_their_titles() {
        let text = grid(
            &[("", 1), ("a wide title", 2)],
            &["n", "x", "y"],
            &[vec!["1".into(), "2".into(), "3".into()], vec!["100".into(), "20".into(), "30".into()]],
        );
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("a wide title"), "{text}");
        assert_eq!(lines[1].len(), lines[3].len(), "{text}");
        assert!(lines[2].ends_with(" 3"), "{text}");
    }

    #[test]
    fn small_numbers_are_written_with_an_exponent() {
        assert_eq!(number(5.6391e-5), "5.639e-5");
        assert_eq!(number(0.0449), "0.0449");
        assert_eq!(number(0.0), "0");
    }
}
