//! What containers were refused that do not run any more.

use hullbox_model::container::Refused;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Where it is found when there is no monitor.
const FILE: &str = "refused.json";
/// Largest such file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Leaves it for when there is no monitor; nothing is left where nothing was refused. A container whose
/// directory cannot be written is none the worse for it.
pub(super) fn keep(dir: &Path, refused: &Refused) {
    let path = dir.join(FILE);
    if *refused == Refused::default() {
        let _ = fs::remove_file(path);
        return;
    }
    let staged = dir.join(format!("{FILE}.new"));
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged);
    let written = file.and_then(|mut file| file.write_all(&serde_json::to_vec(refused)?));
    let _ = written.and_then(|()| fs::rename(&staged, path));
}

/// That of the last run.
#[must_use]
pub fn kept(dir: &Path) -> Refused {
    let mut bytes = Vec::new();
    let read = File::open(dir.join(FILE)).and_then(|f| f.take(MAX_FILE).read_to_end(&mut bytes));
    read.ok()
        .and_then(|_| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_counts() {
        let dir = std::env::temp_dir().join(format!("hullbox-refused-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let refused = Refused {
            names: 3,
            ..Refused::default()
        };
        keep(&dir, &refused);
        assert_eq!(kept(&dir), refused);
        keep(&dir, &Refused::default());
        assert_eq!(kept(&dir), Refused::default());
        // Nothing is left.
        fs::remove_dir(&dir).unwrap();
    }
}
