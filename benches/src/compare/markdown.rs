//! The tables, as the documentation contains them.

use std::fmt::Write as _;

use crate::Result;
use crate::figures::{Figure, Results};
use crate::plan::Contestant::{
    self, AxumSession, Bare, CompareAndSet, Fred, Live, NearCache, OneNode, TowerSessions, TwoNodes,
};
use crate::plan::WORKLOADS;
use crate::summary;

const BEGIN: &str = "<!-- figures -->";
const END: &str = "<!-- end of figures -->";

/// The text with these tables between its two marks.
pub(crate) fn put_into(text: &str, tables: &str) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).ok_or("the page has no mark for the figures")?;
    let (_, after) = rest.split_once(END).ok_or("the page has no mark for the figures' end")?;
    Ok(format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))
}

pub(crate) fn tables(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "{}, {} CPUs ({}), {}, {}, Redis {}. {} rounds of {} s a sample; {} of {} samples were disturbed \
         by others and don't count{}.\n",
        machine.date,
        machine.cpus,
        machine.cpu,
        machine.kernel,
        machine.rustc.split(" (").next().unwrap_or_default(),
        machine.redis,
        results.rounds,
        results.seconds,
        results.disturbed,
        results.taken,
        if results.figures.iter().any(|figure| figure.disturbed) {
            ", but in figures that have no other samples (~)"
        } else {
            ""
        },
    );
    text += &in_short(results);
    let redis = [Fred, CompareAndSet, TowerSessions, AxumSession, OneNode, TwoNodes, NearCache];
    text += &ratios(results, "Requests in a second, sessions in Redis", &redis);
    text += &ratios(results, "Requests in a second, sessions in memory", &[Bare, Live]);
    text += &costs(results);
    text
}

fn in_short(results: &Results) -> String {
    let mut text = String::from(
        "\n### In short\n\n| measured | this crate | by CPU | goal | 1.00 is |\n|---|--:|--:|--:|---|\n",
    );
    for row in summary::rows(results) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            row.what, row.value, row.by_cpu, row.goal, row.compared
        );
    }
    text
}

/// One line for each workload that the first of the contestants takes part in.
fn ratios(results: &Results, title: &str, contestants: &[Contestant]) -> String {
    let took_part = |contestant: &&Contestant| {
        results.figures.iter().any(|figure| figure.contestant == **contestant)
    };
    let contestants: Vec<Contestant> = contestants.iter().filter(took_part).copied().collect();
    let Some(first) = contestants.first() else { return String::new() };
    let mut text = format!("\n### {title}\n\n|");
    for contestant in &contestants {
        let _ = write!(text, " | {}", contestant.title());
    }
    let _ = writeln!(text, " |\n|---{}|", "|--:".repeat(contestants.len()));
    for workload in &WORKLOADS {
        let Some(baseline) = results.figure(workload.name, *first) else { continue };
        let _ = write!(text, "| {} | 1.00 ({:.0}/s)", workload.title, baseline.rate);
        for contestant in &contestants[1..] {
            let figure = results.figure(workload.name, *contestant);
            let _ = write!(text, " | {}", figure.map_or_else(String::new, summary::ratio));
        }
        text += " |\n";
    }
    text
}

fn costs(results: &Results) -> String {
    let mut text = String::from(
        "\n### Costs of a request\n\n\
         | | | CPU of the server, µs | CPU of Redis, µs | CPU of the client, µs | commands in Redis \
         | bytes to Redis | bytes from Redis | a script, µs | p50, ms | p99, ms | increments kept |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for figure in &results.figures {
        let title = WORKLOADS.iter().find(|workload| workload.name == figure.workload);
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {} | {:.2} | {:.2} | {} |",
            title.map_or("", |workload| workload.title),
            figure.contestant.title(),
            figure.server_us,
            redis_costs(figure),
            figure.p50_ms,
            figure.p99_ms,
            figure.kept.map_or_else(String::new, |kept| format!("{:.1} %", kept * 100.0)),
        );
    }
    text
}

/// The cells from the CPU of Redis to the script's time; only that of the client without Redis.
fn redis_costs(figure: &Figure) -> String {
    if !figure.contestant.uses_redis() {
        return format!(" | {:.1} | | | | ", figure.client_us);
    }
    let script =
        if figure.script_us > 0.0 { format!("{:.1}", figure.script_us) } else { String::new() };
    format!(
        "{:.1} | {:.1} | {:.1} | {:.0} | {:.0} | {script}",
        figure.redis_us, figure.client_us, figure.commands, figure.bytes_in, figure.bytes_out,
    )
}

#[cfg(test)]
mod tests {
    use super::put_into;

    #[test]
    fn tables_take_the_place_of_those_before() {
        let page = "head\n<!-- figures -->\nold\n<!-- end of figures -->\ntail\n";
        let new = put_into(page, "new\n").unwrap();
        assert_eq!(new, "head\n<!-- figures -->\n\nnew\n\n<!-- end of figures -->\ntail\n");
        assert_eq!(put_into(&new, "new\n").unwrap(), new);
    }

    #[test]
    fn a_page_without_marks_is_an_error() {
        assert!(put_into("head\n", "new").is_err());
    }
}
