//! Which samples there are, in which order, and which part each belongs to.
//!
//! Rows go by class, prompt and sample. Parts are contiguous runs of rows, or of classes where samples are selected by
//! class, whose numbers differ by at most one: a row's part depends on the spec alone, never on shards, batches or restarts.

use std::ops::Range;

use artifacts::PromptRow;

use crate::Error;

/// One sample to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample<'a> {
    /// Its prompt.
    pub prompt: &'a PromptRow,
    /// Position among the samples of the prompt.
    pub sample_index: u32,
}

impl Sample<'_> {
    /// Name for people: class, prompt and sample.
    pub fn name(&self) -> String {
        let PromptRow { class_name, prompt_index, .. } = self.prompt;
        format!("class `{class_name}`, prompt {prompt_index}, sample {}", self.sample_index)
    }

    /// File name of the decoded image, for example `sea_lion-000-001.png`.
    pub fn image_path(&self) -> String {
        let class = file_stem(&self.prompt.class_name);
        format!("{class}-{:03}-{:03}.png", self.prompt.prompt_index, self.sample_index)
    }
}

/// A class name with letters that any file system takes.
pub(crate) fn file_stem(class_name: &str) -> String {
    let letters = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    class_name.chars().map(letters).collect()
}

/// Every sample of `prompts`, which are sorted by class and prompt.
pub fn samples(prompts: &[PromptRow], samples_per_prompt: u32) -> Vec<Sample<'_>> {
    let of_prompt = |prompt| (0..samples_per_prompt).map(move |sample_index| Sample { prompt, sample_index });
    prompts.iter().flat_map(of_prompt).collect()
}

/// The rows of each part: `num_parts` even runs of `num_rows` rows.
///
/// # Errors
///
/// Fails if there are more parts than rows: a part would be empty.
pub fn parts_of_rows(num_rows: usize, num_parts: u32) -> Result<Vec<Range<usize>>, Error> {
    even_runs(num_rows, num_parts, "samples")
}

/// The rows of each part: `num_parts` even runs of classes, whose rows stand together.
///
/// # Errors
///
/// Fails if there are more parts than classes.
pub fn parts_of_classes(samples: &[Sample<'_>], num_parts: u32) -> Result<Vec<Range<usize>>, Error> {
    let class = |sample: &Sample<'_>| sample.prompt.class_id;
    let mut ends = Vec::new();
    for rows in samples.chunk_by(|a, b| class(a) == class(b)) {
        ends.push(ends.last().copied().unwrap_or(0) + rows.len());
    }
    let start = |class: usize| if class == 0 { 0 } else { ends[class - 1] };
    let runs = even_runs(ends.len(), num_parts, "classes")?;
    Ok(runs.into_iter().map(|run| start(run.start)..start(run.end)).collect())
}

fn even_runs(count: usize, num_parts: u32, what: &'static str) -> Result<Vec<Range<usize>>, Error> {
    if num_parts as usize > count {
        return Err(Error::TooManyParts { num_parts, count, what });
    }
    let bound = |part: u32| (count as u128 * u128::from(part) / u128::from(num_parts)) as usize;
    Ok((0..num_parts).map(|part| bound(part)..bound(part + 1)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_contiguous_and_even() {
        for num_rows in [1, 2, 7, 100] {
            for num_parts in 1..=num_rows.min(9) {
                let parts = parts_of_rows(num_rows as usize, num_parts).unwrap();
                assert_eq!(parts.len(), num_parts as usize);
                assert_eq!(parts[0].start, 0);
                assert_eq!(parts[parts.len() - 1].end, num_rows as usize);
                assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
                let lengths = parts.iter().map(ExactSizeIterator::len);
                assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1);
            }
        }
        assert!(parts_of_rows(2, 3).is_err());
    }

    #[test]
    fn a_class_is_never_cut() {
        let prompt = |class_id: u32| PromptRow {
            class_id,
            class_name: class_id.to_string(),
            prompt_index: 0,
            prompt: "a".to_owned(),
            template: String::new(),
            provider: String::new(),
            model: String::new(),
            answer: None,
        };
        let prompts: Vec<_> = [0, 1, 1, 1, 2].map(prompt).into();
        let samples = samples(&prompts, 2);
        assert_eq!(parts_of_classes(&samples, 2).unwrap(), [0..2, 2..10]);
        assert_eq!(parts_of_classes(&samples, 3).unwrap(), [0..2, 2..8, 8..10]);
        assert!(parts_of_classes(&samples, 4).is_err());
    }
}
