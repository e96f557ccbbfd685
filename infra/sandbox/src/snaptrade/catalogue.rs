//! The sandbox's reference data: brokerages, exchanges, currencies and instruments.
//!
//! Names are real so that a demonstration reads well; identifiers and prices are the sandbox's own.

use serde_json::{Value, json};

/// A brokerage that can be connected.
#[derive(Debug)]
pub(super) struct Brokerage {
    pub(super) id: &'static str,
    pub(super) slug: &'static str,
    pub(super) name: &'static str,
    description: &'static str,
    url: &'static str,
    /// Whether a connection can place orders. Where it cannot, only read connections are made.
    pub(super) allows_trading: bool,
    /// Whether its accounts hold no real money.
    pub(super) is_paper: bool,
    auth_type: &'static str,
    /// Which kind of instruments its accounts hold at first.
    pub(super) holds: Holds,
}

/// What the accounts of a brokerage hold when they are first connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Shares and funds listed in the United States.
    UsShares,
    /// Shares and funds listed in Canada.
    CanadianShares,
    /// Crypto currencies.
    Crypto,
}

/// Every brokerage, in the order in which they are listed.
pub(super) const BROKERAGES: &[Brokerage] = &[
    Brokerage {
        id: "3625d157-5799-4b31-a3c6-0822b17e1a47",
        slug: "SANDBOX",
        name: "SnapTrade Sandbox",
        description: "A brokerage without a broker, for trying things out. Its connections only read.",
        url: "https://snaptrade.com",
        allows_trading: false,
        is_paper: true,
        auth_type: "TOKEN",
        holds: Holds::UsShares,
    },
    Brokerage {
        id: "a5524dd3-338d-4cb1-a01b-4b6d1517abf6",
        slug: "ALPACA-PAPER",
        name: "Alpaca Paper",
        description: "Alpaca's accounts for trading without money.",
        url: "https://alpaca.markets",
        allows_trading: true,
        is_paper: true,
        auth_type: "OAUTH",
        holds: Holds::UsShares,
    },
    Brokerage {
        id: "9467b4dd-91f4-4012-a777-2bd76cd19d6e",
        slug: "ROBINHOOD",
        name: "Robinhood",
        description: "A brokerage in the United States.",
        url: "https://robinhood.com",
        allows_trading: true,
        is_paper: false,
        auth_type: "UNOFFICIAL_API",
        holds: Holds::UsShares,
    },
    Brokerage {
        id: "a6491c48-d5ed-402e-91dd-620972495d09",
        slug: "SCHWAB",
        name: "Schwab",
        description: "A brokerage in the United States.",
        url: "https://www.schwab.com",
        allows_trading: true,
        is_paper: false,
        auth_type: "OAUTH",
        holds: Holds::UsShares,
    },
    Brokerage {
        id: "56d6b50e-a36a-4a3c-8ccd-554419c7cec3",
        slug: "QUESTRADE",
        name: "Questrade",
        description: "A brokerage in Canada.",
        url: "https://www.questrade.com",
        allows_trading: true,
        is_paper: false,
        auth_type: "OAUTH",
        holds: Holds::CanadianShares,
    },
    Brokerage {
        id: "1a974414-8dfd-49bc-b4bd-780e168270f1",
        slug: "COINBASE",
        name: "Coinbase",
        description: "An exchange of crypto currencies.",
        url: "https://www.coinbase.com",
        allows_trading: true,
        is_paper: false,
        auth_type: "OAUTH",
        holds: Holds::Crypto,
    },
    Brokerage {
        id: "8a8f63b1-41ae-435a-80be-04e3ea65ccf0",
        slug: "FIDELITY",
        name: "Fidelity",
        description: "A brokerage in the United States. Its connections only read.",
        url: "https://www.fidelity.com",
        allows_trading: false,
        is_paper: false,
        auth_type: "SCRAPE",
        holds: Holds::UsShares,
    },
    Brokerage {
        id: "efa0885e-2519-4871-ade1-f1881e8b4790",
        slug: "VANGUARD",
        name: "Vanguard US",
        description: "A fund company in the United States. Its connections only read.",
        url: "https://investor.vanguard.com",
        allows_trading: false,
        is_paper: false,
        auth_type: "SCRAPE",
        holds: Holds::UsShares,
    },
];

/// The brokerage that a control call connects where it names none.
pub(super) const DEFAULT_BROKERAGE: &str = "SANDBOX";

/// The brokerage of this slug, whatever its case.
pub(super) fn brokerage(slug: &str) -> Option<&'static Brokerage> {
    BROKERAGES
        .iter()
        .find(|brokerage| brokerage.slug.eq_ignore_ascii_case(slug))
}

