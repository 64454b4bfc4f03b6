//! The OpenAPI document: what the routes say of themselves, and what holds for all of them.

use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::schema::SchemaFormat;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, ObjectBuilder, OpenApi as Document, Ref, RefOr, Response, ResponseBuilder, Type,
};
use utoipa::{Modify, OpenApi};

use super::{calls, keys, viewer};
use crate::problem::ProblemCode;

const PROBLEM_TYPE: &str = "application/problem+json";
const PROBLEM_SCHEMA: &str = "#/components/schemas/Problem";

/// Every route may answer these, before it is asked itself or instead of it.
const EVERYWHERE: [(ProblemCode, &str); 6] = [
    (ProblemCode::BadRequest, "Malformed"),
    (ProblemCode::ForeignOrigin, "The request comes from a page of another origin"),
    (ProblemCode::UnknownHost, "The server is not known by that host name"),
    (ProblemCode::TooManyConnections, "Too many connections from this address"),
    (ProblemCode::Internal, "A bug or failure in Anteroom"),
    (ProblemCode::TooSlow, "The response took too long"),
];

/// So does every route that has a body.
const WITH_BODY: (ProblemCode, &str) =
    (ProblemCode::RequestTooSlow, "The request's body did not arrive in time");

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> Document {
    Paths::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Anteroom", description = "Disposable computers for signing in to command-line tools"),
    paths(
        calls::start,
        calls::sessions,
        calls::memory,
        calls::session,
        calls::delete,
        calls::oauth_url,
        calls::open_sign_in_page,
        calls::heartbeat,
        calls::start_tool,
        calls::code,
        calls::allow_host,
        calls::credential_status,
        calls::credential,
        calls::envelope,
        calls::controller_key,
        calls::cancel,
        calls::screenshot,
        calls::logs,
        calls::viewer_link,
        calls::revoke_viewers,
        calls::events,
        viewer::offer,
        viewer::exchange,
        viewer::session,
        viewer::cancel,
        viewer::code,
        viewer::open_sign_in_page,
        super::channel::terminal,
        super::channel::vnc,
        viewer::events,
        keys::list,
        keys::add,
        keys::rotate,
        keys::revoke,
        super::metrics,
        super::health
    ),
    modifiers(&Keys, &Problems, &SessionIds)
)]
struct Paths;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("apiKey", SecurityScheme::Http(bearer));
        let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
            crate::viewer_cookie("{id}"),
            "Set by the exchange of a viewer link; {id} is the session's.".to_owned(),
        )));
        components.add_security_scheme("viewerCookie", cookie);
    }
}

/// Problems have their own media type, and some are the same everywhere.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut Document) {
        for operation in operations(document) {
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    give_its_type(response);
                }
            }
            let with_body = operation.request_body.is_some().then_some(WITH_BODY);
            for (code, description) in EVERYWHERE.into_iter().chain(with_body) {
                let status = code.status().as_u16().to_string();
                let place = operation.responses.responses.entry(status);
                place.or_insert_with(|| problem(description).into());
            }
        }
    }
}

fn give_its_type(response: &mut Response) {
    let is_problem = response.content.values().any(|content| {
        let RefOr::T(content) = content else { return false };
        matches!(&content.schema, Some(RefOr::Ref(schema)) if schema.ref_location == PROBLEM_SCHEMA)
    });
    if is_problem {
        response.content.clear();
        response.content.insert(PROBLEM_TYPE.to_owned(), problem_content().into());
    }
}

fn problem(description: &str) -> Response {
    ResponseBuilder::new().description(description).content(PROBLEM_TYPE, problem_content()).build()
}

fn problem_content() -> utoipa::openapi::Content {
    ContentBuilder::new().schema(Some(Ref::new(PROBLEM_SCHEMA))).build()
}

/// A session's id has one spelling.
struct SessionIds;

impl Modify for SessionIds {
    fn modify(&self, document: &mut Document) {
        let parameters =
            operations(document).flat_map(|operation| operation.parameters.iter_mut().flatten());
        for parameter in parameters {
            let RefOr::T(Parameter { name, schema, .. }) = parameter else { continue };
            if name != "id" {
                continue;
            }
            let id = ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(SchemaFormat::Custom("uuid".to_owned())))
                .pattern(Some("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"));
            *schema = Some(id.build().into());
        }
    }
}

fn operations(document: &mut Document) -> impl Iterator<Item = &mut Operation> {
    document.paths.paths.values_mut().flat_map(|path| {
        [&mut path.get, &mut path.post, &mut path.delete].into_iter().filter_map(Option::as_mut)
    })
}
