//! A table: every number of a chart.

use super::text::Label;

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    /// What people read.
    pub label: String,
    /// The member of the JSON that it is.
    pub field: &'static str,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    pub text: String,
    /// Whether it names its row.
    pub is_head: bool,
}

impl Cell {
    /// Plain text or a number.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_head: false }
    }

    /// What names its row.
    pub fn head(text: impl Into<String>) -> Self {
        Self { is_head: true, ..Self::new(text) }
    }

    /// What names its row and was chosen by somebody else: whole, as a table has room.
    pub fn name(label: &Label) -> Self {
        Self::head(label.full.clone())
    }
}

/// A table with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub caption: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Without rows.
    pub fn new(caption: impl Into<String>, columns: &[(&str, &'static str)]) -> Self {
        let columns =
            columns.iter().map(|(label, field)| Column { label: (*label).to_owned(), field }).collect();
        Self { caption: caption.into(), columns, rows: Vec::new() }
    }
}