impl Brokerage {
    /// In the shape of `GET /brokerages`.
    pub(super) fn shown(&self) -> Value {
        json!({
            "id": self.id,
            "slug": self.slug,
            "name": self.name,
            "display_name": self.name,
            "description": self.description,
            "aws_s3_logo_url": format!("{}/logo.png", self.url),
            "aws_s3_square_logo_url": null,
            "url": self.url,
            "open_url": self.url,
            "enabled": true,
            "maintenance_mode": false,
            "is_degraded": false,
            "allows_trading": self.allows_trading,
            "allows_fractional_units": null,
            "has_reporting": null,
            "is_real_time_connection": true,
            "brokerage_type": {
                "id": "cbd1ecf0-d4fb-4c50-983c-2f5344dd579b",
                "name": if self.holds == Holds::Crypto { "Crypto Exchange" } else { "Traditional Brokerage" },
            },
            "exchanges": [],
        })
    }

    /// Its rows in `GET /brokerageAuthorizationTypes`.
    pub(super) fn authorization_types(&self) -> Vec<Value> {
        let types: &[(&str, char)] = if self.allows_trading {
            &[("read", '1'), ("trade", '2')]
        } else {
            &[("read", '1')]
        };
        types
            .iter()
            .map(|(kind, digit)| {
                json!({
                    // The brokerage's own id with another last digit.
                    "id": format!("{}{digit}", self.id.get(..35).unwrap_or_default()),
                    "type": kind,
                    "auth_type": self.auth_type,
                    "brokerage": {"id": self.id, "name": self.name, "slug": self.slug},
                })
            })
            .collect()
    }

    /// In the shape of `GET /institutions`.
    pub(super) fn institution(&self) -> Value {
        json!({
            "slug": self.slug,
            "name": self.name,
            "display_name": self.name,
            "description": self.description,
            "website": self.url,
            "logo_url": format!("{}/logo.png", self.url),
            "square_logo_url": null,
            "release_stage": "GENERALLY_AVAILABLE",
            "is_paper": self.is_paper,
            "regions": null,
            "connection": null,
        })
    }
}

/// A currency in SnapTrade's shape; unknown codes get a made-up id.
pub(super) fn currency(code: &str) -> Value {
    let (id, name) = match code {
        "USD" => ("d0e019c0-3b55-46b3-af6e-51a80480e412", "US Dollar"),
        "CAD" => ("da7b2405-8354-4a0c-aba4-cd96b5e0f617", "Canadian Dollar"),
        _ => ("cbd6e651-4d85-4069-876f-e263253c2e15", code),
    };
    json!({"id": id, "code": code, "name": name})
}

/// An exchange on which instruments are listed.
#[derive(Debug)]
struct Exchange {
    id: &'static str,
    code: &'static str,
    mic_code: &'static str,
    name: &'static str,
    suffix: Option<&'static str>,
}

const EXCHANGES: &[Exchange] = &[
    Exchange {
        id: "7c631abb-3646-469c-9cb6-273c40515f68",
        code: "NASDAQ",
        mic_code: "XNAS",
        name: "Nasdaq",
        suffix: None,
    },
    Exchange {
        id: "a8993804-d933-40a1-b1eb-417ff43f1c50",
        code: "NYSE",
        mic_code: "XNYS",
        name: "New York Stock Exchange",
        suffix: None,
    },
    Exchange {
        id: "46a7db17-84cc-4567-ba78-2cfcf31f7b20",
        code: "ARCX",
        mic_code: "ARCX",
        name: "NYSE Arca",
        suffix: None,
    },
    Exchange {
        id: "bfdc7c99-5a7d-4e50-ba35-f6f6a2059025",
        code: "TSX",
        mic_code: "XTSE",
        name: "Toronto Stock Exchange",
        suffix: Some(".TO"),
    },
];

impl Exchange {
    fn shown(&self) -> Value {
        json!({
            "id": self.id,
            "code": self.code,
            "mic_code": self.mic_code,
            "name": self.name,
            "timezone": "America/New_York",
            "start_time": "09:30:00",
            "close_time": "16:00:00",
            "suffix": self.suffix,
        })
    }
}

/// Every exchange, in the shape of `GET /exchanges`.
pub(super) fn exchanges() -> Vec<Value> {
    EXCHANGES.iter().map(Exchange::shown).collect()
}

/// Something that can be held and traded.
#[derive(Debug)]
pub(super) struct Instrument {
    pub(super) id: &'static str,
    pub(super) symbol: &'static str,
    raw_symbol: &'static str,
    pub(super) description: &'static str,
    /// `stock`, `etf` or `crypto`.
    pub(super) kind: &'static str,
    pub(super) currency: &'static str,
    mic_code: Option<&'static str>,
    /// The sandbox's price, which does not move.
    pub(super) price: &'static str,
}

