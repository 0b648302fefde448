//! The rows that the project is judged by.

use crate::figures::{Figure, Results};
use crate::plan::Contestant::{self, Fred, Live, OneNode, TwoNodes};

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) value: String,
    /// The ratio by CPU; empty where the value is no ratio of speeds.
    pub(crate) by_cpu: String,
    pub(crate) compared: String,
}

/// Rows whose contestants did not take part are left out.
pub(crate) fn rows(results: &Results) -> Vec<Row> {
    let speed = |what, workload: &str, ours: Contestant, compared: &str| {
        let figure = results.figure(workload, ours)?;
        let by_cpu = format!("{:.2}", figure.cpu_ratio);
        Some(Row { what, value: ratio(figure), by_cpu, compared: compared.into() })
    };
    let one_get = "axum + fred, one GET";
    let one_script = "axum + fred, one EVALSHA";
    let rows = [
        speed("HTTP read, Redis", "read", OneNode, one_get),
        speed("HTTP read, Redis, two nodes", "read", TwoNodes, one_get),
        speed("HTTP write, Redis", "write", OneNode, one_script),
        speed("HTTP write, Redis, two nodes", "write", TwoNodes, one_script),
        redis_cpu(
            results,
            "CPU of Redis for a write, two nodes (less is better)",
            OneNode,
            "one node",
        ),
        redis_cpu(
            results,
            "CPU of Redis for a write, two nodes (less is better)",
            Fred,
            "axum + fred",
        ),
        speed("socket `with_session` that writes", "socket", OneNode, one_script),
        speed("socket `with_session` that writes, two nodes", "socket", TwoNodes, one_script),
        speed("one hot session, plain write", "hot-write", OneNode, one_script),
        speed("one hot session, `update`", "hot-update", OneNode, one_script),
        speed("one hot session, `update`, two nodes", "hot-update", TwoNodes, one_script),
        bytes(results, "bytes to and from Redis for a read (less is better)", "read"),
        bytes(results, "bytes to and from Redis for a write (less is better)", "write"),
        speed("LiveStore, no session used", "live-plain", Live, "axum"),
        speed("LiveStore, HTTP read", "live-read", Live, "axum + map"),
        speed("LiveStore, HTTP write", "live-write", Live, "axum + map"),
        speed("LiveStore, socket write", "live-socket", Live, "socketioxide + map"),
    ];
    rows.into_iter().flatten().collect()
}

fn redis_cpu(results: &Results, what: &'static str, other: Contestant, name: &str) -> Option<Row> {
    let (ours, other) = (results.figure("write", TwoNodes)?, results.figure("write", other)?);
    Some(Row {
        what,
        value: format!("{:.2}", ours.redis_us / other.redis_us),
        by_cpu: String::new(),
        compared: format!("{name} ({:.1} µs, here {:.1} µs)", other.redis_us, ours.redis_us),
    })
}

fn bytes(results: &Results, what: &'static str, workload: &str) -> Option<Row> {
    let (ours, fred) = (results.figure(workload, OneNode)?, results.figure(workload, Fred)?);
    let both = |figure: &Figure| figure.bytes_in + figure.bytes_out;
    Some(Row {
        what,
        value: format!("{:.2}", both(ours) / both(fred)),
        by_cpu: String::new(),
        compared: format!("axum + fred ({:.0}, here {:.0})", both(fred), both(ours)),
    })
}

/// A ratio, and what is to be known about it.
pub(crate) fn ratio(figure: &Figure) -> String {
    let disturbed = if figure.disturbed { "~" } else { "" };
    let errors = if figure.errors > 0.0 {
        format!(" ({:.1} % refused)", figure.errors * 100.0)
    } else {
        String::new()
    };
    format!("{disturbed}{:.2}{errors}", figure.ratio)
}
