//! The emoji benchmark: drawings of several artists, joined by code point, one class per group of Unicode
//! subgroups.
//!
//! Labels, keywords and subgroups come from `emojibase-data`, drawings from `@iconify-json` packages; all are
//! read straight from their archives after the archive's digest was checked.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use pipeline_spec::data_manifest::{Artist, ArtistRole, DataManifest, EmojiForm, Join};

use super::emoji_split::{EmojiFacts, SHIFT, TEST, deal};
use super::iconify::{IconSet, label_slug, plain_hexcode};
use crate::Error;
use crate::container::{Limits, read_entries};
use crate::item::{Dataset, Item, Picture};

const DATA: &str = "package/en/data.json";
const GROUPS: &str = "package/meta/groups.json";
const ICONS: &str = "package/icons.json";
const CHARS: &str = "package/chars.json";

/// An emoji of the vocabulary.
#[derive(Debug, Deserialize)]
struct Emoji {
    hexcode: String,
    label: String,
    #[serde(default)]
    tags: Vec<String>,
    subgroup: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Groups {
    subgroups: BTreeMap<u32, String>,
}

/// Lists the drawings of all artists with their splits.
///
/// # Errors
///
/// Fails if an archive is missing, has another digest than the manifest pins or another form than expected,
/// or if the manifest names a subgroup, hexcode or icon that does not exist.
pub fn load(manifest: &DataManifest, form: &EmojiForm, data_dir: &Path) -> Result<Dataset, Error> {
    let loader = Loader { manifest, form, data_dir };
    let (emoji, class_of) = loader.vocabulary()?;
    let drawings = form.artists.iter().map(|a| loader.drawings(a, &emoji)).collect::<Result<Vec<_>, _>>()?;
    let by_train_artists = |i: usize| {
        let drawn =
            form.artists.iter().zip(&drawings).filter(|(a, d)| a.role == ArtistRole::Train && d[i].is_some());
        drawn.count() as u32
    };
    let kept: Vec<_> = (0..emoji.len()).filter(|&i| by_train_artists(i) > 0).collect();
    let facts: Vec<_> = kept
        .iter()
        .map(|&i| EmojiFacts {
            hexcode: emoji[i].hexcode.clone(),
            class: class_of[i],
            num_images: by_train_artists(i),
        })
        .collect();
    loader.check_hexcodes(&facts)?;
    let splits = deal(&facts, &form.series, &form.split);
    let mut items = Vec::new();
    for (&i, split) in kept.iter().zip(splits) {
        for (artist, drawings) in form.artists.iter().zip(&drawings) {
            let split = match artist.role {
                ArtistRole::Train => split,
                ArtistRole::Shift if split == TEST => SHIFT,
                ArtistRole::Shift => continue,
            };
            if let Some(svg) = &drawings[i] {
                items.push(loader.item(&emoji[i], class_of[i], artist, split, svg));
            }
        }
    }
    Ok(Dataset::sorted(form.classes.iter().map(|c| c.name.clone()).collect(), items, Vec::new()))
}

struct Loader<'a> {
    manifest: &'a DataManifest,
    form: &'a EmojiForm,
    data_dir: &'a Path,
}

