//! Node.js programs under `js/`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program under `js/` and shows what it printed.
///
/// # Panics
/// If it does not end with code 0, or Node.js is missing.
pub fn run_js(program: &str, arguments: &[&str]) {
    run_js_with(program, arguments, &[]);
}

/// [`run_js`] with variables in the environment.
///
/// # Panics
/// As [`run_js`].
pub fn run_js_with(program: &str, arguments: &[&str], variables: &[(&str, &str)]) {
    let output = Command::new("node")
        .arg(program)
        .args(arguments)
        .current_dir(folder())
        .envs(variables.iter().copied())
        .output()
        .expect("Node.js is missing: install version 18 or later");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?} failed: see its lines above");
}

/// Where the programs are, with their packages.
pub(crate) fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("js");
    install(&folder);
    folder
}

/// Fetches the packages once. Tests run as processes side by side: one fetches, others wait.
fn install(folder: &Path) {
    let lock = File::create(folder.join(".install.lock")).expect("js/ can be written");
    lock.lock().expect("js/.install.lock can be locked");
    let wanted = std::fs::read_to_string(folder.join("package.json")).expect("js/package.json");
    let marker = folder.join("node_modules").join(".installed");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return;
    }
    let output = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--no-package-lock"])
        .current_dir(folder)
        .output()
        .expect("npm is missing: install it with Node.js");
    assert!(
        output.status.success(),
        "npm could not fetch the packages of js/package.json:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::write(marker, wanted).expect("js/node_modules can be written");
}

/// The browser: `$CHROMIUM`, or what Debian and others call it.
///
/// # Panics
/// If there is none.
pub fn chromium() -> PathBuf {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    named
        .into_iter()
        .chain(usual.map(PathBuf::from))
        .find(|path| path.exists())
        .expect("Chromium is missing: install the package `chromium`, or set CHROMIUM to its path")
}
