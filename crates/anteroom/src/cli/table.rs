//! Tables for people.

use anteroom_guest_protocol::ForeignText;

/// Lines whose columns are as wide as the widest of their cells, two spaces apart.
pub fn table<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    // A cell may be a file's or a caller's word: it stays in its line.
    let shown = |cells: [String; COLUMNS]| cells.map(|cell| ForeignText::new(&cell).to_string());
    let lines: Vec<_> =
        std::iter::once(head.map(str::to_owned)).chain(rows.into_iter().map(shown)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or_default());
    let line = |cells: &[String; COLUMNS]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_cell_of_a_column_does_not_touch_the_next() {
        let rows = [["a-provider-with-a-long-name", "ö\nx"], ["b", ""]];
        let table = table(["NAME", "SAYS"], rows.map(|row| row.map(str::to_owned)));
        let lines = [
            "NAME                         SAYS\n",
            "a-provider-with-a-long-name  ö\\u{a}x\n",
            "b\n",
        ];
        assert_eq!(table, lines.concat());
    }
}
