//! Amounts of money in minor units, and how people write them.
//!
//! The exponents are ISO 4217's (list one, 2024): the number of decimal digits
//! between a currency's unit and its smallest part.

use std::fmt;
use std::str::FromStr;

use crate::proto::money::v1 as pb;

/// The largest amount of one payment, in minor units: 15 digits, so that sums
/// over many payments stay far from the end of an i64 and a double holds each
/// amount exactly.
pub const MAX_MINOR_UNITS: i64 = 999_999_999_999_999;

/// An ISO 4217 currency that the node knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency {
    code: [u8; 3],
    exponent: u8,
}

/// The active currencies of ISO 4217, by exponent. Funds codes, precious metals
/// and test codes are left out: nobody pays in them.
const EXPONENTS: [(u8, &str); 4] = [
    (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
    (
        2,
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD \
         CAD CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP \
         GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD \
         LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB \
         PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC \
         SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW \
         ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
    (4, "CLF UYW"),
];

impl Currency {
    /// The three letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.code).unwrap_or("???")
    }

    /// How many decimal digits its smallest part has.
    pub fn exponent(&self) -> u32 {
        u32::from(self.exponent)
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let code: [u8; 3] = text.as_bytes().try_into().map_err(|_| MoneyError::Currency)?;
        EXPONENTS
            .iter()
            .find(|(_, codes)| codes.split(' ').any(|known| known == text))
            .map(|(exponent, _)| Currency { code, exponent: *exponent })
            .ok_or(MoneyError::Currency)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount in one currency. May be negative in a ledger; what is paid is
/// checked with [`Money::payable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    /// The currency.
    pub currency: Currency,
    /// The amount in its smallest unit.
    pub minor_units: i64,
}

impl Money {
    /// An amount that can be paid: 1 to [`MAX_MINOR_UNITS`].
    pub fn payable(currency: &str, minor_units: i64) -> Result<Self, MoneyError> {
        let currency = currency.parse()?;
        if (1..=MAX_MINOR_UNITS).contains(&minor_units) {
            Ok(Self { currency, minor_units })
        } else {
            Err(MoneyError::Amount)
        }
    }

    /// The contract's message.
    pub fn to_proto(self) -> pb::Money {
        pb::Money { currency: self.currency.to_string(), minor_units: self.minor_units }
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    /// Reads `IDR 50000` or `KWD 1.5`: the code, spaces, digits with at most
    /// the currency's number of decimals. `JPY 1.5` is refused, as is every
    /// grouping of digits: `50.000` means different amounts to different people.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (code, digits) = text.trim().split_once(char::is_whitespace).ok_or(MoneyError::Form)?;
        let currency: Currency = code.parse()?;
        let (whole, part) = digits.trim().split_once('.').unwrap_or((digits.trim(), ""));
        let only_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !only_digits(whole) || !only_digits(part) || digits.ends_with('.') {
            return Err(MoneyError::Form);
        }
        let exponent = currency.exponent();
        if part.len() > exponent as usize {
            return Err(MoneyError::Decimals { currency, exponent });
        }
        let padded = format!("{whole}{part:0<width$}", width = exponent as usize);
        let minor_units = padded.parse().map_err(|_| MoneyError::Amount)?;
        Self::payable(code, minor_units)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exponent = self.currency.exponent();
        let unit = 10_u64.pow(exponent);
        let size = self.minor_units.unsigned_abs();
        let sign = if self.minor_units < 0 { "-" } else { "" };
        write!(f, "{} {sign}{}", self.currency, size / unit)?;
        if exponent > 0 {
            write!(f, ".{:0width$}", size % unit, width = exponent as usize)?;
        }
        Ok(())
    }
}

/// Why something is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a currency of ISO 4217.
    #[error("must be an ISO 4217 code of three capital letters, such as IDR")]
    Currency,
    /// Out of bounds.
    #[error("must be 1 to 999999999999999 minor units")]
    Amount,
    /// Not `CODE digits`.
    #[error("must be a currency and an amount without grouping, such as `IDR 50000` or `KWD 1.5`")]
    Form,
    /// More decimals than the currency has.
    #[error("{currency} has {exponent} decimals")]
    Decimals {
        /// The currency.
        currency: Currency,
        /// How many decimals it has.
        exponent: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_units_and_the_ledger_counts_minor_ones() {
        let read = |text: &str| text.parse::<Money>().map(|money| money.minor_units);
        assert_eq!(read("IDR 50000"), Ok(5_000_000));
        assert_eq!(read("JPY 50"), Ok(50));
        assert_eq!(read("KWD 1.5"), Ok(1_500));
        assert_eq!(read("USD 0.01"), Ok(1));
        assert!(matches!(read("JPY 1.5"), Err(MoneyError::Decimals { exponent: 0, .. })));
        assert!(matches!(read("IDR 1.234"), Err(MoneyError::Decimals { exponent: 2, .. })));
        for bad in ["IDR", "50000", "IDR 50,000", "IDR -1", "IDR 1.", "IDR .5", "IDR 1e3", "IDR ٣"]
        {
            assert_eq!(read(bad), Err(MoneyError::Form), "{bad}");
        }
        for bad in ["idr 1", "XXX 1", "XAU 1", "RUPIAH 1"] {
            assert_eq!(read(bad), Err(MoneyError::Currency), "{bad}");
        }
        for bad in ["IDR 0", "IDR 99999999999999999999", "IDR 10000000000000"] {
            assert_eq!(read(bad), Err(MoneyError::Amount), "{bad}");
        }
    }

    #[test]
    fn printing_gives_back_what_was_read() {
        for text in ["IDR 50000.00", "JPY 50", "KWD 1.500", "USD 0.01"] {
            let money: Money = text.parse().expect("an amount");
            assert_eq!(money.to_string(), text);
        }
    }
}
