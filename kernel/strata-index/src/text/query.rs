//! What is asked for.
//!
//! ```text
//! word          should be there                  "some words"   stand together, in this order
//! +word         must be there                    field:word     in this field; also field:"some words"
//! -word         must not                         pre*           begins so; also "some wo"*
//! ```
//!
//! Anything is a query. An open quotation, or nothing but `-`, makes the whole text plain words; a name before a colon that
//! is no field is a word. What the analyzer cuts into several words (*well-known*) is those words, and a phrase after + or -.
//! With a stemmer a prefix is compared with stems: *comm\** finds *commit*, *running\** finds *run* as the word does.

use super::analyzer::Analyzer;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    clauses: Vec<Clause>,
}

/// A word, a phrase or a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    pub occur: Occur,
    /// In this field only.
    pub field: Option<u8>,
    /// How it was written, without its sign and field.
    pub text: String,
    /// At least one; of several each stands so many words behind the first.
    pub words: Vec<(u32, Pattern)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occur {
    Should,
    Must,
    Not,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    Term(String),
    /// Terms that begin with `start`, and the one that `start` has as a word.
    Prefix {
        start: String,
        term: Option<String>,
    },
}

impl Query {
    /// Field number `n` has the name `fields[n]`.
    pub fn parse(text: &str, fields: &[&str], analyzer: &Analyzer) -> Query {
        let text = text.replace(['\u{201c}', '\u{201d}'], "\"");
        let query = Parser { rest: &text, fields, analyzer, clauses: Vec::new() }.parse();
        query.filter(|query| query.is_positive()).unwrap_or_else(|| Query::words(&text, analyzer))
    }

    /// Every word should be there; no sign means anything.
    pub fn words(text: &str, analyzer: &Analyzer) -> Query {
        let mut clauses = Vec::new();
        each_word(text, false, analyzer, |text, pattern| {
            clauses.push(Clause { occur: Occur::Should, field: None, text, words: vec![(0, pattern)] });
        });
        Query { clauses }
    }

    /// Whether nothing can be found: there was no word in it, or stop words only.
    pub fn is_empty(&self) -> bool {
        self.clauses.is_empty()
    }

    /// In the order they were written, which is the order their scores are added.
    pub fn clauses(&self) -> &[Clause] {
        &self.clauses
    }

    fn is_positive(&self) -> bool {
        self.clauses.iter().any(|clause| clause.occur != Occur::Not)
    }
}

struct Parser<'a> {
    rest: &'a str,
    fields: &'a [&'a str],
    analyzer: &'a Analyzer,
    clauses: Vec<Clause>,
}

impl<'a> Parser<'a> {
    /// None where a quotation has no end.
    fn parse(mut self) -> Option<Query> {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.is_empty() {
                return Some(Query { clauses: self.clauses });
            }
            let occur = self.occur();
            let field = self.field();
            let (text, quoted) = match self.rest.strip_prefix('"') {
                Some(rest) => {
                    let (text, rest) = rest.split_once('"')?;
                    self.rest = rest;
                    (text, true)
                }
                None => (self.until(|c| c.is_whitespace() || c == '"' || c == '*'), false),
            };
            let prefix = self.rest.starts_with('*');
            self.rest = self.rest.trim_start_matches('*');
            self.add(occur, field, text, quoted, prefix);
        }
    }

    fn occur(&mut self) -> Occur {
        let occur = match self.rest.as_bytes()[0] {
            b'+' => Occur::Must,
            b'-' => Occur::Not,
            _ => return Occur::Should,
        };
        self.rest = &self.rest[1..];
        if self.rest.starts_with(char::is_whitespace) { Occur::Should } else { occur }
    }

    /// The longest name that fits.
    fn field(&mut self) -> Option<u8> {
        let fits = |name: &str| self.rest.strip_prefix(name).and_then(|rest| rest.strip_prefix(':'));
        let named = self.fields.iter().enumerate().filter_map(|(number, name)| Some((number, fits(name)?)));
        let (number, rest) = named.min_by_key(|(_, rest)| rest.len())?;
        if rest.is_empty() || rest.starts_with(char::is_whitespace) {
            return None;
        }
        self.rest = rest;
        u8::try_from(number).ok()
    }

    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'a str {
        let (text, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        text
    }

    fn add(&mut self, occur: Occur, field: Option<u8>, text: &str, quoted: bool, prefix: bool) {
        let whole = quoted || occur != Occur::Should;
        let (mut position, mut words) = (0, Vec::new());
        self.analyzer.words(text, |_, _| position += 1);
        let last = position;
        position = 0;
        self.analyzer.words(text, |word, span| {
            position += 1;
            if let Some(pattern) = pattern(word, prefix && position == last, self.analyzer) {
                words.push((text[span].to_owned(), (position - 1, pattern)));
            }
        });
        let clauses = &mut self.clauses;
        let mut push = |text: String, words: Vec<(u32, Pattern)>| clauses.push(Clause { occur, field, text, words });
        if whole && !words.is_empty() {
            let first = words[0].1.0;
            let written = text.trim().to_owned();
            push(written, words.into_iter().map(|(_, (position, pattern))| (position - first, pattern)).collect());
        } else {
            words.into_iter().for_each(|(text, (_, pattern))| push(text, vec![(0, pattern)]));
        }
    }
}

fn each_word(text: &str, prefix: bool, analyzer: &Analyzer, mut each: impl FnMut(String, Pattern)) {
    analyzer.words(text, |word, span| {
        if let Some(pattern) = pattern(word, prefix, analyzer) {
            each(text[span].to_owned(), pattern);
        }
    });
}

fn pattern(word: &str, prefix: bool, analyzer: &Analyzer) -> Option<Pattern> {
    let term = analyzer.term(word).map(String::from);
    if !prefix {
        return term.map(Pattern::Term);
    }
    Some(Pattern::Prefix { start: analyzer.without_possessive(word).to_owned(), term })
}