/// Every instrument that the sandbox knows.
pub(super) const INSTRUMENTS: &[Instrument] = &[
    share(
        "1e16258f-6988-41f0-8215-af8b18fe68e0",
        "AAPL",
        "Apple Inc.",
        "XNAS",
        "231.40",
    ),
    share(
        "651a1e0c-7da2-4a81-b324-8cbbed8810ed",
        "MSFT",
        "Microsoft Corporation",
        "XNAS",
        "428.15",
    ),
    share(
        "41583005-443a-4ffe-b018-0e1a8fef8a1b",
        "NVDA",
        "NVIDIA Corporation",
        "XNAS",
        "138.25",
    ),
    share(
        "666bf4a6-9c3b-46fa-83e1-13bba1d1df01",
        "KO",
        "The Coca-Cola Company",
        "XNYS",
        "64.72",
    ),
    Instrument {
        kind: "etf",
        ..share(
            "3691e32e-6a4a-4540-8a85-e6cdacead540",
            "VTI",
            "Vanguard Total Stock Market ETF",
            "ARCX",
            "287.90",
        )
    },
    Instrument {
        id: "65007744-7a91-48a9-b2a4-898dbc6d3a7a",
        symbol: "SHOP.TO",
        raw_symbol: "SHOP",
        description: "Shopify Inc.",
        kind: "stock",
        currency: "CAD",
        mic_code: Some("XTSE"),
        price: "148.30",
    },
    Instrument {
        id: "ca1f4588-56d2-4892-9de8-dbfc4941a80a",
        symbol: "VFV.TO",
        raw_symbol: "VFV",
        description: "Vanguard S&P 500 Index ETF",
        kind: "etf",
        currency: "CAD",
        mic_code: Some("XTSE"),
        price: "149.05",
    },
    Instrument {
        id: "6e920c9c-d729-427e-989a-683ee0f55665",
        symbol: "BTC",
        raw_symbol: "BTC",
        description: "Bitcoin",
        kind: "crypto",
        currency: "USD",
        mic_code: None,
        price: "97450.00",
    },
    Instrument {
        id: "0f6c2c0e-52d3-4d0b-9a1e-7a3f6f6f8f11",
        symbol: "ETH",
        raw_symbol: "ETH",
        description: "Ether",
        kind: "crypto",
        currency: "USD",
        mic_code: None,
        price: "3380.50",
    },
];

const fn share(
    id: &'static str,
    symbol: &'static str,
    description: &'static str,
    mic_code: &'static str,
    price: &'static str,
) -> Instrument {
    Instrument {
        id,
        symbol,
        raw_symbol: symbol,
        description,
        kind: "stock",
        currency: "USD",
        mic_code: Some(mic_code),
        price,
    }
}

/// The instrument with this symbol (whatever its case) or id.
pub(super) fn instrument(symbol_or_id: &str) -> Option<&'static Instrument> {
    INSTRUMENTS
        .iter()
        .find(|one| one.symbol.eq_ignore_ascii_case(symbol_or_id) || one.id == symbol_or_id)
}

/// At most 20 instruments whose symbol or description holds `substring`.
pub(super) fn search(substring: &str) -> Vec<&'static Instrument> {
    let wanted = substring.to_lowercase();
    INSTRUMENTS
        .iter()
        .filter(|one| {
            one.symbol.to_lowercase().contains(&wanted) || one.description.to_lowercase().contains(&wanted)
        })
        .take(20)
        .collect()
}

impl Instrument {
    /// As a universal symbol, the shape of symbol searches, orders and activities.
    pub(super) fn universal_symbol(&self) -> Value {
        let (code, description) = match self.kind {
            "etf" => ("et", "ETF"),
            "crypto" => ("crypto", "Cryptocurrency"),
            _ => ("cs", "Common Stock"),
        };
        json!({
            "id": self.id,
            "symbol": self.symbol,
            "raw_symbol": self.raw_symbol,
            "description": self.description,
            "currency": currency(self.currency),
            "exchange": self.exchange().map(Exchange::shown),
            "type": {
                "id": "0b8d4d1d-6d59-4f4e-8f0c-93f1fb0b2f77",
                "code": code,
                "description": description,
                "is_supported": true,
            },
            "figi_code": null,
            "figi_instrument": null,
            "currencies": [currency(self.currency)],
        })
    }

    /// As the instrument of a position.
    pub(super) fn held(&self) -> Value {
        json!({
            "kind": self.kind,
            "id": self.id,
            "symbol": self.symbol,
            "raw_symbol": self.raw_symbol,
            "description": self.description,
            "currency": self.currency,
            "exchange": self.mic_code,
            "figi_instrument": null,
        })
    }

    /// As a row of a brokerage's instruments.
    pub(super) fn traded(&self, tradeable: bool) -> Value {
        json!({
            "symbol": self.symbol,
            "exchange_mic": self.mic_code,
            "tradeable": tradeable,
            "fractionable": null,
            "universal_symbol_id": self.id,
        })
    }

    fn exchange(&self) -> Option<&'static Exchange> {
        EXCHANGES
            .iter()
            .find(|exchange| Some(exchange.mic_code) == self.mic_code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn identifiers_are_unique_and_brokerages_of_both_kinds_exist() {
        let ids: BTreeSet<_> = BROKERAGES
            .iter()
            .map(|one| one.id)
            .chain(INSTRUMENTS.iter().map(|one| one.id))
            .collect();
        assert_eq!(ids.len(), BROKERAGES.len() + INSTRUMENTS.len());
        assert!(BROKERAGES.len() >= 5);
        assert!(brokerage(DEFAULT_BROKERAGE).is_some_and(|sandbox| !sandbox.allows_trading));
        assert!(BROKERAGES.iter().filter(|one| one.allows_trading).count() >= 3);
    }
}
