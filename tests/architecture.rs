//! The modules' arrows point one way.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may name of the crate, besides itself. `error` is everybody's.
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
    ])
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
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

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What follows each `prefix` that begins a path.
fn paths<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(prefix).filter_map(move |(at, _)| {
        let before = code[..at].chars().last();
        let begins = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
        begins.then(|| &code[at + prefix.len()..])
    })
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&root, &mut found);
    assert!(found.len() > 30, "only {} sources found", found.len());
    let exported = exported(&fs::read_to_string(root.join("lib.rs")).unwrap());
    assert_eq!(exported["SessionBridge"], "bridge");
    assert_eq!(exported["SessionId"], "session");
    let mut wrong = Vec::new();
    for path in found {
        let inside = path.strip_prefix(&root).unwrap().display().to_string();
        if inside == "lib.rs" {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        wrong.extend(wrong_arrows(&inside, &source, &exported));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn concrete_backends_are_named_by_the_builder_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&root, &mut found);
    for path in found {
        let inside = path.strip_prefix(&root).unwrap().display().to_string();
        let source = fs::read_to_string(&path).unwrap();
        if source.contains("LocalBackend") || source.contains("RedisBackend") {
            let may = inside == "bridge/builder.rs" || inside.starts_with("backend/");
            assert!(may, "{inside} names a concrete backend");
        }
    }
}

#[test]
fn fred_is_named_by_the_redis_backend_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&root, &mut found);
    for path in found {
        let inside = path.strip_prefix(&root).unwrap().display().to_string();
        let source = fs::read_to_string(&path).unwrap();
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
