//! Prompt and response to token ids, within the backbone's window.
//!
//! What does not fit is cut where it hurts a reward least: first from the start of the prompt, then from the
//! start of the response. The end of the response, special tokens and the template's own tokens stay.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use polyreward_domain::{Message, Overflow, Prompt, TextForm};
use tokenizers::{Encoding, PostProcessor, Tokenizer};

use crate::error::{BackboneError, InputError};
use crate::folder::{BackboneFolder, InputShape, TEMPLATE_FILE, TOKENIZER_FILE};
use crate::template::{ChatTemplate, Turn};

/// Tokens read beyond the window: those next to a byte cut may differ from the whole text's.
const SLACK_TOKENS: usize = 64;
/// Bytes read at first, per token wanted. Ordinary text has about four.
const BYTES_PER_TOKEN: usize = 16;
/// How much more is read, at most, of a text that hardly has tokens (such as one of spaces only).
const MAX_WIDENING: usize = 64;
/// A byte cut moves to a space that is at most this far away.
const SPACE_WITHIN_BYTES: usize = 256;

/// What is to be embedded; parts that the form does not need are ignored.
#[derive(Debug, Clone)]
pub struct EmbedInput {
    /// Which parts are read.
    pub form: TextForm,
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// The response.
    pub response: Arc<str>,
}

/// One text as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedText {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Segment of each token, for models that ask.
    pub type_ids: Vec<u32>,
    /// Tokens before the text was cut to the window; a lower bound where the text was not read to its start.
    pub full_tokens: usize,
    /// Whether something was cut.
    pub truncated: bool,
}

impl TokenizedText {
    #[cfg(test)]
    pub(crate) fn of_ids(ids: Vec<u32>) -> Self {
        let (type_ids, full_tokens) = (vec![0; ids.len()], ids.len());
        Self { ids, type_ids, full_tokens, truncated: false }
    }
}

/// The tokenizer of a backbone, with its template and window.
#[derive(Debug)]
pub(crate) struct TextTokenizer {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    shape: InputShape,
    max_tokens: usize,
    /// The token that opens a text, if one does.
    opening: Option<u32>,
    /// Stands for a text without any token.
    blank: u32,
}

/// A text's tokens, or those of its end.
struct Segment {
    encoding: Encoding,
    /// Whether the start of the text was not read.
    cut: bool,
}

impl TextTokenizer {
    /// Reads tokenizer and template of a folder and checks them against `backbone.json`.
    pub fn open(folder: &BackboneFolder, template: Option<String>) -> Result<Self, BackboneError> {
        let config = folder.config();
        let bad = |detail: String| folder.bad(TOKENIZER_FILE, detail);
        let mut tokenizer =
            Tokenizer::from_bytes(folder.read_tokenizer()?).map_err(|error| bad(error.to_string()))?;
        // Published files often cut at a length of their own.
        tokenizer.with_truncation(None).map_err(|error| bad(error.to_string()))?;
        let pad_id = tokenizer.get_padding().map_or(0, |padding| padding.pad_id);
        tokenizer.with_padding(None);
        let id_of = |token: &Option<String>| match token {
            None => Ok(None),
            Some(token) => {
                let unknown = || bad(format!("it does not know {token}, which backbone.json names"));
                tokenizer.token_to_id(token).map(Some).ok_or_else(unknown)
            }
        };
        let (bos, eos) = (id_of(&config.bos_token)?, id_of(&config.eos_token)?);
        let empty = tokenizer.post_process(Encoding::default(), None, true);
        let first_added = empty.map_err(|error| bad(error.to_string()))?.get_ids().first().copied();
        let template = template
            .map(|source| ChatTemplate::new(&source, config.bos_token.clone(), config.eos_token.clone()))
            .transpose()
            .map_err(|detail| folder.bad(TEMPLATE_FILE, detail))?;
        let this = Self {
            template,
            shape: config.input,
            max_tokens: config.max_tokens,
            opening: bos.or(first_added),
            blank: bos.or(eos).unwrap_or(pad_id),
            tokenizer,
        };
        if this.added_tokens(true) >= this.max_tokens {
            return Err(bad("its special tokens alone fill the window".into()));
        }
        Ok(this)
    }

