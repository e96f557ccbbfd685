//! A request as a handler sees it.

use std::ops::Deref;

use http::{HeaderMap, Method};
use lambda_http::aws_lambda_events::query_map::QueryMap;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fields::{self, Input};
use super::identity::{Identity, Role};
use super::paging::Page;
use super::problem::{Code, Problem};
use super::routes::{self, Found, Route};
use crate::ids::UserId;

/// A request whose caller is known.
#[derive(Debug)]
pub struct Call {
    /// Who calls.
    pub identity: Identity,
    pub(super) request: OpenCall,
}

/// A request whose caller need not be known.
#[derive(Debug)]
pub struct OpenCall {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) route: Option<&'static Route>,
    pub(super) params: Vec<(String, String)>,
    pub(super) query: QueryMap,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) request_id: String,
    pub(super) correlation_id: String,
    pub(super) caller: Result<Identity, Problem>,
}

impl Deref for Call {
    type Target = OpenCall;

    fn deref(&self) -> &OpenCall {
        &self.request
    }
}

impl Call {
    /// The user whom the call is about: the one named, or the caller.
    ///
    /// # Errors
    /// [`Problem`] `forbidden` when a user who is no operator names somebody else.
    pub fn subject(&self, named: Option<UserId>) -> Result<UserId, Problem> {
        match named {
            Some(user_id) if user_id == self.identity.user_id => Ok(user_id),
            Some(user_id) => match self.identity.role {
                Role::Operator => Ok(user_id),
                Role::User => Err(Problem::forbidden("Only an operator may act for another user.")),
            },
            None => Ok(self.identity.user_id.clone()),
        }
    }

    /// Whether the caller is an operator.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.identity.role == Role::Operator
    }

    /// Goes on only for an operator.
    ///
    /// # Errors
    /// [`Problem`] `forbidden` for anybody else.
    pub fn require_operator(&self) -> Result<(), Problem> {
        match self.identity.role {
            Role::Operator => Ok(()),
            Role::User => Err(Problem::forbidden("This route is for operators.")),
        }
    }
}

impl OpenCall {
    /// The same request, its caller known.
    ///
    /// # Errors
    /// [`Problem`] `forbidden` when the request has no verified token, or one that names no user.
    pub fn identified(self) -> Result<Call, Problem> {
        let identity = self.caller.clone()?;
        Ok(Call {
            identity,
            request: self,
        })
    }

    /// The request's method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The route's path with its variables by name, such as `/api/snaptrade/users/{user_id}`; empty for a path that
    /// no route has.
    #[must_use]
    pub fn route(&self) -> &'static str {
        self.route.map_or("", |route| route.path)
    }

    /// The request's headers. Names are compared without regard to case.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body's bytes as the caller sent them.
    #[must_use]
    pub fn raw_body(&self) -> &[u8] {
        &self.body
    }

    /// The id of this request, as the answer's `x-request-id` has it.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The id that ties this request to others.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        &self.correlation_id
    }

    /// The JSON body as `T`. An empty body is as good as `{}`.
    ///
    /// # Errors
    /// [`Problem`] `invalid_request` with every fault of the body.
    pub fn body<T: Input>(&self) -> Result<T, Problem> {
        fields::from_body(&self.body)
    }

    /// The query's parameters as `T`.
    ///
    /// # Errors
    /// [`Problem`] `invalid_request` with every fault of the query.
    pub fn query<T: Input>(&self) -> Result<T, Problem> {
        fields::from_query(self.query.iter())
    }

    /// Which part of a list is asked for: `limit` and `cursor` in the query.
    ///
    /// # Errors
    /// [`Problem`] `invalid_request` when either is not right.
    pub fn page<C: Serialize + DeserializeOwned>(&self) -> Result<Page<C>, Problem> {
        self.query()
    }

    /// The value of a variable in the path, decoded.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(param, _)| param == name)
            .map(|(_, value)| value.as_str())
    }

    /// The user id that the variable `user_id` in the path names.
    ///
    /// # Errors
    /// [`Problem`] `not_found` when no user can have this id.
    pub fn user_in_path(&self) -> Result<UserId, Problem> {
        self.param("user_id")
            .and_then(|text| UserId::parse(text).ok())
            .ok_or_else(|| Problem::new(Code::NotFound).detail("There is no such user."))
    }

    /// The problem to answer where the function does not serve this method and path: `not_found`, or
    /// `method_not_allowed` with the methods that the path takes.
    #[must_use]
    pub fn not_served(&self) -> Problem {
        match routes::find(&self.method, &self.path) {
            Found::Route { .. } => Problem::new(Code::NotFound),
            other => other.problem().unwrap_or_else(|| Problem::new(Code::NotFound)),
        }
    }
}
