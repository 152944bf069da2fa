//! Any text as a policy: it is refused, or it decides.
#![no_main]

use hullbox_net::policy::{Action, Policy, Protocol};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(policy) = text.parse::<Policy>() {
        for target in ["10.0.0.1:80", "1.1.1.1:443", "[2001:db8::1]:53"] {
            let _ = policy.decide(Protocol::Udp, target.parse().unwrap());
        }
        // An address of nobody's network is never allowed by a rule that does not name it.
        if !text.contains("127.") && !text.contains('[') {
            let loopback = "[::ffff:127.0.0.1]:80".parse().unwrap();
            assert_eq!(policy.decide(Protocol::Tcp, loopback).action, Action::Deny);
        }
    }
});
