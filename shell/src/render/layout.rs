//! Which columns of a table are shown and how wide, and a cell in its column.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// No column is cut below this width; whole columns are left out before that.
const LEAST_WIDTH: usize = 8;

/// The columns from left to right; `None` stands for those left out.
pub(super) struct Layout(Vec<Option<Slot>>);

/// One column that is shown.
pub(super) struct Slot {
    pub(super) column: usize,
    width: usize,
    /// Whether values that are wider are cut.
    cut: bool,
}

impl Layout {
    /// As wide as the values, or so that a row fits in `available` columns of the terminal: the widest columns are cut
    /// first, then columns in the middle are left out.
    pub(super) fn fit(widths: &[usize], available: Option<usize>) -> Self {
        let widest = widths.iter().copied().max().unwrap_or(0);
        let available = available.unwrap_or(usize::MAX);
        let whole = Self(slots(widths, 0, widest));
        if whole.total() <= available {
            return whole;
        }
        let cut = |cap: usize| Self(slots(widths, 0, cap));
        // `total` only grows with the cap, so the widest cap that fits can be found by halving.
        let (mut fits, mut too_wide) = (LEAST_WIDTH, widest.max(LEAST_WIDTH));
        if cut(fits).total() > available {
            return Self::without_middle(widths, available);
        }
        while too_wide - fits > 1 {
            let middle = fits + (too_wide - fits) / 2;
            match cut(middle).total() <= available {
                true => fits = middle,
                false => too_wide = middle,
            }
        }
        cut(fits)
    }

    /// As many of the first and the last columns as fit, but at least one of each.
    fn without_middle(widths: &[usize], available: usize) -> Self {
        let with = |kept: usize| {
            let (left, right) = (kept.div_ceil(2), widths.len() - kept / 2);
            let mut some = slots(&widths[..left], 0, LEAST_WIDTH);
            if left < right {
                some.push(None);
            }
            some.extend(slots(&widths[right..], right, LEAST_WIDTH));
            Self(some)
        };
        let kept = (2..widths.len())
            .rev()
            .find(|kept| with(*kept).total() <= available);
        with(kept.unwrap_or(2.min(widths.len())))
    }

    pub(super) fn slots(&self) -> &[Option<Slot>] {
        &self.0
    }

    fn total(&self) -> usize {
        self.0
            .iter()
            .map(|slot| Slot::width(slot) + 3)
            .sum::<usize>()
            + 1
    }
}

/// Columns from number `first` on, none wider than `cap`.
fn slots(widths: &[usize], first: usize, cap: usize) -> Vec<Option<Slot>> {
    let slot = |(at, &width): (usize, &usize)| {
        Some(Slot {
            column: first + at,
            width: width.min(cap),
            cut: cap < width,
        })
    };
    widths.iter().enumerate().map(slot).collect()
}

impl Slot {
    /// Columns of the terminal it takes; what is left out takes one, for its mark.
    pub(super) fn width(slot: &Option<Slot>) -> usize {
        slot.as_ref().map_or(1, |slot| slot.width)
    }

    /// Appends one line of a cell.
    pub(super) fn push(&self, line: &mut String, text: &str, right: bool) {
        let wide = width(text);
        if self.cut && wide > self.width {
            let (kept, wide) = first_columns(text, self.width - 1);
            line.push_str(kept);
            line.push('…');
            return line.extend(std::iter::repeat_n(' ', self.width - 1 - wide));
        }
        let padding = std::iter::repeat_n(' ', self.width.saturating_sub(wide));
        if right {
            line.extend(padding);
            line.push_str(text);
        } else {
            line.push_str(text);
            line.extend(padding);
        }
    }
}

/// The beginning of `text` that fits in `room`, and its width: a wide character may leave one column free.
fn first_columns(text: &str, room: usize) -> (&str, usize) {
    let mut wide = 0;
    for (at, character) in text.char_indices() {
        let width = character.width().unwrap_or(0);
        if wide + width > room {
            return (&text[..at], wide);
        }
        wide += width;
    }
    (text, wide)
}

/// The widest line of a value.
pub(super) fn width(text: &str) -> usize {
    text.split('\n')
        .map(UnicodeWidthStr::width)
        .max()
        .unwrap_or(0)
}

/// A stored value must not move the cursor or change the terminal: control characters are shown, line ends stay.
pub(super) fn printable(text: &str) -> String {
    let control = |character: char| character.is_control() && character != '\n';
    if !text.contains(control) {
        return text.to_string();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match control(character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(widths: &[usize], available: usize) -> Vec<Option<(usize, usize)>> {
        let layout = Layout::fit(widths, Some(available));
        let slots = layout.slots().iter();
        slots
            .map(|slot| slot.as_ref().map(|slot| (slot.column, slot.width)))
            .collect()
    }

    #[test]
    fn the_widest_columns_give_way_first() {
        assert_eq!(
            fitted(&[5, 30, 30], 80),
            [Some((0, 5)), Some((1, 30)), Some((2, 30))]
        );
        assert_eq!(
            fitted(&[5, 30, 30], 55),
            [Some((0, 5)), Some((1, 20)), Some((2, 20))]
        );
        assert_eq!(
            fitted(&[5, 30, 10], 45),
            [Some((0, 5)), Some((1, 20)), Some((2, 10))]
        );
    }

    #[test]
    fn then_the_middle_is_left_out() {
        assert_eq!(fitted(&[20; 5], 30), [Some((0, 8)), None, Some((4, 8))]);
        let four = [Some((0, 2)), Some((1, 2)), None, Some((8, 2))];
        assert_eq!(fitted(&[2; 9], 21), four);
    }

    #[test]
    fn a_terminal_too_narrow_for_anything_still_gets_something() {
        assert_eq!(fitted(&[20, 20, 20], 5), [Some((0, 8)), None, Some((2, 8))]);
        assert_eq!(fitted(&[20], 5), [Some((0, 8))]);
        assert_eq!(fitted(&[], 5), []);
    }
}
