//! Which samples there are, in which order, and which part each belongs to.
//!
//! Rows go by class, prompt and sample. Parts are contiguous runs of rows whose lengths differ by at most one, so that a
//! row's part depends on the spec alone, never on shards, batches or restarts.

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
        let letters = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
        let class: String = self.prompt.class_name.chars().map(letters).collect();
        format!("{class}-{:03}-{:03}.png", self.prompt.prompt_index, self.sample_index)
    }
}

/// Every sample of `prompts`, which are sorted by class and prompt.
pub fn samples(prompts: &[PromptRow], samples_per_prompt: u32) -> Vec<Sample<'_>> {
    let of_prompt = |prompt| (0..samples_per_prompt).map(move |sample_index| Sample { prompt, sample_index });
    prompts.iter().flat_map(of_prompt).collect()
}

/// The rows of part `part`.
///
/// # Errors
///
/// Fails if there are more parts than rows: a part would be empty.
pub fn part_rows(num_rows: usize, num_parts: u32, part: u32) -> Result<Range<usize>, Error> {
    if num_parts as usize > num_rows {
        return Err(Error::TooManyParts { num_parts, num_rows });
    }
    let bound = |part: u32| (num_rows as u128 * u128::from(part) / u128::from(num_parts)) as usize;
    Ok(bound(part)..bound(part + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_contiguous_and_even() {
        for num_rows in [1, 2, 7, 100] {
            for num_parts in 1..=num_rows.min(9) {
                let parts: Vec<_> = (0..num_parts)
                    .map(|part| part_rows(num_rows as usize, num_parts, part).unwrap())
                    .collect();
                assert_eq!(parts[0].start, 0);
                assert_eq!(parts[parts.len() - 1].end, num_rows as usize);
                assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
                let lengths = parts.iter().map(ExactSizeIterator::len);
                assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1);
            }
        }
        assert!(part_rows(2, 3, 0).is_err());
    }
}
