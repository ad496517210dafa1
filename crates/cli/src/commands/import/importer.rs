//! The work itself: rows become posts, a few posts are under way at once, and what is acknowledged is written down.

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
};

use polyreward_datasets::{Reader, Row};
use polyreward_domain::UserId;
use tokio::{sync::watch, task::JoinSet};

use super::{
    batch::{Entry, Group, Place, Post, PostLimits, postable},
    checkpoint::{Checkpoint, Progress as Written},
    ledger::{Counts, Ledger, Outcome, Reject, Ticket},
    rejects::RejectsFile,
    report::Report,
    target::{Patience, Target, deliver},
};
use crate::{commands::stop_signal, progress::Progress};

/// Outcomes that wait for those before them, at most.
const MAX_WAITING: usize = 4096;
/// Rows read between two looks at what else happens.
const ROWS_AT_ONCE: usize = 256;

/// What an import starts from.
pub struct Outset {
    /// Digest of the input.
    pub input: String,
    /// Digest of the target.
    pub target: String,
    /// How far a run before came.
    pub checkpoint: Checkpoint,
    /// Where rejects go.
    pub rejects: RejectsFile,
    /// Posts under way at once.
    pub at_once: usize,
}

/// How an import ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// At the end of the input.
    Done(Counts),
    /// It was told to stop after so many rows.
    Stopped {
        /// Rows dealt with.
        rows: u64,
    },
}

/// An import under way.
pub struct Importer {
    reader: Reader,
    outset: Outset,
    group: Group,
    /// Posts that are not yet under way.
    ready: VecDeque<(Ticket, Post)>,
    ledger: Ledger,
    /// Rejects of a row that is not dealt with to its end.
    held: Vec<Reject>,
    counts: Counts,
    /// Rows of a run before.
    before: u64,
    /// Rows read.
    read: u64,
    report: Report,
    progress: Progress,
}

/// Posts under way.
struct UnderWay {
    target: Arc<Target>,
    patience: Patience,
    posts: JoinSet<(Ticket, UserId, anyhow::Result<Outcome>)>,
    /// Whose they are: nobody's posts overtake each other.
    busy: HashSet<UserId>,
}

impl UnderWay {
    fn start(&mut self, ticket: Ticket, post: Post) {
        let (target, patience, user_id) =
            (Arc::clone(&self.target), self.patience.clone(), post.user_id.clone());
        self.busy.insert(user_id.clone());
        self.posts.spawn(async move { (ticket, user_id, deliver(&target, post, &patience).await) });
    }
}

impl Importer {
    /// Goes on where a run before stopped, if it was one of the same input to the same target.
    pub fn new(reader: Reader, limits: PostLimits, mut outset: Outset) -> anyhow::Result<Self> {
        let mut counts = Counts::default();
        if let Some(written) = outset.checkpoint.read()? {
            if written.input == outset.input && written.target == outset.target {
                outset.rejects.go_on(written.rejects_bytes)?;
                counts = written.counts;
                eprintln!("import: goes on at row {}, where a run before stopped", counts.rows + 1);
            } else {
                eprintln!("import: begins anew, as input or target is not that of the run before");
            }
        }
        Ok(Self {
            reader,
            outset,
            group: Group::new(limits),
            ready: VecDeque::new(),
            ledger: Ledger::default(),
            held: Vec::new(),
            before: counts.rows,
            counts,
            read: 0,
            report: Report::default(),
            progress: Progress::start("import", 0),
        })
    }

    /// Imports until the end, or until it is told to stop; then it waits for what is under way, unless it is told again.
    pub async fn run(
        mut self,
        target: Arc<Target>,
        patience: Patience,
        stop: watch::Sender<bool>,
    ) -> anyhow::Result<Ended> {
        let mut signal: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(stop_signal()?);
        let mut under_way = UnderWay { target, patience, posts: JoinSet::new(), busy: HashSet::new() };
        let (mut failed, mut stopping) = (None, false);
        loop {
            let mut more = false;
            if !stopping && failed.is_none() {
                match self.start_what_can_be(&mut under_way) {
                    Ok(reads_on) => more = reads_on,
                    Err(error) => failed = Some(error),
                }
            }
            if under_way.posts.is_empty() && !more {
                break;
            }
            let result = tokio::select! {
                biased;
                () = &mut signal => {
                    if stopping {
                        break;
                    }
                    stopping = true;
                    signal = Box::pin(stop_signal()?);
                    Ok(())
                }
                Some(ended) = under_way.posts.join_next() => {
                    let (ticket, user_id, outcome) = ended?;
                    under_way.busy.remove(&user_id);
                    outcome.and_then(|outcome| self.acknowledge(ticket, user_id, outcome))
                }
                () = std::future::ready(()), if more => Ok(()),
            };
            if let Err(error) = result {
                failed.get_or_insert(error);
            }
            if stopping || failed.is_some() {
                stop.send_replace(true);
            }
        }
        self.finish(failed, stopping)
    }

