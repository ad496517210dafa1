//! Laws of cutting, on the small backbones of `tests/fixtures`. No model runs here.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

static ENCODER: LazyLock<TextTokenizer> = LazyLock::new(|| open("tiny-encoder"));
static DECODER: LazyLock<TextTokenizer> = LazyLock::new(|| open("tiny-decoder"));

fn open(name: &str) -> TextTokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let folder = BackboneFolder::open(&folder).unwrap();
    let template = folder.read_template().unwrap();
    TextTokenizer::open(&folder, template).unwrap()
}

fn concat() -> TextTokenizer {
    let mut tokenizer = open("tiny-encoder");
    tokenizer.shape = InputShape::Concat;
    tokenizer
}

fn input(form: TextForm, prompt: &str, response: &str) -> EmbedInput {
    EmbedInput { form, prompt: Arc::new(Prompt::Text(prompt.into())), response: response.into() }
}

fn chat(messages: &[(&str, &str)], response: &str) -> EmbedInput {
    let message =
        |(role, content): &(&str, &str)| Message { role: (*role).into(), content: (*content).into() };
    let prompt = Arc::new(Prompt::Chat(messages.iter().map(message).collect()));
    EmbedInput { form: TextForm::PromptResponse, prompt, response: response.into() }
}

fn read(tokenizer: &TextTokenizer, input: &EmbedInput) -> TokenizedText {
    tokenizer.tokenize(input, Overflow::Truncate).unwrap()
}

fn plain_ids(tokenizer: &TextTokenizer, text: &str) -> Vec<u32> {
    tokenizer.tokenizer.encode(text, false).unwrap().get_ids().to_vec()
}

fn id(tokenizer: &TextTokenizer, token: &str) -> u32 {
    tokenizer.tokenizer.token_to_id(token).unwrap()
}

/// The longest end of `all` that `ids` ends with must be all of `ids`.
fn is_end_of(ids: &[u32], all: &[u32]) -> bool {
    all.ends_with(ids)
}

fn words() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!["fish", "river", "the", "xyz", "é", "魚", "!", "🐟", "12"]),
        0..120,
    )
    .prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn a_pair_loses_the_prompts_start_first_then_the_responses(prompt in words(), response in words()) {
        let tokenizer = &*ENCODER;
        let text = read(tokenizer, &input(TextForm::PromptResponse, &prompt, &response));
        let (cls, sep) = (id(tokenizer, "[CLS]"), id(tokenizer, "[SEP]"));
        prop_assert!(text.ids.len() <= tokenizer.max_tokens);
        prop_assert_eq!(text.ids[0], cls);
        let parts: Vec<&[u32]> = text.ids[1..].split(|token| *token == sep).collect();
        prop_assert_eq!(parts.len(), 3); // prompt, response, nothing after the closing token
        let (all_prompt, all_response) = (plain_ids(tokenizer, &prompt), plain_ids(tokenizer, &response));
        prop_assert!(is_end_of(parts[0], &all_prompt) && is_end_of(parts[1], &all_response));
        let full = all_prompt.len() + all_response.len() + 3;
        prop_assert_eq!((text.full_tokens, text.truncated), (full, full > tokenizer.max_tokens));
        if text.truncated {
            prop_assert_eq!(text.ids.len(), tokenizer.max_tokens);
            prop_assert!(parts[0].is_empty() || parts[1].len() == all_response.len());
        } else {
            prop_assert_eq!(parts[0].len() + parts[1].len() + 3, full);
        }
        let second = text.type_ids.iter().filter(|type_id| **type_id == 1).count();
        prop_assert_eq!(second, parts[1].len() + 1);
    }

    #[test]
    fn one_text_keeps_its_end(prompt in words(), response in words()) {
        let tokenizer = concat();
        let text = read(&tokenizer, &input(TextForm::PromptResponse, &prompt, &response));
        let all = plain_ids(&tokenizer, &format!("{prompt}\n{response}"));
        prop_assert!(text.ids.len() <= tokenizer.max_tokens);
        prop_assert!(is_end_of(&text.ids[1..text.ids.len() - 1], &all));
        prop_assert_eq!(text.truncated, all.len() + 2 > tokenizer.max_tokens);
    }

    #[test]
    fn a_chat_keeps_what_the_template_wrote(system in words(), prompt in words(), response in words()) {
        let tokenizer = &*DECODER;
        let text = read(tokenizer, &chat(&[("system", &system), ("user", &prompt)], &response));
        prop_assert!(text.ids.len() <= tokenizer.max_tokens);
        prop_assert_eq!(text.ids[0], id(tokenizer, "<s>"));
        prop_assert_eq!(text.ids.iter().filter(|token| **token == id(tokenizer, "<s>")).count(), 1);
        let closing = [id(tokenizer, "<|im_end|>"), id(tokenizer, "</s>")];
        prop_assert!(text.ids.ends_with(&closing));
        for (role, content) in [("system", &system), ("user", &prompt), ("assistant", &response)] {
            let frame = plain_ids(tokenizer, &format!("<|im_start|>{role}\n"));
            prop_assert!(text.ids.windows(frame.len()).any(|window| window == frame), "{} {}", role, content);
        }
        prop_assert!(!text.truncated || text.ids.len() == tokenizer.max_tokens);
        let head = plain_ids(tokenizer, "<|im_start|>assistant\n");
        let start = text.ids.windows(head.len()).rposition(|window| window == head).unwrap() + head.len();
        let kept = &text.ids[start..text.ids.len() - 2];
        let all = plain_ids(tokenizer, &format!("<|im_start|>assistant\n{}", response.trim()));
        prop_assert!(is_end_of(kept, &all));
    }
}

