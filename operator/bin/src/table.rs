//! Aligned columns for people.

use std::fmt::Write as _;

/// Lines of cells as one text: columns as wide as their widest cell, two spaces between, no trailing space. A column
/// whose header starts with `>` is set flush right.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let right: Vec<bool> = header.iter().map(|name| name.starts_with('>')).collect();
    let head: Vec<String> = header.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in all {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or(0);
            let gap = if column == 0 { "" } else { "  " };
            let written = if right.get(column).copied().unwrap_or(false) {
                write!(line, "{gap}{cell:>width$}")
            } else {
                write!(line, "{gap}{cell:<width$}")
            };
            written.expect("writing to a string cannot fail");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "10".to_owned()], vec!["long-name".to_owned(), "7".to_owned()]];
        let text = super::render(&["NAME", ">HEIGHT"], &rows);
        assert_eq!(text, "NAME       HEIGHT\na              10\nlong-name       7\n");
    }
}
