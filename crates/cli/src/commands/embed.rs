//! `polyreward embed`: texts in, a Parquet file of embeddings out.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
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
use polyreward_backbone::{Backbone, EmbedInput};
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

/// Lines embedded and written at a time.
const ROWS_AT_ONCE: usize = 8192;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<String>,
    prompt: Option<Prompt>,
    response: Option<String>,
}

/// Embeds the file, a part at a time; the output appears whole or not at all.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let overrides =
        Overrides { backbone: PathOverride { path: arguments.backbone.clone() }, ..Overrides::default() };
    let config = config::load(arguments.config.as_deref(), &overrides)?;
    let mut lines = open_lines(&arguments.input)?;
    let backbone = open_backbone(&config)?;
    let folder = arguments.out.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let staging = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("writing in {}", folder.display()))?;
    let schema = schema(backbone.info().dim);
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?)).build();
    let mut writer =
        ArrowWriter::try_new(staging.as_file().try_clone()?, Arc::clone(&schema), Some(properties))?;
    let mut progress = Progress::start("embedding", 0);
    let mut rows = 0;
    loop {
        let part = read_part(&mut lines, &arguments.input)?;
        if part.is_empty() {
            break;
        }
        rows += part.len();
        writer.write(&embed(&backbone, &schema, part, &arguments.input)?)?;
        progress.set(rows, rows, "lines");
    }
    ensure!(rows > 0, "there is no text in {}", arguments.input.display());
    writer.close()?;
    staging.persist(&arguments.out).with_context(|| format!("writing {}", arguments.out.display()))?;
    progress.finish(&format!("{rows} embeddings of length {}", backbone.info().dim));
    Ok(())
}

/// The next lines, parsed.
fn read_part(lines: &mut Lines, file: &Path) -> anyhow::Result<Vec<Parsed>> {
    let mut part = Vec::new();
    while part.len() < ROWS_AT_ONCE
        && let Some(line) = lines.next()
    {
        part.push(parse(file, lines, &line?)?);
    }
    Ok(part)
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

/// A line with its number and its id.
type Parsed = (u64, Option<String>, EmbedInput);

fn parse(file: &Path, lines: &Lines, text: &str) -> anyhow::Result<Parsed> {
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
    Ok((number, line.id, input))
}

fn embed(
    backbone: &Backbone,
    schema: &Arc<Schema>,
    part: Vec<Parsed>,
    file: &Path,
) -> anyhow::Result<RecordBatch> {
    let mut numbers = Vec::with_capacity(part.len());
    let mut ids = Vec::with_capacity(part.len());
    let mut inputs = Vec::with_capacity(part.len());
    for (number, id, input) in part {
        numbers.push(number);
        ids.push(id);
        inputs.push(input);
    }
    let (mut values, mut tokens, mut truncated) = (Vec::new(), Vec::new(), Vec::new());
    let results = backbone.embed_blocking(inputs, Overflow::Truncate, None, |_| ())?;
    for (number, result) in numbers.into_iter().zip(results) {
        let text = result.map_err(|error| anyhow!("{}, line {number} {error}", file.display()))?;
        values.extend_from_slice(&text.embedding);
        tokens.push(u32::try_from(text.tokens).expect("a window is shorter than 2^32"));
        truncated.push(text.truncated);
    }
    let DataType::FixedSizeList(element, dim) = schema.field(1).data_type() else {
        unreachable!("the schema is made above");
    };
    let embeddings =
        FixedSizeListArray::try_new(Arc::clone(element), *dim, Arc::new(Float32Array::from(values)), None)?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(ids)),
        Arc::new(embeddings),
        Arc::new(UInt32Array::from(tokens)),
        Arc::new(BooleanArray::from(truncated)),
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