#[test]
fn the_first_contents_of_a_chat_go_before_the_later_ones() {
    let long = "the river ".repeat(20);
    let text = read(&DECODER, &chat(&[("user", &long), ("assistant", "one"), ("user", "two")], "three"));
    assert!(text.truncated);
    for kept in ["one", "two", "three"] {
        let ids = plain_ids(&DECODER, kept);
        assert!(text.ids.windows(ids.len()).any(|window| window == ids), "{kept}");
    }
}

#[test]
fn a_chat_of_too_many_turns_loses_the_earliest() {
    let mut messages = vec![("system", "be kind")];
    for _ in 0..40 {
        messages.extend([("user", "a"), ("assistant", "b")]);
    }
    messages.push(("user", "last"));
    let text = read(&DECODER, &chat(&messages, "end"));
    assert!(text.truncated && text.ids.len() <= DECODER.max_tokens);
    let decoded = DECODER.tokenizer.decode(&text.ids, false).unwrap();
    assert!(decoded.starts_with("<s><|im_start|>system\n"), "{decoded}");
    assert!(decoded.ends_with("<|im_start|>assistant\nend<|im_end|></s>"), "{decoded}");
}

#[test]
fn a_chats_parts_stand_alone() {
    let decoded = |form| {
        let text = read(&DECODER, &input(form, "hi", "yo"));
        DECODER.tokenizer.decode(&text.ids, false).unwrap()
    };
    assert_eq!(decoded(TextForm::Prompt), "<s><|im_start|>user\nhi<|im_end|></s>");
    assert_eq!(decoded(TextForm::Response), "<s><|im_start|>assistant\nyo<|im_end|></s>");
}

#[test]
fn a_lone_form_is_one_segment() {
    let whole = |form| read(&ENCODER, &input(form, "fish", "river")).ids;
    let segment = |text: &str| ENCODER.tokenizer.encode(text, true).unwrap().get_ids().to_vec();
    assert_eq!(whole(TextForm::Prompt), segment("fish"));
    assert_eq!(whole(TextForm::Response), segment("river"));
}

#[test]
fn a_chat_prompt_without_a_template_is_a_line_a_message() {
    let messages = [("system", "be kind"), ("user", "fish")];
    assert_eq!(flat_end(&chat(&messages, "").prompt, 1000), "system: be kind\nuser: fish");
}

