//! Values of labels.

/// Declares an enum whose variants are the values of a label.
macro_rules! label_values {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident { $($(#[$of_one:meta])* $variant:ident = $value:literal,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name { $($(#[$of_one])* $variant,)+ }

        impl $name {
            /// All variants, in order.
            #[allow(dead_code)] // not every label is written for each of its values
            $vis const ALL: [Self; [$($value),+].len()] = [$(Self::$variant),+];

            /// Value of the label.
            $vis fn label(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }
        }
    };
}

pub(crate) use label_values;
