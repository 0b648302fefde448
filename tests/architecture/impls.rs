//! `impl`s outside the files of their types.

use crate::source::{self, Sources, identifier};

/// An `impl` in a place that is not its type's.
#[derive(Debug)]
pub struct Stray {
    pub file: String,
    /// What it says before its brace.
    pub head: String,
    /// The file that defines the type.
    pub home: String,
}

/// The `impl`s of this crate's types that are neither in the type's file, or below it, nor, for a
/// trait of this crate, in the trait's.
pub fn strays(sources: &Sources) -> Vec<Stray> {
    let mut strays = Vec::new();
    for (file, text) in sources {
        let code = source::code(text);
        for head in heads(&code) {
            let (of_trait, of_type) = parts(&head);
            let home = |name: &str| home_of(name, file, &code, sources);
            let Some(type_home) = home(&of_type) else { continue };
            let in_trait = of_trait.and_then(|name| home(&name)).is_some_and(|home| home == *file);
            if !in_trait && !is_in_or_below(file, &type_home) {
                strays.push(Stray { file: file.clone(), head, home: type_home });
            }
        }
    }
    strays
}

/// What each `impl` at the top level says before its brace.
fn heads(code: &str) -> Vec<String> {
    let mut heads = Vec::new();
    for (at, _) in code.match_indices("impl") {
        let begins = at == 0 || code[..at].ends_with('\n');
        let goes_on = code[at + 4..].starts_with(['<', ' ']);
        if begins && goes_on {
            let head = code[at..].split(['{', ';']).next().unwrap();
            heads.push(head.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    heads
}

/// The names of the trait and of the type.
fn parts(head: &str) -> (Option<String>, String) {
    let head = head.strip_prefix("impl").unwrap();
    let head = head.split(" where ").next().unwrap();
    let head = without_generics(head);
    match head.split_once(" for ") {
        Some((of_trait, of_type)) => (Some(last_name(of_trait)), last_name(of_type)),
        None => (None, last_name(&head)),
    }
}

/// The text without what is in angle brackets; arrows of function types stay.
fn without_generics(text: &str) -> String {
    let (mut depth, mut before, mut rest) = (0, ' ', String::new());
    for c in text.chars() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            _ if depth == 0 => rest.push(c),
            _ => {}
        }
        before = c;
    }
    rest
}

/// The last name of a path.
fn last_name(path: &str) -> String {
    let path = path.trim().trim_start_matches('&').trim_start_matches("mut ");
    identifier(path.rsplit("::").next().unwrap().trim())
}

/// The file that defines what `file` calls by this name.
fn home_of(name: &str, file: &str, code: &str, sources: &Sources) -> Option<String> {
    if defines(code, name) {
        return Some(file.to_owned());
    }
    source::named_paths(file, code)
        .into_iter()
        .filter(|path| path.last().is_some_and(|last| last == name))
        .filter_map(|path| source::resolve(&path, sources))
        .find(|(home, _)| defines(&source::code(&sources[home]), name))
        .map(|(home, _)| home)
}

fn defines(code: &str, name: &str) -> bool {
    ["struct", "enum", "union", "trait"].iter().any(|kind| {
        let definition = format!("{kind} {name}");
        code.match_indices(&definition).any(|(at, _)| {
            let after = code[at + definition.len()..].chars().next();
            let before = code[..at].chars().last();
            after.is_none_or(|c| !c.is_alphanumeric() && c != '_')
                && before.is_none_or(char::is_whitespace)
        })
    })
}

/// Whether a file is another, or of a module inside that one's.
fn is_in_or_below(file: &str, home: &str) -> bool {
    source::module_of(file).starts_with(&source::module_of(home))
}

#[test]
fn a_stray_impl_is_found() {
    let types = "pub struct T<X>(X);\npub trait R {}\nimpl<X> T<X> {}\n";
    for (file, text, found) in [
        ("a/c.rs", "use super::b::T;\nimpl<X: Fn(u8) -> u8> T<X> {}", true),
        ("a/c.rs", "impl std::fmt::Debug for super::b::T<u8> where u8: Copy {}", true),
        ("a/c.rs", "use crate::a::{b::{R, T}, X};\nimpl R for T<u8> {}", true),
        ("a/c.rs", "use crate::a::b::{R, T};\nimpl From<T<u8>> for String {}", false),
        ("a/c.rs", "use super::b::T;\npub trait S {}\nimpl S for T<u8> {}", false),
        ("a/c.rs", "pub struct T;\nimpl T {}", false),
        ("a/c.rs", "use super::b::R;\nimpl R for u8 {}", false),
        ("a/b/d.rs", "use super::T;\nimpl T<u8> {}", false),
    ] {
        let files = [("a/mod.rs", "mod b;\nmod c;\n"), ("a/b.rs", types), (file, text)];
        let sources: Sources =
            files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
        let strays = strays(&sources);
        assert_eq!(!strays.is_empty(), found, "{file}: {text}: {strays:?}");
    }
}
