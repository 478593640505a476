//! How texts become terms, and queries clauses.

use proptest::prelude::*;
use strata_index::text::{Analyzer, Language, Occur, Options, Pattern, Query, TextDelta, TextIndex, spans};

fn analyzer(language: Option<Language>, stop_words: bool, fold_accents: bool) -> Analyzer {
    Analyzer::new(Options { language, stop_words, fold_accents })
}

fn terms(text: &str, analyzer: &Analyzer) -> Vec<String> {
    let mut terms = Vec::new();
    analyzer.terms(text, |term, _, _| terms.push(term.to_owned()));
    terms
}

fn plain(text: &str) -> String {
    terms(text, &analyzer(None, false, false)).join(" ")
}

fn folded(text: &str) -> String {
    terms(text, &analyzer(None, false, true)).join(" ")
}

#[test]
fn words_are_runs_of_letters_and_digits() {
    assert_eq!(plain("Hello, World! snake_case x2 v1.2 a@b.com"), "hello world snake case x2 v1 2 a b com");
    assert_eq!(plain("ÀÉ Straße ΟΔΟΣ Привет"), "àé straße οδοσ привет");
    assert_eq!(plain(""), "");
    assert_eq!(plain("-- ' '' !"), "");
    assert_eq!(plain("ﬁne Ｆｕｌｌ　ｗｉｄｔｈ"), "fine full width", "compatible forms");
    assert_eq!(plain("cafe\u{301}"), plain("café"), "composed or not");
    assert_eq!(plain("co\u{ad}operate"), "cooperate", "a soft hyphen");
    assert_eq!(plain("東京タワー x です"), "東 京 タワー x で す");
    assert_eq!(plain("हिन्दी में"), "हिन्दी में", "marks belong to words");
    assert_eq!(plain("ไทย"), "ไ ท ย");
}

#[test]
fn apostrophes_belong_to_words_and_possessives_do_not() {
    for text in ["don't Mary's dogs' 'quoted'", "don\u{2019}t Mary\u{2019}s dogs\u{2019} \u{2018}quoted\u{2019}"] {
        assert_eq!(plain(text), "don't mary dogs quoted");
    }
    assert_eq!(terms("l'eau d’or", &analyzer(Some(Language::French), false, false)), ["l", "eau", "d", "or"]);
    assert_eq!(terms("Türkiye'de", &analyzer(Some(Language::Turkish), false, true)), ["turki"]);
}

#[test]
fn accents_are_folded_where_asked() {
    assert_eq!(folded("Café ÅNGSTRÖM Straße Łódź œuvre ΆΛΦΑ"), "cafe angstrom strasse lodz oeuvre αλφα");
    assert_eq!(folded("Việt Nam"), "viet nam");
    assert_eq!(folded("й हिन्दी"), "й हिन्दी", "marks of other scripts make other letters");
}

#[test]
fn stems_and_stop_words() {
    let english = analyzer(Some(Language::English), true, true);
    assert_eq!(terms("The foxes were jumping over Mary's lazy dogs", &english), ["fox", "jump", "mari", "lazi", "dog"]);
    assert_eq!(terms("I didn't say it's what you're", &english), ["say"]);
    // As they stand in the list: *let's* is in it, *let* is not.
    assert_eq!(terms("Let\u{2019}s let Will's uncle", &english), ["let", "will", "uncl"]);
    assert_eq!(
        terms("les maisons", &analyzer(Some(Language::French), true, false)),
        ["le", "maison"],
        "no list for it"
    );
    assert_eq!(terms("the", &analyzer(None, true, false)), Vec::<String>::new(), "English, where no language is set");
}

#[test]
fn positions_count_stop_words_and_spans_are_bytes() {
    let text = "É the Fox’s";
    let mut found = Vec::new();
    analyzer(Some(Language::English), true, true).terms(text, |term, position, span| {
        found.push((term.to_owned(), position, text[span].to_owned()));
    });
    assert_eq!(found, [("e".into(), 0, "É".into()), ("fox".into(), 2, "Fox’s".into())]);
}

#[test]
fn long_words_are_cut() {
    let word = "é".repeat(500);
    assert_eq!(plain(&word), "é".repeat(64));
    assert_eq!(plain(&"A".repeat(500)), "a".repeat(128));
}

#[test]
fn languages_have_names() {
    for language in Language::ALL {
        assert_eq!(Language::named(language.name()), Some(*language));
    }
    assert_eq!(Language::named("klingon"), None);
}

