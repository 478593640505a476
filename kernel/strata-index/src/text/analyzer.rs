//! From a text to its terms.
//!
//! A *word* is a run of letters and digits of any script, in lower case; everything else stands between words. An
//! apostrophe inside a word belongs to it, but French and Italian ones separate words. In scripts written without spaces
//! each character is a word. Compatible forms are one (full width and usual letters, composed and decomposed accents).
//!
//! A *term* is what the index holds of a word: nothing of a stop word (*don't*), else the word without a possessive
//! (*Mary's* → *mary*), cut to its stem. Positions count words, so phrases know of stop words that were left out.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use rust_stemmers::Stemmer;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::language::Language;
use super::stop_words;

/// What is longer is cut: it is a key or a picture, and nobody types it.
const WORD_BYTES_MAX: usize = 128;

/// How an index reads texts. Two indexes with equal options have equal terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Words are cut to their stems by its rules; None: they are taken as they stand.
    pub language: Option<Language>,
    /// Leave out the commonest words of the language; of English, where none is set.
    pub stop_words: bool,
    /// *café* is *cafe*.
    pub fold_accents: bool,
}

pub struct Analyzer {
    options: Options,
    stemmer: Option<Stemmer>,
    stops: BTreeSet<String>,
}

impl Analyzer {
    pub fn new(options: Options) -> Analyzer {
        let stemmer = options.language.map(|language| Stemmer::create(language.algorithm()));
        let mut analyzer = Analyzer { options, stemmer, stops: BTreeSet::new() };
        if options.stop_words {
            let list = stop_words::of(options.language.unwrap_or(Language::English));
            let mut stops = BTreeSet::new();
            for stop in list.split_whitespace() {
                analyzer.words(stop, |word, _| {
                    stops.insert(word.to_owned());
                });
            }
            analyzer.stops = stops;
        }
        analyzer
    }

    pub fn options(&self) -> Options {
        self.options
    }

    /// Call `each` with every term of the text, its position, and the bytes of its word in the text.
    pub fn terms(&self, text: &str, mut each: impl FnMut(&str, u32, Range<usize>)) {
        let mut position = 0;
        self.words(text, |word, span| {
            if let Some(term) = self.term(word) {
                each(&term, position, span);
            }
            position += 1;
        });
    }

    /// What the index holds of a word that `words` gave; None where it is a stop word.
    pub fn term<'a>(&self, word: &'a str) -> Option<Cow<'a, str>> {
        if !self.stops.is_empty() && self.stops.contains(word) {
            return None;
        }
        let word = self.without_possessive(word);
        let Some(stemmer) = &self.stemmer else { return Some(Cow::Borrowed(word)) };
        let stem = stemmer.stem(word);
        Some(if stem.is_empty() { Cow::Borrowed(word) } else { stem })
    }

    /// Call `each` with every word of the text and its bytes there.
    pub fn words(&self, text: &str, mut each: impl FnMut(&str, Range<usize>)) {
        let elides = self.options.language.is_some_and(Language::elides);
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let (length, class) = class_at(text, at);
            match class {
                Class::Word | Class::Alone => {
                    let run = Run::from(text, at, length, class, elides);
                    self.word(text, &run, &mut each);
                    at = run.end;
                }
                _ => at += length,
            }
        }
    }

    fn word(&self, text: &str, run: &Run, each: &mut impl FnMut(&str, Range<usize>)) {
        let span = run.start..run.end;
        let raw = &text[span.clone()];
        let turkish = self.options.language == Some(Language::Turkish);
        if run.ascii && !turkish && raw.len() <= WORD_BYTES_MAX {
            if !run.upper {
                return each(raw, span);
            }
            let mut buffer = [0; WORD_BYTES_MAX];
            let lower = &mut buffer[..raw.len()];
            lower.copy_from_slice(raw.as_bytes());
            lower.make_ascii_lowercase();
            return each(str::from_utf8(lower).expect("ASCII"), span);
        }
        let word = normal(raw, turkish, self.options.fold_accents);
        if !word.is_empty() {
            each(cut(&word), span);
        }
    }

    pub(super) fn without_possessive<'a>(&self, word: &'a str) -> &'a str {
        match self.options.language {
            None | Some(Language::English) => word.strip_suffix("'s").unwrap_or(word),
            Some(Language::Turkish) => word.split_once('\'').map_or(word, |(word, _)| word),
            _ => word,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Between,
    Word,
    /// A word by itself: of a script without spaces.
    Alone,
    /// Belongs to the character before it.
    Mark,
    Apostrophe,
}

