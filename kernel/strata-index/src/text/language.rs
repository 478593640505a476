//! The languages whose words can be cut to their stems.

use rust_stemmers::Algorithm;

macro_rules! languages {
    ($($language:ident $name:literal),* $(,)?) => {
        /// A language with a Snowball stemmer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Language {
            $($language),*
        }

        impl Language {
            pub const ALL: &[Language] = &[$(Language::$language),*];

            /// In lower case: `english`. Stable, so it can be stored.
            pub fn name(self) -> &'static str {
                match self {
                    $(Language::$language => $name),*
                }
            }

            pub(super) fn algorithm(self) -> Algorithm {
                match self {
                    $(Language::$language => Algorithm::$language),*
                }
            }
        }
    };
}

languages! {
    Arabic "arabic", Danish "danish", Dutch "dutch", English "english", Finnish "finnish", French "french",
    German "german", Greek "greek", Hungarian "hungarian", Italian "italian", Norwegian "norwegian",
    Portuguese "portuguese", Romanian "romanian", Russian "russian", Spanish "spanish", Swedish "swedish",
    Tamil "tamil", Turkish "turkish",
}

impl Language {
    pub fn named(name: &str) -> Option<Language> {
        Language::ALL.iter().copied().find(|language| language.name() == name)
    }

    /// Whether an apostrophe stands between two words: *l'eau*.
    pub(super) fn elides(self) -> bool {
        matches!(self, Language::French | Language::Italian)
    }
}
