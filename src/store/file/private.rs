//! The file's rights: only its owner reads and writes it.
//!
//! On Unix only. Elsewhere the folder's rights decide.

#[cfg(unix)]
use std::fs::Permissions;
use std::fs::{File, OpenOptions};
use std::io;
#[cfg(unix)]
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// What the owner may do.
#[cfg(unix)]
const OWNER_ONLY: u32 = 0o600;

/// Opens the file, or creates it with no rights for others.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // A later change of the mode would leave a moment in which others can open the file.
    #[cfg(unix)]
    options.mode(OWNER_ONLY);
    options.open(path)
}

/// Takes the rights of others from a file that has them.
#[cfg(unix)]
pub(super) fn narrow(file: &File, path: &Path) {
    let narrowed = file.metadata().and_then(|metadata| {
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & !OWNER_ONLY != 0 {
            file.set_permissions(Permissions::from_mode(mode & OWNER_ONLY))?;
        }
        Ok(())
    });
    if let Err(error) = narrowed {
        // Another user's file, or a file system without rights: sessions still work.
        tracing::warn!(
            %error, path = %path.display(),
            "the session file's rights could not be narrowed; see to it that no other user can read it"
        );
    }
}

#[cfg(not(unix))]
pub(super) fn narrow(_file: &File, _path: &Path) {}
