//! The modules' arrows point one way.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may name of the crate, besides itself. `error` is everybody's.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("error", vec![]),
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

/// The modules of this crate that a source names, in code, not in comments. Names that `lib.rs`
/// exports again count as `lib`.
fn named(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in source.lines() {
        let code = line.split("//").next().unwrap();
        for (at, _) in code.match_indices("crate::") {
            let rest = &code[at + "crate::".len()..];
            let name: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let boundary =
                code[..at].chars().last().is_none_or(|c| !c.is_alphanumeric() && c != '_');
            if boundary {
                names.push(name);
            }
        }
    }
    names
}

/// Arrows that point the wrong way, as sentences.
fn wrong_arrows(module: &str, file: &str, source: &str) -> Vec<String> {
    let allowed = allowed();
    let Some(may) = allowed.get(module) else {
        return vec![format!("{file}: module `{module}` has no place in the layers")];
    };
    named(source)
        .into_iter()
        // Types that lib.rs exports again: only errors are named so, and in tests.
        .filter(|name| name.starts_with(|c: char| c.is_lowercase()))
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
    let mut wrong = Vec::new();
    for path in found {
        let inside = path.strip_prefix(&root).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        if module == "lib" {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        wrong.extend(wrong_arrows(module, &inside.display().to_string(), &source));
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
        if source.contains("SingleBackend") || source.contains("RedisBackend") {
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
    assert_eq!(wrong_arrows("web", "x", "use crate::socket::attach;").len(), 1);
    assert_eq!(
        wrong_arrows("session", "x", "    let a = crate::store::LiveStore::new();").len(),
        1
    );
    assert_eq!(wrong_arrows("store", "x", "pub(crate) use crate::backend::Known;").len(), 1);
    assert_eq!(wrong_arrows("socket", "x", "use crate::bridge::Call; // not crate::web").len(), 0);
    assert_eq!(wrong_arrows("new", "x", "").len(), 1);
}
