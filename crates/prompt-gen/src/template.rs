//! Prompts from templates.

use artifacts::PromptRow;

use crate::class_prompts::{ClassPrompts, Origin};

/// Every template with `{}` replaced by the class name: classes in order, templates in order within a class.
///
/// Templates that yield the same prompt for a class are kept once.
pub fn expand(class_names: &[String], templates: &[String]) -> Vec<PromptRow> {
    let mut rows = Vec::with_capacity(class_names.len() * templates.len());
    for (class_id, class_name) in (0_u32..).zip(class_names) {
        let mut prompts = ClassPrompts::new(class_id, class_name);
        for template in templates {
            let origin = Origin { template, provider: "templates", model: "", answer: None };
            prompts.push(template.replace("{}", class_name), origin);
        }
        rows.extend(prompts.into_rows());
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_come_in_order_and_templates_within_them() {
        let templates = ["a photo of a {}".to_owned(), "a drawing of a {}, small".to_owned()];
        let rows = expand(&["cat", "sea lion"].map(str::to_owned), &templates);
        let found: Vec<_> = rows.iter().map(|r| (r.class_id, r.prompt_index, r.prompt.as_str())).collect();
        assert_eq!(
            found,
            [
                (0, 0, "a photo of a cat"),
                (0, 1, "a drawing of a cat, small"),
                (1, 0, "a photo of a sea lion"),
                (1, 1, "a drawing of a sea lion, small"),
            ]
        );
        assert_eq!(rows[3].template, templates[1]);
    }
}