#[test]
fn a_text_that_does_not_fit_is_an_error_where_that_is_asked_for() {
    let long = input(TextForm::PromptResponse, &"fish ".repeat(100), "river");
    let error = ENCODER.tokenize(&long, Overflow::Error).unwrap_err();
    assert_eq!(error, InputError::TooLong { tokens: 104, max_tokens: 64 });
    let long = chat(&[("user", &"the ".repeat(100))], "river");
    assert!(matches!(DECODER.tokenize(&long, Overflow::Error), Err(InputError::TooLong { .. })));
    let short = input(TextForm::PromptResponse, "fish", "river");
    assert!(!ENCODER.tokenize(&short, Overflow::Error).unwrap().truncated);
}

#[test]
fn a_text_without_tokens_still_has_one() {
    let mut tokenizer = open("tiny-decoder");
    tokenizer.shape = InputShape::Concat;
    tokenizer.tokenizer.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
    let text = read(&tokenizer, &input(TextForm::Prompt, "", ""));
    assert_eq!(text.ids, [tokenizer.blank]);
}

#[test]
fn an_unknown_role_is_refused_in_the_templates_words() {
    let error = DECODER.tokenize(&chat(&[("wizard", "hi")], "yo"), Overflow::Truncate).unwrap_err();
    assert!(matches!(&error, InputError::Template(reason) if !reason.contains("wizard")), "{error}");
}

#[test]
fn of_an_absurdly_long_text_only_the_end_is_read_and_nothing_changes() {
    let sentence = "The river, 12 fish and a trout: why is it green? ";
    let long = sentence.repeat(2_000);
    for (tokenizer, form) in [
        (&*ENCODER, TextForm::PromptResponse),
        (&*ENCODER, TextForm::Response),
        (&*DECODER, TextForm::Response),
    ] {
        // What the whole text gives, when it is cut by tokens alone.
        let whole = plain_ids(tokenizer, long.trim());
        let text = read(tokenizer, &input(form, &long, &long));
        let closing = if tokenizer.template.is_some() { 2 } else { 1 };
        let kept = &text.ids[text.ids.len() - closing - 40..text.ids.len() - closing];
        assert!(text.truncated && whole.ends_with(kept));
    }
}

