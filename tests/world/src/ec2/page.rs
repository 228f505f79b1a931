//! Paging: cutting a list that is sorted by a key into pages. The token is the key of the last row given,
//! so pages stay right while rows come and go.

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::{Ec2Error, Ec2Result};
use super::request::Page;

/// Refuses paging together with ids, which EC2 does not allow.
pub(super) fn refuse_ids_with_page(ids: bool, page: &Page, ids_name: &str) -> Ec2Result<()> {
    if ids && page.max_results.is_some() {
        return Err(Ec2Error::invalid_combination(format!(
            "The parameter {ids_name} cannot be used with the parameter maxResults"
        )));
    }
    Ok(())
}

/// The page asked for and the token of the next one. `key` is unique to a row, must not change, and gives
/// the rows their order.
pub(super) fn cut<T>(
    mut rows: Vec<T>,
    page: &Page,
    sizes: RangeInclusive<usize>,
    key: impl Fn(&T) -> String,
) -> Ec2Result<(Vec<T>, Option<String>)> {
    if let Some(size) = page.max_results.filter(|size| !sizes.contains(size)) {
        return Err(Ec2Error::invalid_value(format!(
            "Value ( {size} ) for parameter maxResults is invalid. Expecting a value between {} and {}.",
            sizes.start(),
            sizes.end()
        )));
    }
    rows.sort_by_cached_key(&key);
    let mut rows = rows.into_iter().peekable();
    if let Some(token) = &page.next_token {
        let last = read_token(token)?;
        // The row the token names may be gone; the page begins behind where it stood.
        while rows.next_if(|row| key(row) <= last).is_some() {}
    }
    let size = page.max_results.unwrap_or(usize::MAX);
    let mut given = Vec::new();
    while given.len() < size
        && let Some(row) = rows.next()
    {
        given.push(row);
    }
    let token = match (rows.peek(), given.last()) {
        (Some(_), Some(last)) => Some(URL_SAFE_NO_PAD.encode(key(last))),
        _ => None,
    };
    Ok((given, token))
}

fn read_token(token: &str) -> Ec2Result<String> {
    let invalid = || Ec2Error::invalid_value("Unable to parse pagination token");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    String::from_utf8(bytes).map_err(|_| invalid())
}
