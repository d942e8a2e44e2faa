//! Values of labels.

/// Declares an enum of all values of a label, each with its text.
macro_rules! label_values {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$doc:meta])* $value:ident = $text:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $value,)+
        }

        impl $name {
            /// All values, in their order.
            pub const ALL: [Self; [$(Self::$value),+].len()] = [$(Self::$value),+];

            /// The text of the label.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }
    };
}

pub(crate) use label_values;
