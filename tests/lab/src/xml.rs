//! The little XML the lab reads and writes itself: the answers of AWS's Query APIs.

use quick_xml::{Reader, events::Event};

/// The text of the first element so named, entities resolved; `None` if there is none or it is empty.
#[must_use]
pub fn text(document: &str, element: &str) -> Option<String> {
    texts(document, element).into_iter().next()
}

/// The texts of all elements so named that have text and no children, in document order.
#[must_use]
pub fn texts(document: &str, element: &str) -> Vec<String> {
    let mut reader = Reader::from_str(document);
    let mut found = Vec::new();
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(start) if start.local_name().as_ref() == element.as_bytes() => {
                if let Ok(raw) = reader.read_text(start.name())
                    && let Ok(value) = quick_xml::escape::unescape(&raw)
                    && !value.is_empty()
                {
                    found.push(value.into_owned());
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
