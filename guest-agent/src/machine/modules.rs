//! Kernel modules from the initramfs.

use crate::failure::words;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

const DIRECTORY: &str = "/machine";

/// Loads those of the list. A failure is told and passed over: what misses the module will say
/// more about it than this could.
pub(super) fn load() {
    let list = std::fs::read_to_string(format!("{DIRECTORY}/modules")).unwrap_or_default();
    for name in list.lines().map(str::trim) {
        if name.is_empty() || name.starts_with('#') {
            continue;
        }
        match load_one(name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => eprintln!("hullbox-agent: module {name}: {}", words(errno)),
        }
    }
    // Their memory is needed for better things.
    let _ = std::fs::remove_dir_all(DIRECTORY);
}

fn load_one(name: &str) -> Result<(), Errno> {
    let path = format!("{DIRECTORY}/{name}");
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::system::finit_module(&file, c"", 0)
}
