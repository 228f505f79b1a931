//! Writing the XML of EC2's answers.

use std::fmt::{Display, Write as _};

/// The namespace of the answers, which carries the API's version.
const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// XML being written.
#[derive(Debug, Default)]
pub struct Writer {
    text: String,
}

impl Writer {
    /// `<name>value</name>`.
    pub fn leaf(&mut self, name: &str, value: impl Display) {
        let value = crate::xml::escape(&value.to_string());
        // Writing to a String cannot fail.
        let _ = write!(self.text, "<{name}>{value}</{name}>");
    }

    /// The same, if there is a value.
    pub fn optional(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.leaf(name, value);
        }
    }

    /// `<name>…</name>`.
    pub fn element(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        let _ = write!(self.text, "<{name}>");
        inside(self);
        let _ = write!(self.text, "</{name}>");
    }

    /// `<name><item>…</item>…</name>`.
    pub fn items<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        self.element(name, |list| {
            for item in items {
                list.element("item", |w| each(w, item));
            }
        });
    }

    /// `<name><item>text</item>…</name>`.
    pub fn texts<T: Display>(&mut self, name: &str, items: impl IntoIterator<Item = T>) {
        self.element(name, |list| {
            for item in items {
                list.leaf("item", item);
            }
        });
    }
}

/// The answer of an action that went well.
pub fn response(action: &str, request_id: &str, body: impl FnOnce(&mut Writer)) -> String {
    let mut writer = Writer::default();
    writer.leaf("requestId", request_id);
    body(&mut writer);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"{NAMESPACE}\">{}</{action}Response>",
        writer.text
    )
}

/// The answer of a refusal.
pub fn refusal(code: &str, message: &str, request_id: &str) -> String {
    let mut writer = Writer::default();
    writer.element("Errors", |errors| {
        errors.element("Error", |error| {
            error.leaf("Code", code);
            error.leaf("Message", message);
        });
    });
    writer.leaf("RequestID", request_id);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response>{}</Response>",
        writer.text
    )
}
