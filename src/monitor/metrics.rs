//! Figures as Prometheus text (text exposition format 0.0.4).

use std::fmt::Write as _;

use crate::bridge::SessionBridge;

/// The bridge's figures as Prometheus text. All names begin with `axum_io_session_`, and each
/// series has the label `node`.
///
/// All of it is at hand: a scrape costs no trip to the backend, and answers when that one is away.
/// So there is no series for the number of nodes: `count(axum_io_session_sockets)` counts those
/// that are scraped, and [`SessionBridge::nodes`] asks which ones are there.
pub fn prometheus(bridge: &SessionBridge) -> String {
    let stats = bridge.stats();
    let node = escape(bridge.node().as_str());
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
        let full = format!("axum_io_session_{name}");
        // Writing to a String never fails.
        let _ = writeln!(text, "# HELP {full} {help}\n# TYPE {full} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(text, "{full}{{node=\"{node}\"{labels}}} {value}");
        }
    };
    let counters = [
        ("requests_total", "Requests that passed the session layer.", stats.requests),
        ("loads_total", "Sessions looked up for requests and handshakes.", stats.loads),
        ("created_total", "Sessions created by requests.", stats.created),
        ("commits_total", "Writes to existing sessions.", stats.commits),
        ("conflicts_total", "Writes that met another writer.", stats.conflicts),
        (
            "overwrites_total",
            "Writes of a key that another writer had changed since it was read.",
            stats.overwrites,
        ),
        ("ended_total", "Ends of sessions published here.", stats.ended),
        ("leases_total", "Leases granted.", stats.leases),
        ("lease_timeouts_total", "Callers that waited for a lease in vain.", stats.lease_timeouts),
        ("leases_lost_total", "Handlers that outlived their lease.", stats.leases_lost),
        (
            "handlers_discarded_total",
            "Handlers whose changes were dropped.",
            stats.handlers_discarded,
        ),
        ("errors_total", "Requests that the store or backend failed.", stats.errors),
        ("client_errors_total", "Commits that were answered with 4xx.", stats.client_errors),
        (
            "own_ways_total",
            "Requests that got a client id of their own, as they may not join a session.",
            stats.own_ways,
        ),
        ("refused_origins_total", "Requests from other origins.", stats.refused_origins),
        (
            "refused_engine_ids_total",
            "Engine.IO requests without the client cookie of their handshake.",
            stats.refused_engine_ids,
        ),
        (
            "refused_handshakes_total",
            "Engine.IO handshakes beyond the limit of connections without a socket.",
            stats.refused_handshakes,
        ),
        (
            "served_anonymously_total",
            "Requests that got an empty session as theirs could not be loaded.",
            stats.served_anonymously,
        ),
        ("events_total", "Events delivered to listeners.", stats.events),
        ("events_missed_total", "Events that a listener was too slow for.", stats.events_missed),
        ("messages_sent_total", "Messages sent to sockets.", stats.messages_sent),
        ("messages_failed_total", "Messages that a full buffer refused.", stats.messages_failed),
        ("sockets_attached_total", "Sockets attached.", stats.sockets_attached),
        ("sockets_detached_total", "Sockets detached.", stats.sockets_detached),
    ];
    for (name, help, value) in counters {
        metric(name, "counter", help, &[(String::new(), value)]);
    }
    let anomaly = |kind: &str, value| (format!(",kind=\"{kind}\""), value);
    metric(
        "anomalies_total",
        "counter",
        "Cookies that an honest browser does not send.",
        &[
            anomaly("bad_signature", stats.bad_signatures),
            anomaly("malformed_id", stats.malformed_ids),
            anomaly("unknown_session", stats.unknown_sessions),
            anomaly("superseded_session", stats.superseded_sessions),
            anomaly("pair_mismatch", stats.pair_mismatches),
        ],
    );
    metric("sockets", "gauge", "Sockets attached now.", &[(String::new(), stats.sockets as u64)]);
    let tables: Vec<_> = stats
        .tables
        .iter()
        .map(|(name, size)| (format!(",table=\"{}\"", escape(name)), *size as u64))
        .collect();
    metric("table_entries", "gauge", "Entries of the backend's tables now.", &tables);
    text
}

/// Label values escape backslash, quote and line feed.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_series_has_help_type_and_the_node() {
        let bridge = SessionBridge::builder().node_id("n1").build().await.unwrap();
        let text = prometheus(&bridge);
        let mut typed = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(typed.insert(rest.split(' ').next().unwrap().to_owned()));
            } else if !line.starts_with('#') {
                let (name, rest) = line.split_once('{').unwrap();
                assert!(typed.contains(name), "{line}");
                assert!(rest.starts_with("node=\"n1\""), "{line}");
                assert!(rest.rsplit(' ').next().unwrap().parse::<u64>().is_ok(), "{line}");
            }
        }
        assert!(typed.len() > 15);
        bridge.shutdown().await;
    }
}