/// Where a word stands.
struct Run {
    start: usize,
    end: usize,
    ascii: bool,
    upper: bool,
}

impl Run {
    fn from(text: &str, start: usize, length: usize, first: Class, elides: bool) -> Run {
        let bytes = text.as_bytes();
        let mut run = Run { start, end: start, ascii: true, upper: false };
        run.take(bytes[start], length);
        while run.end < bytes.len() {
            let (length, class) = class_at(text, run.end);
            match class {
                Class::Word if first == Class::Word => run.take(bytes[run.end], length),
                Class::Mark => run.take(bytes[run.end], length),
                Class::Apostrophe if first == Class::Word && !elides && letter_at(text, run.end + length) => {
                    run.take(bytes[run.end], length);
                }
                _ => break,
            }
        }
        run
    }

    #[inline]
    fn take(&mut self, byte: u8, length: usize) {
        self.ascii &= byte.is_ascii();
        self.upper |= byte.is_ascii_uppercase();
        self.end += length;
    }
}

fn cut(word: &str) -> &str {
    let end = (0..=WORD_BYTES_MAX.min(word.len())).rev().find(|end| word.is_char_boundary(*end));
    &word[..end.unwrap_or(0)]
}

fn letter_at(text: &str, at: usize) -> bool {
    text[at..].chars().next().is_some_and(char::is_alphabetic)
}

/// How many bytes the character there takes, and what it is to words.
#[inline]
fn class_at(text: &str, at: usize) -> (usize, Class) {
    let byte = text.as_bytes()[at];
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => (1, Class::Word),
        b'\'' => (1, Class::Apostrophe),
        _ if byte.is_ascii() => (1, Class::Between),
        _ => class_of(text[at..].chars().next().expect("it stands at a character")),
    }
}

fn class_of(character: char) -> (usize, Class) {
    let class = match character {
        '\u{2019}' | '\u{02bc}' => Class::Apostrophe,
        // Soft hyphen, joiners, variation selectors: they show how, not what.
        '\u{ad}' | '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' => Class::Mark,
        // Thai, Lao, Myanmar, Khmer, Hiragana, and ideographs.
        '\u{e00}'..='\u{eff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{3041}'..='\u{309f}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}'
            if character.is_alphanumeric() && !is_combining_mark(character) =>
        {
            Class::Alone
        }
        _ if is_combining_mark(character) => Class::Mark,
        _ if character.is_alphanumeric() => Class::Word,
        _ => Class::Between,
    };
    (character.len_utf8(), class)
}

/// In lower case and one form, for what is not plain ASCII.
fn normal(raw: &str, turkish: bool, fold: bool) -> String {
    let kept = raw.chars().filter(|c| !matches!(c, '\u{ad}' | '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}'));
    let lower = kept.nfkc().flat_map(|character| lower(character, turkish));
    if fold { folded(&lower.collect::<String>()) } else { lower.nfc().collect() }
}

fn lower(character: char, turkish: bool) -> impl Iterator<Item = char> {
    let character = match character {
        'I' if turkish => 'ı',
        'İ' => 'i',
        'ς' => 'σ',
        '\u{2019}' | '\u{02bc}' => '\'',
        other => other,
    };
    character.to_lowercase()
}

/// Without accents on Latin and Greek letters; in other scripts marks are vowels, or make other letters.
fn folded(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut base = ' ';
    for character in word.nfd() {
        if is_combining_mark(character) && base < '\u{400}' {
            continue;
        }
        base = character;
        match character {
            'ß' => out.push_str("ss"),
            'æ' => out.push_str("ae"),
            'œ' => out.push_str("oe"),
            'ø' => out.push('o'),
            'đ' | 'ð' => out.push('d'),
            'ł' => out.push('l'),
            'ħ' => out.push('h'),
            'ı' => out.push('i'),
            'þ' => out.push_str("th"),
            other => out.push(other),
        }
    }
    out.nfc().collect()
}
