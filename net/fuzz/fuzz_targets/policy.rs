//! Any text as a policy: it is refused, or it decides.
#![no_main]

use hullbox_net::policy::{Action, Judgement, Policy, Protocol};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(policy) = text.parse::<Policy>() {
        for target in ["10.0.0.1:80", "1.1.1.1:443", "[2001:db8::1]:53"] {
            let target = target.parse().unwrap();
            let _ = policy.judge(Protocol::Udp, target, |pattern| pattern.matches("a.b"));
            let _ = policy.judge_named(target, "a.b", true);
        }
        let _ = policy.judge_unresolved(Protocol::Tcp, "www.example.com", 443);
        // An address of nobody's network is never allowed by a rule that does not name it.
        if !text.contains("127.") && !text.contains('[') {
            let loopback = "[::ffff:127.0.0.1]:80".parse().unwrap();
            let allowed = |judgement| match judgement {
                Judgement::Decided(verdict) => verdict.action == Action::Allow,
                Judgement::ByName(_) => true,
            };
            assert!(!allowed(policy.judge(Protocol::Tcp, loopback, |_| true)));
        }
    }
});
