//! The machine's own kernel: a distribution's, found installed or fetched as a package.
//!
//! It is not the guests' kernel: it must load `kvm-amd` and speak virtio-fs. Debian's cloud kernel
//! does, is small, and its package need not be installed to be used.

use super::modules::{ModuleError, ModuleTree};
use super::plan::find_program;
use super::qemu::Qemu;
use super::version::compare;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The package that depends on the newest cloud kernel.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// What the machine cannot do without.
const REQUIRED_MODULES: [&str; 7] = [
    "kvm-amd",
    "virtio-pci",
    "virtio-blk",
    "virtiofs",
    "overlay",
    "ext4",
    "vmw_vsock_virtio_transport",
];

/// A kernel and its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineKernel {
    /// Its release, as `uname -r` will say.
    pub release: String,
    /// The bootable image.
    pub image: PathBuf,
    /// `…/lib/modules/RELEASE`.
    pub modules: PathBuf,
}

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A directory named by the user holds none.
    #[error("{} holds no kernel: it should have boot/vmlinuz-* and lib/modules", .0.display())]
    NotThere(PathBuf),
    /// None is installed and there is no apt to fetch one.
    #[error(
        "no suitable kernel is installed and apt is not available to fetch one; \
         unpack Debian's {META_PACKAGE} somewhere and set machine.kernel_dir to that directory"
    )]
    NoApt,
    /// apt does not know the package.
    #[error("apt does not know the package {META_PACKAGE}; run `apt-get update` and try again")]
    UnknownPackage,
    /// The download failed.
    #[error(
        "cannot fetch the kernel package {package}: {reason}; \
         check the network, or install the package {META_PACKAGE} by hand"
    )]
    Download {
        /// The package.
        package: String,
        /// apt's last words.
        reason: String,
    },
    /// The package does not unpack.
    #[error("cannot unpack the kernel package {package}: {reason}")]
    Unpack {
        /// The package.
        package: String,
        /// dpkg-deb's last words.
        reason: String,
    },
    /// The kernel lacks a driver.
    #[error(transparent)]
    Modules(#[from] ModuleError),
    /// The cache directory cannot be used.
    #[error("cannot use {}", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Finds a kernel for this emulator without fetching one: in a directory that the user named, else
/// the newest that is installed, else the newest fetched earlier.
///
/// # Errors
/// [`KernelError::NotThere`] when the named directory holds none.
pub fn find(
    named: Option<&Path>,
    cache: &Path,
    qemu: &Qemu,
) -> Result<Option<MachineKernel>, KernelError> {
    if let Some(dir) = named {
        // Whoever names one knows.
        return all_in(dir, "")
            .into_iter()
            .max_by(|a, b| compare(&a.release, &b.release))
            .map(Some)
            .ok_or_else(|| KernelError::NotThere(dir.to_owned()));
    }
    if let Some(kernel) = newest(qemu, all_in(Path::new("/"), "-cloud-amd64")) {
        return Ok(Some(kernel));
    }
    let cached = read_names(cache)
        .iter()
        .filter(|name| !name.starts_with('.'))
        .flat_map(|name| all_in(&cache.join(name), ""))
        .collect();
    // A kernel for desktops serves too, if it has the drivers, but boots slower.
    Ok(newest(qemu, cached).or_else(|| newest(qemu, all_in(Path::new("/"), ""))))
}

/// The newest of several kernels that runs on this emulator.
fn newest(qemu: &Qemu, kernels: Vec<MachineKernel>) -> Option<MachineKernel> {
    kernels
        .into_iter()
        .filter(|kernel| qemu.runs(&kernel.release))
        .max_by(|a, b| compare(&a.release, &b.release))
}

/// As [`find`], and fetches Debian's package when there is none.
///
/// # Errors
/// [`KernelError`].
pub fn find_or_fetch(
    named: Option<&Path>,
    cache: &Path,
    qemu: &Qemu,
    progress: &dyn Fn(&str),
) -> Result<MachineKernel, KernelError> {
    match find(named, cache, qemu)? {
        Some(kernel) => Ok(kernel),
        None => fetch(cache, qemu, progress),
    }
}

/// The usable kernels under `root` whose releases end in `suffix`.
fn all_in(root: &Path, suffix: &str) -> Vec<MachineKernel> {
    let usable = |release: String| {
        let image = root.join("boot").join(format!("vmlinuz-{release}"));
        let modules = ["lib/modules", "usr/lib/modules"]
            .iter()
            .map(|dir| root.join(dir).join(&release))
            .find(|dir| dir.is_dir())?;
        // An unreadable image (some systems keep it from ordinary users) is as good as none.
        fs::File::open(&image).ok()?;
        let tree = ModuleTree::open(&modules).ok()?;
        REQUIRED_MODULES
            .iter()
            .all(|name| tree.has(name))
            .then_some(MachineKernel {
                release,
                image,
                modules,
            })
    };
    read_names(&root.join("boot"))
        .iter()
        .filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned))
        .filter(|release| release.ends_with(suffix))
        .filter_map(usable)
        .collect()
}

fn read_names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

