//! A set of 16x16 pixel blocks of a screen.

/// Edge of a block in pixels: the unit of damage, and of libvpx's active map.
pub const BLOCK: usize = 16;

/// A set of the 16x16 pixel blocks that cover a screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    columns: usize,
    rows: usize,
    // One byte a block, 0 or 1: the shape that libvpx takes.
    marks: Vec<u8>,
    count: usize,
}

impl Blocks {
    /// No block of a screen of this size in pixels.
    #[must_use]
    pub fn none(width: usize, height: usize) -> Self {
        let (columns, rows) = (width.div_ceil(BLOCK), height.div_ceil(BLOCK));
        Self { columns, rows, marks: vec![0; columns * rows], count: 0 }
    }

    /// Every block of a screen of this size in pixels.
    #[must_use]
    pub fn all(width: usize, height: usize) -> Self {
        let mut blocks = Self::none(width, height);
        blocks.marks.fill(1);
        blocks.count = blocks.marks.len();
        blocks
    }

    /// Adds a block; one outside the screen is ignored.
    pub fn insert(&mut self, column: usize, row: usize) {
        if column < self.columns && row < self.rows {
            let mark = &mut self.marks[row * self.columns + column];
            self.count += usize::from(*mark == 0);
            *mark = 1;
        }
    }

    /// Whether a block is in the set.
    #[must_use]
    pub fn contains(&self, column: usize, row: usize) -> bool {
        column < self.columns && row < self.rows && self.marks[row * self.columns + column] == 1
    }

    /// Takes all blocks out.
    pub fn clear(&mut self) {
        self.marks.fill(0);
        self.count = 0;
    }

    /// How many blocks are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no block is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One byte a block, 0 or 1, row by row.
    #[must_use]
    pub fn marks(&self) -> &[u8] {
        &self.marks
    }

    /// Adds the blocks for which `wanted` is true; it is given the index into [`Self::marks`].
    pub fn insert_where(&mut self, wanted: impl Fn(usize) -> bool) {
        for (index, mark) in self.marks.iter_mut().enumerate() {
            if *mark == 0 && wanted(index) {
                *mark = 1;
                self.count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_covered_to_its_ragged_edges() {
        let all = Blocks::all(33, 16);
        assert_eq!((all.len(), all.marks().len()), (3, 3));
        assert!(all.contains(2, 0) && !all.contains(3, 0) && !all.contains(0, 1));
    }

    #[test]
    fn a_block_counts_once() {
        let mut blocks = Blocks::none(64, 64);
        blocks.insert(1, 2);
        blocks.insert(1, 2);
        blocks.insert(9, 9);
        assert_eq!(blocks.len(), 1);
        blocks.insert_where(|index| index < 2);
        assert_eq!(blocks.len(), 3);
        blocks.clear();
        assert!(blocks.is_empty());
    }
}
