//! Accuracy from logits.

/// Figures over the images of one split.
#[derive(Debug, Clone, PartialEq)]
pub struct Accuracy {
    /// Share of images whose largest logit is that of their label, 0 to 1.
    pub top1: f64,
    /// Share of images whose label is among the five largest logits; `None` with five classes or fewer.
    pub top5: Option<f64>,
    /// Mean over classes of the share within the class; classes without an image do not count.
    pub per_class_mean: f64,
    /// Share and number of images of each class; the share is `None` for a class without an image.
    pub classes: Vec<(Option<f64>, u64)>,
    /// Number of images.
    pub num_images: u64,
}

/// Index of the largest logit; of equal ones the first, as `torch.argmax`. `None` for no logits.
pub fn predicted_class(logits: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (class, &logit) in logits.iter().enumerate() {
        if best.is_none_or(|(_, highest)| logit > highest) {
            best = Some((class, logit));
        }
    }
    best.map(|(class, _)| class)
}

/// Position of the class `label` in the order of falling logits, from 0; of equal logits the first stands before the others.
fn rank(logits: &[f32], label: usize) -> Option<usize> {
    let of_label = *logits.get(label)?;
    let before = |(class, &logit): (usize, &f32)| logit > of_label || (logit == of_label && class < label);
    Some(logits.iter().enumerate().filter(|&pair| before(pair)).count())
}

/// Accuracy over `(label, logits)` pairs of a problem with `num_classes` classes; `None` if there are no pairs.
///
/// A label outside the classes counts as an image that is never right.
pub fn accuracy<'a>(pairs: impl Iterator<Item = (u32, &'a [f32])>, num_classes: usize) -> Option<Accuracy> {
    let mut correct = vec![0_u64; num_classes];
    let mut total = vec![0_u64; num_classes];
    let (mut num_images, mut in_top5) = (0_u64, 0_u64);
    for (label, logits) in pairs {
        num_images += 1;
        let label = label as usize;
        in_top5 += u64::from(rank(logits, label).is_some_and(|rank| rank < 5));
        if let Some(count) = total.get_mut(label) {
            *count += 1;
            correct[label] += u64::from(predicted_class(logits) == Some(label));
        }
    }
    if num_images == 0 {
        return None;
    }
    let share = |right: u64, of: u64| (of > 0).then(|| right as f64 / of as f64);
    let classes: Vec<_> = correct.iter().zip(&total).map(|(&right, &of)| (share(right, of), of)).collect();
    let shares: Vec<f64> = classes.iter().filter_map(|c| c.0).collect();
    Some(Accuracy {
        top1: correct.iter().sum::<u64>() as f64 / num_images as f64,
        top5: (num_classes > 5).then(|| in_top5 as f64 / num_images as f64),
        per_class_mean: if shares.is_empty() {
            0.0
        } else {
            shares.iter().sum::<f64>() / shares.len() as f64
        },
        classes,
        num_images,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top1_counts_images_and_the_class_mean_counts_classes() {
        // Class 0: 3 of 4 right; class 1: 0 of 1; class 2 has no image.
        let logits: [(u32, [f32; 3]); 5] = [
            (0, [2.0, 1.0, 0.0]),
            (0, [2.0, 1.0, 0.0]),
            (0, [2.0, 1.0, 0.0]),
            (0, [0.0, 1.0, 0.0]),
            (1, [2.0, 1.0, 0.0]),
        ];
        let found = accuracy(logits.iter().map(|(label, l)| (*label, l.as_slice())), 3).unwrap();
        assert_eq!(found.top1, 0.6);
        assert_eq!(found.top5, None, "five guesses among three classes say nothing");
        assert_eq!(found.per_class_mean, 0.375);
        assert_eq!(found.classes, vec![(Some(0.75), 4), (Some(0.0), 1), (None, 0)]);
        assert_eq!(accuracy(std::iter::empty(), 3), None);
    }

    #[test]
    fn the_first_of_equal_logits_wins() {
        assert_eq!(predicted_class(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(predicted_class(&[]), None);
    }
}
