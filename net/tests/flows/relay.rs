//! Frames carried between two descriptors, with delay and loss.

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What happens to frames on the way.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Weather {
    pub delay: Duration,
    /// One of so many is lost; 0 is none.
    pub lose_one_of: u32,
}

/// Carries frames until it is dropped.
pub struct Relay {
    threads: Vec<JoinHandle<()>>,
    end: Option<OwnedFd>,
}

impl Relay {
    /// Between two descriptors that both keep frames apart.
    pub fn packets(a: OwnedFd, b: OwnedFd, weather: Weather) -> Result<Self> {
        Self::start(a, b, false, weather)
    }

    /// Between a TAP device and a stream with a length before each frame.
    pub fn stream(tap: OwnedFd, stream: OwnedFd) -> Result<Self> {
        Self::start(tap, stream, true, Weather::default())
    }

    fn start(a: OwnedFd, b: OwnedFd, is_stream: bool, weather: Weather) -> Result<Self> {
        let (end_reader, end) = rustix::pipe::pipe()?;
        for fd in [&a, &b] {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let (a, b, end_reader) = (Arc::new(a), Arc::new(b), Arc::new(end_reader));
        let mut threads = Vec::new();
        for (from, to, framed_in, framed_out) in [
            (Arc::clone(&a), Arc::clone(&b), false, is_stream),
            (b, a, is_stream, false),
        ] {
            let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(4096);
            let stop = Arc::clone(&end_reader);
            threads.push(std::thread::spawn(move || {
                let mut count = 1;
                let mut pending = Vec::new();
                while wait(&from, PollFlags::IN, &stop) {
                    let frames = read(&from, framed_in, &mut pending);
                    let Some(frames) = frames else { return };
                    for frame in frames {
                        count += 1;
                        let lost = weather.lose_one_of != 0 && count % weather.lose_one_of == 0;
                        // A full queue loses frames as any does.
                        if !lost
                            && sender
                                .try_send((Instant::now() + weather.delay, frame))
                                .is_err()
                        {
                            continue;
                        }
                    }
                }
            }));
            let stop = Arc::clone(&end_reader);
            threads.push(std::thread::spawn(move || {
                while let Ok((due, frame)) = receiver.recv() {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let mut bytes = Vec::new();
                    if framed_out {
                        bytes.extend((frame.len() as u32).to_be_bytes());
                    }
                    bytes.extend(frame);
                    while !bytes.is_empty() {
                        match rustix::io::write(&to, &bytes) {
                            Ok(length) => drop(bytes.drain(..length)),
                            Err(Errno::AGAIN) => {
                                if !wait(&to, PollFlags::OUT, &stop) {
                                    return;
                                }
                            }
                            Err(_) => break,
                        }
                    }
                }
            }));
        }
        Ok(Self {
            threads,
            end: Some(end),
        })
    }
}

/// Waits for a descriptor; `false` at the relay's end.
fn wait(fd: &OwnedFd, events: PollFlags, stop: &OwnedFd) -> bool {
    let mut fds = [
        PollFd::from_borrowed_fd(fd.as_fd(), events),
        PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
    ];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return fds[1].revents().is_empty(),
            Err(Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn read(from: &OwnedFd, framed: bool, pending: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let mut buffer = vec![0; 1 << 17];
    let length = match rustix::io::read(from, &mut buffer) {
        Ok(0) => return None,
        Ok(length) => length,
        Err(Errno::AGAIN) => return Some(Vec::new()),
        Err(_) => return None,
    };
    buffer.truncate(length);
    if !framed {
        return Some(vec![buffer]);
    }
    pending.extend(buffer);
    let mut frames = Vec::new();
    while let Some(header) = pending.first_chunk::<4>() {
        let length = u32::from_be_bytes(*header) as usize;
        if pending.len() < 4 + length {
            break;
        }
        frames.push(pending[4..4 + length].to_vec());
        pending.drain(..4 + length);
    }
    Some(frames)
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.end.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
