//! Examples, their embeddings, and what a head learns of them.

use polyreward_domain::{Comparison, Message, Prompt, TenantId, TextForm, TextForms};

use super::fixtures::{
    BACKBONE, all_forms, at, begin, come, comparison, embeddings, example, example_id, in_order, stored, user,
};
use crate::{Evidence, ExampleEmbedding, NewExample, Storage, StoredExample};

fn as_stored(example: NewExample) -> StoredExample {
    StoredExample {
        example_id: example.example_id,
        position: example.position,
        comparison: example.comparison,
        created_at: example.created_at,
    }
}

async fn add(storage: &dyn Storage, id: &str, backbone: &str, examples: &[NewExample]) {
    let mut writing = begin(storage, &TenantId::default()).await;
    writing.hold_or_create_user(&user(id), at(0)).await.unwrap();
    writing.add_examples(&user(id), backbone, examples).await.unwrap();
    writing.commit().await.unwrap();
}

pub async fn texts_are_kept_to_the_byte(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let odd = [
        String::new(),
        "it's \"quoted\" `so`; DROP TABLE users; --".to_owned(),
        "100%_\\ \\u0041 \\n".to_owned(),
        "line\r\nline\n\ttab\u{1}\u{7f}".to_owned(),
        "é e\u{301} ß İ 漢字 עברית 👩‍👩‍👧‍👦🙂\u{200b}\u{2028}\u{feff}\u{10ffff}".to_owned(),
        "🙂 it's long ".repeat(1000),
    ];
    let examples: Vec<NewExample> = odd
        .iter()
        .enumerate()
        .map(|(number, text)| {
            let chat = Prompt::Chat(vec![
                Message { role: "system".to_owned(), content: text.clone() },
                Message { role: "it's \"me\"".to_owned(), content: text.clone() },
            ]);
            let prompt = if number % 2 == 0 { Prompt::Text(text.clone()) } else { chat };
            let rationale = (number != 1).then(|| text.clone());
            let comparison = Comparison {
                prompt,
                chosen: text.clone(),
                rejected: format!("{text}!"),
                rationale,
                ..comparison("")
            };
            NewExample { comparison, ..example(&format!("e{number}"), number as u64) }
        })
        .collect();
    add(storage, "ada", BACKBONE, &examples).await;
    let expected: Vec<StoredExample> = examples.into_iter().map(as_stored).collect();
    assert_eq!(storage.examples(&tenant, &user("ada"), None, 100).await.unwrap(), expected);
}

pub async fn examples_come_page_by_page_in_the_order_in_which_they_came(storage: &dyn Storage) {
    let tenant = TenantId::default();
    // Neither ids nor the order of writing are the order of positions, and some positions are empty.
    let examples = [example("b", 7), example("z", 0), example("a", 300), example("c", 2), example("d", 8)];
    add(storage, "ada", BACKBONE, &examples).await;
    add(storage, "bob", BACKBONE, &[example("a", 1)]).await;
    let page = async |after, limit| {
        let page = storage.examples(&tenant, &user("ada"), after, limit).await.unwrap();
        page.into_iter().map(|one| (one.example_id.to_string(), one.position)).collect::<Vec<_>>()
    };
    let all: Vec<_> = [("z", 0), ("c", 2), ("b", 7), ("d", 8), ("a", 300)]
        .map(|(id, position)| (id.to_owned(), position))
        .into();
    assert_eq!(page(None, 2).await, all[..2]);
    assert_eq!(page(Some(2), 2).await, all[2..4]);
    assert_eq!(page(Some(5), usize::MAX).await, all[2..]);
    assert_eq!(page(None, usize::MAX).await, all);
    for (after, limit) in [(None, 0), (Some(300), 9), (Some(u64::MAX), 9)] {
        assert_eq!(page(after, limit).await, []);
    }
}

pub async fn examples_are_found_by_id_in_the_order_in_which_they_came(storage: &dyn Storage) {
    let tenant = TenantId::default();
    add(storage, "ada", BACKBONE, &[example("b", 0), example("a", 1), example("c", 2)]).await;
    add(storage, "bob", BACKBONE, &[example("d", 0)]).await;
    let asked = ["c", "d", "b", "c", "unknown"].map(example_id);
    let found = storage.examples_by_id(&tenant, &user("ada"), &asked).await.unwrap();
    assert_eq!(found, [as_stored(example("b", 0)), as_stored(example("c", 2))]);
    assert_eq!(storage.examples_by_id(&tenant, &user("ada"), &[]).await.unwrap(), []);
}

pub async fn known_examples_are_those_of_one_person(storage: &dyn Storage) {
    let tenant = TenantId::default();
    add(storage, "ada", BACKBONE, &[example("a", 0), example("b", 1)]).await;
    add(storage, "bob", BACKBONE, &[example("a", 0), example("c", 1)]).await;
    let mut writing = begin(storage, &tenant).await;
    let known = writing.known_examples(&user("ada"), &["c", "b", "A", "b"].map(example_id)).await.unwrap();
    assert_eq!(known, [example_id("b")]);
    assert_eq!(writing.known_examples(&user("ada"), &[]).await.unwrap(), []);
    writing.add_examples(&user("ada"), BACKBONE, &[example("c", 2)]).await.unwrap();
    let known = writing.known_examples(&user("ada"), &[example_id("c")]).await.unwrap();
    assert_eq!(known, [example_id("c")], "a transaction sees what it wrote");
}

