//! What a guest is told before its workload runs.

use hullbox_host::clock::wall_clock_ns;
use hullbox_protocol::Frame;

/// Has a guest that boots hear what time it is when it is there to hear it. Its own clock stood still
/// for a while as it booted. One that goes on as a copy knows better when it did.
pub(crate) fn refresh_wall_clock(frame: &mut Frame) {
    if let Frame::Setup(setup) = frame
        && !setup.resumed
        && setup.wall_clock_ns != 0
    {
        setup.wall_clock_ns = wall_clock_ns();
    }
}
