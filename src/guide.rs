//! The guide, page by page. The pages are the Markdown files of `docs` in this package.
//!
//! | page | contents |
//! |---|---|
//! | [`http`] | extractors, sealing at login, errors as answers, serving, operation |
//! | [`sockets`] | methods on sockets, leases, pairing, traps |
//! | [`connections`] | Server-Sent Events, downloads, plain WebSockets, and handlers that end with their session |
//! | [`events`] | all events, messages to sockets, timing |
//! | [`options`] | every option with its default and range, and the features of the crate |
//! | [`redis`] | several nodes: keys, the path of an event, failures |
//! | [`redis_servers`] | versions, TLS, rights, replicas, Sentinel, Cluster |
//! | [`guarantees`] | what is promised under which fault, what is not, and measurements |
//! | [`security`] | the model, your part, and OWASP item by item |
//! | [`testing`] | your application's tests, and conformance suites |
//! | [`porting`] | from the npm package koa-io-session |

// In Markdown the first definition of a link wins: `rustdoc-links.md` points the links of the pages,
// which are paths of files, to their places in this documentation.
macro_rules! pages {
    ($($name:ident $file:literal)*) => { $(
        #[doc = include_str!("../docs/guide/rustdoc-links.md")]
        #[doc = ""]
        #[doc = include_str!(concat!("../", $file))]
        pub mod $name {}
    )* };
}

pages! {
    http "docs/guide/http.md"
    sockets "docs/guide/sockets.md"
    connections "docs/guide/connections.md"
    events "docs/guide/events.md"
    options "docs/guide/options.md"
    redis "docs/guide/redis.md"
    redis_servers "deploy/redis.md"
    guarantees "docs/GUARANTEES.md"
    security "docs/SECURITY.md"
    testing "docs/guide/testing.md"
    porting "docs/PORTING.md"
}
