//! What comes of resume requests in a calm world: of instances that end at once, of gangs that come in parts, of a first
//! choice that EC2 has not.

mod fallback;
mod gangs;
mod site;
mod stillborn;