    /// The text's tokens; one that is too long is cut, or refused.
    pub fn tokenize(&self, input: &EmbedInput, overflow: Overflow) -> Result<TokenizedText, InputError> {
        let mut text = match &*input.prompt {
            Prompt::Text(_) | Prompt::Chat(_) => self.written(input, overflow)?,
            Prompt::Raw(_) => self.raw(input, overflow)?,
            Prompt::Tokens(ids) => self.as_they_are(ids, input.form, overflow)?,
        };
        if text.ids.is_empty() {
            (text.ids, text.type_ids) = (vec![self.blank], vec![0]);
        }
        Ok(text)
    }

    /// A text that this backbone puts in its form.
    fn written(&self, input: &EmbedInput, overflow: Overflow) -> Result<TokenizedText, InputError> {
        match (self.shape, input.form, &self.template) {
            (InputShape::Chat, form, Some(template)) => self.chat(template, form, input, overflow),
            (_, TextForm::Prompt, _) => self.segments(&self.flat_prompt(input), None, overflow),
            (_, TextForm::Response, _) => self.segments(&input.response, None, overflow),
            (InputShape::Concat, TextForm::PromptResponse, _) => {
                let joined = format!("{}\n{}", self.flat_prompt(input), input.response);
                self.segments(&joined, None, overflow)
            }
            (_, TextForm::PromptResponse, _) => {
                self.segments(&self.flat_prompt(input), Some(&input.response), overflow)
            }
        }
    }

    /// Ids of a whole text, which stands where a response does: a prompt alone has none of it. Nothing is added to them; of
    /// too many the start is cut, behind the token that opens a text.
    fn as_they_are(
        &self,
        ids: &[u32],
        form: TextForm,
        overflow: Overflow,
    ) -> Result<TokenizedText, InputError> {
        if let Some((at, id)) =
            ids.iter().copied().enumerate().find(|(_, id)| self.tokenizer.id_to_token(*id).is_none())
        {
            return Err(InputError::UnknownToken { at, id });
        }
        let ids = if form == TextForm::Prompt { &[] } else { ids };
        let truncated = self.check_overflow(ids.len(), false, overflow)?;
        let whole = TokenizedText {
            type_ids: vec![0; ids.len()],
            ids: ids.to_vec(),
            full_tokens: ids.len(),
            truncated,
        };
        let opened = self.opening.is_some() && ids.first().copied() == self.opening;
        if truncated { self.end_of_ids(whole, opened, overflow) } else { Ok(whole) }
    }

    /// The end of a text that is too long, behind the token that opens it.
    fn end_of_ids(
        &self,
        mut text: TokenizedText,
        opened: bool,
        overflow: Overflow,
    ) -> Result<TokenizedText, InputError> {
        let limit = overflow.limit(self.max_tokens);
        let opening = self.opening.filter(|_| opened);
        let room = limit.saturating_sub(usize::from(opened));
        if room == 0 {
            return Err(InputError::NoRoom(limit));
        }
        let start = text.ids.len().saturating_sub(room);
        text.ids = opening.into_iter().chain(text.ids[start..].iter().copied()).collect();
        text.type_ids = vec![0; text.ids.len()];
        Ok(text)
    }

    /// A text that is in its form already.
    fn raw(&self, input: &EmbedInput, overflow: Overflow) -> Result<TokenizedText, InputError> {
        let prompt = &*self.flat_prompt(input);
        match (self.shape, input.form) {
            (_, TextForm::Prompt) => self.as_it_is(prompt, overflow),
            (_, TextForm::PromptResponse) if prompt.is_empty() => self.as_it_is(&input.response, overflow),
            (InputShape::Pair, TextForm::PromptResponse) => {
                self.segments(prompt, Some(&input.response), overflow)
            }
            (_, TextForm::Response) => self.as_it_is(&input.response, overflow),
            (_, TextForm::PromptResponse) => self.as_it_is(&format!("{prompt}{}", input.response), overflow),
        }
    }

