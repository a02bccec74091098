//! The published weights: for each the activation, the preprocessing, the digest and the places.
//!
//! The facts are those of open_clip 3.3.0's `pretrained.py`; `tests/golden/pretrained.tsv` holds them as its script reads them.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::Error;
use crate::config::Activation;
use crate::preprocess::{CLIP_MEAN, CLIP_STD, Preprocess};

use super::architectures::Backbone;

/// Published weights of a backbone.
#[derive(Debug, PartialEq)]
pub struct Pretrained {
    /// OpenAI's name of the backbone, such as `ViT-B/32`.
    pub backbone: &'static str,
    /// open_clip's name of the weights, such as `openai` or `laion2b_s34b_b79k`.
    pub tag: &'static str,
    /// The activation they were trained with.
    pub activation: Activation,
    /// Mean of the training images per channel. The image is resized with bicubic interpolation, its shorter side to the
    /// backbone's size, and its centre cropped.
    pub mean: [f32; 3],
    /// Standard deviation of the training images per channel.
    pub std: [f32; 3],
    /// Who published the original file, and its name.
    pub file: Option<(Publisher, &'static str)>,
    /// SHA-256 of the original file in lower-case digits, for open_clip's files the first eight.
    pub sha256: Option<&'static str>,
    /// Repository of the Hugging Face hub with open_clip's files.
    pub open_clip_repo: Option<&'static str>,
    /// Repository of the Hugging Face hub with transformers' files.
    pub transformers_repo: Option<&'static str>,
}

/// Who published a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher {
    /// OpenAI: TorchScript.
    OpenAi,
    /// open_clip: state dicts.
    OpenClip,
    /// Meta: state dicts.
    Meta,
}

const fn pretrained(backbone: &'static str, tag: &'static str, activation: Activation) -> Pretrained {
    Pretrained {
        backbone,
        tag,
        activation,
        mean: CLIP_MEAN,
        std: CLIP_STD,
        file: None,
        sha256: None,
        open_clip_repo: None,
        transformers_repo: None,
    }
}

const fn quick(backbone: &'static str, tag: &'static str) -> Pretrained {
    pretrained(backbone, tag, Activation::QuickGelu)
}

const fn gelu(backbone: &'static str, tag: &'static str) -> Pretrained {
    pretrained(backbone, tag, Activation::Gelu)
}

impl Pretrained {
    const fn openai(self, name: &'static str, sha256: &'static str) -> Self {
        Pretrained { file: Some((Publisher::OpenAi, name)), sha256: Some(sha256), ..self }
    }

    const fn release(self, name: &'static str, sha256: &'static str) -> Self {
        Pretrained { file: Some((Publisher::OpenClip, name)), sha256: Some(sha256), ..self }
    }

    const fn meta(self, name: &'static str) -> Self {
        Pretrained { file: Some((Publisher::Meta, name)), ..self }
    }

    const fn open_clip(self, repo: &'static str) -> Self {
        Pretrained { open_clip_repo: Some(repo), ..self }
    }

    const fn transformers(self, repo: &'static str) -> Self {
        Pretrained { transformers_repo: Some(repo), ..self }
    }

    /// Trained with pixels in [-1, 1].
    const fn centred(self) -> Self {
        Pretrained { mean: [0.5; 3], std: [0.5; 3], ..self }
    }
}