impl Loader<'_> {
    /// The emoji that are not dropped, hexcodes plain, with the class of each.
    fn vocabulary(&self) -> Result<(Vec<Emoji>, Vec<Option<u32>>), Error> {
        let files = self.entries(&self.form.vocabulary, &[DATA, GROUPS])?;
        let mut emoji: Vec<Emoji> = self.json(&self.form.vocabulary, DATA, &files)?;
        let groups: Groups = self.json(&self.form.vocabulary, GROUPS, &files)?;
        let names: BTreeSet<&str> = groups.subgroups.values().map(String::as_str).collect();
        let used = self.form.classes.iter().flat_map(|c| &c.subgroups).chain(&self.form.drop_subgroups);
        if let Some(unknown) = used.into_iter().find(|s| !names.contains(s.as_str())) {
            return Err(self.fault("form.emoji", format!("no Unicode subgroup is called `{unknown}`")));
        }
        let subgroup = |e: &Emoji| e.subgroup.and_then(|s| groups.subgroups.get(&s));
        emoji.retain(|e| subgroup(e).is_some_and(|s| !self.form.drop_subgroups.contains(s)));
        for one in &mut emoji {
            one.hexcode = plain_hexcode(&one.hexcode);
        }
        let class_of = |e: &Emoji| {
            let has = |c: &pipeline_spec::data_manifest::EmojiClass| {
                subgroup(e).is_some_and(|s| c.subgroups.contains(s)) && !c.except.contains(&e.hexcode)
            };
            self.form.classes.iter().position(has).map(|p| p as u32)
        };
        let classes = emoji.iter().map(class_of).collect();
        Ok((emoji, classes))
    }

    /// The artist's drawing of each emoji, as an SVG document.
    fn drawings(&self, artist: &Artist, emoji: &[Emoji]) -> Result<Vec<Option<String>>, Error> {
        let files = self.entries(&artist.source, &[ICONS, CHARS])?;
        let set: IconSet = self.json(&artist.source, ICONS, &files)?;
        let chars: HashMap<String, String> = self.json(&artist.source, CHARS, &files)?;
        let chars: HashMap<String, String> = chars.into_iter().map(|(c, n)| (plain_hexcode(&c), n)).collect();
        if let Some((code, name)) = artist.names.iter().find(|(_, n)| !set.contains(n)) {
            let field = format!("form.emoji.artists.names.{code}");
            return Err(self.fault(&field, format!("`{}` has no icon `{name}`", artist.source)));
        }
        let named: HashSet<&str> = artist.names.values().map(String::as_str).collect();
        let name_of = |e: &Emoji| {
            if let Some(name) = artist.names.get(&e.hexcode) {
                return Some(name.clone());
            }
            let name = match artist.join {
                Join::Chars => chars.get(&e.hexcode).cloned(),
                Join::LabelSlug => Some(label_slug(&e.label)),
                Join::LabelJoined => Some(label_slug(&e.label).replace('-', "")),
            };
            name.filter(|n| set.contains(n) && !named.contains(n.as_str()))
        };
        let drawing = |e: &Emoji| match name_of(e).filter(|_| !artist.skip.contains(&e.hexcode)) {
            None => Ok(None),
            Some(name) => set.svg(&name).map(Some).map_err(|problem| {
                let id = format!("{}/{name}", artist.source);
                Error::Drawing { id, problem }
            }),
        };
        emoji.iter().map(drawing).collect()
    }

    fn item(&self, emoji: &Emoji, class: Option<u32>, artist: &Artist, split: &str, svg: &str) -> Item {
        let mut words = vec![emoji.label.as_str()];
        words.extend(emoji.tags.iter().map(String::as_str));
        Item {
            sample_id: format!("{}-{}", emoji.hexcode, artist.source),
            split: split.to_owned(),
            label: class,
            class_name: class.map(|c| self.form.classes[c as usize].name.clone()),
            caption: words.join(", "),
            origin: artist.source.clone(),
            picture: Picture::Svg(svg.to_owned()),
        }
    }

    /// A hexcode of the manifest that is no emoji is a slip of the pen.
    fn check_hexcodes(&self, facts: &[EmojiFacts]) -> Result<(), Error> {
        let known: HashSet<&str> = facts.iter().map(|f| f.hexcode.as_str()).collect();
        let series = self.form.series.iter().flatten().map(|c| ("series", c));
        let except = self.form.classes.iter().flat_map(|c| &c.except).map(|c| ("classes.except", c));
        let artists = self.form.artists.iter().flat_map(|a| {
            a.skip.iter().map(|c| ("artists.skip", c)).chain(a.names.keys().map(|c| ("artists.names", c)))
        });
        match series.chain(except).chain(artists).find(|(_, code)| !known.contains(code.as_str())) {
            None => Ok(()),
            Some((field, code)) => {
                let problem = format!("expected the hexcode of an emoji that is not dropped, found `{code}`");
                Err(self.fault(&format!("form.emoji.{field}"), problem))
            }
        }
    }

    /// Entries of a source's archive, after its digest was checked.
    fn entries(&self, source: &str, names: &[&str]) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let pinned = self.manifest.source(source).ok_or_else(|| {
            self.fault("form.emoji", format!("`{source}` is not the `id` of one of `sources`"))
        })?;
        let path = self.manifest.source_path(self.data_dir, pinned);
        let dataset = self.manifest.dataset.to_string();
        if !path.is_file() {
            return Err(Error::MissingSource { path, dataset });
        }
        let (_, _, found) = pipeline_spec::file_digests(&path)?;
        if found != pinned.sha256 {
            let (expected, found) = (pinned.sha256.to_string(), found.to_string());
            return Err(Error::WrongDigest { path, expected, found, dataset });
        }
        read_entries(&path, names, Limits::ICON_SET)
    }

    fn json<T: serde::de::DeserializeOwned>(
        &self,
        source: &str,
        entry: &str,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<T, Error> {
        let bytes = files.get(entry).map(Vec::as_slice).unwrap_or_default();
        serde_json::from_slice(bytes).map_err(|e| {
            let path = self.manifest.source(source).map(|s| self.manifest.source_path(self.data_dir, s));
            let problem = format!("not the JSON expected there: {e}");
            Error::Archive { path: path.unwrap_or_default(), entry: entry.to_owned(), problem }
        })
    }

    fn fault(&self, field: &str, problem: String) -> Error {
        Error::Manifest { dataset: self.manifest.dataset.to_string(), field: field.to_owned(), problem }
    }
}
