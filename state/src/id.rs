//! Ids of containers.

use hullbox_host::paths::short_id;
use hullbox_model::value::ValueError;
use std::io;

/// A fresh container id: 64 hexadecimal digits of which the first twelve are not all decimal, so
/// that the host name they give is not a number.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn new_id() -> io::Result<String> {
    loop {
        let mut bytes = [0u8; 32];
        let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        if read != bytes.len() {
            continue;
        }
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if !short_id(&id).bytes().all(|digit| digit.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// Takes what [`new_id`] makes, and nothing else.
///
/// # Errors
/// It is not an id.
pub fn parse_id(text: &str) -> Result<String, ValueError> {
    let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    let is_id = text.len() == 64
        && text.bytes().all(is_digit)
        && !short_id(text).bytes().all(|digit| digit.is_ascii_digit());
    if is_id {
        Ok(text.to_owned())
    } else {
        Err(ValueError::new("not the id of a container"))
    }
}
