//! A change to one CPUID register, as Firecracker writes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A change to 32 bits. As text `0b` and a digit for each bit, the highest first: `0` off, `1` on,
/// `x` as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bitmap {
    filter: u32,
    value: u32,
}

/// A text that is no [`Bitmap`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a bitmap of a CPUID register; write 0b and up to 32 digits of 0, 1 and x")]
pub struct InvalidBitmap(String);

impl Bitmap {
    /// Sets the bits of `filter` to those of `value`; bits of `value` outside `filter` do not count.
    #[must_use]
    pub fn new(filter: u32, value: u32) -> Self {
        Self { filter, value: value & filter }
    }

    /// Which bits are set to something.
    #[must_use]
    pub fn filter(self) -> u32 {
        self.filter
    }

    /// What they are set to.
    #[must_use]
    pub fn value(self) -> u32 {
        self.value
    }

    /// This change, then another: where both set a bit, the other's.
    #[must_use]
    pub fn then(self, other: Self) -> Self {
        Self { filter: self.filter | other.filter, value: other.apply(self.value) }
    }

    /// The register with the change made.
    #[must_use]
    pub fn apply(self, register: u32) -> u32 {
        register & !self.filter | self.value
    }
}

impl FromStr for Bitmap {
    type Err = InvalidBitmap;

    fn from_str(text: &str) -> Result<Self, InvalidBitmap> {
        let invalid = || InvalidBitmap(text.chars().take(80).collect());
        // As in Firecracker, digits may be left out at the front and `_` may stand between them. It
        // also does without the 0b, and so takes a slip like 0x1 for three digits; not here.
        let digits = text.strip_prefix("0b").ok_or_else(invalid)?;
        let (mut bitmap, mut bit) = (Self::default(), 0);
        for digit in digits.bytes().rev().filter(|&digit| digit != b'_') {
            let mask = 1_u32.checked_shl(bit).ok_or_else(invalid)?;
            match digit {
                b'x' => {}
                b'0' => bitmap.filter |= mask,
                b'1' => {
                    bitmap.filter |= mask;
                    bitmap.value |= mask;
                }
                _ => return Err(invalid()),
            }
            bit += 1;
        }
        if bit == 0 { Err(invalid()) } else { Ok(bitmap) }
    }
}

impl fmt::Display for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0b")?;
        (0..32).rev().try_for_each(|bit| {
            f.write_str(match (self.filter >> bit & 1, self.value >> bit & 1) {
                (0, _) => "x",
                (_, 0) => "0",
                _ => "1",
            })
        })
    }
}

impl TryFrom<String> for Bitmap {
    type Error = InvalidBitmap;

    fn try_from(text: String) -> Result<Self, InvalidBitmap> {
        text.parse()
    }
}

impl From<Bitmap> for String {
    fn from(bitmap: Bitmap) -> Self {
        bitmap.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_of_firecracker_parse() {
        for (text, filter, value) in [
            ("0bxxxxxxxxxxxxxxxxxxxxxx0x00000xxx", 0x2f8, 0),
            ("0b1111_0000_xxxx_xxxx_xxxx_xxxx_xxxx_xx10", 0xff00_0003, 0xf000_0002),
            ("0b1", 1, 1),
            ("0bx01", 3, 1),
        ] {
            assert_eq!(text.parse(), Ok(Bitmap::new(filter, value)), "{text}");
        }
        let too_long = format!("0b{}", "x".repeat(33));
        for text in ["", "0b", "0b_", "0b2", "0x1", "x01", "0bX", "0bé", &too_long] {
            assert!(text.parse::<Bitmap>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_effect_are_kept(filter: u32, value: u32, more: u32, other: u32, start: u32) {
            let (one, two) = (Bitmap::new(filter, value), Bitmap::new(more, other));
            prop_assert_eq!(one.to_string().parse::<Bitmap>(), Ok(one));
            prop_assert_eq!(one.then(two).apply(start), two.apply(one.apply(start)));
            prop_assert_eq!(one.apply(start) & !filter, start & !filter);
        }
    }
}
