//! `polyreward embed`: texts in, a Parquet file of embeddings out.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, anyhow, ensure};
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, RecordBatch, StringArray, UInt32Array,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use polyreward_backbone::{EmbedInput, Embedded};
use polyreward_datasets::{Lines, describe, open_lines};
use polyreward_domain::{Overflow, Prompt, TextForm, check_text};
use serde::Deserialize;

use crate::{
    commands::open_backbone,
    config::{self, Overrides, PathOverride},
    progress::Progress,
};

/// Embed texts in bulk
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// JSONL file, plain or gzipped; a line has `response`, or `prompt`, or both, and an optional `id`
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// Parquet file to write: `id`, `embedding` (float32), `tokens`, `truncated`, in the order of the lines
    #[arg(long, value_name = "FILE.parquet")]
    out: PathBuf,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Backbone folder
    #[arg(long, value_name = "DIR")]
    backbone: Option<PathBuf>,
}

/// Rows in a row group: what is held of the output at once.
const ROWS_AT_ONCE: usize = 8192;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<String>,
    prompt: Option<Prompt>,
    response: Option<String>,
}

/// Embeds the file, a part at a time: the next lines are read, and the last ones written, while texts are encoded. The output
/// appears whole or not at all.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let overrides =
        Overrides { backbone: PathOverride { path: arguments.backbone.clone() }, ..Overrides::default() };
    let config = config::load(arguments.config.as_deref(), &overrides)?;
    let mut lines = open_lines(&arguments.input)?;
    let backbone = open_backbone(&config)?;
    let folder = arguments.out.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let staging = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("writing in {}", folder.display()))?;
    let mut table = Table::create(staging.as_file().try_clone()?, backbone.info().dim)?;
    let mut progress = Progress::start("embedding", 0);
    let began = Instant::now();
    let file = &arguments.input;
    let inputs = std::iter::from_fn(|| {
        let line = lines.next()?;
        let read = line.map_err(anyhow::Error::from).and_then(|line| parse(file, &lines, &line));
        Some(read.map(|(of, input)| ((of, lines.share()), input)))
    });
    backbone.embed_each(inputs, Overflow::Truncate, None, |(of, share), result| {
        let text = result.map_err(|error| anyhow!("{}, line {} {error}", file.display(), of.line))?;
        table.add(of.id, &text)?;
        if let Some(share) = share {
            let rate = table.rows as f64 / began.elapsed().as_secs_f64();
            progress.set_share(share, began, &format!("{} lines, {rate:.0}/s", table.rows));
        }
        anyhow::Ok(())
    })?;
    let rows = table.rows;
    ensure!(rows > 0, "there is no text in {}", arguments.input.display());
    table.finish()?;
    staging.as_file().sync_all()?;
    staging.persist(&arguments.out).with_context(|| format!("writing {}", arguments.out.display()))?;
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    progress.finish(&format!("{rows} embeddings of length {}, {rate:.0}/s", backbone.info().dim));
    Ok(())
}

/// The output under construction: rows that make the next row group, behind those written.
struct Table {
    writer: ArrowWriter<File>,
    schema: Arc<Schema>,
    rows: usize,
    ids: Vec<Option<String>>,
    values: Vec<f32>,
    tokens: Vec<u32>,
    truncated: Vec<bool>,
}

impl Table {
    fn create(file: File, dim: usize) -> anyhow::Result<Self> {
        let schema = schema(dim);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_max_row_group_row_count(Some(ROWS_AT_ONCE))
            .build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
        let (ids, values, tokens, truncated) = Default::default();
        Ok(Self { writer, schema, rows: 0, ids, values, tokens, truncated })
    }

    fn add(&mut self, id: Option<String>, text: &Embedded) -> anyhow::Result<()> {
        self.rows += 1;
        self.ids.push(id);
        self.values.extend_from_slice(&text.embedding);
        self.tokens.push(u32::try_from(text.tokens).expect("a window is shorter than 2^32"));
        self.truncated.push(text.truncated);
        if self.ids.len() == ROWS_AT_ONCE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let DataType::FixedSizeList(element, dim) = self.schema.field(1).data_type() else {
            unreachable!("the schema is made below");
        };
        let values = Arc::new(Float32Array::from(std::mem::take(&mut self.values)));
        let embeddings = FixedSizeListArray::try_new(Arc::clone(element), *dim, values, None)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(std::mem::take(&mut self.ids))),
            Arc::new(embeddings),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.tokens))),
            Arc::new(BooleanArray::from(std::mem::take(&mut self.truncated))),
        ];
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?;
        // What was written is on its way to the disk, and not kept for a larger group.
        Ok(self.writer.flush()?)
    }

    fn finish(mut self) -> anyhow::Result<()> {
        if !self.ids.is_empty() {
            self.write()?;
        }
        self.writer.close()?;
        Ok(())
    }
}

fn schema(dim: usize) -> Arc<Schema> {
    let element = Arc::new(Field::new_list_field(DataType::Float32, false));
    let dim = i32::try_from(dim).expect("an embedding is shorter than 2^31");
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("embedding", DataType::FixedSizeList(element, dim), false),
        Field::new("tokens", DataType::UInt32, false),
        Field::new("truncated", DataType::Boolean, false),
    ]))
}

/// What an embedding is of.
struct Of {
    line: u64,
    id: Option<String>,
}

fn parse(file: &Path, lines: &Lines, text: &str) -> anyhow::Result<(Of, EmbedInput)> {
    let number = lines.line();
    let place = || format!("{}, line {number}", file.display());
    let line: Line =
        serde_json::from_str(text).map_err(|error| anyhow!(describe(&error))).with_context(place)?;
    if let Some(prompt) = &line.prompt {
        prompt.check().map_err(|error| anyhow!("prompt {error}")).with_context(place)?;
    }
    if let Some(response) = &line.response {
        check_text(response).map_err(|error| anyhow!("response {error}")).with_context(place)?;
    }
    let form = match (&line.prompt, &line.response) {
        (Some(_), Some(_)) => TextForm::PromptResponse,
        (Some(_), None) => TextForm::Prompt,
        (None, Some(_)) => TextForm::Response,
        (None, None) => return Err(anyhow!("has neither prompt nor response")).with_context(place),
    };
    let input = EmbedInput {
        form,
        prompt: Arc::new(line.prompt.unwrap_or_default()),
        response: Arc::from(line.response.unwrap_or_default()),
    };
    Ok((Of { line: number, id: line.id }, input))
}
