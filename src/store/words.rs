//! Words that are stored as numbers: each is written out once, with its number and
//! its name.

macro_rules! words {
    ($(#[doc = $about:literal])+ $name:ident { $($(#[doc = $doc:literal])+ $word:ident = $number:literal, $text:literal;)+ }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $doc])+ $word = $number,)+ }

        impl $name {
            /// Every word.
            pub const ALL: &'static [$name] = &[$($name::$word,)+];

            /// The word of a stored number; `None` for any other.
            pub fn from_number(number: i64) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| *word as i64 == number)
            }

            /// The word as people and metrics see it.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$word => $text,)+ }
            }
        }
    };
}

pub(super) use words;
