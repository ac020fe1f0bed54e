//! A chart with logarithmic y axes, written as SVG.

use std::fmt::Write as _;

/// How the points of a series are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Open circles without a line: what somebody else measured.
    Published,
    /// Dots joined by a line.
    Line,
    /// Small dots joined by a dashed line.
    Dashed,
}

/// Points of one meaning.
#[derive(Debug, Clone)]
pub struct Series {
    /// Words for the legend.
    pub label: String,
    /// CSS colour.
    pub colour: &'static str,
    /// Form of the points.
    pub mark: Mark,
    /// `(x, y)`; points whose y is not positive have no place on a logarithmic axis and are left out.
    pub points: Vec<(f64, f64)>,
}

/// One pair of axes.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Title above the axes.
    pub title: String,
    /// What the y axis counts.
    pub y_label: String,
    /// What is drawn.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 74.0;
const PLOT: f64 = 268.0;
const LEGEND_LINE: f64 = 18.0;

/// Panels side by side under one title.
pub fn svg(title: &str, x_label: &str, panels: &[Panel]) -> String {
    let legend = panels.iter().map(|p| p.series.len()).max().unwrap_or(0) as f64 * LEGEND_LINE;
    let (width, height) = (WIDTH * panels.len() as f64, HEIGHT + legend);
    let mut out = String::new();
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">"#
    );
    let _ = writeln!(out, "<title>{}</title>", escape(title));
    out += concat!(
        "<style>text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2933}",
        ".t{font-size:17px;font-weight:600}.p{font-size:14px;font-weight:600}.s{font-size:12px}.g{stroke:#e3e8ee}",
        ".a{stroke:#52606d}</style>\n",
    );
    let _ = writeln!(out, r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##);
    let _ = writeln!(out, r#"<text class="t" x="{LEFT}" y="30">{}</text>"#, escape(title));
    for (i, panel) in panels.iter().enumerate() {
        let _ = writeln!(out, r#"<g transform="translate({},0)">"#, WIDTH * i as f64);
        draw(&mut out, x_label, panel);
        out += "</g>\n";
    }
    out + "</svg>\n"
}

fn draw(out: &mut String, x_label: &str, panel: &Panel) {
    let visible = || panel.series.iter().flat_map(|s| &s.points).filter(|p| p.1 > 0.0 && p.1.is_finite());
    let extremes = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)))
    };
    let (x_lo, x_hi) = match extremes(&mut visible().map(|p| p.0)) {
        (lo, hi) if lo < hi => (lo, hi),
        (lo, _) if lo.is_finite() => (lo - 1.0, lo + 1.0),
        _ => (0.0, 1.0),
    };
    let (e_lo, e_hi) = match extremes(&mut visible().map(|p| p.1.log10())) {
        (lo, hi) if lo <= hi => (lo.floor(), hi.ceil().max(lo.floor() + 1.0)),
        _ => (0.0, 1.0),
    };
    let (plot_width, bottom) = (WIDTH - LEFT - RIGHT - 12.0, TOP + PLOT);
    let place_x = |x: f64| LEFT + 12.0 + (x - x_lo) / (x_hi - x_lo) * (plot_width - 12.0);
    let place_y = |y: f64| bottom - (y.log10() - e_lo) / (e_hi - e_lo) * PLOT;
    let right = LEFT + 12.0 + plot_width;
    let _ = writeln!(out, r#"<text class="p" x="{LEFT}" y="58">{}</text>"#, escape(&panel.title));
    let every = ((e_hi - e_lo) / 10.0).ceil().max(1.0);
    let mut exponent = e_lo;
    while exponent <= e_hi {
        let y = bottom - (exponent - e_lo) / (e_hi - e_lo) * PLOT;
        let _ = writeln!(out, r#"<line class="g" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#);
        let _ = writeln!(
            out,
            r#"<text class="s" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            y + 4.0,
            power_of_ten(exponent as i32)
        );
        exponent += every;
    }
    let _ = writeln!(out, r#"<line class="a" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>"#);
    let mut ticks: Vec<f64> = visible().map(|p| p.0).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    let step = ticks.len().div_ceil(15).max(1);
    for x in ticks.iter().step_by(step) {
        let at = place_x(*x);
        let _ = writeln!(out, r#"<text class="s" x="{at:.1}" y="{}" text-anchor="middle">{x}</text>"#, bottom + 17.0);
    }
    let _ = writeln!(
        out,
        r#"<text class="s" x="{:.1}" y="{}" text-anchor="middle">{}</text>"#,
        (LEFT + right) / 2.0,
        bottom + 36.0,
        escape(x_label)
    );
    let middle = TOP + PLOT / 2.0;
    let _ = writeln!(
        out,
        r#"<text class="s" transform="translate(18,{middle}) rotate(-90)" text-anchor="middle">{}</text>"#,
        escape(&panel.y_label)
    );
    for (i, series) in panel.series.iter().enumerate() {
        let points: Vec<(f64, f64)> = series
            .points
            .iter()
            .filter(|p| p.1 > 0.0 && p.1.is_finite())
            .map(|&(x, y)| (place_x(x), place_y(y)))
            .collect();
        line(out, series, &points);
        let y = bottom + 60.0 + LEGEND_LINE * i as f64;
        let sample: &[f64] = if series.mark == Mark::Published { &[17.0] } else { &[4.0, 30.0] };
        line(out, series, &sample.iter().map(|x| (LEFT + x, y - 4.0)).collect::<Vec<_>>());
        let _ = writeln!(out, r#"<text class="s" x="{}" y="{y}">{}</text>"#, LEFT + 42.0, escape(&series.label));
    }
}

fn line(out: &mut String, series: &Series, points: &[(f64, f64)]) {
    let colour = series.colour;
    if series.mark != Mark::Published && points.len() > 1 {
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dash = if series.mark == Mark::Dashed { r#" stroke-dasharray="5 4""# } else { "" };
        let _ = writeln!(
            out,
            r#"<polyline fill="none" stroke="{colour}" stroke-width="1.8"{dash} points="{}"/>"#,
            path.join(" ")
        );
    }
    let (radius, fill) = match series.mark {
        Mark::Published => (5.5, "none"),
        Mark::Line => (2.8, colour),
        Mark::Dashed => (2.0, colour),
    };
    for (x, y) in points {
        let _ = writeln!(
            out,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{fill}" stroke="{colour}" stroke-width="1.6"/>"#
        );
    }
}

/// `10⁻³` and so on, in characters that every font has.
fn power_of_ten(exponent: i32) -> String {
    let decimal = exponent.to_string();
    let digits = decimal.chars().map(|c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        d => char::from_u32('⁰' as u32 + d as u32 - '0' as u32).unwrap_or(d),
    });
    format!("10{}", digits.collect::<String>())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: Vec<(f64, f64)>) -> Panel {
        let series = Series { label: "a < b".into(), colour: "#123456", mark: Mark::Line, points };
        Panel { title: "t".into(), y_label: "y & z".into(), series: vec![series] }
    }

    #[test]
    fn points_stay_inside_the_axes_and_text_is_escaped() {
        let text = svg("title", "x", &[panel(vec![(1.0, 1e-9), (29.0, 0.1), (3.0, 0.0)])]);
        assert!(text.contains("a &lt; b") && text.contains("y &amp; z"));
        let centres: Vec<f64> =
            text.split("cy=\"").skip(1).map(|rest| rest[..rest.find('"').unwrap()].parse().unwrap()).collect();
        // Two points of the series and two of the legend: the zero has no place.
        assert_eq!(centres.len(), 4);
        assert!(centres[..2].iter().all(|&y| (TOP..=TOP + PLOT).contains(&y)), "{centres:?}");
        assert!(centres[0] > centres[1]);
    }

    #[test]
    fn empty_panels_and_single_points_are_drawn() {
        for points in [vec![], vec![(3.0, 0.5)], vec![(1.0, 0.0)]] {
            let text = svg("title", "x", &[panel(points)]);
            assert!(text.ends_with("</svg>\n") && !text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }

    #[test]
    fn exponents_are_superscripts() {
        assert_eq!(power_of_ten(-10), "10⁻¹⁰");
        assert_eq!(power_of_ten(4), "10⁴");
    }
}
