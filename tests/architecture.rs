//! The modules' arrows point one way, and so do those of the files.
#![allow(unreachable_pub)] // its files are modules of one program
#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "architecture/files.rs"]
mod files;
#[path = "architecture/impls.rs"]
mod impls;
#[path = "architecture/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use source::{identifier, paths, read_sources};

/// `impl`s for types of lower modules, which may not name what these bring: the traits of axum, and the
/// layer.
const UPWARD: &[(&str, &str)] = &[
    ("web/extract.rs", "FromRequestParts<S> for Session"),
    ("web/extract.rs", "FromRequestParts<S> for Handshake"),
    ("web/layer.rs", "impl SessionBridge"),
    ("web/rejection.rs", "IntoResponse for Error"),
];

/// Whether an `impl` may be where it is although its type is defined elsewhere.
fn is_upward(file: &str, head: &str) -> bool {
    UPWARD.iter().any(|(place, what)| file == *place && head.ends_with(what))
}

/// What each module may name of the crate, besides itself. All may name `error`.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("error", vec![]),
        ("guide", vec![]),
        ("session", vec![]),
        ("store", vec!["session"]),
        ("backend", vec!["session", "store"]),
        ("bridge", vec!["session", "store", "backend"]),
        ("web", vec!["session", "backend", "bridge"]),
        ("socket", vec!["session", "backend", "bridge"]),
        ("monitor", vec!["session", "bridge"]),
        ("serve", vec!["bridge"]),
    ])
}

/// The module of each name that `lib.rs` exports again.
fn exported(lib: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for statement in lib.split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else { continue };
        let (module, list) = path.split_once("::").unwrap();
        for name in list.trim_matches(['{', '}']).split(',') {
            names.insert(name.trim_matches(['{', '}', ' ', '\n']).to_owned(), module.to_owned());
        }
    }
    names
}

/// What a source names of this crate's root, in code, not in comments. `depth` is how many
/// `super` lead from its module to the root.
fn named(source: &str, depth: usize) -> Vec<String> {
    let mut names = Vec::new();
    let up = "super::".repeat(depth);
    // Modules inside a file are a level further down, and only tests are such.
    let outside = source.split("#[cfg(test)]\nmod ").next().unwrap().len();
    let mut read = 0;
    for line in source.split_inclusive('\n') {
        let code = line.split("//").next().unwrap();
        let root = if read < outside { up.clone() } else { format!("super::{up}") };
        read += line.len();
        for rest in paths(code, "crate::").chain(paths(code, &root)) {
            match rest.strip_prefix('{') {
                // `use crate::{a::B, c::D}`, on one line as this test wants it.
                Some(group) => names.extend(group.split(',').map(|path| identifier(path.trim()))),
                None => names.push(identifier(rest)),
            }
        }
    }
    names
}

/// Arrows that point the wrong way, as sentences.
fn wrong_arrows(file: &str, source: &str, exported: &BTreeMap<String, String>) -> Vec<String> {
    let parts: Vec<&str> = file.strip_suffix(".rs").unwrap().split('/').collect();
    let module = parts[0];
    let depth = parts.len() - usize::from(parts.last() == Some(&"mod"));
    let allowed = allowed();
    let Some(may) = allowed.get(module) else {
        return vec![format!("{file}: module `{module}` has no place in the layers")];
    };
    named(source, depth)
        .into_iter()
        .map(|name| exported.get(&name).cloned().unwrap_or(name))
        .filter(|name| name != module && name != "error" && !may.contains(&name.as_str()))
        .map(|name| format!("{file}: `{module}` names `{name}`, which is above or beside it"))
        .collect()
}

#[test]
fn every_arrow_points_down() {
    let sources = read_sources();
    assert!(sources.len() > 30, "only {} sources found", sources.len());
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let exported = exported(&fs::read_to_string(lib).unwrap());
    assert_eq!(exported["SessionBridge"], "bridge");
    assert_eq!(exported["SessionId"], "session");
    let mut wrong = Vec::new();
    for (file, source) in &sources {
        wrong.extend(wrong_arrows(file, source, &exported));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn concrete_backends_are_named_by_the_builder_only() {
    for (inside, source) in read_sources() {
        if source.contains("LocalBackend") || source.contains("RedisBackend") {
            let may = inside == "bridge/builder.rs" || inside.starts_with("backend/");
            assert!(may, "{inside} names a concrete backend");
        }
    }
}

#[test]
fn fred_is_named_by_the_redis_backend_only() {
    for (inside, source) in read_sources() {
        let may = inside.starts_with("backend/redis/");
        assert!(may || !source.contains("fred::"), "{inside} names fred");
    }
}

#[test]
fn a_wrong_arrow_is_found() {
    let exported = exported("pub use bridge::{SessionBridge, A};\npub use session::SessionId;");
    for (file, source, wrong) in [
        ("web/x.rs", "use crate::socket::attach;", 1),
        ("session/x.rs", "    let a = crate::store::LiveStore::new();", 1),
        ("store/x.rs", "pub(crate) use crate::backend::SessionSnapshot;", 1),
        ("session/x.rs", "use crate::{bridge::A, store::B, error::C};", 2),
        ("session/x.rs", "fn f(_: crate::SessionBridge) {}", 1),
        ("store/mod.rs", "use super::backend::SessionSnapshot;", 1),
        ("store/file/x.rs", "use super::super::super::backend::SessionSnapshot;", 1),
        ("store/x.rs", "\n#[cfg(test)]\nmod tests { use super::super::super::backend::A; }", 1),
        ("new/x.rs", "", 1),
        ("socket/x.rs", "use crate::bridge::Call; // not crate::web", 0),
        ("store/x.rs", "use crate::SessionId; use super::super::session::A;", 0),
        ("store/file/x.rs", "use super::super::StoreEntry; use super::writer::A;", 0),
        ("store/x.rs", "\n#[cfg(test)]\nmod tests { use super::*; use super::super::now_ms; }", 0),
    ] {
        assert_eq!(wrong_arrows(file, source, &exported).len(), wrong, "{file}: {source}");
    }
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let circles = files::circles(&read_sources());
    let wrong: Vec<String> = circles.into_iter().map(|circle| circle.join(" -> ")).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn types_are_implemented_in_their_own_file_or_below_it() {
    let strays = impls::strays(&read_sources());
    let wrong: Vec<String> = strays
        .into_iter()
        .filter(|stray| !is_upward(&stray.file, &stray.head) && !stray.file.contains("/tests/"))
        .map(|stray| format!("{}: `{}` is defined in {}", stray.file, stray.head, stray.home))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
