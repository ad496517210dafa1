//! The rows of a Parquet file as lines of JSON.

use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use arrow_array::{
    Array, ArrayRef, RecordBatch, StructArray,
    cast::AsArray,
    types::{
        ArrowTimestampType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
};
use serde_json::{Map, Value};

use crate::{
    container::{Columns, Item},
    lines::{MAX_LINE_BYTES, NOT_UTF8, ReadError, Refused, too_long},
};

/// Rows decoded at a time: few, since each may hold megabytes.
const BATCH_ROWS: usize = 64;
/// Lists and structs within each other; formats need three.
const MAX_DEPTH: usize = 8;

/// The rows of a Parquet file, decoded a few at a time: an object a row, of those columns that the format reads; a
/// null is an absent field.
pub(crate) struct ParquetRows {
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    batch: Option<StructArray>,
    /// The next row within the batch.
    at: usize,
    row: u64,
    broken: bool,
}

impl ParquetRows {
    /// Reads the file's schema; gives the names of columns that are not of the format.
    pub(crate) fn open(path: &Path, format: &Columns) -> Result<(Self, Vec<String>), ReadError> {
        let failed = |source| ReadError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let builder = decode(|| ParquetRecordBatchReaderBuilder::try_new(file)).map_err(failed)?;
        let fields = builder.schema().fields().clone();
        let names: Vec<_> = fields.iter().map(|field| field.name().clone()).collect();
        format.check(path, &names)?;
        if let Some(field) =
            fields.iter().find(|field| format.reads(field.name()) && !is_readable(field.data_type(), 0))
        {
            let (column, kind) = (field.name().clone(), field.data_type().to_string());
            return Err(ReadError::ColumnType { path: path.to_owned(), column, kind });
        }
        let read = (0..names.len()).filter(|at| format.reads(&names[*at]));
        let mask = ProjectionMask::roots(builder.parquet_schema(), read);
        let batches = decode(|| builder.with_projection(mask).with_batch_size(BATCH_ROWS).build());
        let batches = batches.map_err(failed)?;
        let unknown = names.into_iter().filter(|name| !format.knows(name)).collect();
        Ok((Self { path: path.to_owned(), batches, batch: None, at: 0, row: 0, broken: false }, unknown))
    }

    /// The next row as a line of JSON.
    pub(crate) fn next(&mut self) -> Option<Result<Item, ReadError>> {
        if self.broken {
            return None;
        }
        let next = self.read().transpose()?;
        self.broken = next.is_err();
        Some(next.map_err(|source| ReadError::Io { path: self.path.clone(), source }))
    }

    fn read(&mut self) -> io::Result<Option<Item>> {
        loop {
            if let Some(batch) = &self.batch
                && self.at < batch.len()
            {
                let line = line(batch, self.at);
                self.at += 1;
                self.row += 1;
                return Ok(Some(Item { number: self.row, line }));
            }
            let batches = &mut self.batches;
            let Some(batch) = decode(|| batches.next().transpose())? else { return Ok(None) };
            (self.batch, self.at) = (Some(RecordBatch::into(batch)), 0);
        }
    }
}

/// Runs the decoder, which panics on some broken files.
fn decode<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    run: impl FnOnce() -> Result<T, E>,
) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the Parquet file is broken")),
    }
}

fn is_readable(kind: &DataType, depth: usize) -> bool {
    if depth > MAX_DEPTH {
        return false;
    }
    match kind {
        DataType::Null
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::Timestamp(..) => true,
        DataType::List(item) | DataType::LargeList(item) => is_readable(item.data_type(), depth + 1),
        DataType::Struct(fields) => fields.iter().all(|field| is_readable(field.data_type(), depth + 1)),
        DataType::Map(entry, _) => is_readable(entry.data_type(), depth + 1),
        DataType::Dictionary(_, values) => is_readable(values, depth + 1),
        _ => false,
    }
}