    /// One text, of which the start is cut; special tokens are added unless it has the one that opens a text.
    fn as_it_is(&self, text: &str, overflow: Overflow) -> Result<TokenizedText, InputError> {
        let opened = self.template.is_some() && self.is_opened(text)?;
        if !opened {
            return self.segments(text, None, overflow);
        }
        let Segment { encoding, cut } = self.end_of(text)?;
        let full_tokens = encoding.len();
        let truncated = self.check_overflow(full_tokens, cut, overflow)?;
        let text = text_of(&encoding, full_tokens, truncated);
        if truncated { self.end_of_ids(text, true, overflow) } else { Ok(text) }
    }

    /// Whether a text begins with the token that opens one.
    fn is_opened(&self, text: &str) -> Result<bool, InputError> {
        let start = &text[..text.floor_char_boundary(SPACE_WITHIN_BYTES)];
        let encoding = self.tokenizer.encode_fast(start, false).map_err(|_| InputError::Tokenizer)?;
        Ok(self.opening.is_some() && encoding.get_ids().first().copied() == self.opening)
    }

    /// One or two segments with the tokenizer's own special tokens.
    fn segments(
        &self,
        first: &str,
        second: Option<&str>,
        overflow: Overflow,
    ) -> Result<TokenizedText, InputError> {
        let first = self.end_of(first)?;
        let second = second.map(|text| self.end_of(text)).transpose()?;
        let cut = first.cut || second.as_ref().is_some_and(|segment| segment.cut);
        let added = self.added_tokens(second.is_some());
        let second_tokens = second.as_ref().map_or(0, |segment| segment.encoding.len());
        let full_tokens = first.encoding.len() + second_tokens + added;
        let truncated = self.check_overflow(full_tokens, cut, overflow)?;

        let limit = overflow.limit(self.max_tokens);
        let room = limit.saturating_sub(added);
        if truncated && room == 0 {
            return Err(InputError::NoRoom(limit));
        }
        let keep_second = second_tokens.min(room);
        let first = keep_last(first.encoding, room - keep_second);
        let second = second.map(|segment| {
            let mut encoding = keep_last(segment.encoding, keep_second);
            encoding.set_type_ids(vec![1; encoding.len()]); // as the tokenizer does for a pair
            encoding
        });
        let encoding = self.tokenizer.post_process(first, second, true).map_err(|_| InputError::Tokenizer)?;
        Ok(text_of(&encoding, full_tokens, truncated))
    }

    /// A conversation as the template writes it.
    fn chat(
        &self,
        template: &ChatTemplate,
        form: TextForm,
        input: &EmbedInput,
        overflow: Overflow,
    ) -> Result<TokenizedText, InputError> {
        let (mut turns, left_out) = turns_of(form, input, self.most_turns());
        let cut = self.cut_contents(&mut turns) || left_out;
        let encoding = self.encode_chat(&template.render(&turns)?)?;
        let full_tokens = encoding.len();
        if !self.check_overflow(full_tokens, cut, overflow)? {
            return Ok(text_of(&encoding, full_tokens, false));
        }
        let limit = overflow.limit(self.max_tokens);
        loop {
            if let Some(text) = self.shorten_chat(template, &turns, full_tokens, limit)? {
                return Ok(text);
            }
            if !drop_earliest_turns(&mut turns) {
                return Err(if limit < self.max_tokens {
                    InputError::NoRoom(limit)
                } else {
                    InputError::TooLong { tokens: full_tokens, max_tokens: self.max_tokens }
                });
            }
        }
    }

