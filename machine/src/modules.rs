//! Kernel modules: which files a set of modules needs, in an order in which they load.
//!
//! Dependencies come from each module's own `.modinfo`, not from `modules.dep`: that file is made
//! by depmod when a kernel package is installed, and ours may only have been unpacked.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// No module is larger than this, decompressed, in bytes.
const MAX_MODULE_BYTES: u64 = 64 * 1024 * 1024;
/// Directories in a module tree nest no deeper.
const MAX_DEPTH: usize = 16;

/// Why modules cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The tree or a file in it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel has no such module, built in or not.
    #[error("the kernel has no module {0}")]
    Missing(String),
    /// A compressed module does not decompress.
    #[error("cannot decompress {}", .0.display())]
    Decompress(PathBuf),
}

/// A module ready to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The ELF object.
    pub bytes: Vec<u8>,
}

/// The modules of one kernel: `/lib/modules/VERSION`.
#[derive(Debug)]
pub struct ModuleTree {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

impl ModuleTree {
    /// Lists a module directory.
    ///
    /// # Errors
    /// [`ModuleError::Read`].
    pub fn open(dir: &Path) -> Result<Self, ModuleError> {
        let mut files = BTreeMap::new();
        collect(&dir.join("kernel"), MAX_DEPTH, &mut files)?;
        // A kernel without the list has nothing to say about what is built in.
        let builtin = fs::read_to_string(dir.join("modules.builtin"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        Ok(Self { files, builtin })
    }

    /// Whether the kernel has the module, in whatever form.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let name = normal(name);
        self.files.contains_key(&name) || self.builtin.contains(&name)
    }

    /// The modules and all they depend on, dependencies first. What is built in needs no loading.
    ///
    /// # Errors
    /// [`ModuleError`]; a module that is not there at all is [`ModuleError::Missing`].
    pub fn load_order(&self, wanted: &[&str]) -> Result<Vec<Module>, ModuleError> {
        let mut order = Vec::new();
        let mut visited = BTreeSet::new();
        for name in wanted {
            self.visit(&normal(name), &mut visited, &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        visited: &mut BTreeSet<String>,
        order: &mut Vec<Module>,
    ) -> Result<(), ModuleError> {
        // Marked before its dependencies are, so that a cycle in a broken tree ends.
        if self.builtin.contains(name) || !visited.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self
            .files
            .get(name)
            .ok_or_else(|| ModuleError::Missing(name.to_owned()))?;
        let bytes = read_module(path)?;
        for dependency in dependencies(&bytes) {
            self.visit(&dependency, visited, order)?;
        }
        order.push(Module {
            name: name.to_owned(),
            bytes,
        });
        Ok(())
    }
}

/// File names use `-` and `_` as their authors liked; the kernel knows only `_`.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The name of the module in a file, `None` if it is none.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let (stem, extension) = name.split_once(".ko")?;
    matches!(extension, "" | ".xz" | ".gz" | ".zst").then(|| normal(stem))
}

fn collect(
    dir: &Path,
    depth: usize,
    files: &mut BTreeMap<String, PathBuf>,
) -> Result<(), ModuleError> {
    let read_error = |source| ModuleError::Read {
        path: dir.to_owned(),
        source,
    };
    for entry in fs::read_dir(dir).map_err(read_error)? {
        let entry = entry.map_err(read_error)?;
        let path = entry.path();
        if entry.file_type().map_err(read_error)?.is_dir() {
            if depth > 0 {
                collect(&path, depth - 1, files)?;
            }
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

fn read_module(path: &Path) -> Result<Vec<u8>, ModuleError> {
    let read_error = |source| ModuleError::Read {
        path: path.to_owned(),
        source,
    };
    let broken = |_| ModuleError::Decompress(path.to_owned());
    let file = fs::File::open(path).map_err(read_error)?;
    let mut bytes = Vec::new();
    match path.extension().map(OsStr::as_bytes) {
        Some(b"zst") => zstd::Decoder::new(file)
            .map_err(read_error)?
            .take(MAX_MODULE_BYTES)
            .read_to_end(&mut bytes)
            .map_err(broken)?,
        // Not worth a library: what can read its own system's modules has these programs.
        Some(b"xz") => return decompress_with("xz", path),
        Some(b"gz") => return decompress_with("gzip", path),
        _ => file
            .take(MAX_MODULE_BYTES)
            .read_to_end(&mut bytes)
            .map_err(read_error)?,
    };
    Ok(bytes)
}

fn decompress_with(program: &str, path: &Path) -> Result<Vec<u8>, ModuleError> {
    let output = Command::new(program)
        .arg("-dc")
        .arg(path)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|_| ModuleError::Decompress(path.to_owned()))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(ModuleError::Decompress(path.to_owned()))
    }
}

/// The `depends=` list in a module's `.modinfo`, which is a run of NUL-terminated `key=value`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    module
        .windows(KEY.len())
        .position(|window| window == KEY)
        .map(|at| &module[at + KEY.len()..])
        .and_then(|rest| rest.split(|&byte| byte == 0).next())
        .and_then(|list| std::str::from_utf8(list).ok())
        .map(|list| {
            list.split(',')
                .filter(|name| !name.is_empty())
                .map(normal)
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(modules: &[(&str, &str)], builtin: &str) -> (PathBuf, ModuleTree) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("hullbox-modules-{}-{number}", std::process::id()));
        fs::create_dir_all(dir.join("kernel/sub")).unwrap();
        for (file, depends) in modules {
            let text = format!("\x7fELF\0license=GPL\0depends={depends}\0name=x\0");
            fs::write(dir.join("kernel/sub").join(file), text).unwrap();
        }
        fs::write(dir.join("modules.builtin"), builtin).unwrap();
        let tree = ModuleTree::open(&dir).unwrap();
        (dir, tree)
    }

    fn names(tree: &ModuleTree, wanted: &[&str]) -> Vec<String> {
        let order = tree.load_order(wanted).unwrap();
        order.into_iter().map(|module| module.name).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let (dir, tree) = tree(
            &[
                ("kvm-amd.ko", "kvm"),
                ("kvm.ko", "irqbypass"),
                ("irqbypass.ko", ""),
                ("other.ko", "kvm,ext4"),
            ],
            "kernel/fs/ext4/ext4.ko\n",
        );
        assert_eq!(
            names(&tree, &["kvm-amd", "other", "ext4"]),
            ["irqbypass", "kvm", "kvm_amd", "other"]
        );
        assert!(tree.has("kvm_amd") && tree.has("ext4") && !tree.has("absent"));
        assert!(matches!(
            tree.load_order(&["absent"]),
            Err(ModuleError::Missing(_))
        ));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_cycle_ends() {
        let (dir, tree) = tree(&[("a.ko", "b"), ("b.ko", "a")], "");
        assert_eq!(names(&tree, &["a"]), ["b", "a"]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn names_of_files() {
        let name = |path: &str| module_name(Path::new(path));
        assert_eq!(name("a/kvm-amd.ko.xz").as_deref(), Some("kvm_amd"));
        assert_eq!(name("a/x.ko").as_deref(), Some("x"));
        assert_eq!(name("a/x.ko.lz4"), None);
        assert_eq!(name("a/modules.order"), None);
    }
}