fn line(batch: &StructArray, row: usize) -> Result<String, Refused> {
    let mut cells = Cells { not_utf8: false };
    let mut text = Value::Object(cells.object(batch, row)).to_string();
    if text.len() as u64 > MAX_LINE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_LINE_BYTES as usize));
        return Err(Refused { reason: too_long(), raw: text.into_bytes() });
    }
    if cells.not_utf8 {
        return Err(Refused { reason: NOT_UTF8.into(), raw: text.into_bytes() });
    }
    Ok(text)
}

/// Turns cells into JSON; notes whether one was bytes and no text.
struct Cells {
    not_utf8: bool,
}

impl Cells {
    /// A struct's members that are not null.
    fn object(&mut self, array: &StructArray, row: usize) -> Map<String, Value> {
        let members = array.fields().iter().zip(array.columns());
        let members = members.map(|(field, column)| (field.name().clone(), self.value(column, row)));
        members.filter(|(_, value)| !value.is_null()).collect()
    }

    fn value(&mut self, array: &ArrayRef, row: usize) -> Value {
        if array.is_null(row) {
            return Value::Null;
        }
        match array.data_type() {
            DataType::Boolean => array.as_boolean().value(row).into(),
            DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
            DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
            DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
            DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
            DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
            DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
            DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
            DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
            DataType::Float32 => number(array.as_primitive::<Float32Type>().value(row)),
            DataType::Float64 => number(array.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => array.as_string::<i32>().value(row).into(),
            DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
            DataType::Utf8View => array.as_string_view().value(row).into(),
            DataType::Binary => self.text(array.as_binary::<i32>().value(row)),
            DataType::LargeBinary => self.text(array.as_binary::<i64>().value(row)),
            DataType::Timestamp(TimeUnit::Second, _) => time::<TimestampSecondType>(array, row),
            DataType::Timestamp(TimeUnit::Millisecond, _) => time::<TimestampMillisecondType>(array, row),
            DataType::Timestamp(TimeUnit::Microsecond, _) => time::<TimestampMicrosecondType>(array, row),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => time::<TimestampNanosecondType>(array, row),
            DataType::List(_) => self.list(&array.as_list::<i32>().value(row)),
            DataType::LargeList(_) => self.list(&array.as_list::<i64>().value(row)),
            DataType::Struct(_) => Value::Object(self.object(array.as_struct(), row)),
            DataType::Map(..) => self.map(&array.as_map().value(row)),
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                self.value(dictionary.values(), dictionary.normalized_keys()[row])
            }
            // `is_readable` lets no other in.
            _ => Value::Null,
        }
    }

    fn list(&mut self, items: &ArrayRef) -> Value {
        (0..items.len()).map(|at| self.value(items, at)).collect()
    }

    fn map(&mut self, entries: &StructArray) -> Value {
        let (keys, values) = (entries.column(0), entries.column(1));
        let entries = (0..entries.len()).filter_map(|at| match self.value(keys, at) {
            Value::String(key) => Some((key, self.value(values, at))),
            Value::Null => None,
            key => Some((key.to_string(), self.value(values, at))),
        });
        Value::Object(entries.collect())
    }

    fn text(&mut self, bytes: &[u8]) -> Value {
        let text = String::from_utf8_lossy(bytes);
        self.not_utf8 |= matches!(text, std::borrow::Cow::Owned(_));
        text.into()
    }
}

/// A number as its shortest digits, so that an f32 reads as it was written; what JSON has no number for, as text.
fn number(value: impl ToString) -> Value {
    let text = value.to_string();
    let number = text.parse().ok().and_then(serde_json::Number::from_f64);
    number.map_or(Value::String(text), Value::Number)
}

/// A time as RFC 3339; one without a zone is of UTC.
fn time<T: ArrowTimestampType>(array: &ArrayRef, row: usize) -> Value {
    let array = array.as_primitive::<T>();
    let time = array.value_as_datetime(row).map(|time| time.and_utc().to_rfc3339());
    time.map_or_else(|| Value::from(array.value(row)), Value::String)
}
