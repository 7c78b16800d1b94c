//! What stands for the values of one row: the same for equal values, spread evenly over all its bits.

use std::fmt::Debug;

/// A key of one size or the other.
pub(super) trait Key: Copy + Default + Ord + Debug + Send + Sync + 'static {
    /// How many words of 64 bits it is written in.
    const WORDS: usize;

    /// This with `bits` of another value behind it. What does not fit is lost: choosing a key that is wide enough
    /// is the caller's.
    fn append(self, bits: u32, value: u128) -> Self;

    /// Another key for every key, and never the same for two: nothing is lost, but neighbours are far apart.
    fn mixed(self) -> Self;

    /// 64 bits that differ between most keys, where it was mixed.
    fn word(self) -> u64;

    fn write(self, words: &mut Vec<u64>);

    /// What [`Self::write`] wrote, from [`Self::WORDS`] words.
    fn read(words: &[u64]) -> Self;
}

impl Key for u64 {
    const WORDS: usize = 1;

    fn append(self, bits: u32, value: u128) -> Self {
        self.checked_shl(bits).unwrap_or(0) | value as u64
    }

    fn mixed(self) -> Self {
        mixed(self)
    }

    fn word(self) -> u64 {
        self
    }

    fn write(self, words: &mut Vec<u64>) {
        words.push(self);
    }

    fn read(words: &[u64]) -> Self {
        words.iter().fold(0, |_, word| *word)
    }
}

impl Key for u128 {
    const WORDS: usize = 2;

    fn append(self, bits: u32, value: u128) -> Self {
        self.checked_shl(bits).unwrap_or(0) | value
    }

    fn mixed(self) -> Self {
        // Two rounds of Feistel: each half takes in the other, which is undone in the opposite order.
        let (high, low) = ((self >> 64) as u64, self as u64);
        let low = low ^ mixed(high);
        let high = high ^ mixed(low);
        joined(high, low)
    }

    fn word(self) -> u64 {
        (self >> 64) as u64
    }

    fn write(self, words: &mut Vec<u64>) {
        words.extend([(self >> 64) as u64, self as u64]);
    }

    fn read(words: &[u64]) -> Self {
        words
            .iter()
            .fold(0, |key, word| (key << 64) | u128::from(*word))
    }
}

pub(super) fn joined(high: u64, low: u64) -> u128 {
    (u128::from(high) << 64) | u128::from(low)
}

/// The last step of SplitMix64. Every shift and product in it can be undone, so no two words become one.
fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
