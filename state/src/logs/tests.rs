use super::*;
use hullbox_model::log::LogQuery;
use std::fs;
use std::io::Write;

const TIME: &str = "2026-11-21T12:00:00.000000001Z";

fn put(file: &Path, pieces: &[(LogStream, &[u8], bool)]) {
    let mut bytes = Vec::new();
    for (stream, piece, continues) in pieces {
        encode(&mut bytes, piece, *stream, *continues, TIME);
    }
    let mut file = fs::File::options()
        .append(true)
        .create(true)
        .open(file)
        .unwrap();
    file.write_all(&bytes).unwrap();
}

fn rest(reader: &mut LogReader) -> String {
    let mut all = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        all.extend(line.bytes);
    }
    String::from_utf8(all).unwrap()
}

fn line(text: &str) -> (LogStream, &[u8], bool) {
    (LogStream::Stdout, text.as_bytes(), false)
}

fn tail(number: usize) -> LogQuery {
    LogQuery {
        tail: Some(number),
        ..LogQuery::default()
    }
}

#[test]
fn bytes_come_out_as_they_went_in() {
    for bytes in [
        &b"plain\n"[..],
        b"\xff\xc3\n",
        b"\0\x1b[1m\"\\",
        "é\u{fffd}".as_bytes(),
    ] {
        let mut object = Vec::new();
        encode(&mut object, bytes, LogStream::Stderr, true, TIME);
        let line = decode(&object).unwrap();
        assert_eq!(line.bytes, bytes);
        assert!(line.continues);
        assert_eq!(line.partial, !bytes.ends_with(b"\n"));
    }
    assert_eq!(decode(b"{\"log\":\"cut"), None);
}

#[test]
fn the_last_lines_are_lines_and_not_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let long = "y".repeat(100_000);
    put(&older(dir.path(), 1), &[line("one\n"), line("tw")]);
    put(
        &path(dir.path()),
        &[
            (LogStream::Stderr, b"error\n", false),
            (LogStream::Stdout, b"o", true),
            (LogStream::Stdout, b" end\n", true),
            line(&long),
            (LogStream::Stdout, b"\n", true),
            line("prompt"),
        ],
    );
    let last = |number| rest(&mut LogReader::open(dir.path(), tail(number)).unwrap());
    assert_eq!(last(0), "");
    assert_eq!(last(1), "prompt");
    assert_eq!(last(2), format!("{long}\nprompt"));
    assert_eq!(last(3), format!("two end\n{long}\nprompt"));
    assert_eq!(last(4), format!("twerror\no end\n{long}\nprompt"));
    assert_eq!(last(5), format!("one\ntwerror\no end\n{long}\nprompt"));
    assert_eq!(last(9), last(5));
}

#[test]
fn no_rotation_is_missed_and_no_file_is_read_from_within() {
    let dir = tempfile::tempdir().unwrap();
    let newest = path(dir.path());
    let rotate = || {
        let _ = fs::rename(older(dir.path(), 1), older(dir.path(), 2));
        fs::rename(&newest, older(dir.path(), 1)).unwrap();
    };
    let mut reader = LogReader::open(dir.path(), tail(0)).unwrap();
    assert_eq!(rest(&mut reader), "");
    put(&newest, &[line("1\n")]);
    assert_eq!(rest(&mut reader), "1\n");
    put(&newest, &[line("2\n")]);
    rotate();
    put(&newest, &[line("3\n")]);
    rotate();
    put(&newest, &[line("4\n")]);
    assert_eq!(rest(&mut reader), "2\n3\n4\n");
    // Its own file is gone, and so is one in between: what is there is shown.
    for number in 5..9 {
        rotate();
        put(&newest, &[line(&format!("{number}\n"))]);
    }
    assert_eq!(rest(&mut reader), "6\n7\n8\n");
    // One file only: replaced by a longer one.
    put(&newest, &[line("9\n")]);
    for number in 0..=2 {
        let _ = fs::remove_file(older(dir.path(), number));
    }
    fs::remove_file(&newest).unwrap();
    put(&newest, &[line(&"z".repeat(1000)), line("\n")]);
    assert_eq!(rest(&mut reader), format!("9\n{}\n", "z".repeat(1000)));
}

#[test]
fn following_begins_after_what_is_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut object = Vec::new();
    encode(&mut object, b"half\n", LogStream::Stdout, false, TIME);
    let (first, second) = object.split_at(9);
    fs::write(path(dir.path()), first).unwrap();
    let mut reader = LogReader::open(dir.path(), tail(0)).unwrap();
    assert_eq!(rest(&mut reader), "");
    let mut file = fs::File::options()
        .append(true)
        .open(path(dir.path()))
        .unwrap();
    file.write_all(second).unwrap();
    assert_eq!(rest(&mut reader), "half\n");
}
