//! The chart: for each workload one bar a contestant, and a line at 1.00.

use std::fmt::Write as _;

use crate::figures::Results;
use crate::plan::{Contestant, Load, WORKLOADS};
use crate::summary;

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 16.0;
/// Where the bars begin; names are left of it.
const LEFT: f64 = 190.0;
/// Length of a bar of 1.00.
const ONE: f64 = 300.0;
/// Longer bars are cut off.
const LONGEST: f64 = 1.6;
const BAR: f64 = 15.0;
const STEP: f64 = 20.0;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#24292f}\
.title{font-weight:600}.name{text-anchor:end}\
.base{fill:#8c959f}.other{fill:#c8d1da}.ours{fill:#2f6feb}\
.axis{stroke:#57606a;stroke-dasharray:3 3}";

pub(crate) fn draw(results: &Results) -> String {
    let mut body = String::new();
    let mut y = MARGIN + 12.0;
    for workload in &WORKLOADS {
        let figures: Vec<_> =
            results.figures.iter().filter(|figure| figure.workload == workload.name).collect();
        let Some(first) = figures.first() else { continue };
        let place = if first.contestant.uses_redis() { "Redis" } else { "in memory" };
        let unit = if workload.load == Load::Sockets { "events" } else { "requests" };
        let title = workload.title.replace('`', "");
        let _ = writeln!(
            body,
            r#"<text class="title" x="{MARGIN}" y="{y}">{title} ({place}), {unit} in a second</text>"#
        );
        y += 10.0;
        let top = y;
        for figure in &figures {
            let length = figure.ratio.clamp(0.0, LONGEST) * ONE;
            let length = if length.is_nan() { 0.0 } else { length };
            let value = if figure.contestant == first.contestant {
                format!("1.00 ({:.0}/s)", figure.rate)
            } else {
                summary::ratio(figure)
            };
            let _ = writeln!(
                body,
                r#"<text class="name" x="{}" y="{}">{}</text><rect class="{}" x="{LEFT}" y="{y}" width="{length:.1}" height="{BAR}" rx="2"/><text x="{:.1}" y="{}">{value}</text>"#,
                LEFT - 8.0,
                y + 12.0,
                figure.contestant.title(),
                class(figure.contestant, first.contestant),
                LEFT + length + 6.0,
                y + 12.0,
            );
            y += STEP;
        }
        let x = LEFT + ONE;
        let _ = writeln!(
            body,
            r#"<line class="axis" x1="{x}" y1="{}" x2="{x}" y2="{}"/>"#,
            top - 3.0,
            y
        );
        y += 24.0;
    }
    let height = y - 12.0;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="Requests in a second of each contestant, against the one that is 1.00">
<style>{STYLE}</style>
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
{body}</svg>
"##
    )
}

fn class(contestant: Contestant, baseline: Contestant) -> &'static str {
    match contestant {
        contestant if contestant == baseline => "base",
        contestant if contestant.is_ours() => "ours",
        _ => "other",
    }
}
