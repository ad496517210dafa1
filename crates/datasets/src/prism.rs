//! PRISM: a survey of people, and the responses they scored, one a row (`survey`, `utterances`).

mod interaction;
mod survey;

use std::{
    cmp::Ordering,
    collections::{HashSet, VecDeque},
    mem,
    path::{Path, PathBuf},
};

use polyreward_domain::{ComparisonRecord, Message, PersonId};

use self::{
    interaction::{Interaction, Utterance},
    survey::Survey,
};
use crate::{
    container::Item,
    lines::{MAX_LINE_BYTES, ReadError, too_long},
    reader::Source,
    row::{Rejected, Row, Skip, Summary},
};

/// The interactions of PRISM, a conversation at a time.
///
/// The survey is held, an entry a person. Of the utterances one conversation is held, as its rows stand together in
/// the file, in whatever order; one of more than 16 MiB is refused. What is remembered of the others is their ids: a
/// conversation that comes back later is refused, since its turns would lack what came before them.
pub(crate) struct PrismReader {
    /// Until it is read.
    survey_file: Option<Source>,
    utterances: Source,
    survey: Survey,
    group: Option<Group>,
    replay: Replay,
    seen: HashSet<String>,
}

/// The rows of one conversation that were read so far.
struct Group {
    conversation_id: String,
    rows: Vec<Utterance>,
    bytes: usize,
    /// Why none of its rows is taken.
    refused: Option<String>,
}

/// A conversation whose rows are complete, turn by turn.
#[derive(Default)]
struct Replay {
    turns: VecDeque<Interaction>,
    history: Vec<Message>,
    next_turn: u32,
    /// Whose the turns before are.
    person: Option<PersonId>,
}

impl PrismReader {
    /// Opens a folder that holds both files, or both files in either order.
    pub(crate) fn open(paths: &[PathBuf], summary: &mut Summary) -> Result<Self, ReadError> {
        let files = files(paths)?;
        let role = |name| only(&files, name, paths.first().map_or(Path::new("."), PathBuf::as_path));
        let survey_file = Source::open(role("survey")?, &survey::COLUMNS, false, summary)?;
        let utterances = Source::open(role("utterances")?, &interaction::COLUMNS, false, summary)?;
        Ok(Self {
            survey_file: Some(survey_file),
            utterances,
            survey: Survey::default(),
            group: None,
            replay: Replay::default(),
            seen: HashSet::new(),
        })
    }

