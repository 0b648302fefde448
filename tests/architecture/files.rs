//! Circles between files.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{self, Sources};

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Files that use each other: each circle once, beginning and ending with its first file.
///
/// What a file only exports again it does not use.
pub fn circles(sources: &Sources) -> Vec<Vec<String>> {
    let graph = graph(sources);
    let mut circles: Vec<Vec<String>> = Vec::new();
    for file in graph.keys() {
        // The first file of a circle finds it, and no later one again.
        let known = circles.iter().any(|circle| circle.contains(file));
        if let Some(circle) = way_back(file, &graph).filter(|_| !known) {
            circles.push(circle);
        }
    }
    circles
}

fn graph(sources: &Sources) -> Graph {
    let uses = |(file, source): (&String, &String)| {
        let code = source::code(source);
        let code = without_mere_re_exports(&code);
        let used = source::named_paths(file, &code).into_iter().filter_map(|path| {
            let (home, _) = source::resolve(&path, sources)?;
            (home != *file).then_some(home)
        });
        (file.clone(), used.collect())
    };
    sources.iter().map(uses).collect()
}

/// The code without the names that it exports again and does not use itself.
fn without_mere_re_exports(code: &str) -> String {
    let mut rest = code.to_owned();
    let statements = source::re_exports(code);
    for statement in &statements {
        rest = rest.replace(statement.as_str(), "");
    }
    for statement in &statements {
        let used = source::named_paths("x.rs", &format!("mod x;\n{}", as_child(statement)));
        let mut names = used.iter().filter_map(|path| path.last());
        if names.any(|name| is_word_of(name, &rest)) {
            rest.push_str(statement);
        }
    }
    rest
}

/// The statement with its path made one of a module `x`, whatever it begins with.
fn as_child(statement: &str) -> String {
    let tree = statement.split_once(" use ").map_or("", |(_, tree)| tree);
    format!("use x::{tree}")
}

fn is_word_of(name: &str, code: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

/// The shortest way from a file back to itself.
fn way_back(file: &str, graph: &Graph) -> Option<Vec<String>> {
    let mut ways = vec![vec![file.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in graph.get(way.last()?).into_iter().flatten() {
                let way = [way.as_slice(), std::slice::from_ref(next)].concat();
                if next == file {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

#[test]
fn a_circle_is_found_and_a_mere_re_export_is_none() {
    let sources = |files: &[(&str, &str)]| -> Sources {
        files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect()
    };
    let shared = "mod b;\nmod c;\npub use b::B;\npub(crate) use c::{C, D};\n";
    for (b, c, found) in [
        ("use super::c::C;", "use super::b;", Some("a/b.rs -> a/c.rs -> a/b.rs")),
        (
            "use crate::a::{C, X};",
            "fn f() { crate::a::b::f(); }",
            Some("a/b.rs -> a/c.rs -> a/b.rs"),
        ),
        ("use super::C;", "use self::d::D;", None),
        ("use super::C;", "// use super::b;", None),
        ("use super::C;", "#[cfg(test)]\nmod tests { use super::super::b; }", None),
    ] {
        let files = [("a/mod.rs", shared), ("a/b.rs", b), ("a/c.rs", c), ("a/c/d.rs", "")];
        let circles = circles(&sources(&files));
        let circles: Vec<String> = circles.iter().map(|circle| circle.join(" -> ")).collect();
        assert_eq!(circles, found.into_iter().collect::<Vec<_>>(), "{b} | {c}");
    }
    // A `mod.rs` that uses its child, which uses it.
    let uses = "mod b;\npub use b::B;\npub struct A(B);\n";
    let files = [("a/mod.rs", uses), ("a/b.rs", "use super::A;")];
    assert_eq!(circles(&sources(&files)).len(), 1);
    let files =
        [("a/mod.rs", "mod b;\npub use b::B;\npub struct A;\n"), ("a/b.rs", "use super::A;")];
    assert!(circles(&sources(&files)).is_empty());
    let files =
        [("a/mod.rs", "mod b;\nfn f() { b::g(); }\nfn h() {}"), ("a/b.rs", "use super::h;")];
    assert_eq!(circles(&sources(&files)).len(), 1);
}
