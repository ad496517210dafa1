//! Text that a chat template has written, taken apart into its turns.

use polyreward_domain::{Message, Prompt};
use serde::Deserialize;
use utoipa::ToSchema;

/// How a text that holds a whole conversation is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Template {
    /// As it is.
    #[default]
    Raw,
    /// `<|im_start|>role`, `<|im_end|>`: Qwen and many others.
    Chatml,
    /// `<|start_header_id|>role<|end_header_id|>`, `<|eot_id|>`: Llama 3.
    Llama3,
    /// `<start_of_turn>role`, `<end_of_turn>`: Gemma.
    Gemma,
    /// `<|role|>`, `<|end|>`: Phi 3.
    Phi3,
    /// `<|role|>`, `</s>`: Zephyr, TinyLlama.
    Zephyr,
}

/// What stands around a turn's role and behind its content.
struct Marks {
    before_role: &'static str,
    after_role: &'static str,
    end: &'static str,
}

/// What may stand before the first turn and behind the last one, beside white space.
const EDGES: [&str; 7] =
    ["<s>", "</s>", "<bos>", "<eos>", "<|begin_of_text|>", "<|end_of_text|>", "<|endoftext|>"];
/// Longest role that is looked for, in bytes.
const MAX_ROLE_BYTES: usize = 64;

impl Template {
    fn marks(self) -> Option<Marks> {
        let marks = |before_role, after_role, end| Some(Marks { before_role, after_role, end });
        match self {
            Self::Raw => None,
            Self::Chatml => marks("<|im_start|>", "\n", "<|im_end|>"),
            Self::Llama3 => marks("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"),
            Self::Gemma => marks("<start_of_turn>", "\n", "<end_of_turn>"),
            Self::Phi3 => marks("<|", "|>\n", "<|end|>"),
            Self::Zephyr => marks("<|", "|>\n", "</s>"),
        }
    }

    /// The conversation before the last turn, and that turn, the assistant's; `None` where the text is not one of this
    /// template's, or ends otherwise. A last turn that was not closed counts, as when a policy ran out of tokens.
    pub fn take_apart(self, text: &str) -> Option<(Prompt, String)> {
        let marks = self.marks()?;
        let mut messages = Vec::new();
        let mut rest = skip_edges(text);
        while !rest.is_empty() {
            let (role, content) = rest.strip_prefix(marks.before_role)?.split_once(marks.after_role)?;
            if !(1..=MAX_ROLE_BYTES).contains(&role.len()) || role.contains(['<', '|', '\n']) {
                return None;
            }
            let role = if role == "model" { "assistant" } else { role };
            let (content, next) = content.split_once(marks.end).unwrap_or((content, ""));
            messages.push(Message { role: role.to_owned(), content: content.to_owned() });
            rest = skip_edges(next);
        }
        let last = messages.pop_if(|message| message.role == "assistant")?;
        let prompt = if messages.is_empty() { Prompt::Text(String::new()) } else { Prompt::Chat(messages) };
        Some((prompt, last.content))
    }
}

fn skip_edges(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        let Some(rest) = EDGES.iter().find_map(|edge| text.strip_prefix(edge)) else { return text };
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart(template: Template, text: &str) -> Option<(Vec<(String, String)>, String)> {
        let (prompt, response) = template.take_apart(text)?;
        let turns = match prompt {
            Prompt::Chat(messages) => messages.into_iter().map(|turn| (turn.role, turn.content)).collect(),
            Prompt::Text(_) | Prompt::Raw(_) | Prompt::Tokens(_) => Vec::new(),
        };
        Some((turns, response))
    }

    #[test]
    fn each_templates_text_becomes_its_turns_again() {
        let texts = [
            (
                Template::Chatml,
                "<|im_start|>user\nhi\nyou<|im_end|>\n<|im_start|>assistant\nhello!<|im_end|>\n",
            ),
            (
                Template::Llama3,
                "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi\nyou<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\nhello!<|eot_id|>",
            ),
            (
                Template::Gemma,
                "<bos><start_of_turn>user\nhi\nyou<end_of_turn>\n<start_of_turn>model\nhello!<end_of_turn>\n",
            ),
            (Template::Phi3, "<|user|>\nhi\nyou<|end|>\n<|assistant|>\nhello!<|end|>\n<|endoftext|>"),
            (Template::Zephyr, "<|user|>\nhi\nyou</s>\n<|assistant|>\nhello!</s>"),
        ];
        let expected = Some((vec![("user".to_owned(), "hi\nyou".to_owned())], "hello!".to_owned()));
        for (template, text) in texts {
            assert_eq!(apart(template, text), expected, "{template:?}");
            // A response that was cut off is one.
            let cut = &text[..=text.rfind("ello!").unwrap()];
            assert_eq!(apart(template, cut).unwrap().1, "he", "{template:?}");
        }
    }

    #[test]
    fn a_text_of_another_form_is_none_of_a_templates() {
        let chatml = "<|im_start|>user\nhi<|im_end|>\n";
        for text in ["", "hello", chatml, "x<|im_start|>assistant\nyo", "<|im_start|>no end of role"] {
            assert_eq!(apart(Template::Chatml, text), None, "{text}");
        }
        assert_eq!(apart(Template::Llama3, chatml), None);
        assert_eq!(apart(Template::Raw, chatml), None);
        assert_eq!(apart(Template::Chatml, "<|im_start|>assistant\nyo"), Some((vec![], "yo".to_owned())));
    }
}