    pub(crate) fn next(&mut self, summary: &mut Summary) -> Option<Result<Row, ReadError>> {
        while let Some(file) = &mut self.survey_file {
            let Some(item) = file.next() else {
                self.survey_file = None;
                break;
            };
            let read = item.map(|Item { number, line }| {
                file.take(number, line, summary, |line, summary| self.survey.add(line, summary))
            });
            match read {
                Ok(Ok(())) => {}
                Ok(Err(rejected)) => return Some(Ok(rejected)),
                Err(error) => return Some(Err(error)),
            }
        }
        loop {
            if let Some(interaction) = self.replay.turns.pop_front() {
                return Some(Ok(self.tell(interaction, summary)));
            }
            let Some(item) = self.utterances.next() else {
                self.finish_group();
                if self.replay.turns.is_empty() {
                    return None;
                }
                continue;
            };
            let read = item.map(|Item { number, line }| {
                let parse = |line: &str, summary: &mut Summary| Utterance::parse(number, line, summary);
                self.utterances.take(number, line, summary, parse)
            });
            match read {
                Ok(Ok(utterance)) => {
                    if let Some(rejected) = self.hold(utterance, summary) {
                        return Some(Ok(rejected));
                    }
                }
                Ok(Err(rejected)) => return Some(Ok(rejected)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Adds a row to its conversation, and gives back what is refused by that.
    fn hold(&mut self, utterance: Utterance, summary: &mut Summary) -> Option<Row> {
        if self.group.as_ref().is_none_or(|group| group.conversation_id != utterance.conversation_id) {
            self.finish_group();
            let conversation_id = utterance.conversation_id.clone();
            let refused = (!self.seen.insert(conversation_id.clone()))
                .then(|| "its conversation began earlier in the file; rows of one stand together".into());
            self.group = Some(Group { conversation_id, rows: Vec::new(), bytes: 0, refused });
        }
        let group = self.group.as_mut().expect("it was just made where there was none");
        group.bytes += utterance.line.len();
        group.rows.push(utterance);
        if group.bytes as u64 > MAX_LINE_BYTES {
            group.refused.get_or_insert_with(|| format!("its conversation {}", too_long()));
        }
        let reason = group.refused.clone()?;
        let rows = mem::take(&mut group.rows);
        Some(self.refuse(rows, reason, summary))
    }

    fn finish_group(&mut self) {
        let rows = self.group.take().map(|group| group.rows).unwrap_or_default();
        self.replay = Replay { turns: interaction::in_order(rows), ..Replay::default() };
    }

    /// One turn as a row, with what was said before it.
    fn tell(&mut self, interaction: Interaction, summary: &mut Summary) -> Row {
        match self.replay.tell(&interaction, &self.survey) {
            Ok((records, skipped)) => {
                summary.skip(skipped);
                summary.records += records.len() as u64;
                Row { file: self.utterances.file(), number: interaction.number(), content: Ok(records) }
            }
            Err(reason) => self.refuse(interaction.into_rows(), reason, summary),
        }
    }

    /// Rows that are refused together.
    fn refuse(&self, rows: Vec<Utterance>, reason: String, summary: &mut Summary) -> Row {
        summary.rejected += rows.len() as u64;
        let number = rows.iter().map(|row| row.number).min().unwrap_or_default();
        let lines: Vec<_> = rows.iter().map(|row| row.line.trim_end()).collect();
        let raw = lines.join("\n").into_bytes();
        Row { file: self.utterances.file(), number, content: Err(Rejected { reason, raw }) }
    }
}

impl Replay {
    /// The next turn's comparisons; where it is refused, so are those after it.
    fn tell(
        &mut self,
        interaction: &Interaction,
        survey: &Survey,
    ) -> Result<(Vec<ComparisonRecord>, Vec<Skip>), String> {
        interaction.check()?;
        match interaction.turn().cmp(&self.next_turn) {
            Ordering::Less => return Err("its turn is there a second time".into()),
            Ordering::Greater => return Err("the turn before it is missing or refused".into()),
            Ordering::Equal => {}
        }
        let id = interaction.person();
        if self.person.get_or_insert_with(|| id.clone()) != id {
            return Err("the turn before it is another person's".into());
        }
        let person = survey.person(id).ok_or("its person is not in the survey")?;
        let told = interaction.comparisons(person, &mut self.history)?;
        self.next_turn += 1;
        Ok(told)
    }
}

/// The files named, and those in the folders named.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ReadError> {
    let mut files = Vec::new();
    for path in paths {
        let failed = |source| ReadError::Io { path: path.clone(), source };
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        for entry in path.read_dir().map_err(failed)? {
            files.push(entry.map_err(failed)?.path());
        }
    }
    Ok(files)
}

/// The one file whose name up to the first dot is `name`.
fn only<'a>(files: &'a [PathBuf], name: &'static str, place: &Path) -> Result<&'a Path, ReadError> {
    let is_named = |file: &&PathBuf| {
        file.file_name().and_then(|file| file.to_str()).and_then(|file| file.split('.').next()) == Some(name)
    };
    let mut named = files.iter().filter(is_named);
    match (named.next(), named.next()) {
        (Some(file), None) => Ok(file),
        (None, _) => {
            let detail = match name {
                "survey" => "PRISM has a survey (survey.jsonl); give the folder, or both files",
                _ => "PRISM has utterances (utterances.jsonl); give the folder, or both files",
            };
            Err(ReadError::Layout { path: place.to_owned(), detail })
        }
        (Some(_), Some(file)) => {
            Err(ReadError::Layout { path: file.clone(), detail: "is there a second time" })
        }
    }
}
