//! Icon sets in Iconify's JSON form: `icons.json` and `chars.json` of an `@iconify-json` package.
//!
//! An icon is the inside of an `<svg>` element and a box; an alias is another icon turned or mirrored
//! (<https://iconify.design/docs/types/iconify-json.html>).

use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest chain of aliases that is followed.
const MAX_ALIASES: usize = 8;

/// An icon set.
#[derive(Debug, Deserialize)]
pub struct IconSet {
    icons: BTreeMap<String, Icon>,
    #[serde(default)]
    aliases: BTreeMap<String, Alias>,
    width: Option<f64>,
    height: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Icon {
    body: String,
    #[serde(flatten)]
    place: Place,
}

#[derive(Debug, Deserialize)]
struct Alias {
    parent: String,
    #[serde(flatten)]
    place: Place,
}

/// Box and orientation of an icon, as far as they are written.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    left: Option<f64>,
    top: Option<f64>,
    width: Option<f64>,
    height: Option<f64>,
    #[serde(default)]
    h_flip: bool,
    #[serde(default)]
    v_flip: bool,
    #[serde(default)]
    rotate: u32,
}

impl Place {
    /// This place over that of a parent: numbers replace, flips and quarter turns add up.
    fn over(self, parent: Self) -> Self {
        Self {
            left: self.left.or(parent.left),
            top: self.top.or(parent.top),
            width: self.width.or(parent.width),
            height: self.height.or(parent.height),
            h_flip: self.h_flip != parent.h_flip,
            v_flip: self.v_flip != parent.v_flip,
            rotate: (self.rotate % 4 + parent.rotate % 4) % 4,
        }
    }
}

impl IconSet {
    /// Whether there is an icon or alias called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.icons.contains_key(name) || self.aliases.contains_key(name)
    }

    /// The icon as a square SVG document, its box in the middle.
    ///
    /// # Errors
    ///
    /// Says what is wrong: no such icon, aliases in a circle, or a box without size.
    pub fn svg(&self, name: &str) -> Result<String, String> {
        let mut place = Place::default();
        let mut current = name;
        for _ in 0..MAX_ALIASES {
            if let Some(icon) = self.icons.get(current) {
                return self.document(&icon.body, place.over(icon.place));
            }
            let Some(alias) = self.aliases.get(current) else {
                return Err(format!("the icon set has no icon `{current}`"));
            };
            place = place.over(alias.place);
            current = &alias.parent;
        }
        Err(format!("`{name}` is an alias over more than {MAX_ALIASES} others"))
    }

    fn document(&self, body: &str, place: Place) -> Result<String, String> {
        let width = place.width.or(self.width).unwrap_or(16.0);
        let height = place.height.or(self.height).unwrap_or(16.0);
        let (left, top) = (place.left.unwrap_or(0.0), place.top.unwrap_or(0.0));
        let usable = |v: f64| v.is_finite() && v.abs() <= 1e6;
        if ![left, top].into_iter().all(usable) || ![width, height].into_iter().all(|v| usable(v) && v > 0.0)
        {
            return Err(format!("its box is {width} x {height} at {left}, {top}"));
        }
        let side = width.max(height);
        let head = "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\"";
        if !place.h_flip && !place.v_flip && place.rotate == 0 {
            let (x, y) = (left - (side - width) / 2.0, top - (side - height) / 2.0);
            return Ok(format!(
                "{head} width=\"{side}\" height=\"{side}\" viewBox=\"{x} {y} {side} {side}\">{body}</svg>"
            ));
        }
        let (half, sx, sy) =
            (side / 2.0, if place.h_flip { -1 } else { 1 }, if place.v_flip { -1 } else { 1 });
        let (cx, cy, angle) = (-left - width / 2.0, -top - height / 2.0, 90 * place.rotate);
        Ok(format!(
            "{head} width=\"{side}\" height=\"{side}\" viewBox=\"0 0 {side} {side}\"><g transform=\"translate({half} \
             {half}) rotate({angle}) scale({sx} {sy}) translate({cx} {cy})\">{body}</g></svg>"
        ))
    }
}

/// A hexcode without variation selectors, in capitals: `2764-fe0f` is `2764`.
pub fn plain_hexcode(code: &str) -> String {
    let code = code.to_ascii_uppercase();
    code.split('-').filter(|part| *part != "FE0F").collect::<Vec<_>>().join("-")
}

/// A label in the form that icon sets use as a name: lower case, apostrophes dropped, runs of other
/// characters one `-`.
pub fn label_slug(label: &str) -> String {
    let mut slug = String::new();
    for c in label.chars().filter(|c| !matches!(c, '\'' | '\u{2019}')) {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => slug.push(c),
            _ if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_icon_names() {
        assert_eq!(label_slug("woman\u{2019}s sandal"), "womans-sandal");
        assert_eq!(label_slug("Japanese \u{201c}here\u{201d} button"), "japanese-here-button");
        assert_eq!(plain_hexcode("2764-fe0f-200d-1f525"), "2764-200D-1F525");
    }

    #[test]
    fn aliases_add_up_and_circles_are_refused() {
        let json = r#"{"icons": {"a": {"body": "<path/>", "rotate": 3}}, "width": 8,
            "aliases": {"b": {"parent": "a", "rotate": 2, "hFlip": true}, "c": {"parent": "d"}, "d": {"parent": "c"}}}"#;
        let set: IconSet = serde_json::from_str(json).unwrap();
        assert!(set.svg("b").unwrap().contains("rotate(90) scale(-1 1) translate(-4 -8)"));
        assert!(set.svg("c").unwrap_err().contains("alias"));
        assert!(set.svg("e").unwrap_err().contains("no icon `e`"));
    }
}
