//! Sums and products of money without any rounding.

use bigdecimal::{BigDecimal, Zero as _};
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

/// A figure that was reckoned from others, to the last digit.
///
/// The figures themselves fit into [`Decimal`]'s 28 digits, the product of a quantity with 18 decimals and a price with
/// as many does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exact(BigDecimal);

impl Exact {
    /// Nothing.
    #[must_use]
    pub fn zero() -> Self {
        Self(BigDecimal::zero())
    }

    /// This and `other` multiplied.
    #[must_use]
    pub fn times(&self, other: Decimal) -> Self {
        // The crate's own product leaves decimals out that are zero, so that money would lose its cents.
        let (digits, scale) = self.0.as_bigint_and_exponent();
        let scale = scale.saturating_add(i64::from(other.scale()));
        Self(BigDecimal::new(digits * other.mantissa(), scale))
    }

    /// This and `other` together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self(&self.0 + &other.0)
    }

    /// The same as a [`Decimal`]; `None` where it has more digits than that.
    #[must_use]
    pub fn to_decimal(&self) -> Option<Decimal> {
        Decimal::from_str_exact(&self.0.to_plain_string()).ok()
    }

    /// This without `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }
}

impl From<Decimal> for Exact {
    fn from(figure: Decimal) -> Self {
        Self(BigDecimal::new(
            figure.mantissa().into(),
            i64::from(figure.scale()),
        ))
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_plain_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Exact {
        text.parse::<Decimal>().unwrap().into()
    }

    fn shown(figure: &Exact) -> String {
        serde_json::to_value(figure).unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn a_product_keeps_every_digit() {
        let units = exact("1234567890.123456789012345678");
        let product = units.times("98765.432109876543210987".parse().unwrap());
        assert_eq!(
            shown(&product),
            "121932631137021.795226184224841037600962978931564186"
        );
    }

    #[test]
    fn figures_are_never_written_with_an_exponent() {
        assert_eq!(
            shown(&exact("0.0000000000000000000000000001")),
            "0.0000000000000000000000000001"
        );
        let large = exact("79228162514264337593543950335").times(Decimal::ONE_HUNDRED);
        assert_eq!(shown(&large), "7922816251426433759354395033500");
        assert_eq!(shown(&exact("-0.50").plus(&exact("0.50"))), "0.00");
        assert_eq!(shown(&exact("12.50").minus(&exact("20"))), "-7.50");
    }
}
