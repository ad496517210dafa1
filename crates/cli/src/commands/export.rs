//! `polyreward export`: what people compared, as the lines that `import` reads, and what models believe of them.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use flate2::{Compression, write::GzEncoder};
use polyreward_domain::{Attributes, Prompt, TenantId, UserId};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::sync::watch;

mod source;

use self::source::{Source, Stored};
use crate::{
    commands::stop_signal,
    config::{self, Overrides, PathOverride, UsageError},
    progress::Progress,
    remote::{Key, Remote},
};

/// What the options do not say.
const AFTER_HELP: &str = "\
A line for each comparison, the people in the order of their ids; people without comparisons have no line. `import` reads
the file again, with the same names. Out of a database that is written to at the same time, each person is exported as
they were at some moment of the run. The files appear whole or not at all.";

/// Write stored comparisons to a file
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// One person only
    #[arg(long, value_name = "ID")]
    user: Option<UserId>,
    /// Whose data of the database; a server knows by the key
    #[arg(long, default_value = "default")]
    tenant: TenantId,
    /// JSONL file to write, gzipped where it ends in .gz; it holds people's texts, and only you may read it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// JSONL file to write with what each model believes of each person; out of a database only
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    states: Option<PathBuf>,
    /// The server, as http://HOST:PORT
    #[arg(long, value_name = "URL", conflicts_with_all = ["database_url", "models", "backbone", "tenant"])]
    url: Option<String>,
    /// Its API key, of scope read; better given as POLYREWARD_KEY, which other users of the machine do not see
    #[arg(long, requires = "url")]
    key: Option<Key>,
    /// The database instead of a server, as sqlite:PATH or postgres://...; by default the configured one
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Configuration file; by default ./polyreward.toml, where it exists
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of model folders, for --states
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Backbone folder, for --states
    #[arg(long, value_name = "DIR")]
    backbone: Option<PathBuf>,
    /// Seconds to try again while the server cannot be used
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    retry_seconds: u64,
}

/// A comparison as a line.
#[derive(Serialize)]
struct Line<'a> {
    user_id: &'a UserId,
    attributes: &'a Attributes,
    #[serde(flatten)]
    example: &'a Exported,
}

/// An example as it is written, and as a server tells it.
#[derive(Debug, Serialize, Deserialize)]
struct Exported {
    id: String,
    prompt: Prompt,
    chosen: String,
    rejected: String,
    strength: f64,
    label_confidence: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rationale: Option<String>,
    created_at: String,
}

/// What was written.
#[derive(Debug, Default)]
struct Counts {
    people: usize,
    comparisons: usize,
    states: usize,
    unusable: usize,
}

/// Exports to files that appear whole or not at all.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut out = Out::new(&arguments.out)?;
    let mut states = arguments.states.as_deref().map(Out::new).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let counts = runtime.block_on(async {
        let stop = stop_signal()?;
        let (_stop, stopped) = watch::channel(false);
        let source = arguments.source(stopped).await?;
        let result = tokio::select! {
            written = write(&source, arguments.user.as_ref(), &mut out, states.as_mut()) => written,
            () = stop => Err(anyhow::anyhow!("stopped; nothing was written")),
        };
        source.close().await;
        result
    })?;
    out.persist()?;
    if let Some(states) = states {
        states.persist()?;
        eprintln!("export: {} states; of {} no model can use the examples", counts.states, counts.unusable);
    }
    Ok(())
}

impl Arguments {
    async fn source(&self, stop: watch::Receiver<bool>) -> anyhow::Result<Source> {
        if let Some(url) = &self.url {
            let remote = Remote::new(url, self.key.as_ref())?;
            return Ok(Source::server(remote, Duration::from_secs(self.retry_seconds), stop));
        }
        let overrides = Overrides {
            backbone: PathOverride { path: self.backbone.clone() },
            models: PathOverride { path: self.models.clone() },
            ..Overrides::default()
        }
        .with_database(self.database_url.clone());
        let config = config::load(self.config.as_deref(), &overrides)?;
        Source::database(&config, self.tenant.clone(), self.states.is_some()).await
    }
}

async fn write(
    source: &Source,
    only: Option<&UserId>,
    out: &mut Out,
    mut states: Option<&mut Out>,
) -> anyhow::Result<Counts> {
    let (mut counts, mut after) = (Counts::default(), None);
    let mut progress = Progress::start("export", 0);
    loop {
        let (people, next) = match only {
            Some(user_id) => (Vec::from_iter(source.person(user_id).await?), None),
            None => source.people(after.take()).await?,
        };
        ensure!(only.is_none() || !people.is_empty(), "there is no such person");
        for Stored { user_id, attributes } in &people {
            let mut page = None;
            loop {
                let (examples, next) = source.examples(user_id, page.take()).await?;
                for example in &examples {
                    out.line(&Line { user_id, attributes, example })?;
                }
                counts.comparisons += examples.len();
                match next {
                    Some(next) => page = Some(next),
                    None => break,
                }
            }
            counts.people += 1;
            progress.set(counts.comparisons, counts.comparisons, "comparisons");
        }
        if let Some(states) = states.as_deref_mut() {
            let (written, unusable) = source.states(&people, |state| states.line(state)).await?;
            counts.states += written;
            counts.unusable += unusable;
        }
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    progress.finish(&format!("{} comparisons of {} people", counts.comparisons, counts.people));
    Ok(counts)
}

/// A file that is being written beside its place; dropped, it is gone.
struct Out {
    writer: Writer,
    path: PathBuf,
    staging: NamedTempFile,
}

enum Writer {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl Out {
    /// Begins a file that only its owner may read.
    fn new(path: &Path) -> anyhow::Result<Self> {
        if path.is_dir() {
            return Err(UsageError(format!("{} is a folder", path.display())).into());
        }
        let folder = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let staging =
            NamedTempFile::new_in(folder).with_context(|| format!("writing in {}", folder.display()))?;
        let file = BufWriter::new(staging.as_file().try_clone()?);
        let is_gzip = path.extension().is_some_and(|extension| extension == "gz");
        let writer = if is_gzip {
            Writer::Gzip(GzEncoder::new(file, Compression::default()))
        } else {
            Writer::Plain(file)
        };
        Ok(Self { writer, path: path.to_owned(), staging })
    }

    fn line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        let written = match &mut self.writer {
            Writer::Plain(writer) => writer.write_all(&line),
            Writer::Gzip(writer) => writer.write_all(&line),
        };
        written.with_context(|| format!("writing {}", self.path.display()))
    }

    fn persist(self) -> anyhow::Result<()> {
        let writing = || format!("writing {}", self.path.display());
        let file = match self.writer {
            Writer::Plain(writer) => writer,
            Writer::Gzip(writer) => writer.finish().with_context(writing)?,
        };
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(writing)?;
        file.sync_all().with_context(writing)?;
        self.staging.persist(&self.path).with_context(writing)?;
        Ok(())
    }
}
