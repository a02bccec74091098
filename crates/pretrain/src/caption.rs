//! Captions: what a training image is called in one step, and which other images of the batch that name fits.
//!
//! A source caption is a list, `label, keyword, keyword, ...`. One step draws the class name, the label, one keyword or a
//! combination, in a template. Images for which a caption is also true count as its positives, so that four drawings
//! of one cat, or a cat and a dog under `a mammal`, do not repel each other.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::images::TrainingImage;
use crate::rng::StepRng;

/// How captions are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionRecipe {
    /// Sentences with `{}` where the name stands.
    pub templates: Vec<String>,
    /// Share of the captions of labelled images that are made of the class name.
    pub class_share: f32,
    /// Share of the class captions that name the label too: `a mammal, cat`.
    pub class_with_label_share: f32,
    /// Share of the other captions that are the label alone; the rest are one keyword or the label with keywords.
    pub label_share: f32,
    /// Most keywords after a label.
    pub max_keywords: usize,
}

impl CaptionRecipe {
    /// Checks the fields.
    ///
    /// # Errors
    ///
    /// Fails if there is no template, a template has no `{}`, or a share is outside 0..=1.
    pub fn check(&self) -> Result<(), Error> {
        if self.templates.is_empty() {
            return Err(Error::field("captions.templates", "at least one sentence", "[]"));
        }
        if let Some(template) = self.templates.iter().find(|template| !template.contains("{}")) {
            return Err(Error::field("captions.templates", "sentences with `{}`", template));
        }
        share("captions.class_share", self.class_share)?;
        share("captions.class_with_label_share", self.class_with_label_share)?;
        share("captions.label_share", self.label_share)
    }
}

pub(crate) fn share(field: &'static str, value: f32) -> Result<(), Error> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(Error::field(field, "a share in 0 to 1", value)) }
}

/// A caption and what it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// The sentence.
    pub text: String,
    class: Option<u32>,
    names: Vec<String>,
}

impl Caption {
    /// Draws a caption of `image`.
    pub fn draw(image: &TrainingImage, recipe: &CaptionRecipe, rng: &mut StepRng) -> Self {
        match (image.label, &image.class_name) {
            (Some(label), Some(class_name)) if rng.chance(recipe.class_share) => {
                let mut text = fill(&recipe.templates, class_name, rng);
                let mut names = Vec::new();
                if let Some(name) = image.names.first()
                    && rng.chance(recipe.class_with_label_share)
                {
                    text = format!("{text}, {name}");
                    names.push(name.clone());
                }
                Self { text, class: Some(label), names }
            }
            _ => Self::of_names(image, recipe, rng),
        }
    }

    fn of_names(image: &TrainingImage, recipe: &CaptionRecipe, rng: &mut StepRng) -> Self {
        let Some((label, keywords)) = image.names.split_first() else {
            // Nothing is known of the image: the sentence that only says what kind of picture it is.
            return Self { text: fill(&recipe.templates, "picture", rng), class: None, names: Vec::new() };
        };
        if keywords.is_empty() || rng.chance(recipe.label_share) {
            let text = fill(&recipe.templates, label, rng);
            return Self { text, class: None, names: vec![label.clone()] };
        }
        if rng.chance(0.5) {
            let keyword = &keywords[rng.below(keywords.len())];
            let text = fill(&recipe.templates, keyword, rng);
            return Self { text, class: None, names: vec![keyword.clone()] };
        }
        let mut left = keywords.to_vec();
        let mut names = vec![label.clone()];
        for _ in 0..recipe.max_keywords.min(left.len()) {
            names.push(left.swap_remove(rng.below(left.len())));
        }
        Self { text: names.join(", "), class: None, names }
    }

    /// Whether the caption is true of `image`: its class, if it names one, and every name.
    pub fn fits(&self, image: &TrainingImage) -> bool {
        let class = self.class.is_none() || self.class == image.label;
        class && self.names.iter().all(|name| image.names.contains(name))
    }
}

fn fill(templates: &[String], name: &str, rng: &mut StepRng) -> String {
    templates[rng.below(templates.len())].replace("{}", name)
}

/// Sentences to learn a vocabulary from: every template with every class name, and every name of every image.
pub fn vocabulary_corpus(images: &[TrainingImage], templates: &[String]) -> Vec<String> {
    let mut corpus: Vec<String> = images.iter().map(|image| image.names.join(", ")).collect();
    let mut class_names: Vec<&String> = images.iter().filter_map(|image| image.class_name.as_ref()).collect();
    class_names.sort_unstable();
    class_names.dedup();
    for class_name in class_names {
        // Several times, so that class names and templates become few tokens.
        for _ in 0..4 {
            corpus.extend(templates.iter().map(|template| template.replace("{}", class_name)));
        }
    }
    corpus
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn recipe() -> CaptionRecipe {
        CaptionRecipe {
            templates: vec!["an emoji of a {}".to_owned(), "{}".to_owned()],
            class_share: 0.5,
            class_with_label_share: 0.3,
            label_share: 0.4,
            max_keywords: 2,
        }
    }

    fn image(label: Option<u32>, names: &[&str]) -> TrainingImage {
        TrainingImage {
            sample_id: names.concat(),
            label,
            class_name: label.map(|_| "mammal".to_owned()),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            source: "noto".to_owned(),
            pixels: Vec::new(),
        }
    }

    #[test]
    fn every_drawn_caption_fits_its_own_image() {
        for image in [image(Some(0), &["cat", "pet", "animal"]), image(None, &["keycap"]), image(None, &[])] {
            for step in 0..200 {
                let caption = Caption::draw(&image, &recipe(), &mut StepRng::new(0, Purpose::Batch, step));
                assert!(caption.fits(&image), "{caption:?}");
                assert!(!caption.text.contains("{}"));
            }
        }
    }

    #[test]
    fn a_class_caption_fits_the_whole_class_and_a_label_does_not() {
        let (cat, dog) = (image(Some(0), &["cat", "pet"]), image(Some(0), &["dog", "pet"]));
        let of_class = Caption { text: "a mammal".to_owned(), class: Some(0), names: vec![] };
        let of_label = Caption { text: "a cat".to_owned(), class: None, names: vec!["cat".to_owned()] };
        assert!(of_class.fits(&dog) && of_class.fits(&cat));
        assert!(of_label.fits(&cat) && !of_label.fits(&dog));
        assert!(!of_class.fits(&image(None, &["cat"])));
    }

    #[test]
    fn a_template_without_a_place_is_refused() {
        let recipe = CaptionRecipe { templates: vec!["a cat".to_owned()], ..recipe() };
        assert!(recipe.check().unwrap_err().to_string().contains("`a cat`"));
    }
}
