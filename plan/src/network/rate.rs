//! `--network-rate in=RATE,out=RATE`: bytes a second.

use crate::units::{Bytes, ValueError};
use hullbox_backend::network::Rate;
use hullbox_net::MIN_RATE;
use std::str::FromStr;

/// Rates of a container's network, as typed: one of them or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkRate(pub Rate);

impl FromStr for NetworkRate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::new(format!(
                "'{text}' is not in=RATE,out=RATE, such as in=10m,out=1m, in bytes a second"
            ))
        };
        let mut rate = Rate::default();
        for part in text.split(',') {
            let (direction, value) = part.split_once('=').ok_or_else(wrong)?;
            let place = match direction {
                "in" => &mut rate.inbound,
                "out" => &mut rate.outbound,
                _ => return Err(wrong()),
            };
            if place.is_some() {
                return Err(ValueError::new(format!("'{direction}' stands there twice")));
            }
            let Bytes(bytes) = value.parse()?;
            if bytes < MIN_RATE {
                return Err(ValueError::new(format!(
                    "'{value}' is too slow: the least is {MIN_RATE} bytes a second"
                )));
            }
            *place = Some(bytes);
        }
        Ok(Self(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_once_in_any_order() {
        let rate = |text: &str| {
            let NetworkRate(rate) = text.parse()?;
            Ok::<_, ValueError>((rate.inbound, rate.outbound))
        };
        let mib = 1 << 20;
        assert_eq!(rate("in=10m,out=1m"), Ok((Some(10 * mib), Some(mib))));
        assert_eq!(rate("out=1.5k"), Ok((None, Some(1536))));
        assert_eq!(rate("in=1024"), Ok((Some(1024), None)));
        for text in [
            "",
            "10m",
            "in",
            "in=",
            "in=0",
            "in=1023",
            "up=1m",
            "in=1m,in=1m",
            "in=1m,",
            "in=-1m",
            "in=1m out=1m",
            "IN=1m",
        ] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
