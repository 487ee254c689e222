//! The first rows of tables, and the first elements of tensors.

use super::show::{Column, cut, grid, plain};
use crate::{Dtype, Error, Table};
use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::ArrowError;

/// Characters of a cell that text shows.
pub(super) const CELL_CHARS_MAX: usize = 40;

/// Rows that are written at a time.
pub(super) const PIECE_ROWS: usize = 64 << 10;

/// The batches, cut so that none is long.
pub(super) fn pieces_of(table: &Table) -> impl Iterator<Item = RecordBatch> {
    table.iter().flat_map(|batch| {
        let starts = (0..batch.num_rows()).step_by(PIECE_ROWS);
        starts.map(|start| batch.slice(start, PIECE_ROWS.min(batch.num_rows() - start)))
    })
}

/// Hands the first rows of a table to `write`, piece by piece.
pub(super) fn first_rows(
    table: &Table,
    rows_max: usize,
    mut write: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
) -> Result<(), ArrowError> {
    let mut left = rows_max;
    for piece in pieces_of(table) {
        if left == 0 {
            break;
        }
        let rows = left.min(piece.num_rows());
        write(&piece.slice(0, rows))?;
        left -= rows;
    }
    Ok(())
}

/// The first rows of a table, in as many columns as fit on a line.
pub(super) fn preview(table: &Table, rows_max: usize, line_chars: usize) -> Result<String, ArrowError> {
    let options = FormatOptions::default().with_null("null").with_display_error(true);
    let fields = table.schema().fields();
    let mut headings: Vec<String> =
        fields.iter().map(|field| cut(&plain(field.name()), CELL_CHARS_MAX)).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for batch in table.iter() {
        let formatters =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows().min(rows_max - rows.len()) {
            let cell = |formatter: &ArrayFormatter<'_>| {
                cut(&plain(&formatter.value(row).to_string()), CELL_CHARS_MAX)
            };
            rows.push(formatters.iter().map(cell).collect());
        }
    }
    let mut used = 0;
    let width = |column: usize| {
        let cells = rows.iter().map(|row| &row[column]).chain([&headings[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + 2
    };
    let fitting = (0..fields.len())
        .take_while(|&column| {
            used += width(column);
            column == 0 || used <= line_chars + 2
        })
        .count();
    let hidden = headings.split_off(fitting);
    rows.iter_mut().for_each(|row| row.truncate(fitting));
    let columns: Vec<Column> = headings
        .into_iter()
        .zip(fields)
        .map(|(heading, field)| match field.data_type().is_numeric() {
            true => Column::Right(heading),
            false => Column::Left(heading),
        })
        .collect();
    let mut text = if columns.is_empty() { String::new() } else { grid(&columns, &rows) };
    if !hidden.is_empty() {
        text += &cut(&format!("… and {}", hidden.join(", ")), line_chars);
        text.push('\n');
    }
    Ok(text)
}

/// The first elements of a tensor, a line for each step in its first dimension.
pub(super) fn elements(
    tensor: &crate::TensorView,
    rows_max: usize,
    line_columns: usize,
) -> Result<String, Error> {
    macro_rules! shown {
        ($($dtype:ident: $type:ty,)*) => {
            match tensor.dtype() {
                $(Dtype::$dtype => lines_of(tensor, tensor.as_slice::<$type>()?, rows_max, line_columns),)*
                _ => String::new(),
            }
        };
    }
    Ok(shown! {
        BOOL8: bool, INT8: i8, INT16: i16, INT32: i32, INT64: i64, UINT8: u8, UINT16: u16, UINT32: u32, UINT64: u64,
        FLOAT16: half::f16, FLOAT32: f32, FLOAT64: f64,
    })
}

pub(super) fn lines_of<T: std::fmt::Display>(
    tensor: &crate::TensorView,
    elements: &[T],
    rows_max: usize,
    line_columns: usize,
) -> String {
    let (&rows, inner) = tensor.shape().split_first().unwrap_or((&1, &[]));
    let in_row: usize = inner.iter().product();
    // Where the element that is `column`th of its row lies.
    let place = |row: usize, column: usize| {
        if !tensor.is_column_major() {
            return row * in_row + column;
        }
        let (mut rest, mut place, mut step) = (column, row, elements.len());
        for &dim in inner.iter().rev() {
            step /= dim;
            place += rest % dim * step;
            rest /= dim;
        }
        place
    };
    let mut text = String::new();
    for row in 0..rows.min(rows_max).min(elements.len()) {
        let mut line = String::new();
        for column in 0..in_row {
            let cell = elements[place(row, column)].to_string();
            if column > 0 && line.len() + cell.len() + " …".len() > line_columns {
                line += " …";
                break;
            }
            line += if column > 0 { " " } else { "" };
            line += &cell;
        }
        text += &line;
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::record_batch;
    use std::sync::Arc;

    #[test]
    fn a_preview_shows_the_first_rows_and_names_the_columns_that_do_not_fit() {
        let batch =
            record_batch!(("n", Int32, [1, 22, 3]), ("name", Utf8, [Some("a\tb"), None, Some("c")])).unwrap();
        let table = Table::from(batch);
        assert_eq!(preview(&table, 2, 80).unwrap(), " n  name\n 1  a\\tb\n22  null\n");
        assert_eq!(preview(&table, 1, 4).unwrap(), "n\n1\n… a…\n");
        assert_eq!(preview(&table, 0, 80).unwrap(), "n  name\n");
    }

    #[test]
    fn the_first_elements_of_a_tensor_are_shown_in_the_order_of_their_indices() {
        let store = crate::testing::Store::start(8 << 20).unwrap();
        let brain = store.connect().unwrap();
        let shown = |tensor: crate::Tensor<'_>, rows, width| {
            brain.learn("t", &tensor).unwrap();
            elements(&brain.recall("t").unwrap(), rows, width).unwrap()
        };
        let count: Vec<i16> = (0..24).collect();
        let row_major = crate::Tensor::new(&[2, 3, 4], &count).unwrap();
        assert_eq!(
            shown(row_major.clone(), 9, 80),
            "0 1 2 3 4 5 6 7 8 9 10 11\n12 13 14 15 16 17 18 19 20 21 22 23\n"
        );
        assert_eq!(shown(row_major, 1, 12), "0 1 2 3 4 …\n");
        // Element (i, j, k) lies at i + 2 (j + 3 k).
        let column_major = crate::Tensor::column_major(&[2, 3, 4], &count).unwrap();
        assert_eq!(shown(column_major, 1, 80), "0 6 12 18 2 8 14 20 4 10 16 22\n");
        assert_eq!(shown(crate::Tensor::new(&[2], &[0.5, f64::NAN]).unwrap(), 9, 80), "0.5\nNaN\n");
        assert_eq!(shown(crate::Tensor::new(&[], &[true]).unwrap(), 9, 80), "true\n");
        assert_eq!(shown(crate::Tensor::new::<u8>(&[3, 0], &[]).unwrap(), 9, 80), "");
        assert_eq!(shown(crate::Tensor::new::<u8>(&[0, 3], &[]).unwrap(), 9, 80), "");
    }

    #[test]
    fn a_long_batch_is_cut_into_pieces() {
        let numbers = arrow_array::Int64Array::from_iter_values(0..PIECE_ROWS as i64 + 5);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(numbers) as _)]).unwrap();
        let pieces: Vec<usize> = pieces_of(&Table::from(batch)).map(|piece| piece.num_rows()).collect();
        assert_eq!(pieces, [PIECE_ROWS, 5]);
    }
}