fn fetch(cache: &Path, qemu: &Qemu, progress: &dyn Fn(&str)) -> Result<MachineKernel, KernelError> {
    let base = newest_package(qemu)?;
    // The unsigned twin first: it is what the signed one is made of, and it is complete.
    let unsigned = format!("{base}-unsigned");
    progress(&format!("fetching the helper machine's kernel ({base})"));
    let cache_error = |path: &Path| {
        let path = path.to_owned();
        move |source| KernelError::Cache { path, source }
    };
    let staging = cache.join(format!(".fetch-{}", std::process::id()));
    // Left over from a process that had our number and was killed.
    let _ = fs::remove_dir_all(&staging);
    fs::create_dir_all(&staging).map_err(cache_error(&staging))?;
    let result = download(&unsigned, &staging)
        .or_else(|_| download(&base, &staging))
        .and_then(|package| unpack(&package, &staging))
        .and_then(|tree| {
            let target = cache.join(&base);
            match fs::rename(&tree, &target) {
                // Somebody else was faster.
                Err(_) if !all_in(&target, "").is_empty() => Ok(target),
                Err(source) => Err(cache_error(&target)(source)),
                Ok(()) => Ok(target),
            }
        });
    let _ = fs::remove_dir_all(&staging);
    let target = result?;
    match all_in(&target, "").pop() {
        Some(kernel) => Ok(kernel),
        None => {
            // Never again found by `find`, and out of the next fetch's way.
            let _ = fs::remove_dir_all(&target);
            Err(KernelError::NotThere(target))
        }
    }
}

/// The name of the newest kernel package that runs on this emulator, from apt's own metadata: of all
/// that the host's sources offer, not only of the one that apt would install.
fn newest_package(qemu: &Qemu) -> Result<String, KernelError> {
    let apt = find_program("apt-cache", &[]).ok_or(KernelError::NoApt)?;
    let output = Command::new(apt)
        .args(["show", META_PACKAGE])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|_| KernelError::NoApt)?;
    newest_dependency(&String::from_utf8_lossy(&output.stdout), qemu)
        .ok_or(KernelError::UnknownPackage)
}

/// The kernel that one of the package's versions depends on.
fn newest_dependency(records: &str, qemu: &Qemu) -> Option<String> {
    records
        .lines()
        .filter_map(|line| line.strip_prefix("Depends: "))
        .flat_map(|list| list.split([',', ' ']))
        .filter(|name| name.ends_with("-cloud-amd64"))
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| qemu.runs(release))
        .max_by(|a, b| compare(a, b))
        .map(|release| format!("linux-image-{release}"))
}

/// Downloads a package, which apt verifies against the archive's signed index.
fn download(package: &str, dir: &Path) -> Result<PathBuf, KernelError> {
    let failed = |reason| KernelError::Download {
        package: package.to_owned(),
        reason,
    };
    let output = Command::new(find_program("apt-get", &[]).ok_or(KernelError::NoApt)?)
        // The directory is closed to apt's own unprivileged user.
        .args(["-q", "-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|_| KernelError::NoApt)?;
    if !output.status.success() {
        return Err(failed(last_line(&output.stderr)));
    }
    read_names(dir)
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.extension() == Some(OsStr::new("deb")))
        .ok_or_else(|| failed("nothing arrived".to_owned()))
}

fn unpack(package: &Path, dir: &Path) -> Result<PathBuf, KernelError> {
    let failed = |reason| KernelError::Unpack {
        package: package
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        reason,
    };
    let tree = dir.join("tree");
    let output = Command::new("dpkg-deb")
        .arg("-x")
        .arg(package)
        .arg(&tree)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(last_line(&output.stderr)));
    }
    // Documentation only.
    let _ = fs::remove_dir_all(tree.join("usr/share"));
    for release in read_names(&tree.join("lib/modules")) {
        // With its index, modprobe works inside the machine; without, only what we load is there.
        let _ = Command::new(find_program("depmod", &[]).unwrap_or_else(|| "depmod".into()))
            .arg("-b")
            .arg(&tree)
            .arg(release)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    Ok(tree)
}

fn last_line(output: &[u8]) -> String {
    String::from_utf8_lossy(output)
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("no reason given")
        .to_owned()
}

/// Where kernels that were fetched are kept: one place for all of a user's data directories, and
/// one that may be emptied at any time.
#[must_use]
pub fn cache() -> PathBuf {
    let dir = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache")
    } else {
        dir("XDG_CACHE_HOME")
            .or_else(|| dir("HOME").map(|home| home.join(".cache")))
            .unwrap_or_else(std::env::temp_dir)
    };
    base.join("hullbox/kernel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_directory_without_a_kernel_is_an_error() {
        let dir = std::env::temp_dir();
        let missing = dir.join("hullbox-no-kernel-here");
        assert!(matches!(
            find(Some(&missing), &dir, &qemu("7.2")),
            Err(KernelError::NotThere(_))
        ));
    }

    fn qemu(version: &str) -> Qemu {
        Qemu {
            program: "/q".into(),
            version: version.to_owned(),
        }
    }

    #[test]
    fn the_newest_that_runs_is_taken() {
        let kernel = |release: &str| MachineKernel {
            release: release.to_owned(),
            image: "/i".into(),
            modules: "/m".into(),
        };
        let kernels = || vec![kernel("6.1.0-9"), kernel("6.12.1"), kernel("6.1.0-49")];
        let newest = |version| super::newest(&qemu(version), kernels()).unwrap().release;
        assert_eq!(newest("7.2.1"), "6.1.0-49");
        assert_eq!(newest("10.0.2"), "6.12.1");
    }

    #[test]
    fn of_the_packages_on_offer_the_newest_that_runs_is_taken() {
        let records = "Package: linux-image-cloud-amd64\nVersion: 6.12.95-1~bpo12+1\n\
                       Depends: linux-image-6.12.95+deb12-cloud-amd64\n\n\
                       Package: linux-image-cloud-amd64\nVersion: 6.1.176-1\n\
                       Depends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)\n";
        let newest = |version| newest_dependency(records, &qemu(version));
        let expect = |name: &str| Some(name.to_owned());
        assert_eq!(newest("7.2.22"), expect("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(
            newest("10.0.2"),
            expect("linux-image-6.12.95+deb12-cloud-amd64")
        );
        assert_eq!(newest_dependency("", &qemu("10.0")), None);
    }
}