    /// Leaves out the earliest tokens of contents; `None` if that is not enough.
    fn shorten_chat(
        &self,
        template: &ChatTemplate,
        turns: &[Turn<'_>],
        full_tokens: usize,
        limit: usize,
    ) -> Result<Option<TokenizedText>, InputError> {
        let rendered = template.render_with_contents(turns)?;
        let encoding = self.encode_chat(&rendered.text)?;
        let mut excess = encoding.len().saturating_sub(limit);
        let mut text = TokenizedText { ids: vec![], type_ids: vec![], full_tokens, truncated: true };
        for at in 0..encoding.len() {
            let (start, end) = encoding.get_offsets()[at];
            // A token that reaches into the template's own text counts as the template's.
            let is_content = encoding.get_special_tokens_mask()[at] == 0
                && start < end
                && lies_within(&rendered.contents, start..end);
            if is_content && excess > 0 {
                excess -= 1;
            } else {
                text.ids.push(encoding.get_ids()[at]);
                text.type_ids.push(encoding.get_type_ids()[at]);
            }
        }
        Ok((excess == 0).then_some(text))
    }

    /// A rendered conversation's tokens; special tokens are added unless the template already wrote the one
    /// that opens a text.
    fn encode_chat(&self, text: &str) -> Result<Encoding, InputError> {
        let encoding = self.tokenizer.encode(text, false).map_err(|_| InputError::Tokenizer)?;
        if self.opening.is_some() && encoding.get_ids().first().copied() == self.opening {
            return Ok(encoding);
        }
        self.tokenizer.post_process(encoding, None, true).map_err(|_| InputError::Tokenizer)
    }

    /// Bounds the bytes of a conversation's contents, the latest first; says whether something was cut.
    fn cut_contents(&self, turns: &mut [Turn<'_>]) -> bool {
        let mut room = self.most_bytes();
        let mut cut = false;
        for turn in turns.iter_mut().rev() {
            // A content is never emptied: templates ask whether there is one.
            let start = end_start(turn.content, room.max(SPACE_WITHIN_BYTES));
            cut |= start > 0;
            turn.content = &turn.content[start..];
            room = room.saturating_sub(turn.content.len());
        }
        cut
    }

    /// A text's tokens, without special ones. Of a very long text only the end is read: far more than the
    /// window holds, so that what is kept is what the whole text would have given. Only a text with less than
    /// a token in a thousand bytes, which no language has, can be cut further than it had to be.
    fn end_of(&self, text: &str) -> Result<Segment, InputError> {
        let mut bytes = self.bytes_read();
        let most = self.most_bytes();
        loop {
            let start = end_start(text, bytes);
            let encoding =
                self.tokenizer.encode_fast(&text[start..], false).map_err(|_| InputError::Tokenizer)?;
            let enough = encoding.len() >= self.max_tokens + SLACK_TOKENS;
            if start == 0 || enough || bytes >= most {
                return Ok(Segment { encoding, cut: start > 0 });
            }
            bytes *= 8;
        }
    }

    fn bytes_read(&self) -> usize {
        (self.max_tokens + SLACK_TOKENS) * BYTES_PER_TOKEN
    }

    /// No more bytes of a text than these are ever read.
    fn most_bytes(&self) -> usize {
        self.bytes_read() * MAX_WIDENING
    }

    /// No more turns of a chat are ever rendered: each writes at least a token, so more cannot fit.
    fn most_turns(&self) -> usize {
        self.max_tokens + SLACK_TOKENS
    }

    /// The prompt as plain text, or as much of its end as can make a difference.
    fn flat_prompt<'a>(&self, input: &'a EmbedInput) -> Cow<'a, str> {
        flat_end(&input.prompt, self.most_bytes() + 1)
    }

    /// Whether the text must be cut; an error if it may not be.
    fn check_overflow(&self, tokens: usize, cut: bool, overflow: Overflow) -> Result<bool, InputError> {
        let truncated = cut || tokens > overflow.limit(self.max_tokens);
        if truncated && overflow == Overflow::Error {
            let tokens = tokens.max(self.max_tokens + 1);
            return Err(InputError::TooLong { tokens, max_tokens: self.max_tokens });
        }
        Ok(truncated)
    }

    fn added_tokens(&self, pair: bool) -> usize {
        self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(pair))
    }
}