    /// Starts posts while there is room for them; whether there is more to read at once.
    fn start_what_can_be(&mut self, under_way: &mut UnderWay) -> anyhow::Result<bool> {
        while under_way.posts.len() < self.outset.at_once {
            let Some((_, post)) = self.ready.front() else {
                if self.ledger.len() >= MAX_WAITING {
                    break;
                }
                let at_end = self.read_on(&under_way.target)?;
                self.settle()?;
                if self.ready.is_empty() {
                    return Ok(!at_end);
                }
                continue;
            };
            if under_way.busy.contains(&post.user_id) {
                break;
            }
            if let Some((ticket, post)) = self.ready.pop_front() {
                under_way.start(ticket, post);
            }
        }
        Ok(false)
    }

    /// Reads until a post is ready, but not for long; whether the end is reached.
    fn read_on(&mut self, target: &Target) -> anyhow::Result<bool> {
        for _ in 0..ROWS_AT_ONCE {
            let Some(row) = self.reader.next() else {
                self.close_group();
                return Ok(true);
            };
            let row = row?;
            self.read += 1;
            if self.read > self.before {
                self.take(row, target);
            }
            if !self.ready.is_empty() {
                break;
            }
        }
        Ok(false)
    }

    fn take(&mut self, row: Row, target: &Target) {
        let place = Place { file: row.file, number: row.number, index: self.read - 1 };
        match row.content {
            Err(rejected) => {
                let (reason, raw) = (rejected.reason, rejected.raw);
                self.reject(Reject { place, reason, raw });
            }
            Ok(records) => {
                for record in records {
                    let taken = postable(&record).and_then(|(user_id, example)| {
                        if let Some(reason) = target.refuses(&user_id) {
                            return Err(reason.to_owned());
                        }
                        self.group.add(user_id, &record.attributes, Entry { place: place.clone(), example })
                    });
                    match taken {
                        Ok(Some(before)) => self.enqueue(before),
                        Ok(None) => {}
                        Err(reason) => self.reject(Reject::of_record(place.clone(), reason, &record)),
                    }
                }
            }
        }
        if self.group.is_empty() {
            let ticket = self.ledger.open(self.read);
            self.ledger.close(ticket, Outcome::default());
        } else {
            self.group.read(self.read);
        }
    }

    fn enqueue(&mut self, post: Post) {
        let ticket = self.ledger.open(post.rows);
        self.ready.push_back((ticket, post));
    }

    fn close_group(&mut self) {
        if let Some(post) = self.group.close() {
            self.enqueue(post);
        }
    }

    /// Rejects something of the row read last; what was gathered before it is settled before it.
    fn reject(&mut self, reject: Reject) {
        self.close_group();
        let ticket = self.ledger.open(self.read - 1);
        self.ledger.close(ticket, Outcome { rejects: vec![reject], ..Outcome::default() });
    }

    fn acknowledge(&mut self, ticket: Ticket, user_id: UserId, outcome: Outcome) -> anyhow::Result<()> {
        if outcome.stored + outcome.duplicates > 0 {
            self.report.person(user_id);
        }
        self.ledger.close(ticket, outcome);
        self.settle()
    }

    /// Writes down what is done up to the first post that is not.
    fn settle(&mut self) -> anyhow::Result<()> {
        let mut settled = false;
        while let Some((rows, outcome)) = self.ledger.settle() {
            settled = true;
            self.counts.rows = rows;
            self.counts.stored += outcome.stored;
            self.counts.duplicates += outcome.duplicates;
            self.held.extend(outcome.rejects);
        }
        if !settled {
            return Ok(());
        }
        let rows = self.counts.rows;
        let due: Vec<Reject> = self.held.extract_if(.., |reject| reject.place.index < rows).collect();
        for reject in &due {
            self.report.reject(reject, &self.progress);
        }
        self.counts.rejected += due.len() as u64;
        let rejects_bytes = self.outset.rejects.write(&due)?;
        let (input, target) = (self.outset.input.clone(), self.outset.target.clone());
        self.outset.checkpoint.write(&Written { input, target, counts: self.counts, rejects_bytes })?;
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        self.progress.set(rows, rows, "rows");
        Ok(())
    }

    fn finish(self, failed: Option<anyhow::Error>, stopped: bool) -> anyhow::Result<Ended> {
        let Self { reader, outset, counts, before, report, progress, .. } = self;
        let rows = counts.rows;
        if stopped && let Some(error) = &failed {
            progress.note(&format!("{error:#}"));
        }
        if let Some(error) = failed.filter(|_| !stopped) {
            let context =
                format!("not all was imported, but {rows} rows; the same command goes on from there");
            return Err(if rows > before { error.context(context) } else { error });
        }
        progress.finish(&format!("{rows} rows"));
        let rejects = outset.rejects.path().to_owned();
        if !stopped {
            outset.rejects.finish()?;
            outset.checkpoint.remove()?;
        }
        report.print(&counts, before, reader.summary(), &rejects)?;
        if stopped {
            return Ok(Ended::Stopped { rows });
        }
        Ok(Ended::Done(counts))
    }
}
