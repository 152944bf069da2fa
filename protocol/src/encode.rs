//! Values become frames.

use crate::frame::{DecodeError, Frame, HEADER_LEN, Kind, Stream};
use serde::Serialize;

/// Appends the encoding of `frame` to `out`.
///
/// # Errors
/// [`DecodeError::TooLong`] when the payload is over the kind's limit,
/// [`DecodeError::Malformed`] when it cannot be serialised.
pub fn encode_into(frame: &Frame, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let structured = |kind, session, value: &dyn ErasedSerialize, out: &mut Vec<u8>| {
        let payload = value
            .to_postcard()
            .map_err(|_| DecodeError::Malformed(kind))?;
        put(kind, 0, session, &payload, out)
    };
    match frame {
        Frame::Hello(hello) => structured(Kind::Hello, 0, hello, out),
        Frame::Setup(setup) => structured(Kind::Setup, 0, setup.as_ref(), out),
        Frame::Exec { session, spec } => structured(Kind::Exec, *session, spec.as_ref(), out),
        Frame::Started { session, started } => structured(Kind::Started, *session, started, out),
        Frame::Failed { session, failure } => structured(Kind::Failed, *session, failure, out),
        Frame::Exited { session, status } => structured(Kind::Exited, *session, status, out),
        Frame::Data {
            session,
            stream,
            bytes,
        } => put(Kind::Data, stream.byte(), *session, bytes, out),
        Frame::Eof { session, stream } => put(Kind::Eof, stream.byte(), *session, &[], out),
        Frame::Credit {
            session,
            stream,
            bytes,
        } => {
            let payload = bytes.to_le_bytes();
            put(Kind::Credit, stream.byte(), *session, &payload, out)
        }
        Frame::Signal { session, signal } => {
            put(Kind::Signal, 0, *session, &signal.to_le_bytes(), out)
        }
        Frame::Resize { session, size } => {
            let mut payload = [0u8; 4];
            payload[..2].copy_from_slice(&size.rows.to_le_bytes());
            payload[2..].copy_from_slice(&size.columns.to_le_bytes());
            put(Kind::Resize, 0, *session, &payload, out)
        }
        Frame::Log(text) => {
            let limit = Kind::Log.max_payload();
            let end = (0..=limit.min(text.len()))
                .rev()
                .find(|&i| text.is_char_boundary(i))
                .unwrap_or(0);
            put(Kind::Log, 0, 0, &text.as_bytes()[..end], out)
        }
        Frame::Shutdown => put(Kind::Shutdown, 0, 0, &[], out),
        Frame::Oom => put(Kind::Oom, 0, 0, &[], out),
        Frame::Descriptors { session, streams } => {
            put(Kind::Descriptors, 0, *session, &[streams.bits()], out)
        }
        Frame::Relay { session } => put(Kind::Relay, 0, *session, &[], out),
        Frame::Request { number, request } => structured(Kind::Request, *number, request, out),
        Frame::Reply { number, reply } => structured(Kind::Reply, *number, reply, out),
        Frame::Local(bytes) => put(Kind::Local, 0, 0, bytes, out),
    }
}

/// Appends a `Data` frame without first owning the bytes: the path that standard streams take.
///
/// # Errors
/// [`DecodeError::TooLong`] over [`MAX_DATA`] bytes.
pub fn encode_data(
    session: u32,
    stream: Stream,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    put(Kind::Data, stream.byte(), session, bytes, out)
}

/// The header of a `Data` frame of `len` bytes, for a sender that has the bytes elsewhere.
///
/// # Errors
/// [`DecodeError::TooLong`] over [`MAX_DATA`] bytes.
pub fn data_header(
    session: u32,
    stream: Stream,
    len: usize,
) -> Result<[u8; HEADER_LEN], DecodeError> {
    header(Kind::Data, stream.byte(), session, len)
}

fn header(
    kind: Kind,
    stream: u8,
    session: u32,
    len: usize,
) -> Result<[u8; HEADER_LEN], DecodeError> {
    let too_long = DecodeError::TooLong { kind, len };
    if len > kind.max_payload() {
        return Err(too_long);
    }
    let [l0, l1, l2, l3] = u32::try_from(len).map_err(|_| too_long)?.to_le_bytes();
    let [s0, s1, s2, s3] = session.to_le_bytes();
    Ok([l0, l1, l2, l3, kind as u8, stream, 0, 0, s0, s1, s2, s3])
}

fn put(
    kind: Kind,
    stream: u8,
    session: u32,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let header = header(kind, stream, session, payload.len())?;
    out.reserve(HEADER_LEN + payload.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    Ok(())
}

/// Object-safe serialisation, so that one closure serves every structured kind.
trait ErasedSerialize {
    fn to_postcard(&self) -> Result<Vec<u8>, postcard::Error>;
}

impl<T: Serialize> ErasedSerialize for T {
    fn to_postcard(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }
}
