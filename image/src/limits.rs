//! How much of anything an image may hold. Every limit is far above what real images need and
//! low enough that a hostile one costs bounded memory, disk and time.

/// Bytes in a MiB.
const MIB: u64 = 1024 * 1024;

/// Limits on what is loaded. [`Limits::default`] is what the program uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Layers of one image: what the kernel's overlayfs can stack under one mount.
    pub max_layers: usize,
    /// One configuration or manifest, in bytes.
    pub max_json_bytes: u64,
    /// All configurations and manifests of one archive, in bytes.
    pub max_total_json_bytes: u64,
    /// Entries of an archive (not of a layer).
    pub max_archive_entries: u64,
    /// One layer's uncompressed tar, in bytes.
    pub max_layer_bytes: u64,
    /// All uncompressed tars of one archive, in bytes.
    pub max_total_layer_bytes: u64,
    /// Times a stream may grow when it is decompressed…
    pub max_expansion: u64,
    /// …counted once it has yielded this many bytes.
    pub expansion_grace_bytes: u64,
    /// Memory for the entries and names of one layer, in bytes: some 80 an entry and its name.
    pub max_layer_memory_bytes: u64,
    /// Distinct extended attributes of one layer together, in bytes.
    pub max_layer_xattr_bytes: u32,
    /// Logical size of one file, holes included, in bytes.
    pub max_file_bytes: u64,
    /// Bytes that hard links of one archive or container bring from layers below into their own.
    pub max_linked_bytes: u64,
    /// Extended header (PAX or GNU) of one entry, in bytes.
    pub max_header_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_layers: 127,
            max_json_bytes: 4 * MIB,
            max_total_json_bytes: 16 * MIB,
            max_archive_entries: 100_000,
            max_layer_bytes: 64 * 1024 * MIB,
            max_total_layer_bytes: 256 * 1024 * MIB,
            // Deflate cannot exceed 1032; a tar of a real root filesystem is under 10, and one
            // file of zeros within it is what the grace is for.
            max_expansion: 200,
            expansion_grace_bytes: 256 * MIB,
            // Five million entries.
            max_layer_memory_bytes: 512 * MIB,
            max_layer_xattr_bytes: 8 * 1024 * 1024,
            max_file_bytes: 1024 * 1024 * MIB,
            max_linked_bytes: 16 * 1024 * MIB,
            max_header_bytes: 1024 * 1024,
        }
    }
}
