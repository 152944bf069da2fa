//! EROFS, uncompressed: the writer that makes layers, and a reader for looking into them.
//!
//! The on-disk format is the kernel's (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h),
//! without compression, fragments or several devices, so any kernel since 5.4 mounts it; one with
//! sparse files, which are made of chunks, any since 5.15.
//!
//! ```text
//! block 0        superblock at byte 1024
//! 1 …            data blocks of files in the order of the tar, written as the tar streams by
//!                blocks of large directories
//! meta …         inodes in slots of 32 bytes, each followed by its extended attributes and by
//!                the last piece of its data where that is short
//! ```

mod data;
mod dir;
mod format;
mod layout;
mod reader;
mod seal;
mod write;
mod xattr;

pub(crate) use data::{DataWriter, Spool};
pub(crate) use format::{
    BLOCK_SIZE, CHUNK_ENTRY, MAX_CHUNK_BITS, MAX_INLINE_TAIL, NO_BLOCK, encode_device,
};
pub use reader::ErofsError;
pub(crate) use reader::{Node, Reader};
pub(crate) use seal::{Seal, check_superblock};
pub(crate) use write::{Written, write_metadata};
pub(crate) use xattr::{XattrSet, XattrTable};
