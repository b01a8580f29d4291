//! Which first digits and lengths belong to an issuer (ISO/IEC 7812, as the
//! schemes publish their ranges).

/// One range of first digits with the lengths of its numbers.
struct Range {
    /// The first and last prefix, with the same number of digits.
    prefix: (u32, u32),
    /// How many digits the prefix has.
    width: usize,
    /// How many digits the whole number may have.
    lengths: &'static [usize],
}

const fn range(first: u32, last: u32, width: usize, lengths: &'static [usize]) -> Range {
    Range { prefix: (first, last), width, lengths }
}

const MAESTRO: &[usize] = &[13, 14, 15, 16, 17, 18, 19];
const LONG: &[usize] = &[16, 17, 18, 19];

const RANGES: [Range; 23] = [
    // Visa
    range(4, 4, 1, &[13, 16, 19]),
    // Mastercard
    range(51, 55, 2, &[16]),
    range(2221, 2720, 4, &[16]),
    // American Express
    range(34, 34, 2, &[15]),
    range(37, 37, 2, &[15]),
    // Discover
    range(6011, 6011, 4, LONG),
    range(644, 649, 3, LONG),
    range(65, 65, 2, LONG),
    // JCB
    range(3528, 3589, 4, LONG),
    // Diners Club
    range(300, 305, 3, &[14, 15, 16, 17, 18, 19]),
    range(36, 36, 2, &[14, 15, 16, 17, 18, 19]),
    range(38, 39, 2, &[14, 15, 16, 17, 18, 19]),
    // UnionPay. Never shorter: 62 and 11 digits are an Indonesian telephone.
    range(62, 62, 2, LONG),
    // Maestro and the national schemes in its ranges (GPN, RuPay, Verve)
    range(50, 50, 2, MAESTRO),
    range(56, 58, 2, MAESTRO),
    range(60, 61, 2, MAESTRO),
    range(63, 64, 2, MAESTRO),
    range(66, 69, 2, MAESTRO),
    // GPN, Indonesia
    range(1946, 1946, 4, &[16, 18, 19]),
    // Mir
    range(2200, 2204, 4, LONG),
    // RuPay
    range(81, 82, 2, &[16]),
    range(353, 353, 3, &[16]),
    // Troy
    range(9792, 9792, 4, &[16]),
];

/// Whether numbers of this length that begin so are issued. The digits are
/// values, not characters.
pub(super) fn issued(digits: &[u8]) -> bool {
    RANGES.iter().any(|range| {
        let Some(first) = digits.get(..range.width) else { return false };
        let prefix = first.iter().fold(0, |sum, digit| sum * 10 + u32::from(*digit));
        (range.prefix.0..=range.prefix.1).contains(&prefix) && range.lengths.contains(&digits.len())
    })
}
