//! Chat templates as Hugging Face writes them, and where the contents end up in what they render.

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};

use crate::error::InputError;

const NAME: &str = "chat";

/// One turn of a conversation, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn<'a> {
    pub role: &'a str,
    pub content: &'a str,
}

/// A template in the environment that `transformers` gives it: `trim_blocks`, `lstrip_blocks`, loop
/// controls, Python's string methods, `raise_exception`. There is no `strftime_now`: an embedding that
/// depends on the day is no embedding.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

/// A rendered conversation and the byte ranges that came from contents, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub text: String,
    pub contents: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Compiles a template; the error says where it is wrong.
    pub fn new(source: &str, bos_token: Option<String>, eos_token: Option<String>) -> Result<Self, String> {
        let source = without_generation_marks(source);
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.set_debug(false); // debug errors quote variables, which are people's texts
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source.clone()).map_err(|error| error.to_string())?;
        Ok(Self { environment, source, bos_token, eos_token })
    }

    /// The conversation as one text, without a generation prompt.
    pub fn render(&self, turns: &[Turn<'_>]) -> Result<String, InputError> {
        let messages: Vec<Value> =
            turns.iter().map(|turn| context! { role => turn.role, content => turn.content }).collect();
        let template = self.environment.get_template(NAME).map_err(|error| self.refusal(&error))?;
        template
            .render(context! {
                messages => messages,
                add_generation_prompt => false,
                bos_token => special(self.bos_token.as_deref()),
                eos_token => special(self.eos_token.as_deref()),
                tools => Value::from(()),
                documents => Value::from(()),
            })
            .map_err(|error| self.refusal(&error))
    }

    /// The conversation as one text, and where its contents are.
    ///
    /// It is rendered a second time with a pair of characters around each content that occur nowhere else.
    /// They stand inside the content's outer whitespace, so a template that strips still works. A template
    /// that looks into the content may render something else then; in that case contents are searched for.
    pub fn render_with_contents(&self, turns: &[Turn<'_>]) -> Result<Rendered, InputError> {
        let text = self.render(turns)?;
        let marked = self.render_marked(turns).filter(|rendered| rendered.text == text);
        Ok(marked.unwrap_or_else(|| {
            let contents = search_contents(&text, turns);
            Rendered { text, contents }
        }))
    }

    fn render_marked(&self, turns: &[Turn<'_>]) -> Option<Rendered> {
        let taken = |mark: &char| turns.iter().any(|turn| turn.content.contains(*mark));
        let mut free = ('\u{fdd0}'..='\u{fdef}').filter(|mark| !taken(mark) && !self.source.contains(*mark));
        let (open, close) = (free.next()?, free.next()?);
        let marked: Vec<String> = turns.iter().map(|turn| mark(turn.content, open, close)).collect();
        let turns: Vec<Turn<'_>> =
            turns.iter().zip(&marked).map(|(turn, content)| Turn { role: turn.role, content }).collect();
        // It took the contents without marks; if it refuses them now, it looks into them.
        unmark(&self.render(&turns).ok()?, open, close)
    }

    /// Why the template refuses, in words that are the template's own.
    fn refusal(&self, error: &Error) -> InputError {
        let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
        let reason = match error.detail() {
            Some(detail) if self.source.contains(detail) => detail.to_owned(),
            _ => error.kind().to_string(),
        };
        InputError::Template(format!("{reason}{line}"))
    }
}

/// `{% generation %}` and its end say which tokens to train a policy on; they write nothing, and the engine does not know
/// them.
fn without_generation_marks(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (before, tag) = (&rest[..start], &rest[start..start + length]);
        let word = tag[2..].trim_matches(['-', '+']).trim();
        plain.push_str(before);
        match word {
            "generation" => plain.push_str(&tag.replace(word, "if true")),
            "endgeneration" => plain.push_str(&tag.replace(word, "endif")),
            _ => plain.push_str(tag),
        }
        rest = &rest[start + length..];
    }
    plain.push_str(rest);
    plain
}

/// A token that a backbone does not have is undefined, which renders as nothing; `None` would be spelt out.
fn special(token: Option<&str>) -> Value {
    token.map_or(Value::UNDEFINED, Value::from)
}

fn mark(content: &str, open: char, close: char) -> String {
    let core = content.trim();
    if core.is_empty() {
        return content.to_owned();
    }
    let lead = content.len() - content.trim_start().len();
    let (before, after) = (&content[..lead], &content[lead + core.len()..]);
    format!("{before}{open}{core}{close}{after}")
}

/// Takes the marks out again; `None` if they do not pair up.
fn unmark(marked: &str, open: char, close: char) -> Option<Rendered> {
    let mut rendered = Rendered { text: String::with_capacity(marked.len()), contents: Vec::new() };
    let mut start = None;
    for character in marked.chars() {
        if character == open {
            if start.replace(rendered.text.len()).is_some() {
                return None;
            }
        } else if character == close {
            rendered.contents.push(start.take()?..rendered.text.len());
        } else {
            rendered.text.push(character);
        }
    }
    start.is_none().then_some(rendered)
}

/// Each content's first occurrence after the one before it.
fn search_contents(text: &str, turns: &[Turn<'_>]) -> Vec<Range<usize>> {
    let mut cursor = 0;
    let mut contents = Vec::new();
    for core in turns.iter().map(|turn| turn.content.trim()).filter(|core| !core.is_empty()) {
        if let Some(at) = text[cursor..].find(core) {
            let start = cursor + at;
            cursor = start + core.len();
            contents.push(start..cursor);
        }
    }
    contents
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}\n  {% if message.content %}\n\
        {{ '<|im_start|>' + message.role + '\\n' + message['content'] + '<|im_end|>' }}\n\
        {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}assistant{% endif %}";

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, Some("<s>".into()), None).unwrap()
    }

    fn turns<'a>(contents: &[(&'a str, &'a str)]) -> Vec<Turn<'a>> {
        contents.iter().map(|(role, content)| Turn { role, content }).collect()
    }

    #[test]
    fn blocks_are_trimmed_and_no_generation_prompt_is_added() {
        let text = template(CHATML).render(&turns(&[("user", "hi"), ("assistant", "yo")])).unwrap();
        assert_eq!(text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n");
    }

    #[test]
    fn contents_are_found_even_where_the_template_says_the_same_word() {
        let turns = turns(&[("user", "user"), ("assistant", "<|im_end|>")]);
        let rendered = template(CHATML).render_with_contents(&turns).unwrap();
        let parts: Vec<&str> = rendered.contents.iter().map(|range| &rendered.text[range.clone()]).collect();
        assert_eq!(parts, ["user", "<|im_end|>"]);
        assert_eq!(rendered.contents[0].start, "<|im_start|>user\n".len());
    }

    #[test]
    fn a_template_that_strips_contents_is_followed() {
        let source = "{% for m in messages %}[{{ m.content.strip() }}]{{ m.content | trim }}{% endfor %}";
        let rendered = template(source).render_with_contents(&turns(&[("user", " a b \n")])).unwrap();
        assert_eq!(rendered.text, "[a b]a b");
        assert_eq!(rendered.contents, [1..4, 5..8]);
    }

    #[test]
    fn a_template_that_looks_into_contents_falls_back_to_searching() {
        let source = "{% for m in messages %}{% if m.content.startswith('x') %}X{% else %}O{% endif %}\
                      <{{ m.content }}>{% endfor %}";
        let rendered = template(source).render_with_contents(&turns(&[("user", "xy")])).unwrap();
        assert_eq!(rendered, Rendered { text: "X<xy>".into(), contents: std::iter::once(2..4).collect() });
    }

    #[test]
    fn refusals_are_the_templates_own_words_and_never_the_text() {
        let fixed = template("{{ raise_exception('roles must alternate') }}");
        let error = fixed.render(&turns(&[("user", "secret")])).unwrap_err();
        assert_eq!(error, InputError::Template("roles must alternate in line 1".into()));
        let quoting = template("{{ raise_exception('bad: ' + messages[0].content) }}");
        let error = quoting.render(&turns(&[("user", "secret")])).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn the_clock_is_not_available() {
        let error = template("{{ strftime_now('%Y') }}").render(&turns(&[("user", "hi")])).unwrap_err();
        assert!(matches!(error, InputError::Template(_)));
        assert!(ChatTemplate::new("{% for %}", None, None).is_err());
    }

    #[test]
    fn marks_of_what_to_train_on_write_nothing_and_trim_as_they_say() {
        let source = "{% for m in messages %}\n[\n  {%- generation -%}\n {{ m.content }}\n{%+ endgeneration %}\n]{% endfor %}\
                      {% set generation = 'generation' %}{{ generation }}";
        let text = template(source).render(&turns(&[("user", "a"), ("user", "b")])).unwrap();
        assert_eq!(text, "[a\n][b\n]generation");
        assert!(ChatTemplate::new("{% generation %}", None, None).is_err());
    }

    #[test]
    fn special_tokens_are_the_backbones() {
        let source =
            "{{ bos_token }}{% if tools %}T{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";
        assert_eq!(template(source).render(&turns(&[("user", "hi")])).unwrap(), "<s>hi");
    }
}