/// A prompt's end of at least `bytes`, or all of it. A chat is plain text for backbones without a template: one
/// `role: content` a message, joined by newlines.
fn flat_end(prompt: &Prompt, bytes: usize) -> Cow<'_, str> {
    let end = |text: &'_ str| text.floor_char_boundary(text.len().saturating_sub(bytes));
    match prompt {
        Prompt::Text(text) | Prompt::Raw(text) => Cow::Borrowed(&text[end(text)..]),
        Prompt::Tokens(_) => Cow::Borrowed(""),
        Prompt::Chat(messages) => {
            let mut lines = Vec::new();
            let mut size = 0;
            for Message { role, content } in messages.iter().rev() {
                let start = end(content);
                let line = if start > 0 { content[start..].to_owned() } else { format!("{role}: {content}") };
                size += line.len() + usize::from(!lines.is_empty());
                lines.push(line);
                if size >= bytes {
                    break;
                }
            }
            lines.reverse();
            Cow::Owned(lines.join("\n"))
        }
    }
}

/// The turns of a form: a prompt that is a text is one user turn, the response one assistant turn. Of a chat with
/// more than `most` messages the earliest after a leading system message are left out, an even number where roles
/// may have to alternate; whether there were any.
fn turns_of(form: TextForm, input: &EmbedInput, most: usize) -> (Vec<Turn<'_>>, bool) {
    let mut turns = Vec::new();
    let mut leave_out = 0;
    if form != TextForm::Response {
        match &*input.prompt {
            Prompt::Text(text) | Prompt::Raw(text) => turns.push(Turn { role: "user", content: text }),
            Prompt::Tokens(_) => {}
            Prompt::Chat(messages) => {
                let lead = usize::from(messages.first().is_some_and(|message| message.role == "system"));
                leave_out = messages.len().saturating_sub(most).next_multiple_of(2);
                let kept = messages[..lead].iter().chain(&messages[lead + leave_out..]);
                turns.extend(kept.map(|Message { role, content }| Turn { role, content }));
            }
        }
    }
    if form != TextForm::Prompt {
        turns.push(Turn { role: "assistant", content: &input.response });
    }
    (turns, leave_out > 0)
}

/// Whether a range is inside one of `contents`, which are in order and do not overlap.
fn lies_within(contents: &[Range<usize>], range: Range<usize>) -> bool {
    let after = contents.partition_point(|content| content.start <= range.start);
    after.checked_sub(1).is_some_and(|at| range.end <= contents[at].end)
}

/// Drops half of the turns between a leading system turn and the last turn, the earliest first and an even
/// number where roles may have to alternate; whether there was one to drop.
fn drop_earliest_turns(turns: &mut Vec<Turn<'_>>) -> bool {
    let keep = usize::from(turns.first().is_some_and(|turn| turn.role == "system"));
    let between = turns.len().saturating_sub(keep + 1);
    if between == 0 {
        return false;
    }
    let drop = between.div_ceil(2).next_multiple_of(2).min(between);
    turns.drain(keep..keep + drop);
    true
}

/// Where the last `bytes` of a text start, moved on to a space if one is near.
fn end_start(text: &str, bytes: usize) -> usize {
    let Some(at) = text.len().checked_sub(bytes).filter(|at| *at > 0) else { return 0 };
    let start = text.ceil_char_boundary(at);
    let near = text.floor_char_boundary(start + SPACE_WITHIN_BYTES.min(bytes / 2));
    text[start..near].find(char::is_whitespace).map_or(start, |space| start + space)
}

#[expect(clippy::default_trait_access, reason = "the map's type is not ours to name")]
fn keep_last(encoding: Encoding, tokens: usize) -> Encoding {
    let Some(start) = encoding.len().checked_sub(tokens).filter(|start| *start > 0) else {
        return encoding;
    };
    Encoding::new(
        encoding.get_ids()[start..].to_vec(),
        encoding.get_type_ids()[start..].to_vec(),
        encoding.get_tokens()[start..].to_vec(),
        encoding.get_word_ids()[start..].to_vec(),
        encoding.get_offsets()[start..].to_vec(),
        encoding.get_special_tokens_mask()[start..].to_vec(),
        encoding.get_attention_mask()[start..].to_vec(),
        Vec::new(),
        Default::default(),
    )
}

fn text_of(encoding: &Encoding, full_tokens: usize, truncated: bool) -> TokenizedText {
    let (ids, type_ids) = (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec());
    TokenizedText { ids, type_ids, full_tokens, truncated }
}

#[cfg(test)]
#[path = "tokenize_tests.rs"]
mod tests;
