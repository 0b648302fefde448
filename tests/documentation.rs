//! The documents agree with the source, and their links lead somewhere: in a forge, where a page is a
//! file, and in rustdoc.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// The files of a folder with this extension, as paths from the root.
fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|found| found == extension) {
            found.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
        }
    }
    found.sort();
    found
}

/// Every document that people read.
fn documents() -> Vec<String> {
    ["", "docs", "docs/guide", "docs/adr", "deploy"].map(|folder| files(folder, "md")).concat()
}

/// The documents that rustdoc renders.
fn rustdoc_pages() -> Vec<String> {
    let guide = read("src/guide.rs");
    let (_, list) = guide.split_once("\npages! {").unwrap();
    let named = list.split('"').filter(|part| Path::new(part).extension().is_some());
    named.map(str::to_owned).chain(["README.md".to_owned()]).collect()
}

/// A document without its code blocks and code spans.
fn prose(text: &str) -> String {
    let mut blocks = text.split("\n```");
    let mut out = blocks.next().unwrap_or_default().to_owned();
    for (index, block) in blocks.enumerate() {
        if index % 2 == 1 {
            out.push_str(block.split_once('\n').map_or("", |(_, rest)| rest));
        }
        out.push('\n');
    }
    out.split('`').step_by(2).collect()
}

/// The targets of `[name]: target` lines, by name.
fn definitions(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
    lines.map(|(name, target)| (name.to_owned(), target.to_owned())).collect()
}

/// The targets of `[text](target)` links.
fn inline_links(text: &str) -> Vec<String> {
    let ends = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    ends.map(|(target, _)| target.to_owned()).collect()
}

fn is_relative(target: &str) -> bool {
    !target.contains("://") && !target.starts_with("crate::") && !target.starts_with('#')
}

/// The anchor that forges and rustdoc give a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with("##"));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

#[test]
fn the_quick_start_of_the_readme_is_the_example() {
    let readme = read("README.md");
    let (_, code) = readme.split_once("```rust,no_run\n").unwrap();
    let (code, _) = code.split_once("```").unwrap();
    let example = read("examples/quick_start.rs");
    let (_, example) = example.split_once("\n\n").unwrap();
    assert_eq!(code.trim(), example.trim());
}

#[test]
fn the_table_of_options_names_every_option() {
    let table = read("docs/guide/options.md");
    let mut sources = vec!["src/bridge/builder.rs".into(), "src/backend/redis/config.rs".into()];
    sources.extend(files("src/bridge/builder", "rs"));
    let mut options = Vec::new();
    for source in sources {
        let text = read(&source);
        for method in text.split("pub fn ").skip(1) {
            let (name, rest) = method.split_once('(').unwrap();
            if rest.trim_start().starts_with("self") || rest.trim_start().starts_with("mut self") {
                options.push(name.split('<').next().unwrap().to_owned());
            }
        }
    }
    assert!(options.len() > 40, "{options:?}");
    options.retain(|option| !table.contains(&format!("`{option}`")));
    assert!(options.is_empty(), "not in docs/guide/options.md: {options:?}");
}

#[test]
fn every_link_to_a_file_or_a_heading_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = prose(&read(&document));
        let folder = Path::new(&document).parent().unwrap();
        for target in inline_links(&text).into_iter().chain(definitions(&text).into_values()) {
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let page = if file.is_empty() { document.clone().into() } else { folder.join(file) };
            let found = !is_relative(file) || root().join(&page).exists();
            let is_page = is_relative(file) && page.extension().is_some_and(|found| found == "md");
            let is_heading =
                |page: &Path| anchors(&read(page.to_str().unwrap())).contains(&heading.into());
            if !found || (is_page && !heading.is_empty() && !is_heading(&page)) {
                broken.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_link_to_a_file_has_a_place_in_rustdoc() {
    let places = definitions(&read("docs/guide/rustdoc-links.md"));
    let mut missing = Vec::new();
    for page in rustdoc_pages() {
        let text = prose(&read(&page));
        let inline = inline_links(&text).into_iter().filter(|target| is_relative(target));
        missing.extend(inline.map(|target| format!("{page}: ({target}) is no reference")));
        let named = definitions(&text).into_keys().filter(|name| !places.contains_key(name));
        missing.extend(named.map(|name| format!("{page}: [{name}] is not in rustdoc-links.md")));
        let used = text.split("][").skip(1).filter_map(|rest| rest.split_once(']'));
        let names = definitions(&text);
        let undefined = used.filter(|(name, _)| !names.contains_key(*name));
        missing.extend(undefined.map(|(name, _)| format!("{page}: [{name}] has no target")));
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}
