//! Opens a store and resolves a name: the part of every container's start that is this crate's.
//!
//! `strace -r target/debug/examples/resolve STORE NAME`

use hullbox_image::Store;
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(root), Some(name)) = (args.next(), args.next()) else {
        return Err("usage: resolve STORE NAME".into());
    };
    let began = Instant::now();
    let image = Store::open(root)?.resolve(&name)?;
    println!("{} in {:?}", image.id, began.elapsed());
    Ok(())
}
