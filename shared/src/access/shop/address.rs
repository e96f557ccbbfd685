//! The shop's addresses and what opens them.

use std::fmt;

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use percent_encoding::utf8_percent_encode;
use reqwest::{Method, Request, Url};
use secrecy::ExposeSecret as _;

use super::super::configuration::{Shop, ShopKind};
use super::super::sending::SEGMENT;
use super::ShopError;
use super::pages::Order;

/// MemberPress's list of transactions, at a site whose own list is configured.
const MEMBERPRESS_TRANSACTIONS: &str = "/wp-json/mp/v1/transactions";

/// The parameter by which a site's own list is asked for no more rows than this. One that does not know it gives all.
const LIMIT_PARAM: &str = "limit";

/// Makes the shop's requests. It holds the credentials and so does not print.
pub(super) struct Address {
    shop: Shop,
}

impl Address {
    pub(super) fn new(shop: &Shop) -> Self {
        Self { shop: shop.clone() }
    }

    /// The site's own list; `None` asks for all of it.
    pub(super) fn list(&self, since: Option<Timestamp>) -> Result<Request, ShopError> {
        let mut query = Vec::new();
        if let Some(since) = since {
            query.push((self.shop.since_param.as_str(), since.as_second().to_string()));
        }
        if let Some(limit) = self.shop.transactions_limit {
            query.push((LIMIT_PARAM, limit.to_string()));
        }
        self.request(&self.shop.transactions_endpoint, &query)
    }

    /// A page of MemberPress's list.
    pub(super) fn page(&self, page: u32, per_page: u32, order: Order) -> Result<Request, ShopError> {
        let order = match order {
            Order::OldestFirst => "asc",
            Order::NewestFirst(_) => "desc",
        };
        let query = [
            ("page", page.to_string()),
            ("per_page", per_page.to_string()),
            ("orderby", "id".to_owned()),
            ("order", order.to_owned()),
        ];
        self.request(&self.shop.transactions_endpoint, &query)
    }

    /// One transaction.
    pub(super) fn transaction(&self, id: &str) -> Result<Request, ShopError> {
        self.one(self.memberpress(), id)
    }

    /// One member.
    pub(super) fn member(&self, id: &str) -> Result<Request, ShopError> {
        let transactions = self.memberpress().trim_end_matches('/');
        let folder = transactions
            .rsplit_once('/')
            .map_or(transactions, |(folder, _)| folder);
        self.one(&format!("{folder}/members"), id)
    }

    /// MemberPress's list of transactions.
    fn memberpress(&self) -> &str {
        match self.shop.kind {
            ShopKind::Site => MEMBERPRESS_TRANSACTIONS,
            ShopKind::MemberPress => &self.shop.transactions_endpoint,
        }
    }

    fn one(&self, list: &str, id: &str) -> Result<Request, ShopError> {
        // These would change what the path means.
        if matches!(id, "." | "..") {
            return Err(ShopError::Unsendable);
        }
        let id = utf8_percent_encode(id, SEGMENT);
        self.request(&format!("{}/{id}", list.trim_end_matches('/')), &[])
    }

    fn request(&self, path: &str, query: &[(&str, String)]) -> Result<Request, ShopError> {
        let credentials = &self.shop.credentials;
        let mut url = Url::parse(&format!("{}{path}", self.shop.base_url.as_str()))
            .map_err(|_| ShopError::Unsendable)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        if let Some((name, token)) = &credentials.token {
            url.query_pairs_mut().append_pair(name, token.expose_secret());
        }
        let mut request = Request::new(Method::GET, url);
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some((name, key)) = &credentials.key {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| ShopError::Unsendable)?;
            headers.insert(name, secret(key.expose_secret())?);
        }
        // A user's password comes last: a key may stand in the same header, but WordPress would not look at it then.
        if let Some((user, password)) = &credentials.basic {
            let both = format!("{user}:{}", password.expose_secret());
            let value = format!("Basic {}", data_encoding::BASE64.encode(both.as_bytes()));
            headers.insert(AUTHORIZATION, secret(&value)?);
        }
        Ok(request)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("base_url", &self.shop.base_url.as_str())
            .finish_non_exhaustive()
    }
}

/// The value of a header that holds a secret.
fn secret(text: &str) -> Result<HeaderValue, ShopError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| ShopError::Unsendable)?;
    value.set_sensitive(true);
    Ok(value)
}