#[test]
fn ten_megabytes_do_not_take_seconds() {
    let huge = ["a ", " ", "a", "é魚🐟"].map(|part| part.repeat((10 << 20) / part.len()));
    let started = Instant::now();
    for text in &huge {
        for tokenizer in [&*ENCODER, &*DECODER] {
            assert!(read(tokenizer, &input(TextForm::PromptResponse, text, text)).truncated);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    assert!(seconds < 20.0, "{seconds} s for {} texts, unoptimised", 4 * huge.len());
}

#[test]
fn the_end_of_a_text_starts_at_a_character() {
    let text = "é".repeat(1000);
    let start = end_start(&text, 101);
    assert!(text.is_char_boundary(start) && start >= 2000 - 101);
    assert_eq!(end_start("short", 100), 0);
    assert_eq!(end_start("ab cd ef", 4), 5);
}

#[test]
fn of_a_chat_of_very_many_turns_only_the_last_are_rendered_and_nothing_changes() {
    let mut messages = vec![("system", "be kind")];
    messages.extend((0..200_000).map(|n| if n % 2 == 0 { ("user", "a") } else { ("assistant", "b") }));
    let few: Vec<_> = messages[..1].iter().chain(&messages[messages.len() - 100..]).copied().collect();
    let (many, few) = (chat(&messages, "end"), chat(&few, "end"));
    let (turns, left_out) = turns_of(TextForm::PromptResponse, &many, DECODER.most_turns());
    assert!(left_out && turns.len() <= DECODER.most_turns() + 1, "{} turns", turns.len());
    assert_eq!((turns[0].role, turns[1].role), ("system", "user"));
    let text = read(&DECODER, &many);
    assert!(text.truncated);
    assert_eq!(text.ids, read(&DECODER, &few).ids);
    assert!(matches!(DECODER.tokenize(&many, Overflow::Error), Err(InputError::TooLong { .. })));
}

#[test]
fn of_a_long_chat_as_plain_text_only_the_end_is_written_out() {
    let messages: Vec<_> = (0..200_000).map(|_| ("user", "the river")).collect();
    for tokenizer in [&*ENCODER, &concat()] {
        let (long, most) = (chat(&messages, "end"), tokenizer.most_bytes());
        let flat = tokenizer.flat_prompt(&long).into_owned();
        assert!(flat.len() > most && flat.len() < 2 * most, "{} bytes", flat.len());
        let whole = input(TextForm::PromptResponse, &flat_end(&long.prompt, usize::MAX), "end");
        assert_eq!(read(tokenizer, &long), read(tokenizer, &whole));
        // One message that is longer than what is read.
        let content = "é".repeat(most);
        let huge = chat(&[("user", &content)], "end");
        assert!((most..most + 4).contains(&tokenizer.flat_prompt(&huge).len()));
    }
}

proptest! {
    #[test]
    fn the_end_of_a_chat_is_an_end_of_all_of_it(
        messages in prop::collection::vec((words(), words()), 1..6), bytes in 0..500_usize,
    ) {
        let messages: Vec<_> = messages.iter().map(|(role, content)| (role.as_str(), content.as_str())).collect();
        let prompt = chat(&messages, "").prompt;
        let (whole, end) = (flat_end(&prompt, usize::MAX), flat_end(&prompt, bytes));
        prop_assert!(whole.ends_with(&*end));
        prop_assert!(end.len() >= bytes.min(whole.len()), "{} of {bytes}", end.len());
    }
}

#[test]
fn a_range_lies_within_a_content_or_it_does_not() {
    let contents = [2..5, 5..7, 9..12];
    for (range, within) in
        [(2..5, true), (3..4, true), (4..6, false), (5..7, true), (7..9, false), (9..13, false)]
    {
        assert_eq!(lies_within(&contents, range.clone()), within, "{range:?}");
    }
    assert!(!lies_within(&[], 0..1) && !lies_within(&contents, 0..3));
}

fn raw(prompt: &str, response: &str) -> EmbedInput {
    let prompt = Arc::new(Prompt::Raw(prompt.into()));
    EmbedInput { form: TextForm::PromptResponse, prompt, response: response.into() }
}

#[test]
fn a_text_that_a_template_has_written_is_read_as_the_conversation_is() {
    let text = "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|></s>";
    let conversation = read(&DECODER, &chat(&[("user", "hi")], "yo"));
    assert_eq!(read(&DECODER, &raw("", text)), conversation);
    for cut in [3, 30, text.len() - 4] {
        assert_eq!(read(&DECODER, &raw(&text[..cut], &text[cut..])), conversation, "{cut}");
    }
}

#[test]
fn a_text_without_the_opening_token_gets_it_once() {
    let bos = id(&DECODER, "<s>");
    let openings = |text: &str| read(&DECODER, &raw("", text)).ids.iter().filter(|id| **id == bos).count();
    assert_eq!((openings("fish"), openings("<s>fish")), (openings("fish"), openings("fish")));
    let long = format!("<s>{}</s>", "fish ".repeat(500));
    let text = read(&DECODER, &raw("", &long));
    assert!(text.truncated && text.ids.len() == DECODER.max_tokens);
    assert_eq!((text.ids[0], *text.ids.last().unwrap()), (bos, id(&DECODER, "</s>")));
    let refused = DECODER.tokenize(&raw("", &long), Overflow::Error).unwrap_err();
    assert!(matches!(refused, InputError::TooLong { .. }));
    let huge = read(&DECODER, &raw("", &format!("<s>{}", "fish ".repeat(100_000))));
    assert!(huge.truncated && huge.ids[0] == bos && huge.ids.len() == DECODER.max_tokens);
}

#[test]
fn an_encoder_of_pairs_reads_a_raw_prompt_beside_its_response_and_a_whole_text_alone() {
    let pair = input(TextForm::PromptResponse, "Name a fish.", "A trout.");
    assert_eq!(read(&ENCODER, &raw("Name a fish.", "A trout.")), read(&ENCODER, &pair));
    let alone = input(TextForm::Response, "", "A trout.");
    assert_eq!(read(&ENCODER, &raw("", "A trout.")), read(&ENCODER, &alone));
    let concat = concat();
    assert_eq!(read(&concat, &raw("a ", "b")), read(&concat, &raw("", "a b")));
}

fn tokens(ids: &[u32]) -> EmbedInput {
    let prompt = Arc::new(Prompt::Tokens(ids.to_vec()));
    EmbedInput { form: TextForm::PromptResponse, prompt, response: "".into() }
}

#[test]
fn ids_are_read_as_they_are_and_a_text_s_own_ids_as_the_text() {
    for (tokenizer, text) in
        [(&*DECODER, "<s><|im_start|>user\nhi<|im_end|>\n</s>"), (&*ENCODER, "Name a fish."), (&*ENCODER, "")]
    {
        let of_text = read(tokenizer, &raw("", text));
        assert_eq!(read(tokenizer, &tokens(&of_text.ids)), of_text, "{text}");
        let response = EmbedInput { form: TextForm::Response, ..tokens(&of_text.ids) };
        assert_eq!(read(tokenizer, &response), of_text);
        let prompt = EmbedInput { form: TextForm::Prompt, ..tokens(&of_text.ids) };
        assert_eq!(read(tokenizer, &prompt).ids, [tokenizer.blank]);
    }
    let bare = plain_ids(&ENCODER, "fish");
    assert_eq!(read(&ENCODER, &tokens(&bare)).ids, bare);
}

#[test]
fn an_id_that_the_vocabulary_does_not_have_is_named() {
    let past = ENCODER.tokenizer.get_vocab(true).into_values().max().unwrap() + 1;
    for id in [past, u32::MAX] {
        let refused = ENCODER.tokenize(&tokens(&[0, id]), Overflow::Truncate).unwrap_err();
        assert_eq!(refused, InputError::UnknownToken { at: 1, id });
    }
}

#[test]
fn ids_beyond_the_window_are_cut_at_their_start_or_refused() {
    let bos = id(&DECODER, "<s>");
    let fish = plain_ids(&DECODER, &"fish ".repeat(500));
    let opened: Vec<u32> = [bos].into_iter().chain(fish.iter().copied()).collect();
    let (with, without) = (read(&DECODER, &tokens(&opened)), read(&DECODER, &tokens(&fish)));
    let window = DECODER.max_tokens;
    assert!(with.truncated && without.truncated && with.full_tokens == opened.len());
    assert_eq!((with.ids[0], &with.ids[1..]), (bos, &fish[fish.len() - window + 1..]));
    assert_eq!(without.ids, fish[fish.len() - window..]);
    let refused = DECODER.tokenize(&tokens(&opened), Overflow::Error).unwrap_err();
    assert_eq!(refused, InputError::TooLong { tokens: opened.len(), max_tokens: window });
}

proptest! {
    #[test]
    fn a_text_cut_to_fewer_tokens_than_the_window_has_so_many_and_keeps_its_end(
        text in words(), limit in 1..80_usize,
    ) {
        let conversation = chat(&[("user", &text)], &text);
        for (tokenizer, input) in [
            (&*ENCODER, raw("", &text)),
            (&*ENCODER, input(TextForm::PromptResponse, &text, &text)),
            (&*DECODER, raw("", &format!("<s>{text}</s>"))),
            (&*DECODER, tokens(&plain_ids(&DECODER, &text))),
            (&*DECODER, conversation),
        ] {
            let whole = tokenizer.tokenize(&input, Overflow::Truncate);
            match (tokenizer.tokenize(&input, Overflow::TruncateTo(limit)), whole) {
                (Ok(cut), Ok(whole)) => {
                    prop_assert_eq!(cut.full_tokens, whole.full_tokens);
                    prop_assert_eq!(cut.truncated, whole.full_tokens > limit.min(tokenizer.max_tokens));
                    prop_assert_eq!(cut.ids.len(), cut.type_ids.len());
                    if cut.truncated {
                        prop_assert_eq!(cut.ids.len(), limit.min(tokenizer.max_tokens));
                        prop_assert_eq!(cut.ids.last(), whole.ids.last());
                    } else {
                        prop_assert_eq!(cut, whole);
                    }
                }
                (Err(refused), Ok(whole)) => {
                    prop_assert_eq!(refused, InputError::NoRoom(limit));
                    prop_assert!(whole.full_tokens > limit);
                }
                (one, whole) => prop_assert_eq!(one, whole),
            }
        }
    }
}
