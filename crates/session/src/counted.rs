//! How many of something, in words that fit the number.

use std::fmt::Display;

/// `1 file`, `2 files`, `0 files`: the number, and the word for one or for many.
#[must_use]
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(n: N, one: &str, many: &str) -> String {
    format!("{n} {}", if n == N::from(1) { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_one() {
        let said = [0_u64, 1, 2, 21].map(|n| counted(n, "file was", "files were"));
        assert_eq!(said, ["0 files were", "1 file was", "2 files were", "21 files were"]);
    }
}
