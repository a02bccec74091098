//! Decoding the images of a data set, all or a sample.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use pipeline_spec::data_manifest::{BenchmarkForm, DataManifest};
use rayon::prelude::*;

use super::{Check, Examination, MAX_ROWS, Report};
use crate::Error;
use crate::item::{Dataset, Item, Picture};
use crate::photo;
use crate::source::benchmark::Found;

/// Images of an archive that are decoded together.
const BATCH: usize = 256;

/// What was found at one image.
#[derive(Debug, Default)]
struct Findings {
    /// Index of the item and why it cannot be used.
    broken: Vec<(usize, String)>,
    /// Images that can be used.
    num_good: u64,
    /// Remarks and the items that they are about.
    remarks: BTreeMap<String, Vec<usize>>,
    /// Digest of the bytes and the first item with them.
    seen: HashMap<blake3::Hash, usize>,
    /// Pairs of items in different splits with the same bytes.
    doubled: Vec<(usize, usize)>,
}

/// The images of a benchmark that are there, as items.
pub(super) fn of_benchmark(found: &Found, form: &BenchmarkForm, manifest: &DataManifest) -> Dataset {
    let item = |(split, entry): &(String, crate::split_file::Listed)| {
        Some(Item {
            sample_id: entry.path().to_owned(),
            split: split.clone(),
            label: Some(entry.label()),
            class_name: Some(entry.class_name().to_owned()),
            caption: String::new(),
            origin: manifest.dataset.to_string(),
            picture: found.files.picture(entry.path())?,
        })
    };
    Dataset {
        class_names: form.class_names.clone(),
        items: found.listed.iter().filter_map(item).collect(),
        containers: found.files.containers().to_vec(),
        published: true,
    }
}

/// Decodes images and adds a row for each that cannot be used, and for what is unusual.
pub(super) fn examine(
    report: &mut Report,
    dataset: &Dataset,
    examination: Examination<'_>,
    on_image: impl Fn(u64, u64) + Sync,
) -> Result<(), Error> {
    let num_items = dataset.items.len();
    let num_decoded = examination.sample.unwrap_or(num_items).min(num_items);
    // Spread evenly: the lists are sorted by class, and every class should be seen.
    let chosen = (0..num_decoded).map(|i| i * num_items / num_decoded);
    let chosen: Vec<usize> =
        chosen.filter(|&i| !matches!(dataset.items[i].picture, Picture::Svg(_))).collect();
    let findings = Mutex::new(Findings::default());
    let done = AtomicU64::new(0);
    let look = |index: usize, bytes: Result<Vec<u8>, String>| {
        let checked = bytes.and_then(|bytes| {
            let header = photo::check(&bytes, examination.max_pixels)?;
            Ok((header.remarks(&dataset.items[index].sample_id), blake3::hash(&bytes)))
        });
        let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.add(&dataset.items, index, checked);
        drop(findings);
        on_image(done.fetch_add(1, Ordering::Relaxed) + 1, chosen.len() as u64);
    };
    let mut members: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
    for &index in &chosen {
        if let Picture::Member { container, position } = dataset.items[index].picture {
            members.entry(container).or_default().insert(position, index);
        }
    }
    chosen.par_iter().for_each(|&index| {
        if let Picture::File(path) = &dataset.items[index].picture {
            look(index, photo::read(path));
        }
    });
    for (container, positions) in members {
        let ascending: Vec<usize> = positions.keys().copied().collect();
        let mut batch = Vec::with_capacity(BATCH);
        let flush = |batch: &mut Vec<(usize, Vec<u8>)>| {
            std::mem::take(batch).into_par_iter().for_each(|(index, bytes)| look(index, Ok(bytes)));
        };
        dataset.containers[container].read(&ascending, |position, bytes| {
            batch.push((positions[&position], bytes));
            if batch.len() == BATCH {
                flush(&mut batch);
            }
        })?;
        flush(&mut batch);
    }
    report.note_checks(Check::Images, chosen.len() as u64);
    let findings = findings.into_inner().unwrap_or_else(PoisonError::into_inner);
    findings.write(report, dataset);
    Ok(())
}

impl Findings {
    fn add(&mut self, items: &[Item], index: usize, checked: Result<(Vec<String>, blake3::Hash), String>) {
        match checked {
            Err(problem) => self.broken.push((index, problem)),
            Ok((remarks, digest)) => {
                self.num_good += 1;
                for remark in remarks {
                    self.remarks.entry(remark).or_default().push(index);
                }
                let first = *self.seen.entry(digest).or_insert(index);
                if items[first].split != items[index].split {
                    self.doubled.push((first.min(index), first.max(index)));
                }
            }
        }
    }

    fn write(mut self, report: &mut Report, dataset: &Dataset) {
        self.broken.sort();
        self.doubled.sort_unstable();
        let name = |index: usize| dataset.items[index].sample_id.as_str();
        for (index, problem) in self.broken.iter().take(MAX_ROWS) {
            report.problem(
                Check::Images,
                name(*index),
                problem,
                "replace the file, or take it out of the list",
            );
        }
        if self.broken.len() > MAX_ROWS {
            let problem = format!("{} more images cannot be used", self.broken.len() - MAX_ROWS);
            report.problem(Check::Images, "", problem, "unpack the archive again");
        }
        for (remark, mut indices) in self.remarks {
            indices.sort_unstable();
            let number = match indices.len() {
                1 => String::new(),
                n => format!(" (and of {} more images)", n - 1),
            };
            report.note(Check::Images, name(indices[0]), format!("{remark}{number}"));
        }
        report.note_checks(Check::Duplicates, self.num_good);
        for (first, second) in self.doubled.iter().take(MAX_ROWS) {
            let (split, other) = (&dataset.items[*first].split, &dataset.items[*second].split);
            let finding =
                format!("the same picture is `{}` of `{other}`; this one is of `{split}`", name(*second));
            if dataset.published {
                report.note(Check::Duplicates, name(*first), finding);
            } else {
                report.problem(Check::Duplicates, name(*first), finding, "remove one of them");
            }
        }
        if self.doubled.len() > MAX_ROWS {
            let finding = format!("{} more pictures are of two splits", self.doubled.len() - MAX_ROWS);
            report.note(Check::Duplicates, "", finding);
        }
    }
}