pub async fn evidence_has_the_forms_asked_for_of_one_backbone(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let ada = user("ada");
    add(storage, "ada", BACKBONE, &[example("b", 0), example("a", 1)]).await;
    add(storage, "bob", BACKBONE, &[example("a", 0)]).await;
    let expected = |forms: TextForms| -> Vec<Evidence> {
        [example("b", 0), example("a", 1)]
            .into_iter()
            .map(|example| Evidence {
                example_id: example.example_id,
                names: example.names,
                strength: 2.5,
                label_confidence: 0.9,
                embeddings: example.embeddings.into_iter().filter(|one| forms.contains(one.form)).collect(),
            })
            .collect()
    };
    let two = [TextForm::Prompt, TextForm::PromptResponse].into_iter().collect();
    for forms in [all_forms(), TextForms::only(TextForm::Response), two, TextForms::default()] {
        let evidence = in_order(storage.evidence(&tenant, &ada, BACKBONE, forms).await.unwrap());
        assert_eq!(evidence, expected(forms));
        let bits = |evidence: &[Evidence]| -> Vec<u32> {
            let all = evidence.iter().flat_map(|one| &one.embeddings);
            all.flat_map(|one| one.chosen.iter().chain(&one.rejected)).map(|x| x.to_bits()).collect()
        };
        assert_eq!(bits(&evidence), bits(&expected(forms)));
    }
    let other = storage.evidence(&tenant, &ada, "minilm@2", all_forms()).await.unwrap();
    assert_eq!(
        other,
        expected(TextForms::default()),
        "examples are there, embeddings of another backbone not"
    );
}

pub async fn embeddings_that_are_there_stay_as_they_are(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let ada = user("ada");
    let prompt = |first: f32| ExampleEmbedding {
        form: TextForm::Prompt,
        chosen: vec![first, 0.1],
        rejected: Vec::new(),
    };
    let first = NewExample { embeddings: vec![prompt(1.0)], ..example("a", 0) };
    add(storage, "ada", BACKBONE, &[first, NewExample { embeddings: Vec::new(), ..example("b", 1) }]).await;
    let mut writing = begin(storage, &tenant).await;
    let more: Vec<_> = ["a", "b", "unknown"].map(|id| (example_id(id), embeddings(9.0))).into();
    writing.add_embeddings(&ada, BACKBONE, &more).await.unwrap();
    writing.add_embeddings(&ada, "other@1", &[(example_id("a"), embeddings(5.0))]).await.unwrap();
    writing.add_embeddings(&user("nobody"), BACKBONE, &more).await.unwrap();
    writing.commit().await.unwrap();

    let evidence = in_order(storage.evidence(&tenant, &ada, BACKBONE, all_forms()).await.unwrap());
    let mut expected = embeddings(9.0);
    assert_eq!(evidence[1].embeddings, expected);
    expected[1] = prompt(1.0);
    assert_eq!(evidence[0].embeddings, expected);
    let other = in_order(storage.evidence(&tenant, &ada, "other@1", all_forms()).await.unwrap());
    assert_eq!(other[0].embeddings, embeddings(5.0));
    assert_eq!((evidence.len(), other[1].embeddings.len()), (2, 0));
}

pub async fn an_erased_example_takes_its_embeddings_and_predictions_along(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let ada = user("ada");
    stored(storage, &tenant, &ada).await;
    come(storage, &tenant, &[("bob", &[])]).await;
    add(storage, "bob", BACKBONE, &[example("e1", 0)]).await;
    let mut writing = begin(storage, &tenant).await;
    assert!(writing.erase_example(&ada, &example_id("e1")).await.unwrap());
    assert!(!writing.erase_example(&ada, &example_id("e1")).await.unwrap());
    assert!(!writing.erase_example(&user("nobody"), &example_id("e2")).await.unwrap());
    writing.commit().await.unwrap();

    assert_eq!(storage.examples(&tenant, &ada, None, 9).await.unwrap(), [as_stored(example("e2", 1))]);
    let tallies = storage.tallies(&tenant, &ada).await.unwrap();
    assert_eq!((tallies.len(), tallies[0].predictions, tallies[0].correct), (1, 1, 0.5));
    assert_eq!(storage.examples(&tenant, &user("bob"), None, 9).await.unwrap().len(), 1);

    // One of the same name that comes later has none of its embeddings.
    add(storage, "ada", "other@1", &[example("e1", 2)]).await;
    let evidence = storage.evidence(&tenant, &ada, BACKBONE, all_forms()).await.unwrap();
    assert_eq!(evidence.iter().map(|one| one.embeddings.len()).collect::<Vec<_>>(), [3, 0]);
    assert_eq!(storage.tallies(&tenant, &ada).await.unwrap(), tallies);
}
