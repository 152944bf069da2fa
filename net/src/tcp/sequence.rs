//! Sequence numbers: arithmetic modulo 2³² (RFC 9293, section 3.4).

/// How far `a` lies behind `b` in the sequence; negative if it lies before it.
#[must_use]
pub fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// Whether `a` comes after `b`.
#[must_use]
pub fn after(a: u32, b: u32) -> bool {
    distance(a, b) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap() {
        assert_eq!(distance(5, u32::MAX - 4), 10);
        assert_eq!(distance(u32::MAX - 4, 5), -10);
        assert!(after(0, u32::MAX));
        assert!(!after(7, 7));
    }
}
