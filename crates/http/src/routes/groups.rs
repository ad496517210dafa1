//! `GET /groups`: attributes and their values, with how many people have each.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use polyreward_domain::{Attributes, check_attributes};
use polyreward_service::Users;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    auth::Authorized,
    page::{Page, bad_cursor},
    problem::Problem,
};

/// A page of groups.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GroupPage)]
pub(crate) struct GroupPageReply {
    /// Groups, by attribute and value.
    items: Vec<GroupReply>,
    /// Asks for the next page; null on the last.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// All people with one value of one attribute.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Group)]
pub(crate) struct GroupReply {
    #[schema(example = "country")]
    key: String,
    #[schema(example = "UK")]
    value: String,
    /// How many people there are.
    users: u64,
}

/// Attributes and their values, with how many people have each.
#[utoipa::path(get, path = "/groups", tag = "people", operation_id = "list_groups", params(
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<usize>, Query, description = "Entries of a page, 100 by default", minimum = 1, maximum = 1000),
), responses((status = 200, description = "Groups, by attribute and value", body = GroupPageReply)))]
pub(crate) async fn list(
    caller: Authorized,
    State(users): State<Users>,
    RawQuery(query): RawQuery,
) -> Result<Json<GroupPageReply>, Problem> {
    let page = Page::<2>::of(query.as_deref())?;
    // What no attribute can be is in no cursor of ours; a database may refuse it.
    let could_be = |[key, value]: &[String; 2]| {
        check_attributes(&Attributes::from([(key.clone(), value.clone())])).is_ok()
    };
    if page.after.as_ref().is_some_and(|after| !could_be(after)) {
        return Err(bad_cursor());
    }
    let after = page.after.as_ref().map(|[key, value]| (key.as_str(), value.as_str()));
    let found = users.groups(&caller.0.tenant, after, page.limit + 1).await?;
    let (found, next_cursor) = page.cut(found, |group| [group.key.clone(), group.value.clone()]);
    let items =
        found.into_iter().map(|group| GroupReply { key: group.key, value: group.value, users: group.users });
    Ok(Json(GroupPageReply { items: items.collect(), next_cursor }))
}