/// A query as text: sign, field, words with how far they stand from the first.
fn parsed(text: &str) -> String {
    let query = Query::parse(text, &["title", "a.b", "a"], &analyzer(Some(Language::English), true, true));
    let clause = |clause: &strata_index::text::Clause| {
        let sign = match clause.occur {
            Occur::Should => "",
            Occur::Must => "+",
            Occur::Not => "-",
        };
        let field = clause.field.map_or(String::new(), |field| format!("{field}:"));
        let words = clause.words.iter().map(|(offset, pattern)| match pattern {
            Pattern::Term(term) => format!("{offset}{term}"),
            Pattern::Prefix { start, term } => format!("{offset}{start}*{}", term.as_deref().unwrap_or("")),
        });
        format!("{sign}{field}{}", words.collect::<Vec<_>>().join("_"))
    };
    query.clauses().iter().map(clause).collect::<Vec<_>>().join(" ")
}

#[test]
fn queries_are_read() {
    for (text, wanted) in [
        ("Red foxes", "0red 0fox"),
        ("\"the red of fox\" +a:blue -title:\"x y\"", "0red_2fox +2:0blue -0:0x_1y"),
        ("a.b:x a:x ab:x b:", "1:0x 2:0x 0ab 0x 0b"),
        ("comm* the* \"big dog\"*", "0comm*comm 0the* 0big_1dog*dog"),
        ("well-known +well-known -well-known", "0well 0known +0well_1known -0well_1known"),
        ("say \"hello +you", "0say 0hello"),
        ("say “red fox”", "0say 0red_1fox"),
        ("-5 degrees", "-05 0degre"),
        ("-5", "05"),
        ("-5 -\"a b\"", "05 0b"),
        ("+ - * \"\" title: + x", "0titl 0x"),
        ("x** y*z \"p q\"r", "0x*x 0y*y 0z 0p_1q 0r"),
        ("+the the", ""),
        ("", ""),
        ("?!", ""),
        ("http://x.org/y?z=1", "0http 0x 0org 0y 0z 01"),
    ] {
        assert_eq!(parsed(text), wanted, "{text}");
    }
}

#[test]
fn spans_show_words_and_whole_phrases() {
    let english = analyzer(Some(Language::English), true, true);
    let text = "The foxes jump. A red fox jumped over the red dog’s box";
    let shown = |query: &str, field| {
        let query = Query::parse(query, &["title"], &english);
        spans(text, field, &query, &english).into_iter().map(|(from, to)| &text[from..to]).collect::<Vec<_>>()
    };
    assert_eq!(shown("fox dog", None), ["foxes", "fox", "dog’s"]);
    assert_eq!(shown("\"red fox\" -jump", None), ["red", "fox"]);
    assert_eq!(shown("\"jumps over the red\" bo*", None), ["jumped", "red", "box"]);
    assert_eq!(shown("title:fox dog", Some(1)), ["dog’s"]);
    assert_eq!(shown("title:fox", Some(0)), ["foxes", "fox"]);
}

fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[a-zA-Z'’]{0,12}",
        "[ıİIΣςσßþǅａ가각ไ東\u{301}\u{94d}\u{200d}']{0,8}",
        "\\PC{0,12}",
        "[α-ωά-ώ]{1,12}",
        "[а-я]{1,12}",
        "[ا-ي]{1,12}",
        "[அ-ஹா-்]{1,12}",
        "[a-zà-ÿőűşğç]{1,14}",
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Any text in any language: no panic, spans that are words in order, and terms that a query finds again.
    #[test]
    fn any_text_is_read(text in any_text(), language in 0..Language::ALL.len() + 1, stop: bool, fold: bool) {
        let analyzer = analyzer(Language::ALL.get(language).copied(), stop, fold);
        let (mut last, mut next) = (0, 0);
        let mut delta = TextDelta::new();
        delta.add(3, &[(0, &text)], &analyzer);
        let mut count = 0;
        analyzer.terms(&text, |term, position, span| {
            assert!(!term.is_empty() && position >= next && span.start >= last && text.get(span.clone()).is_some());
            (last, next) = (span.end, position + 1);
            count += 1;
        });
        prop_assert_eq!(TextIndex::Delta(&delta).length(3), count);
        let query = Query::parse(&text, &["ab"], &analyzer);
        let words = Query::words(&text, &analyzer);
        prop_assert_eq!(words.clauses().len(), count as usize);
        spans(&text, None, &query, &analyzer);
        prop_assert_eq!(spans(&text, None, &words, &analyzer).len(), count as usize);
    }
}
