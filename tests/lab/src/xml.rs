//! The little XML the lab reads and writes itself: the answers of AWS's Query APIs.

use quick_xml::{Reader, events::Event};

/// The text of the first element so named, entities resolved; `None` if there is none or it is empty.
#[must_use]
pub fn text(document: &str, element: &str) -> Option<String> {
    texts(document, element).into_iter().next()
}

/// The texts of all elements so named that are not empty, entities resolved, in document order.
#[must_use]
pub fn texts(document: &str, element: &str) -> Vec<String> {
    blocks(document, element)
        .iter()
        .filter_map(|raw| quick_xml::escape::unescape(raw).ok())
        .map(std::borrow::Cow::into_owned)
        .filter(|text| !text.is_empty())
        .collect()
}

/// What stands between the tags of all elements so named, as XML. Of nested ones, only the outermost.
#[must_use]
pub fn blocks(document: &str, element: &str) -> Vec<String> {
    let mut reader = Reader::from_str(document);
    let mut found = Vec::new();
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(start) if start.local_name().as_ref() == element.as_bytes() => {
                if let Ok(raw) = reader.read_text(start.name()) {
                    found.push(raw.into_owned());
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    found
}

/// Text made safe between tags.
#[must_use]
pub fn escape(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_texts_by_local_name() {
        let document =
            r#"<a xmlns="urn:x"><Key>one</Key><b><Key>two &amp; three</Key><Key/></b></a>"#;
        assert_eq!(text(document, "Key").as_deref(), Some("one"));
        assert_eq!(texts(document, "Key"), ["one", "two & three"]);
        assert_eq!(text(document, "None"), None);
    }
}
