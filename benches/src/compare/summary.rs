//! The rows that the project is judged by.

use crate::figures::{Figure, Results};
use crate::plan::Contestant::{
    self, CompareAndSet, Fred, Live, NearCache, OneNode, TowerSessions, TwoNodes,
};

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) value: String,
    /// The ratio by CPU; empty where the value is no ratio of speeds.
    pub(crate) by_cpu: String,
    /// What this crate is to reach; empty where it has set itself nothing.
    pub(crate) goal: &'static str,
    pub(crate) compared: String,
}

/// Rows whose contestants did not take part are left out.
pub(crate) fn rows(results: &Results) -> Vec<Row> {
    let speed = |what, workload: &str, ours: Contestant, goal, compared: &str| {
        let figure = results.figure(workload, ours)?;
        let by_cpu = format!("{:.2}", figure.cpu_ratio);
        Some(Row { what, value: ratio(figure), by_cpu, goal, compared: compared.into() })
    };
    let against = |what, workload: &str, ours, goal, other: Contestant| {
        let (ours, other_figure) =
            (results.figure(workload, ours)?, results.figure(workload, other)?);
        Some(Row {
            what,
            value: format!("{:.2}", ours.ratio / other_figure.ratio),
            by_cpu: format!("{:.2}", ours.cpu_ratio / other_figure.cpu_ratio),
            goal,
            compared: other.title().into(),
        })
    };
    let one_get = "axum + fred, one GET";
    let one_script = "axum + fred, one EVALSHA";
    let cpu_of_redis = "CPU of Redis for a write, two nodes (less is better)";
    let rows = [
        speed("HTTP read, Redis", "read", OneNode, ">= 0.90", one_get),
        speed("HTTP read, Redis, two nodes", "read", TwoNodes, ">= 0.90", one_get),
        speed("HTTP read, near cache", "read", NearCache, ">= 1.40", one_get),
        speed("HTTP read, near cache", "live-read", NearCache, ">= 0.85", "axum + map"),
        speed("HTTP write, Redis", "write", OneNode, ">= 0.70", one_script),
        speed("HTTP write, Redis, two nodes", "write", TwoNodes, ">= 0.70", one_script),
        speed("HTTP write, near cache", "write", NearCache, ">= 0.85", one_script),
        against("HTTP write, near cache", "write", NearCache, ">= 1.25", TowerSessions),
        redis_cpu(results, cpu_of_redis, OneNode, "", "one node"),
        redis_cpu(results, cpu_of_redis, Fred, "<= 28 µs", "axum + fred"),
        speed("socket `with_session` that writes", "socket", OneNode, ">= 0.80", one_script),
        speed("the same, two nodes", "socket", TwoNodes, ">= 0.80", one_script),
        speed("one hot session, plain write", "hot-write", OneNode, "", one_script),
        speed("one hot session, `update`", "hot-update", OneNode, "", one_script),
        speed("one hot session, `update`, two nodes", "hot-update", TwoNodes, "", one_script),
        speed(
            "one hot session, `update`, near cache",
            "hot-update",
            NearCache,
            ">= 1.50",
            one_script,
        ),
        against("one hot session, `update`", "hot-update", OneNode, "", CompareAndSet),
        bytes(results, "bytes to and from Redis for a read (less is better)", "read", "<= 155"),
        bytes(results, "bytes to and from Redis for a write (less is better)", "write", "<= 1,125"),
        speed("LiveStore, no session used", "live-plain", Live, "", "axum"),
        speed("LiveStore, HTTP read", "live-read", Live, ">= 0.85", "axum + map"),
        speed("LiveStore, HTTP write", "live-write", Live, ">= 0.80", "axum + map"),
        speed(
            "LiveStore, one hot session, `update`",
            "live-hot-update",
            Live,
            ">= 0.80",
            "axum + map",
        ),
        speed("LiveStore, socket write", "live-socket", Live, "", "socketioxide + map"),
    ];
    rows.into_iter().flatten().collect()
}

fn redis_cpu(
    results: &Results,
    what: &'static str,
    other: Contestant,
    goal: &'static str,
    name: &str,
) -> Option<Row> {
    let (ours, other) = (results.figure("write", TwoNodes)?, results.figure("write", other)?);
    Some(Row {
        what,
        value: format!("{:.2}", ours.redis_us / other.redis_us),
        by_cpu: String::new(),
        goal,
        compared: format!("{name} ({:.1} µs, here {:.1} µs)", other.redis_us, ours.redis_us),
    })
}

fn bytes(results: &Results, what: &'static str, workload: &str, goal: &'static str) -> Option<Row> {
    let (ours, fred) = (results.figure(workload, OneNode)?, results.figure(workload, Fred)?);
    let both = |figure: &Figure| figure.bytes_in + figure.bytes_out;
    Some(Row {
        what,
        value: format!("{:.2}", both(ours) / both(fred)),
        by_cpu: String::new(),
        goal,
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
