//! The sources of the crate, and the paths that they name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Sources by their path inside `src`.
pub type Sources = BTreeMap<String, String>;

/// All sources but `lib.rs`.
pub fn read_sources() -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    find(&root, &mut found);
    let source = |path: PathBuf| {
        let inside = path.strip_prefix(&root).unwrap().display().to_string();
        (inside, fs::read_to_string(&path).unwrap())
    };
    let mut sources: Sources = found.into_iter().map(source).collect();
    sources.remove("lib.rs");
    sources
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

pub fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What follows each `prefix` that begins a path.
pub fn paths<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(prefix).filter_map(move |(at, _)| {
        let before = code[..at].chars().last();
        let begins = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
        begins.then(|| &code[at + prefix.len()..])
    })
}

/// The code of a source: no comments, and not its tests, which may name what they like.
pub fn code(source: &str) -> String {
    let outside = source.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines = outside.lines().map(|line| line.split("//").next().unwrap());
    lines.fold(String::new(), |code, line| code + line + "\n")
}

/// The module that a file is, as segments: `a/b.rs` and `a/b/mod.rs` are `a::b`.
pub fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap();
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    stem.split('/').map(str::to_owned).collect()
}

/// The file of a module.
pub fn file_of(module: &[String], sources: &Sources) -> Option<String> {
    let stem = module.join("/");
    [format!("{stem}.rs"), format!("{stem}/mod.rs")]
        .into_iter()
        .find(|file| sources.contains_key(file))
}

/// All paths of a `use` tree, or of an expression, that begins with `text`.
pub fn tree(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        return members(group).into_iter().flat_map(tree).collect();
    }
    let name = identifier(text);
    if name.is_empty() {
        return vec![Vec::new()];
    }
    match text[name.len()..].strip_prefix("::") {
        Some(rest) => tree(rest)
            .into_iter()
            .map(|path| std::iter::once(name.clone()).chain(path).collect())
            .collect(),
        None => vec![vec![name]],
    }
}

/// The members of a group, whose opening brace is taken off.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                found.push(&group[begin..at]);
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found.retain(|member| !member.trim().is_empty());
    found
}

/// The modules and items that a file names, as paths from the crate's root.
pub fn named_paths(file: &str, code: &str) -> Vec<Vec<String>> {
    let module = module_of(file);
    let mut found = Vec::new();
    let mut add = |base: &[String], rest: &str| {
        found.extend(tree(rest).into_iter().map(|path| [base, &path].concat()));
    };
    for rest in paths(code, "crate::") {
        add(&[], rest);
    }
    for rest in paths(code, "self::") {
        add(&module, rest);
    }
    for rest in paths(code, "super::") {
        let (mut base, mut rest) = (&module[..module.len() - 1], rest);
        while let Some(further) = rest.strip_prefix("super::") {
            (base, rest) = (&base[..base.len() - 1], further);
        }
        add(base, rest);
    }
    for child in children(code) {
        for rest in paths(code, &format!("{child}::")) {
            add(&[module.clone(), vec![child.clone()]].concat(), rest);
        }
    }
    found
}

/// The modules that a file declares.
fn children(code: &str) -> Vec<String> {
    let declared = code.lines().filter_map(|line| {
        let name = line.trim_end().strip_suffix(';')?.rsplit_once("mod ")?.1;
        (!line.starts_with(' ')).then(|| name.to_owned())
    });
    declared.collect()
}

/// The file where a path leads, through re-exports, and the item there, if it names one.
pub fn resolve(path: &[String], sources: &Sources) -> Option<(String, Option<String>)> {
    let mut module = Vec::new();
    let mut home = None;
    for segment in path {
        module.push(segment.clone());
        if let Some(file) = file_of(&module, sources) {
            home = Some(file);
            continue;
        }
        // A folder without a file of its own is no module.
        let file = home?;
        let code = code(&sources[&file]);
        return match re_export(&file, &code, segment).filter(|path| path != &module) {
            Some(path) => resolve(&path, sources),
            None => Some((file, Some(segment.clone()))),
        };
    }
    home.map(|file| (file, None))
}

/// The path that a file exports again under this name.
fn re_export(file: &str, code: &str, name: &str) -> Option<Vec<String>> {
    re_exports(code)
        .into_iter()
        .flat_map(|statement| named_paths(file, &format!("{}{statement}", declarations(code))))
        .find(|path| path.last().is_some_and(|last| last == name))
}

fn declarations(code: &str) -> String {
    children(code).iter().map(|child| format!("mod {child};\n")).collect()
}

/// The statements that export something again.
pub fn re_exports(code: &str) -> Vec<String> {
    let begins = |statement: &&str| {
        let statement = statement.trim_start();
        statement.starts_with("pub use ") || statement.starts_with("pub(crate) use ")
    };
    let statements = code.split(';').map(|statement| {
        // Attributes stand before it.
        statement.rfind("pub").map_or(statement, |at| &statement[at..])
    });
    statements.filter(begins).map(|statement| format!("{statement};")).collect()
}