static PRETRAINED: [Pretrained; 34] = [
    quick("RN50", "openai")
        .openai("RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762")
        .open_clip("timm/resnet50_clip.openai"),
    quick("RN50", "yfcc15m")
        .release("rn50-quickgelu-yfcc15m-455df137.pt", "455df137")
        .open_clip("timm/resnet50_clip.yfcc15m"),
    quick("RN50", "cc12m")
        .release("rn50-quickgelu-cc12m-f000538c.pt", "f000538c")
        .open_clip("timm/resnet50_clip.cc12m"),
    quick("RN101", "openai")
        .openai("RN101.pt", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599")
        .open_clip("timm/resnet101_clip.openai"),
    quick("RN101", "yfcc15m")
        .release("rn101-quickgelu-yfcc15m-3e04b30e.pt", "3e04b30e")
        .open_clip("timm/resnet101_clip.yfcc15m"),
    quick("RN50x4", "openai")
        .openai("RN50x4.pt", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd")
        .open_clip("timm/resnet50x4_clip.openai"),
    quick("RN50x16", "openai")
        .openai("RN50x16.pt", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa")
        .open_clip("timm/resnet50x16_clip.openai"),
    quick("RN50x64", "openai")
        .openai("RN50x64.pt", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c")
        .open_clip("timm/resnet50x64_clip.openai"),
    quick("ViT-B/32", "openai")
        .openai("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af")
        .open_clip("timm/vit_base_patch32_clip_224.openai")
        .transformers("openai/clip-vit-base-patch32"),
    quick("ViT-B/32", "laion400m_e31")
        .release("vit_b_32-quickgelu-laion400m_e31-d867053b.pt", "d867053b")
        .open_clip("timm/vit_base_patch32_clip_224.laion400m_e31"),
    quick("ViT-B/32", "laion400m_e32")
        .release("vit_b_32-quickgelu-laion400m_e32-46683a32.pt", "46683a32")
        .open_clip("timm/vit_base_patch32_clip_224.laion400m_e32"),
    gelu("ViT-B/32", "laion2b_e16")
        .release("vit_b_32-laion2b_e16-af8dbd0c.pth", "af8dbd0c")
        .open_clip("timm/vit_base_patch32_clip_224.laion2b_e16"),
    gelu("ViT-B/32", "laion2b_s34b_b79k")
        .open_clip("laion/CLIP-ViT-B-32-laion2B-s34B-b79K")
        .transformers("laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    gelu("ViT-B/32", "datacomp_xl_s13b_b90k").open_clip("laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"),
    quick("ViT-B/32", "metaclip_400m")
        .meta("b32_400m.pt")
        .open_clip("timm/vit_base_patch32_clip_224.metaclip_400m"),
    quick("ViT-B/32", "metaclip_fullcc")
        .meta("b32_fullcc2.5b.pt")
        .open_clip("timm/vit_base_patch32_clip_224.metaclip_2pt5b"),
    quick("ViT-B/16", "openai")
        .openai("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f")
        .open_clip("timm/vit_base_patch16_clip_224.openai")
        .transformers("openai/clip-vit-base-patch16"),
    gelu("ViT-B/16", "laion400m_e31")
        .release("vit_b_16-laion400m_e31-00efa78f.pt", "00efa78f")
        .open_clip("timm/vit_base_patch16_clip_224.laion400m_e31"),
    gelu("ViT-B/16", "laion400m_e32")
        .release("vit_b_16-laion400m_e32-55e67d44.pt", "55e67d44")
        .open_clip("timm/vit_base_patch16_clip_224.laion400m_e32"),
    gelu("ViT-B/16", "laion2b_s34b_b88k")
        .open_clip("laion/CLIP-ViT-B-16-laion2B-s34B-b88K")
        .transformers("laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    gelu("ViT-B/16", "datacomp_xl_s13b_b90k").open_clip("laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K"),
    quick("ViT-B/16", "dfn2b").open_clip("apple/DFN2B-CLIP-ViT-B-16"),
    quick("ViT-B/16", "metaclip_400m")
        .meta("b16_400m.pt")
        .open_clip("timm/vit_base_patch16_clip_224.metaclip_400m"),
    quick("ViT-B/16", "metaclip_fullcc")
        .meta("b16_fullcc2.5b.pt")
        .open_clip("timm/vit_base_patch16_clip_224.metaclip_2pt5b"),
    quick("ViT-L/14", "openai")
        .openai("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836")
        .open_clip("timm/vit_large_patch14_clip_224.openai")
        .transformers("openai/clip-vit-large-patch14"),
    gelu("ViT-L/14", "laion400m_e31")
        .release("vit_l_14-laion400m_e31-69988bb6.pt", "69988bb6")
        .open_clip("timm/vit_large_patch14_clip_224.laion400m_e31"),
    gelu("ViT-L/14", "laion400m_e32")
        .release("vit_l_14-laion400m_e32-3d133497.pt", "3d133497")
        .open_clip("timm/vit_large_patch14_clip_224.laion400m_e32"),
    gelu("ViT-L/14", "laion2b_s32b_b82k")
        .open_clip("laion/CLIP-ViT-L-14-laion2B-s32B-b82K")
        .transformers("laion/CLIP-ViT-L-14-laion2B-s32B-b82K")
        .centred(),
    gelu("ViT-L/14", "datacomp_xl_s13b_b90k").open_clip("laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K"),
    quick("ViT-L/14", "metaclip_400m")
        .meta("l14_400m.pt")
        .open_clip("timm/vit_large_patch14_clip_224.metaclip_400m"),
    quick("ViT-L/14", "metaclip_fullcc")
        .meta("l14_fullcc2.5b.pt")
        .open_clip("timm/vit_large_patch14_clip_224.metaclip_2pt5b"),
    quick("ViT-L/14", "dfn2b").open_clip("apple/DFN2B-CLIP-ViT-L-14"),
    gelu("ViT-L/14", "dfn2b_s39b").open_clip("apple/DFN2B-CLIP-ViT-L-14-39B"),
    quick("ViT-L/14@336px", "openai")
        .openai("ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02")
        .open_clip("timm/vit_large_patch14_clip_336.openai")
        .transformers("openai/clip-vit-large-patch14-336"),
];

impl Pretrained {
    /// All of them.
    pub fn all() -> &'static [Pretrained] {
        &PRETRAINED
    }

    /// The weights of a tag for a backbone, both by name (see [`Backbone::by_name`]).
    ///
    /// # Errors
    ///
    /// Fails for an unknown backbone or tag, with the known ones.
    pub fn by_name(backbone: &str, tag: &str) -> Result<&'static Pretrained, Error> {
        let backbone = Backbone::by_name(backbone)?.name;
        let known = || Self::all().iter().filter(move |weights| weights.backbone == backbone);
        known().find(|weights| weights.tag == tag).ok_or_else(|| Error::UnknownName {
            what: "weights",
            name: tag.to_owned(),
            known: known().map(|weights| weights.tag.to_owned()).collect(),
        })
    }

    /// The weights whose original file has this path's name.
    pub(super) fn by_file_name(path: &Path) -> Option<&'static Pretrained> {
        let name = path.file_name()?.to_str()?;
        Self::all().iter().find(|weights| weights.file_name() == Some(name))
    }

    /// Name of the original file, such as `ViT-B-32.pt`.
    pub fn file_name(&self) -> Option<&'static str> {
        self.file.map(|(_, name)| name)
    }

    /// Where the original file was published.
    pub fn url(&self) -> Option<String> {
        let (publisher, name) = self.file?;
        Some(match publisher {
            Publisher::OpenAi => {
                let sha256 = self.sha256.unwrap_or_default();
                format!("https://openaipublic.azureedge.net/clip/models/{sha256}/{name}")
            }
            Publisher::OpenClip => {
                format!("https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights/{name}")
            }
            Publisher::Meta => format!("https://dl.fbaipublicfiles.com/MMPT/metaclip/{name}"),
        })
    }

    /// How images become the input, `image_size` pixels on each side.
    pub fn preprocess(&self, image_size: usize) -> Preprocess {
        let mut preprocess = Preprocess::new(image_size);
        (preprocess.mean, preprocess.std) = (self.mean, self.std);
        preprocess
    }

    /// Compares a file with the published digest, if one is known.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or differs.
    pub fn check_digest(&self, path: &Path) -> Result<(), Error> {
        self.sha256.map_or(Ok(()), |expected| check_sha256(path, expected))
    }
}

impl fmt::Display for Pretrained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.backbone, self.tag)
    }
}

/// Compares a file's SHA-256 with a published one or with its first digits, in lower case.
///
/// # Errors
///
/// Fails if the file cannot be read or differs.
pub fn check_sha256(path: &Path, expected: &str) -> Result<(), Error> {
    let found = sha256(path)?;
    if found.starts_with(expected) {
        return Ok(());
    }
    Err(Error::Digest { path: path.to_owned(), expected: expected.to_owned(), found })
}

/// SHA-256 of a file in lower-case digits.
fn sha256(path: &Path) -> Result<String, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).map_err(read)? {
            0 => break,
            len => hasher.update(&piece[..len]),
        }
    }
    let mut digits = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing into a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    Ok(digits)
}
